"""Draw the pictures of the results pages from the files in ``benchmarks/results``.

    python -m benchmarks.pictures

For each data set and protocol: accuracy of each system against its training time, and by context length; under CBML's
protocol also the gain of meta-learners over their base; streams by period; time to accuracy; growth by size. Bars are
standard deviations over seeds.
"""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from statistics import mean, stdev

from benchmarks import growth_report, race, stream_report
from benchmarks.labels import within
from benchmarks.rows import CONTEXT, CUTS, Row, after, picture, published_figures, results, variant
from benchmarks.summary import best as best_of
from graphmeta.plots import figures as plots
from graphmeta.published.catalogue import CATALOGUE

COLOURS = (plots.BLUE, plots.ORANGE, plots.GREEN, plots.PINK, plots.SKY, plots.VERMILION, plots.INK)
DRAWN = ("sr-gnn", "cbml", "asars")  # protocols
SECONDS = 5  # shorter trainings are drawn there


def main() -> None:
    """Draw all."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    rows = results()
    for key in sorted({(row["dataset"], row["protocol"]) for row in rows if row["protocol"] in DRAWN}):
        of = [row for row in rows if (row["dataset"], row["protocol"]) == key]
        compared(of, CUTS[key[1]], picture(*key, "comparison"))
        if key[1] == "cbml":
            gains(of, picture(*key, "adaptation"))
    for key in sorted({(row["dataset"], row["protocol"]) for row in rows if row.get("known_sessions")}):
        known([row for row in rows if (row["dataset"], row["protocol"]) == key], key, picture(*key, "known"))
    for dataset in sorted({row["dataset"] for row in rows}):
        own = [row for row in rows if row["dataset"] == dataset]
        if streams := [row for row in own if row["protocol"] == "stream"]:
            stream_report.draw(dataset, streams)
        if dataset in race.TARGETS and (raced := race.raced(own)):
            race.draw(raced, dataset)
        for row in own:
            if row["protocol"] == "growth":
                growth_report.draw(row)


def known(rows: list[Row], place: tuple[str, str], path: Path) -> None:
    """Hit@20 of the best run of each system of which it is recorded, when only the last n earlier sessions are known.

    Bars are standard deviations over seeds, or of one seed standard errors over queries.
    """
    rows = [row for row in rows if row.get("known_sessions")]
    found = {name: best_of(rows, place, name) for name in sorted({row["system"] for row in rows})}
    found = {name: runs for name, runs in found.items() if runs}
    if len(found) < 2:  # nothing to compare
        return
    ordered = sorted(found, key=lambda name: -mean(run["metrics"]["hit@20"] for run in found[name]))
    drawn = plots.figure(9.5, 4.4)
    axes = drawn.subplots()
    numbers = list(found[ordered[0]][0]["known_sessions"])
    for at, (name, colour) in enumerate(zip(ordered, (*COLOURS, plots.GREY), strict=False)):
        values = [[run["known_sessions"][n]["hit@20"] for run in found[name]] for n in numbers]
        bars = [
            100 * (stdev(v) if len(v) > 1 else (v[0] * (1 - v[0]) / found[name][0]["samples"]) ** 0.5) for v in values
        ]
        places = [number + 0.05 * (at - len(ordered) / 2) for number in range(len(numbers))]
        axes.errorbar(places, [100 * mean(v) for v in values], bars, fmt="o-", color=colour, capsize=2, label=name)
        axes.set_xticks(range(len(numbers)), numbers)
    first, *others = (
        [mean(run["known_sessions"][n]["hit@20"] for run in found[one]) for n in numbers] for one in ordered
    )
    always = all(value >= max(rest, default=0.0) for value, *rest in zip(first, *others, strict=True))
    when = "with any number of known sessions" if always else "with all sessions known"
    labels = ("known earlier sessions of the user, the last n", "Hit@20 in %")
    plots.label_axes(axes, f"{ordered[0]} is first {when}", labels)
    plots.legend_beside(drawn)
    plots.save(drawn, path)


def best(rows: list[Row], cut: int) -> list[Row]:
    """The best row of each system, and of all meta-learners with a base, best first."""
    found: dict[str, Row] = {}
    for row in sorted(rows, key=lambda row: -row["metrics"][f"mrr@{cut}"]):
        found.setdefault("adapts" if adapts(row) else row["system"], row)
    return list(found.values())


def adapts(row: Row) -> bool:
    """Whether the row is a meta-learner with another system as its base."""
    return "base" in row["arguments"]


def compared(rows: list[Row], cut: int, path: Path) -> None:
    """MRR against minutes of training with the published figures, and by context length for the best systems."""
    measure, start, whole = f"mrr@{cut}", makers(rows), rows
    rows = best(rows, cut)
    rows = [row for row in rows if row["metrics"][measure] > 0.5 * rows[0]["metrics"][measure]]
    drawn = plots.figure(14, 4.8)
    left, right = drawn.subplots(1, 2)
    points = [(max(seconds(row, start), SECONDS) / 60, 100 * row["metrics"][measure]) for row in rows]
    for kind, colour in ((True, plots.BLUE), (False, plots.ORANGE)):
        some = [at for at, row in enumerate(rows) if bool(row["history"] or warm_start(row)) == kind]
        bars = [deviation(rows[at], whole, measure) for at in some]
        place = [points[at][0] for at in some], [points[at][1] for at in some]
        left.errorbar(*place, bars, fmt="o", ms=5, color=colour, capsize=2, label="trained" if kind else "counted")
    theirs = published_figures().get(rows[0]["dataset"], {}).get(rows[0]["protocol"], {})
    marks = [
        (x, own, 100 * theirs[row["system"]][measure])
        for row, (x, own) in zip(rows, points, strict=True)
        if theirs.get(row["system"], {}).get(measure, 0.0) > 0.5 * rows[0]["metrics"][measure]
    ]
    if marks:
        places, own, published = zip(*marks, strict=True)
        left.vlines(places, own, published, plots.VERMILION, ":", lw=1)
        label = "published, of the system that the dotted line joins"
        left.plot(places, published, "x", color=plots.VERMILION, ms=7, label=label)
    plots.log_x(left)
    first = rows[0]["system"] if rows[0]["system"] in CATALOGUE else "a meta-learner"
    labels = ("training minutes, on two shared cores", f"MRR@{cut} in %")
    plots.label_axes(left, f"{first} is first in MRR@{cut}; best run of each system", labels)
    plots.labels_beside(left, points, [row["system"] for row in rows])
    left.legend(frameon=False, fontsize=8, loc="lower center", ncols=3, bbox_to_anchor=(0.5, 1.06))
    winners = set()
    for row, colour in zip(rows[: len(COLOURS)], COLOURS, strict=False):
        runs = [one["slices"][CONTEXT] for one in whole if variant(one) == variant(row)]
        found = {n: [100 * run[n][measure] for run in runs] for n, s in row["slices"][CONTEXT].items() if s["samples"]}
        bars = [stdev(each) if len(each) > 1 else 0.0 for each in found.values()]
        means = list(map(mean, found.values()))
        right.errorbar(list(found), means, bars, fmt="o-", color=colour, capsize=2, label=row["system"])
    for length in found:
        winners.add(max(rows, key=lambda row: row["slices"][CONTEXT][length][measure])["system"])
    who = f"{winners.pop()} is first" if len(winners) == 1 else "no system is first"
    plots.label_axes(right, f"{who} at every context length", ("clicks observed", f"MRR@{cut} in %"))
    right.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    plots.save(drawn, path)


def deviation(row: Row, rows: list[Row], measure: str) -> float:
    """The standard deviation over the seeds of a row's variant, in percent; 0 for one seed."""
    runs = [100 * one["metrics"][measure] for one in rows if variant(one) == variant(row)]
    return stdev(runs) if len(runs) > 1 else 0.0


def gains(rows: list[Row], path: Path) -> None:
    """Gain in MRR@5 of meta-learners with a step over their base with the same warm start and refit, by context length.

    Bases are in the order of their MRR@5, the weakest above; rows without a step are left out.
    """
    plain = plains(rows)
    added = [
        (row, plain[folders])
        for row in rows
        if adapts(row) and row["arguments"].get("steps") != 0 and (folders := loaded(row)) in plain
    ]
    if not added:
        return
    added.sort(key=lambda pair: (-of(pair[1], None), pair[1]["command"], of(pair[0], None)))
    heads = [at for at, (_, base) in enumerate(added, 1) if at == len(added) or added[at][1] is not base]
    place = [at + sum(head <= at for head in heads) for at in range(len(added))]  # a free line above each base
    drawn = plots.figure(11, 1.2 + 0.3 * (len(added) + len(heads)))
    axes = drawn.subplots()
    slices = [n for n, s in added[0][0]["slices"][CONTEXT].items() if s["samples"]]
    for part, colour, mark in zip((None, *slices), COLOURS, "oD^vs", strict=False):
        gain = [100 * (of(row, part) - of(base, part)) for row, base in added]
        axes.plot(gain, place, mark, color=colour, ms=5, label=f"{part} clicks" if part else "all")
    for head in heads:
        row, base = added[head - 1]
        text = f"{base_of(row)}: MRR@5 {100 * of(base, None):.1f} without adaptation"
        axes.text(
            0.01, place[head - 1] + 0.9, text, transform=axes.get_yaxis_transform(), fontsize=8, va="center"
        ).set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 1})
    axes.set_yticks(place, [", ".join([row["system"], *left_out(row)]) for row, _ in added], fontsize=8)
    axes.set_ylim(-0.8, place[-1] + 1.6)
    axes.axvline(0, color=plots.GREY, lw=1, zorder=0)
    errors = [100 * one["mrr@5"]["standard_error"] for row in rows if (one := row.get("intervals"))]
    known = f"; the standard error of an MRR@5 is {max(errors):.1f}" if errors else ""
    labels = (f"points of MRR@5 over the base, by context length{known}", "")
    most = max(added, key=lambda pair: of(pair[0], None) - of(pair[1], None))
    title = "The largest gain is over the weakest base" if most[1] is added[-1][1] else "Gain of a step, by base"
    plots.label_axes(axes, title, labels)
    plots.legend_beside(drawn)
    plots.save(drawn, path)


def of(row: Row, clicks: str | None) -> float:
    """MRR@5 of the samples with this context length, or of all."""
    return (row["metrics"] if clicks is None else row["slices"][CONTEXT][clicks])["mrr@5"]


def makers(rows: list[Row]) -> dict[str, Row]:
    """The row that saved each folder."""
    return {folder: row for row in rows if (folder := flag(row, "--save"))}


def plains(rows: list[Row]) -> dict[tuple[str, str], Row]:
    """The rows without adaptation, by the warm start and refit of the meta-learners that have them as base."""
    ending = {loaded(row): row for row in rows if not adapts(row) and flag(row, "--refit-base")}
    return {(folder, ""): row for folder, row in makers(rows).items()} | ending


def loaded(row: Row) -> tuple[str, str]:
    """The folders of a row's warm start and of its refitted base; empty without."""
    return warm_start(row), flag(row, "--refit-base")


def seconds(row: Row, start: dict[str, Row]) -> float:
    """Training time of a row, of its warm start and of its refitted base; what both share counts once."""
    return sum(one["wall_s"] for one in ancestry(row, start).values())


def ancestry(row: Row, start: dict[str, Row]) -> dict[str, Row]:
    """The row and all rows whose weights it loads, by command."""
    before = [start[folder] for folder in loaded(row) if folder in start]
    return {row["command"]: row} | {name: one for each in before for name, one in ancestry(each, start).items()}


def warm_start(row: Row) -> str:
    """The folder of a row's warm start; empty without."""
    return flag(row, "--warm-start")


def flag(row: Row, name: str) -> str:
    """The value of a flag in a row's command; empty without the flag."""
    return after(shlex.split(row["command"]), name) or ""


def base_of(row: Row) -> str:
    """A short label of a meta-learner's base."""
    trained = {"_recipe": ["by the recipe, all sessions"], "_recipe_base": ["by the recipe"]}
    recipe = next((words for ending, words in trained.items() if warm_start(row).endswith(f"san{ending}")), [])
    again = ["refitted"] if flag(row, "--refit-base") else []
    return ", ".join([within({"base": "if_san", **row["arguments"]}), *recipe, *again])


def left_out(row: Row) -> list[str]:
    """What a meta-learner is trained without."""
    return ["no gate"] if row["arguments"].get("gate") == "none" else []


if __name__ == "__main__":
    main()
