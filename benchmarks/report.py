"""Write RESULTS.md from ``benchmarks/results/*.json``.

    python -m benchmarks.report

Every figure there comes from a result file, and every result file from the command that stands beside it. Rows that
differ in the seed alone become one, with their mean and standard deviation.
"""

from __future__ import annotations

import json
import re
import shlex
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev
from typing import Any

HERE = Path(__file__).parent
Row = dict[str, Any]

TITLES = {
    ("diginetica", "sr-gnn"): "Diginetica, every test prefix (SR-GNN's split)",
    ("diginetica", "cbml"): "Diginetica, last click of sessions of at least three (CBML's protocol)",
    ("yoochoose1_64", "sr-gnn"): "Yoochoose 1/64, every test prefix (SR-GNN's split)",
    ("yoochoose1_64", "cbml"): "Yoochoose 1/64, last click of sessions of at least three (CBML's protocol)",
    ("movielens1m", "asars"): "MovieLens-1M, last click of every session (ASARS's protocol)",
    ("complete_journey", "asars"): "The embedded log, last click of every session (ASARS's protocol)",
}
TEXTS = {
    ("movielens1m", "asars"): """\
179 users with 78,210 training ratings, nearly half of whose pauses are 0 seconds. Nobody rates a film twice, so what a
user has rated is never right; it stays a candidate, and takes a third to a half of the twenty places in most lists.
One hit is 0.15 points of Hit@20.

The paper's setting is one item against each click (hinge), drawn from what the batch clicked outside the user's
history, Adagrad with rate 0.2, and batches whose rows walk one user each. It comes out near popularity. Negatives
outside the history are beaten by knowing whose an item is, without what follows what (a test shows it), and nearly half
of an epoch's steps hold 17 sessions or fewer, of the users with most. `benchmarks.asars` has what was tried on the
validation log: loss, batches and optimiser each account for a part. The other rows of the family, gru4rec, youtube_dnn
and wavenet compare each click with the whole catalogue, in batches at random, with Adam; rates 0.003 and 0.01 were
tried, for `asars_time_cat` alone. The standard error of a Hit@20 of 5 is 0.8 points and most rows are one seed, so the
order of the variants is not settled. Published figures are of another cut of the log, about 129 sequences, and of
models that know when the next click comes (`dwell_lag=0`).
""",
    ("complete_journey", "asars"): """\
A basket has one time: all pauses in it are 0, and nothing can be learned from them. So these rows say nothing about
the time variants but that they learn the rest.
""",
}
CUTS = {"sr-gnn": 20, "cbml": 5, "asars": 20}
HEAD = """# Results

Written by `python -m benchmarks.report` from [`benchmarks/results`](benchmarks/results); do not edit by hand.

All figures are in percent, over the full catalogue: what was clicked before stays a candidate, and a tie counts as
the mean of its best and worst rank. The epoch is chosen on the last training sessions, which are held out; the test
log is looked at once. (`sr_gnn --epochs 3` on Diginetica is older: its held-out sessions were drawn at random.)
"Begins with sr_gnn2" is the row `sr_gnn --epochs 2` beside it; such runs came out no better than their start, which
says something about starting so, and nothing about the systems. "Published" is what the system's paper (or, under
CBML's protocol, CBML's tables; under ASARS's, its tables) prints. One seed unless ± says otherwise: differences of a
few tenths of a point mean nothing.
Training minutes are those of a shared machine with two cores and say little about speed; `benchmarks/speed.py` does.
"""


def main() -> None:
    """Write the file."""
    (HERE.parent / "RESULTS.md").write_text(report(load()))


def load() -> list[Row]:
    """All result files, by name."""
    return [json.loads(path.read_text()) for path in sorted((HERE / "results").glob("*.json"))]


def report(rows: list[Row]) -> str:
    """The whole page."""
    published = json.loads((HERE / "published.json").read_text())
    parts = [HEAD]
    for key, title in TITLES.items():
        chosen = [row for row in rows if (row["dataset"], row["protocol"]) == key]
        if chosen:
            parts.append(section(title, chosen, published.get(key[0], {}).get(key[1], {})))
    unknown = {(row["dataset"], row["protocol"]) for row in rows} - TITLES.keys()
    if unknown:
        raise SystemExit(f"no title for {sorted(unknown)}; add it to TITLES")
    return "\n".join(parts)


def section(title: str, rows: list[Row], published: dict[str, dict[str, float]]) -> str:
    """One data set under one protocol: the systems, best first, and where they are good."""
    cut = CUTS[rows[0]["protocol"]]
    hit, mrr = f"hit@{cut}", f"mrr@{cut}"
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[variant(row)].append(row)
    ordered = sorted(groups.values(), key=lambda runs: -mean(run["metrics"][hit] for run in runs))
    first = rows[0]
    lines = [
        f"## {title}\n",
        *([text] if (text := TEXTS.get((first["dataset"], first["protocol"]))) else []),
        f"{first['samples']:,} samples, {first['candidates']:,} candidates.\n",
        f"| system | Hit@{cut} | MRR@{cut} | published | epochs | seeds | train min | peak MB | date |",
        "|---|--:|--:|--:|--:|--:|--:|--:|---|",
    ]
    for runs in ordered:
        theirs = published.get(runs[0]["system"])
        printed = "–" if theirs is None else f"{100 * theirs[hit]:.2f} / {100 * theirs[mrr]:.2f}"
        epochs = runs[0]["epochs"] if runs[0]["history"] else "–"
        minutes, peak = mean(r["wall_s"] for r in runs) / 60, max(r["peak_mb"] for r in runs)
        cells = [label(runs[0]), figure(runs, hit), figure(runs, mrr), printed, epochs, len(runs), f"{minutes:.1f}"]
        lines.append(f"| {' | '.join(map(str, cells))} | {peak:,} | {max(r['date'] for r in runs)} |")
    return "\n".join([*lines, "", *sliced(ordered, mrr, cut), *commands(ordered)])


def sliced(ordered: list[list[Row]], mrr: str, cut: int) -> list[str]:
    """MRR by number of known clicks."""
    names = [n for n, s in ordered[0][0]["slices"]["known clicks"].items() if s["samples"]]
    counts = [ordered[0][0]["slices"]["known clicks"][n]["samples"] for n in names]
    head = [f"{n} ({count:,})" for n, count in zip(names, counts, strict=True)]
    lines = [
        f"MRR@{cut} by known clicks (samples):\n",
        f"| system | {' | '.join(head)} |",
        "|---" + "|--:" * len(names) + "|",
    ]
    for runs in ordered:
        values = [f"{100 * mean(r['slices']['known clicks'][n][mrr] for r in runs):.2f}" for n in names]
        lines.append(f"| {label(runs[0])} | {' | '.join(values)} |")
    return [*lines, ""]


def commands(ordered: list[list[Row]]) -> list[str]:
    """What was run, and at which commit."""
    lines = ["<details><summary>Commands</summary>\n", "```"]
    lines += [f"{row['command']}  # {row['commit']}" for runs in ordered for row in runs]
    return [*lines, "```", "</details>", ""]


def figure(runs: list[Row], name: str) -> str:
    """A metric in percent, with its spread over seeds."""
    values = [100 * run["metrics"][name] for run in runs]
    return f"{mean(values):.2f}" + (f" ± {stdev(values):.2f}" if len(values) > 1 else "")


def variant(row: Row) -> str:
    """What tells runs apart but for the seed."""
    return re.sub(r" --seed \d+| --save \S+", "", row["command"])


def label(row: Row) -> str:
    """The system and what is special about the run."""
    words = shlex.split(row["command"])
    notes = [row["note"]] if row.get("note") else []
    notes += [f"{name}={value}" for name, value in row.get("arguments", {}).items()]
    notes += [f"begins with {Path(words[words.index(w) + 1]).name}" for w in words if w == "--start-from"]
    notes += [words[words.index(w) + 1] for w in words if w in ("--precision", "--optimizer")]
    notes += [f"last {float(words[words.index(w) + 1]):.0%} of training" for w in words if w == "--share"]
    return row["system"] + (f" ({', '.join(notes)})" if notes else "")


if __name__ == "__main__":
    main()
