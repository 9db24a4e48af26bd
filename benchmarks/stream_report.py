"""The part of RESULTS.md on streams: tables, cost as history grows, and pictures.

python -m benchmarks.stream_report    # draws benchmarks/results/*-periods.png and complete_journey-cost.png
"""

from __future__ import annotations

import json
from collections import defaultdict
from statistics import mean, stdev
from typing import Any

from benchmarks.rows import RESULTS
from graphmeta import stream_plots
from graphmeta.retrain.stream import PeriodReport

Row = dict[str, Any]
SHOWN = ("hit@5", "hit@10", "hit@20", "ndcg@5", "ndcg@10", "ndcg@20")
AT = (10, 20, 40)  # periods of history
COST = "complete_journey"  # the stream whose periods are of equal size
TEXT = """\
Each click of a period is ranked before anything is learned from the period, among 999 items drawn from those that
have appeared and its user has not clicked ("drawn"), and among all that have appeared ("all"); means over periods are
weighted by their clicks. "CPU s" is what retraining on one reported period takes, on one thread of a busy machine.
Adressa and SML's Yelp are not to be had: these streams stand in for them, and the paper's figures cannot be compared
with any here. Reductions against the paper stand in `benchmarks/streams.py`: width 32, few phases of SML, a hidden
layer of 128, two epochs of full retraining, which goes on from the last weights. sml_residual is ours: its net begins
as fine-tuning and learns what to change; sml's begins at random, as printed.
"""


def stream_section(title: str, rows: list[Row]) -> str:
    """One stream: the systems, best first, among drawn items and among all."""
    groups, first = by_system(rows), rows[0]
    ordered = sorted(groups, key=lambda name: -mean(run["metrics"]["hit@20"] for run in groups[name]))
    reported = [int(number) for number in first["periods"] if int(number) >= first["since"]]
    lines = [
        f"## {title}\n",
        TEXT,
        f"{first['samples']:,} clicks of periods {reported[0] + 1} to {reported[-1] + 1}; [their Recall@20, period by "
        f"period](benchmarks/results/{first['dataset']}-periods.png), drawn by `python -m benchmarks.stream_report`.\n",
        "| system | drawn R@5 | R@10 | R@20 | N@5 | N@10 | N@20 | all R@20 | N@20 | CPU s | seeds | date |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|---|",
    ]
    for name in ordered:
        runs = groups[name]
        cells = [figure([run["metrics"][measure] for run in runs]) for measure in SHOWN]
        cells += [figure([run["full"][measure] for run in runs]) for measure in ("hit@20", "ndcg@20")]
        cells += [f"{mean(run['train_cpu_s'] for run in runs):.2f}", str(len(runs)), max(run["date"] for run in runs)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *costs_table(first["dataset"], groups), *commands(groups)])


def by_system(rows: list[Row]) -> dict[str, list[Row]]:
    """The runs of each system."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["system"]].append(row)
    return dict(groups)


def figure(values: list[float]) -> str:
    """In percent, with the spread over seeds."""
    return f"{100 * mean(values):.2f}" + (f" ± {100 * stdev(values):.2f}" if len(values) > 1 else "")


def grown(groups: dict[str, list[Row]]) -> dict[str, dict[int, float]]:
    """CPU seconds of one period after so many of history: the mean over two periods on either side, and over seeds."""
    found = {}
    for name, runs in groups.items():
        by_history = {}
        for history in AT:
            near = [str(history + step) for step in range(-2, 3)]
            seconds = [run["periods"][n]["train_cpu_s"] for run in runs for n in near if n in run["periods"]]
            if seconds:
                by_history[history] = mean(seconds)
        found[name] = by_history
    return found


def over_time(groups: dict[str, list[Row]]) -> dict[str, list[PeriodReport]]:
    """Of each system, how good it is on each reported period: means over seeds."""
    return {name: [_period(number, runs) for number in _asked(runs[0])] for name, runs in groups.items()}


def _asked(row: Row) -> list[str]:
    return [number for number, period in row["periods"].items() if period["rows"]]


def _period(number: str, runs: list[Row]) -> PeriodReport:
    drawn, every = (mean(run["periods"][number][measure] for run in runs) for measure in ("hit@20", "full hit@20"))
    rows = runs[0]["periods"][number]["rows"]
    return PeriodReport(int(number), 0.0, rows, {"hit@20": drawn}, {"hit@20": every}, 0.0, 0.0, 0.0)


def costs_table(dataset: str, groups: dict[str, list[Row]]) -> list[str]:
    """What a period takes as history grows, for the stream that says it best."""
    if dataset != COST:
        return []
    lines = [
        "CPU seconds of retraining on one period by the periods of history before it ([picture]"
        f"(benchmarks/results/{dataset}-cost.png), drawn by `python -m benchmarks.stream_report`):\n",
        f"| system | {' | '.join(map(str, AT))} |",
        "|---" + "|--:" * len(AT) + "|",
    ]
    for name, seconds in grown(groups).items():
        lines.append(f"| {name} | {' | '.join(f'{seconds[n]:.2f}' if n in seconds else '–' for n in AT)} |")
    return [*lines, ""]


def commands(groups: dict[str, list[Row]]) -> list[str]:
    """What was run, and at which commit."""
    lines = ["<details><summary>Commands</summary>\n", "```"]
    lines += [f"{row['command']}  # {row['commit']}" for runs in groups.values() for row in runs]
    return [*lines, "```", "</details>", ""]


def main() -> None:
    """Draw the pictures."""
    rows = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*-stream-*.json"))]
    for dataset in {row["dataset"] for row in rows}:
        groups = by_system([row for row in rows if row["dataset"] == dataset])
        stream_plots.periods(over_time(groups), RESULTS / f"{dataset}-periods.png")
        if dataset == COST:
            stream_plots.costs(grown(groups), RESULTS / f"{dataset}-cost.png")


if __name__ == "__main__":
    main()
