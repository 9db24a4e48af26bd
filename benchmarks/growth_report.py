"""The section of RESULTS.md on growth: time and memory by size."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path

from benchmarks.rows import Row, after, commands, linked, picture
from graphmeta.plots import figures as plots

GROWS = {
    "events": "events, of a log on disk",
    "in_memory": "events, read in memory",
    "collected": "events, scanned and collected",
    "training": "events, an epoch from shards",
    "items": "items",
    "tasks": "tasks of a meta-update",
    "history": "earlier sessions of each user in a batch",
}

UNITS = dict.fromkeys(GROWS, "events") | {
    "items": "items",
    "tasks": "tasks",
    "history": "earlier sessions",
}  # what the size counts
COLOURS = (
    *(plots.BLUE, plots.ORANGE, plots.GREEN, plots.PINK, plots.SKY, plots.VERMILION, plots.INK),
    *("#7F4FC9", "#6B8E23", "#A0522D", "#1F77B4", "#BCBD22"),
)


def growth_section(title: str, rows: list[Row], text: str) -> str:
    """A table for each kind of size, with what was not measured."""
    lines = [f"## {title}\n", *([text] if text else [])]
    for row in sorted(rows, key=lambda row: list(GROWS).index(row["system"])):
        lines += table(row)
    return "\n".join([*lines, *commands(rows)])


def table(row: Row) -> list[str]:
    """The sizes of one kind."""
    names = list(dict.fromkeys(name for one in row["rows"] for name in one))
    lines = [
        f"### {GROWS[row['system']]}\n",
        f"{row['threads']} thread, {row['imports_mb']:,} MB are the imports alone, {row['date']}.\n",
        f"| {' | '.join(names)} |",
        "|" + "--:|" * len(names),
    ]
    lines += [f"| {' | '.join(cells(one, names))} |" for one in row["rows"]]
    drawn = picture_of(row)
    if drawn.exists():
        lines += [
            "",
            f"![Time and memory by {GROWS[row['system']]}, with the line of proportional growth]({linked(drawn)})",
        ]
    return [*lines, ""]


def picture_of(row: Row) -> Path:
    """The file of a row's picture."""
    sizes = after(shlex.split(row["command"]), "--sizes")
    return picture("synthetic", "growth", row["system"] + (f"-{sizes.replace(',', '-')}" if sizes else ""))


def draw(row: Row) -> None:
    """Time and memory against the size, with lines of proportional growth; nothing with fewer than two sizes."""
    rows = [one for one in row["rows"] if "peak_mb" in one]
    if len(rows) < 2:
        return
    figure, what = plots.figure(11, 4), UNITS[row["system"]]
    left, right = figure.subplots(1, 2)
    sizes = [one["size"] for one in rows]
    times = {name: unit for name in rows[-1] for end, unit in (("_ms", 1e-3), ("_s", 1.0)) if name.endswith(end)}
    slowest = 0.0
    colours = iter(COLOURS)
    for name, unit in times.items():
        own = [(one["size"], unit * one[name]) for one in rows if one.get(name)]
        if name.endswith("_cpu_s") or len(own) < 2:
            continue
        (least, first), (most, last) = own[0], own[-1]
        slowest = max(slowest, last / first)
        colour = next(colours)
        left.plot(*zip(*own, strict=True), "o-", color=colour, label=name.removesuffix("_s").removesuffix("_ms"))
        left.plot([least, most], [first, first * most / least], ":", color=colour)
    left.plot([], [], ":", color=plots.GREY, label="proportional")
    right.plot(sizes, [one["peak_mb"] for one in rows], "o-", color=plots.INK, label="peak memory")
    right.axhline(row["imports_mb"], color=plots.GREY, linestyle="--", label="imports alone")
    grown, memory = sizes[-1] / sizes[0], rows[-1]["peak_mb"] / rows[0]["peak_mb"]
    plots.label_axes(left, f"{grown:,.0f} × the {what}: at most {slowest:,.0f} × the time", (what, "seconds"))
    plots.label_axes(right, f"{grown:,.0f} × the {what}: {memory:.1f} × the memory", (what, "MB"))
    for axes in (left, right):
        axes.set(xscale="log", yscale="log")
    right.set(yscale="linear", ylim=(0, 1.1 * max(one["peak_mb"] for one in rows)))
    plots.legend_beside(figure)
    plots.save(figure, picture_of(row))


def cells(one: Row, names: Iterable[str]) -> list[str]:
    """The figures of one size, empty where there are none."""
    return [_shown(one.get(name, "")) for name in names]


def _shown(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:,}"
