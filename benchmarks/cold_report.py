"""The sections of RESULTS.md on cold-start items and on hyper-parameter searches."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import mean
from typing import Any

from benchmarks.labels import label, named, spanned, special
from benchmarks.rows import CONTEXT, MEASURE, RATE, Row, by_variant, commands, heading, spread

SHOWN = ("hit@5", "hit@20", "mrr@20")


def cold_section(title: str, rows: list[Row], text: str) -> str:
    """Accuracy for new, rare and all targets, also by context length; ordered by Hit@20 for new targets."""
    first, targets = rows[0], list(rows[0]["targets"])
    groups = [each for runs in by_variant(rows) for each in (runs, without_steps(runs)) if each]
    ordered = named(sorted(groups, key=lambda runs: -mean(run["targets"]["new"]["hit@20"] for run in runs)))
    size, samples = first["learned_from"], {name: first["targets"][name]["samples"] for name in targets}
    lines = [
        f"## {title}\n",
        text,
        f"Seed {first['seed']}: {size['sessions']:,} training sessions ({size['events']:,} clicks); "
        f"{first['candidates']:,} candidates, {first['items']['new']:,} of them new (no training click) and "
        f"{first['items']['rare']:,} rare (1 to 5); {first['samples']:,} test prefixes. Hit@5 / Hit@20 / MRR@20.\n",
        *heading([*(f"{name} ({samples[name]:,})" for name in targets), "epochs", "seeds", "train min"]),
    ]
    for title, runs in ordered.items():
        cells = [figures([run["targets"][name] for run in runs]) for name in targets]
        epochs, minutes = spanned([len(run["history"]) for run in runs]), mean(run["wall_s"] for run in runs) / 60
        lines.append(f"| {' | '.join(map(str, [title, *cells, epochs, len(runs), f'{minutes:.1f}']))} |")
    for name in targets:
        lines += ["", *by_clicks(ordered, name)]
    return "\n".join([*lines, "", *commands(rows)])


def without_steps(runs: list[Row]) -> list[Row]:
    """The rows of a meta-learner evaluated without adaptation steps, if they report it."""
    if not all(run.get("without_steps") for run in runs):
        return []
    return [
        {
            **run,
            "targets": run["without_steps"],
            "note": ", ".join(filter(None, (run.get("note"), "no adaptation at inference"))),
        }
        for run in runs
    ]


def by_clicks(ordered: dict[str, list[Row]], target: str) -> list[str]:
    """Accuracy for one kind of target, by context length."""
    parts = next(iter(ordered.values()))[0]["targets"][target][CONTEXT]
    names = [name for name, part in parts.items() if part["samples"]]
    header = [f"{name} ({parts[name]['samples']:,})" for name in names]
    lines = [
        f"{target.capitalize()} targets by context length (samples):\n",
        *heading(header),
    ]
    for title, runs in ordered.items():
        cells = [figures([run["targets"][target][CONTEXT][name] for run in runs]) for name in names]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return lines


def figures(found: list[Row]) -> str:
    """Hit@5, Hit@20 and MRR@20 in percent, with standard deviations over seeds; a dash without samples."""
    if not all(one["samples"] for one in found):
        return "–"
    return " / ".join(spread([one[name] for one in found], 1) for name in SHOWN)


def tuning_section(title: str, rows: list[Row], text: str) -> str:
    """Each system's result with its default settings, that of its best trial, and the settings of that trial."""
    budget = rows[0]["budget"]
    lines = [
        f"## {title}\n",
        text,
        f"Up to {budget['trials']} trials of {budget['epochs']} epochs on the last {budget['share']:.0%} of training, "
        f"seed {rows[0]['seed']}; MRR@20 on validation sessions, in %.\n",
        "| system | trials | defaults | best | settings of the best | minutes |",
        "|---|--:|--:|--:|---|--:|",
    ]
    for row in sorted(rows, key=lambda row: -row["best"]["valid"][MEASURE]):
        values = [spread([each["valid"][MEASURE]]) for each in (row["trials"][0], row["best"])]
        minutes = sum(each["seconds"] for each in row["trials"]) / 60
        found = [len(row["trials"]), *values, shown(row["best"]["settings"]), f"{minutes:.1f}"]
        cells = [label(row, special([row])), *found]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join([*lines, "", *commands(rows)])


def shown(settings: Mapping[str, Any]) -> str:
    """Settings as text."""
    named = {RATE: "rate", "lr": "inner rate"}
    return ", ".join(
        f"{named.get(name, name)} {f'{value:.2g}' if isinstance(value, float) else value}"
        for name, value in settings.items()
    )
