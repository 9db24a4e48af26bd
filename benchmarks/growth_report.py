"""The section of RESULTS.md on growth: time and memory by size."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from benchmarks.rows import Row, after, commands, linked, picture

GROWS = {
    "events": "events, of a log on disk",
    "in_memory": "events, read in memory",
    "collected": "events, scanned and collected",
    "training": "events, an epoch from shards",
    "items": "items",
    "tasks": "tasks of a meta-update",
    "history": "earlier sessions of each user in a batch",
}


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
    sizes = after(shlex.split(row["command"]), "--sizes")
    drawn = picture("synthetic", "growth", row["system"] + (f"-{sizes.replace(',', '-')}" if sizes else ""))
    if drawn.exists():
        lines += [
            "",
            f"![Time and memory by {GROWS[row['system']]}, with the line of proportional growth]({linked(drawn)})",
        ]
    return [*lines, ""]


def cells(one: Row, names: Iterable[str]) -> list[str]:
    """The figures of one size, empty where there are none."""
    return [_shown(one.get(name, "")) for name in names]


def _shown(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:,}"
