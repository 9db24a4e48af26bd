"""Draw the pictures of RESULTS.md from the files in ``benchmarks/results``.

    python -m benchmarks.pictures

For each data set and protocol: how good each system is against the minutes it learned, and by the number of clicks
that were known. Under CBML's protocol also what a system that adapts adds to what it goes around.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from matplotlib.axes import Axes

from benchmarks.labels import within
from benchmarks.rows import CUTS, Row, after, picture, results
from graphmeta.plots import figures as plots

COLOURS = (plots.BLUE, plots.ORANGE, plots.GREEN, plots.PINK, plots.SKY, plots.VERMILION, plots.INK)
DRAWN = ("sr-gnn", "cbml", "asars")  # protocols
SECONDS = 5  # what took less is drawn there


def main() -> None:
    """Draw all."""
    rows = results()
    for key in sorted({(row["dataset"], row["protocol"]) for row in rows if row["protocol"] in DRAWN}):
        of = [row for row in rows if (row["dataset"], row["protocol"]) == key]
        compared(of, CUTS[key[1]], picture(*key, "comparison"))
        if key[1] == "cbml":
            gains(of, picture(*key, "adaptation"))


def best(rows: list[Row], cut: int) -> list[Row]:
    """The best row of each system, and of all that adapt around a base, best first."""
    found: dict[str, Row] = {}
    for row in sorted(rows, key=lambda row: -row["metrics"][f"mrr@{cut}"]):
        found.setdefault("adapts" if adapts(row) else row["system"], row)
    return list(found.values())


def adapts(row: Row) -> bool:
    """Whether the row is a system around another."""
    return "base" in row["arguments"]


def compared(rows: list[Row], cut: int, path: Path) -> None:
    """MRR against minutes of learning, and by known clicks for the first few."""
    measure, start, rows = f"mrr@{cut}", makers(rows), best(rows, cut)
    drawn = plots.figure(11, 4.5)
    left, right = drawn.subplots(1, 2)
    points = [(max(seconds(row, start), SECONDS) / 60, 100 * row["metrics"][measure]) for row in rows]
    for row, point, height in zip(rows, points, heights(points), strict=True):
        learned = row["history"] or begun_with(row)
        left.plot(*point, "o", color=plots.BLUE if learned else plots.ORANGE, ms=5)
        left.text(1.1 * point[0], height, row["system"], fontsize=7)
    left.set_xscale("log")
    left.margins(x=0.2)
    titled(left, f"MRR@{cut}, each system's best row, against minutes (orange: counts)", "minutes, on two shared cores")
    for row, colour in zip(rows[: len(COLOURS)], COLOURS, strict=False):
        found = {n: s for n, s in row["slices"]["known clicks"].items() if s["samples"]}
        right.plot(list(found), [100 * s[measure] for s in found.values()], "o-", color=colour, label=row["system"])
    titled(right, f"MRR@{cut} by known clicks, the first {min(len(rows), len(COLOURS))} systems", "known clicks")
    right.legend(frameon=False, fontsize=8)
    plots.save(drawn, path)


def heights(points: list[tuple[float, float]], apart: float = 0.035) -> list[float]:
    """Where the names of these points (minutes, %) stand so that none lies on another: theirs, or a bit above."""
    gap = apart * max(max(value for _, value in points) - min(value for _, value in points), 1e-9)
    found: dict[int, float] = {}
    for at in sorted(range(len(points)), key=lambda at: points[at][1]):
        near = [height for other, height in found.items() if 0.15 < points[at][0] / points[other][0] < 6.5]
        found[at] = max([points[at][1] + gap / 4, *(height + gap for height in near)])
    return [found[at] for at in range(len(points))]


def gains(rows: list[Row], path: Path) -> None:
    """Points of MRR@5 that systems add to what they go around, which began and ended alike, by known clicks."""
    plain = plains(rows)
    added = [(row, plain[ends]) for row in rows if adapts(row) and (ends := ends_of(row)) in plain]
    if not added:
        return
    added.sort(key=lambda pair: pair[0]["metrics"]["mrr@5"] - pair[1]["metrics"]["mrr@5"])
    drawn = plots.figure(8, 1.2 + 0.32 * len(added))
    axes = drawn.subplots()
    slices = [n for n, s in added[0][0]["slices"]["known clicks"].items() if s["samples"]]
    for part, colour, mark in zip((None, *slices), COLOURS, "oD^vs", strict=False):
        told = [100 * (of(row, part) - of(base, part)) for row, base in added]
        axes.plot(told, range(len(added)), mark, color=colour, ms=5, label=f"{part} clicks" if part else "all")
    axes.set_yticks(range(len(added)), [named(row) for row, _ in added], fontsize=8)
    axes.axvline(0, color=plots.GREY, lw=1, zorder=0)
    titled(axes, "What adapting adds to what it goes around", "points of MRR@5, by known clicks")
    axes.set_ylabel("")
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    plots.save(drawn, path)


def of(row: Row, clicks: str | None) -> float:
    """MRR@5 of the samples with so many known clicks, or of all."""
    return (row["metrics"] if clicks is None else row["slices"]["known clicks"][clicks])["mrr@5"]


def makers(rows: list[Row]) -> dict[str, Row]:
    """The row that saved each folder."""
    return {folder: row for row in rows if (folder := said(row, "--save"))}


def plains(rows: list[Row]) -> dict[tuple[str, str], Row]:
    """What does not adapt, by the folders that one around it begins and ends with."""
    ending = {ends_of(row): row for row in rows if not adapts(row) and said(row, "--then")}
    return {(folder, ""): row for folder, row in makers(rows).items()} | ending


def ends_of(row: Row) -> tuple[str, str]:
    """The folders that a row begins and ends with, or nothing."""
    return begun_with(row), said(row, "--then")


def seconds(row: Row, start: dict[str, Row]) -> float:
    """What a row took, and before it what it begins with, and what it ends with; what went into both counts once."""
    return sum(one["wall_s"] for one in ancestry(row, start).values())


def ancestry(row: Row, start: dict[str, Row]) -> dict[str, Row]:
    """The row, and all that it begins and ends with, by command."""
    before = [start[folder] for folder in ends_of(row) if folder in start]
    return {row["command"]: row} | {name: one for each in before for name, one in ancestry(each, start).items()}


def begun_with(row: Row) -> str:
    """The folder that a row begins with, or nothing."""
    return said(row, "--start-from")


def said(row: Row, flag: str) -> str:
    """The word of a row's command after a flag, or nothing."""
    return after(shlex.split(row["command"]), flag) or ""


def named(row: Row) -> str:
    """A short name: the system, what it is around, and what is left out."""
    given = row["arguments"]
    without = [
        f"no {word}"
        for word, value in (("step", given.get("steps")), ("gate", given.get("gate")))
        if value in (0, "none")
    ]
    around = within({"base": "if_san", **given})
    again = ["on all sessions"] if said(row, "--then") else []
    return ", ".join([f"{row['system']} {around}", *again, *without])


def titled(axes: Axes, title: str, below: str) -> None:
    """Title, axis and a light grid."""
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xlabel(below)
    axes.set_ylabel("%")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    main()
