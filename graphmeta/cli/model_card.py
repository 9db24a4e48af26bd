"""The model card: what the model is, its training data, metrics, intended use and limits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from graphmeta.errors import counted
from graphmeta.evaluation.compare import Comparison
from graphmeta.evaluation.lists import hit_and_mrr, lengths, shown
from graphmeta.evaluation.protocol import when
from graphmeta.published.blending import Blended
from graphmeta.published.catalogue import CATALOGUE
from graphmeta.published.registry import Published
from graphmeta.system import System
from graphmeta.system.blend import FLOOR


def titles(system: str, found: Iterable[str]) -> dict[str, str]:
    """Display names of the rows of a comparison; baselines have their names as systems."""
    found = list(found)
    every = {
        "base_model": f"{CATALOGUE[system].encoder} (base model)",
        "without_steps": f"{system}, without inner steps",
        "without_history": f"{system}, without the user's history",
        "system": f"{system}, with inner steps" if "without_steps" in found else system,
    }
    return {name: every.get(name, name) for name in found}


def _measures(found: Iterable[str]) -> dict[str, str]:
    """The metrics that the card shows, and their display names."""
    longest = f"ndcg@{lengths(found)[-1]}"
    return hit_and_mrr(found) | {longest: shown(longest)}


def _counted(entry: Published) -> str:
    """What the weights of a system that counts are."""
    if not entry.counts:
        return ""
    return (
        "- This system has no weights: `model-*.safetensors` holds the item sequences that it counts, with the times\n"
        "  of clicks (`stan`) or the number of each session's user (`tifu_knn`, `up_cf`) where it reads them. Without\n"
        "  `--keep-histories` it has no ids of users, so a counted user is also one of her own neighbours.\n"
    )


def _blend(notes: Mapping[str, Any]) -> str:
    """Which baseline is blended into the scores, and how it was chosen; empty for a system that blends none in."""
    chosen = notes.get("blend")
    if chosen is None:
        return ""
    blend = Blended(**chosen)
    line = (
        f"- {blend.line()}; chosen on {counted(blend.queries, 'validation session')} (`graphmeta.published.blending`)."
    )
    if blend.baseline is None:
        return line + "\n"
    return (
        f"{line}\n  The score of item i is the model's + {blend.weight:g} · log(1 + p_i / {FLOOR:g}), p the scores of\n"
        f"  {blend.baseline} as shares of their sum. `model-*.safetensors` holds the item sequences that it counts.\n"
    )


def _new_items(number: int) -> str:
    if number:
        return f"Items without training events that are ranked by their attributes: {number:,}"
    return "Items without training events are ignored and never recommended"


def _split(notes: Mapping[str, Any]) -> str:
    """How the log was split, and what the model was trained on."""
    rules, measured = notes["rules"], notes.get("measured")
    cut = notes["cuts"] if measured is None else measured["cuts"]
    order = "time" if cut["has_time"] else "the order of the file"
    shares = [f"the last {rules['test']:.0%} of sessions are the test"] if rules["test"] else ["no test"]
    shares += [f"{rules['valid']:.0%} before it validation" if rules["test"] else f"{rules['valid']:.0%} validation"]
    lines = [f"- By {order}: {', '.join(shares)}."]
    if rules["test"]:
        lines.append(f"- The test begins at {when(cut)}.")
    if measured is not None:
        seen = measured["training"]
        lines.append(
            f"- The epoch was chosen, and the metrics measured, with a model trained on "
            f"{counted(seen['sessions'], 'session')}. "
            f"This model was then trained again from the start on all sessions, with the same settings."
        )
    lines.append(f"- `graphmeta evaluate` scores only sessions that begin after {when(notes['cuts'])}.")
    return "\n".join(lines)


def _measured(results: Comparison, names: Mapping[str, str], ranked: str) -> str:
    """The metrics as a table, and which baselines are ahead."""
    own, measures = results["system"], _measures(results["system"].metrics)
    rows = "\n".join(
        f"| {title} | " + " | ".join(f"{results[name].metrics[m]:.4f}" for m in measures) + " |"
        for name, title in names.items()
    )
    verdict = results.verdict(names)
    tests = counted(own.samples, "test session")
    return f"""The last item of {tests}, ranked among {ranked}; ties: {own.ties}; as fractions.

| | {" | ".join(measures.values())} |
|---|{"---|" * len(measures)}
{rows}
{f"{chr(10)}{verdict}.{chr(10)}" if verdict else ""}"""


def card(system: System, results: Comparison | None) -> str:
    """The model card in Markdown.

    Args:
        results: on the test split; None without one.
    """
    notes, entry = system.notes, CATALOGUE[system.notes["system"]]
    rules, seen = notes["rules"], notes["training"]
    new = system.num_items - seen["items"]
    width = "" if entry.counts else f"; width {notes['width']}"
    trained = (
        "counted once"
        if entry.counts
        else f"{counted(notes['epochs'], 'epoch')}, epoch {notes['best_epoch']} chosen; seed {notes['seed']}"
    )
    measured = "Not measured: there was no test part.\n"
    if results is not None:
        ranked = counted(results["system"].candidates, "item")
        measured = _measured(results, titles(entry.name, results), ranked)
    return f"""# {entry.name}: which item comes next

Written by graphmeta {notes["graphmeta"]} on {notes["date"]}.

## What it is

- `{entry.name}`: {entry.paper}; equations {entry.equations}; family: {entry.family}{width}.
- It reads the items of a session, oldest first, and ranks its {counted(system.num_items, "item")} as the next one.
- Adapted to a session's own clicks: {entry.adapts}.
{_blend(notes)}
## Trained on

- {notes["source"]}: {counted(seen["sessions"], "session")}, {counted(seen["events"], "event")}, \
{counted(seen["items"], "item")}.
- Excluded: items with fewer than {counted(rules["min_item_support"], "event")}, sessions with fewer than \
{rules["min_session_length"]}.
- {trained[0].upper()}{trained[1:]}.

## Splits

{_split(notes)}

## Metrics

{measured}
## Intended use and limits

- For recommending next items in sessions like those of the training log; sessions and users may be new.
- {_new_items(new)}; a session of which nothing is known gets popular items, flagged as such.
- Scores rank the items of one session; they are not probabilities and not comparable between sessions.
- The metrics are offline: how often a past choice was ranked on this log, not how users react to recommendations.
- Popular items have better metrics: see the slices by item events in `metrics.json`.

## Files

- `model.json`, `model-*.safetensors`: the items, how the system was built, its notes and weights.
- `history.json`, `history-*.safetensors`: the item sequences of the training sessions, in order, without ids of
  sessions or users and without times; `graphmeta evaluate` fits its baselines on them. Sharing this folder shares these
  sequences.
{_counted(entry)}- All of it is data: loading it runs no code.
"""
