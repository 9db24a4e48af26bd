"""The section of users' earlier sessions in RESULTS.md."""

from __future__ import annotations

from itertools import chain
from statistics import mean

from benchmarks.labels import named
from benchmarks.paired import table_of
from benchmarks.rows import KNOWN, Row, commands, heading, in_order, known_slices, linked, metrics_table, picture

COLUMNS = {"hit@5": "Hit@5", "mrr@5": "MRR@5", "hit@20": "Hit@20", "mrr@20": "MRR@20"}


def users_section(title: str, rows: list[Row], text: str) -> str:
    """The systems by MRR@20, best first, then by known sessions: of the users as they are, and with the last n only."""
    ordered = named(in_order(rows))
    first = rows[0]
    lines = [
        f"## {title}\n",
        text,
        f"{first['samples']:,} queries, {first['candidates']:,} candidates, in %.\n",
        *metrics_table(ordered, COLUMNS),
        *table_of(ordered),
    ]
    slices = known_slices(first)
    lines += ["", "Hit@20 / MRR@20 by the known sessions of the user (queries):\n"]
    lines += heading(list(slices.values()))
    for name, runs in ordered.items():
        values = [_both([run["slices"][KNOWN][n] for run in runs]) for n in slices]
        lines.append(f"| {name} | {' | '.join(values)} |")
    curves = {
        name: [run["known_sessions"] for run in runs] for name, runs in ordered.items() if runs[0]["known_sessions"]
    }
    if curves:
        numbers = list(next(iter(curves.values()))[0])
        lines += ["", "The same queries for all columns, when only the last n earlier sessions are known:\n"]
        lines += heading(numbers)
        for name, each in curves.items():
            lines.append(f"| {name} | {' | '.join(_both([one[n] for one in each]) for n in numbers)} |")
    file = picture(first["dataset"], first["protocol"], "known")
    if file.exists():
        lines += ["", f"![Hit@20 of each system by the number of known earlier sessions]({linked(file)})"]
    return "\n".join([*lines, "", *commands(chain(*ordered.values()))])


def _both(metrics: list[dict[str, float]]) -> str:
    """Hit@20 / MRR@20 in %, means over seeds."""
    hit, mrr = (100 * mean(one[name] for one in metrics) for name in ("hit@20", "mrr@20"))
    return f"{hit:.1f} / {mrr:.1f}"
