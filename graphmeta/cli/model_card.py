"""The model card: what the model is, its training data, metrics, intended use and limits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from graphmeta.errors import counted
from graphmeta.evaluation.compare import Comparison
from graphmeta.evaluation.lists import hit_and_mrr, lengths, shown
from graphmeta.evaluation.protocol import when
from graphmeta.published.catalogue import CATALOGUE
from graphmeta.system import System


def titles(system: str, found: Iterable[str]) -> dict[str, str]:
    """Display names of the rows of a comparison."""
    found = list(found)
    every = {
        "popularity": "popularity",
        "session_knn": "session kNN",
        "stan": "STAN",
        "personal_frequency": "the user's own items by frequency",
        "tifu_knn": "TIFU-kNN",
        "up_cf": "UP-CF",
        "base_model": f"{CATALOGUE[system].encoder} (base model)",
        "without_steps": f"{system}, without inner steps",
        "without_history": f"{system}, without the user's history",
        "system": f"{system}, with inner steps" if "without_steps" in found else system,
    }
    return {name: every[name] for name in found}


def _measures(found: Iterable[str]) -> dict[str, str]:
    """The metrics that the card shows, and their display names."""
    longest = f"ndcg@{lengths(found)[-1]}"
    return hit_and_mrr(found) | {longest: shown(longest)}


def _new_items(number: int) -> str:
    if number:
        return f"Items without training events that are ranked by their attributes: {number:,}"
    return "Items without training events are ignored and never recommended"


def _refitted(seen: Mapping[str, int]) -> str:
    held_out = seen.get("validation_sessions")
    return f"; after the choice of the epoch also {counted(held_out, 'validation session')}" if held_out else ""


def card(system: System, results: Comparison) -> str:
    """The model card in Markdown."""
    notes, entry = system.notes, CATALOGUE[system.notes["system"]]
    own, rules, seen = results["system"], notes["rules"], notes["training"]
    order = "time" if notes["cuts"]["has_time"] else "the order of the file"
    measures, names = _measures(own.metrics), titles(entry.name, results)
    verdict = results.verdict(names)
    new = own.candidates - seen["items"]
    rows = "\n".join(
        f"| {title} | " + " | ".join(f"{results[name].metrics[m]:.4f}" for m in measures) + " |"
        for name, title in names.items()
    )
    return f"""# {entry.name}: which item comes next

Written by graphmeta {notes["graphmeta"]} on {notes["date"]}.

## What it is

- `{entry.name}`: {entry.paper}; equations {entry.equations}; family: {entry.family}; width {notes["width"]}.
- It reads the items of a session, oldest first, and ranks its {counted(own.candidates, "item")} as the next one.
- Adapted to a session's own clicks: {entry.adapts}.

## Trained on

- {notes["source"]}: {counted(seen["sessions"], "session")}, {counted(seen["events"], "event")}, \
{counted(seen["items"], "item")}{_refitted(seen)}.
- Excluded: items with fewer than {counted(rules["min_item_support"], "event")}, sessions with fewer than \
{rules["min_session_length"]}.
- {counted(notes["epochs"], "epoch")}, epoch {notes["best_epoch"]} chosen; seed {notes["seed"]}.

## Splits

- By {order}: the last {rules["test"]:.0%} of sessions are the test, the {rules["valid"]:.0%} before validation.
- The test begins at {when(notes["cuts"])}; `graphmeta evaluate` scores only sessions that begin after that.

## Metrics

The last item of {counted(own.samples, "test session")}, ranked among all {own.candidates:,}; ties: {own.ties}; \
as fractions.

| | {" | ".join(measures.values())} |
|---|{"---|" * len(measures)}
{rows}
{f"{chr(10)}{verdict}.{chr(10)}" if verdict else ""}
## Intended use and limits

- For recommending next items in sessions like those of the training log; sessions and users may be new.
- {_new_items(new)}; a session without a known item gets no result.
- Scores rank the items of one session; they are not probabilities and not comparable between sessions.
- The metrics are offline: how often a past choice was ranked on this log, not how users react to recommendations.
- Popular items have better metrics: see the slices by item events in `metrics.json`.

## Files

- `model.json`, `model-*.safetensors`: the items, how the system was built, its notes and weights.
- `history.json`, `history-*.safetensors`: the item sequences of the training sessions, in order, without ids of
  sessions or users and without times; `graphmeta evaluate` fits its baselines on them. Sharing this folder shares these
  sequences.
- All of it is data: loading it runs no code.
"""
