"""The section of next baskets in RESULTS.md."""

from __future__ import annotations

from itertools import chain
from statistics import mean

from benchmarks.labels import named
from benchmarks.paired import table_of
from benchmarks.rows import KNOWN, Row, commands, heading, in_order, known_slices, metrics_table

COLUMNS = {
    "recall@10": "Recall@10",
    "ndcg@10": "NDCG@10",
    "phr@10": "PHR@10",
    "recall@20": "Recall@20",
    "ndcg@20": "NDCG@20",
    "phr@20": "PHR@20",
    "recall_repeat@10": "repeat",
    "recall_explore@10": "explore",
}


def basket_section(title: str, rows: list[Row], text: str) -> str:
    """The systems by Recall@10, or MAP@12 where it is measured, best first, and it by the number of known baskets."""
    first = rows[0]
    by = "map@12" if "map@12" in first["metrics"] else "recall@10"
    ordered = named(in_order(rows))
    columns = {"map@12": "MAP@12", **COLUMNS} if by == "map@12" else COLUMNS
    lines = [
        f"## {title}\n",
        text,
        f"{first['samples']:,} users, {first['candidates']:,} candidates; the user has bought "
        f"{100 * first['metrics']['repeat_share']:.1f} % of a basket's items before.\n",
        *metrics_table(ordered, columns),
        *table_of(ordered),
    ]
    slices = known_slices(first)
    lines += ["", f"{columns[by]} by known baskets (users):\n", *heading(list(slices.values()))]
    for name, runs in ordered.items():
        values = [f"{100 * mean(run['slices'][KNOWN][n][by] for run in runs):.2f}" for n in slices]
        lines.append(f"| {name} | {' | '.join(values)} |")
    return "\n".join([*lines, "", *commands(chain(*ordered.values()))])
