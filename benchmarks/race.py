"""Time to accuracy: encoders trained by the recipe for different numbers of epochs, each from the start.

    GRAPHMETA_DATA=… python -m benchmarks.race diginetica --systems niser,sr_gnn --epochs 1 3

Runs ``benchmarks.accuracy … --recipe --held-out 0`` for each system and number of epochs that has no row, then prints
a table and draws accuracy against minutes, over all rows of trainings on all sessions by the recipe. The number of
epochs of a system's own row is chosen on held-out sessions; no setting is tuned on the test set. Run it on a quiet
machine. The floor of a step and the official SR-GNN's step are in ``python -m benchmarks.speed``.
"""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Sequence
from statistics import mean, stdev

from benchmarks import tables
from benchmarks.accuracy import DATASETS
from benchmarks.labels import named
from benchmarks.rows import (
    Row,
    after,
    commands,
    linked,
    picture,
    published_figures,
    results,
    some_of,
    variant,
)
from graphmeta.plots import figures as plots
from graphmeta.published.catalogue import CATALOGUE

ENCODERS = [name for name, row in CATALOGUE.items() if row.family in ("session", "graph") and row.base is None]
TARGETS = {  # Hit@20 and MRR@20: SR-GNN's published figures, and a higher pair
    "diginetica": {"50.73 / 17.59": (0.5073, 0.1759), "54 / 19": (0.54, 0.19)},
    "yoochoose1_64": {"70.57 / 30.94": (0.7057, 0.3094), "72 / 31.5": (0.72, 0.315)},
}
COLOURS = (plots.BLUE, plots.ORANGE, plots.GREEN, plots.PINK, plots.SKY, plots.VERMILION, plots.INK, "0.5", "0.75")


def main() -> None:
    """Run the trainings without a row, print the table and draw the picture."""
    options = parser().parse_args()
    jobs = [
        job(options.dataset, system, epochs, full=options.full)
        for system in options.systems
        for epochs in options.epochs
    ]
    tables.run(jobs, jobs, tables.HERE.parent, quick=False)
    rows = raced(results(options.dataset))
    print(table(rows))
    draw(rows, options.dataset)


def parser() -> argparse.ArgumentParser:
    """The command-line options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=[name for name in DATASETS if name in TARGETS])
    parser.add_argument("--systems", type=some_of(ENCODERS), default=["niser", "sr_gnn"])
    parser.add_argument("--epochs", type=int, nargs="+", default=[1, 3])
    parser.add_argument("--full", action="store_true", help="with the full softmax instead of the sampled one")
    return parser


def job(dataset: str, system: str, epochs: int, *, full: bool = False) -> tables.Job:
    """The training of a system for so many epochs."""
    given = f"--recipe --held-out 0 --epochs {epochs} --protocols sr-gnn --tag race-{epochs}"
    given += "-full --negatives 0" if full else ""
    return tables.Job(("accuracy", dataset, system, *given.split()), 0)


def raced(rows: Sequence[Row]) -> list[Row]:
    """The rows of trainings on all sessions by the recipe, without a warm start, that rank every test prefix."""
    return [row for row in rows if row["protocol"] == "sr-gnn" and _in_race(shlex.split(row["command"]))]


def only_raced(row: Row) -> bool:
    """Whether a row was trained for the race only, for fewer epochs than the system's own row."""
    return (after(shlex.split(row["command"]), "--tag") or "").startswith("race-")


def _in_race(words: Sequence[str]) -> bool:
    return "--recipe" in words and after(words, "--held-out") == "0" and "--warm-start" not in words


def reached(rows: Sequence[Row], target: tuple[float, float]) -> str:
    """Minutes of the shortest training of a system that reaches both figures."""
    hit, mrr = target
    enough = [r["wall_s"] for r in rows if r["metrics"]["hit@20"] >= hit and r["metrics"]["mrr@20"] >= mrr]
    return f"{min(enough) / 60:.1f}" if enough else "–"


def table(rows: Sequence[Row]) -> str:
    """One line per training, and the minutes to each target (training, with its set-up)."""
    targets = TARGETS[rows[0]["dataset"]]
    lines = [
        f"| system | epochs | P@20 | MRR@20 | minutes | CPU minutes | threads | "
        f"{' | '.join(f'to {name}' for name in targets)} |",
        "|---|--:|--:|--:|--:|--:|--:|" + "--:|" * len(targets),
    ]
    for system, own in grouped(rows).items():
        for row in own:
            found = [100 * row["metrics"][name] for name in ("hit@20", "mrr@20")]
            marks = [reached(own, mark) if row is own[0] else "" for mark in targets.values()]
            cells = [system, row["epochs"], *(f"{value:.2f}" for value in found)]
            cells += [f"{row['wall_s'] / 60:.1f}", f"{row['cpu_s'] / 60:.1f}", row["threads"], *marks]
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def grouped(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The trainings of each system, by epochs; of several seeds the first."""
    kinds: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: (row["epochs"], row["seed"])):
        own = kinds.setdefault(re.sub(r" --(epochs|tag|protocols) \S+", "", variant(row)), [])
        if row["epochs"] not in [each["epochs"] for each in own]:
            own.append(row)
    labels = named([own[-1:] for own in kinds.values()])
    return dict(sorted(zip(labels, kinds.values(), strict=True)))


def race_section(title: str, rows: list[Row], text: str) -> str:
    """A data set's table and picture in RESULTS.md."""
    rows = raced(rows)
    if not rows:
        return ""
    file = picture(rows[0]["dataset"], "sr-gnn", "race")
    drawn = [f"![Accuracy of each system against CPU minutes of training]({linked(file)})\n"] if file.exists() else []
    return "\n".join(
        [f"## {title}\n", *([text] if text else []), table(rows), "", *drawn, *commands(filter(only_raced, rows))]
    )


def draw(rows: Sequence[Row], dataset: str) -> None:
    """Draw P@20 and MRR@20 against minutes of training, with deviations over seeds and the published figures."""
    drawn = plots.figure(13, 4.4)
    for axes, metric, title in zip(drawn.subplots(1, 2), ("hit@20", "mrr@20"), ("P@20", "MRR@20"), strict=True):
        last = {}
        for colour, (system, own) in zip(COLOURS, grouped(rows).items(), strict=False):
            runs = [[row for row in rows if variant(row) == variant(one)] for one in own]
            minutes = [mean(row["cpu_s"] for row in seeds) / 60 for seeds in runs]
            values = [[100 * row["metrics"][metric] for row in seeds] for seeds in runs]
            found, bars = list(map(mean, values)), [stdev(each) if len(each) > 1 else 0.0 for each in values]
            axes.errorbar(minutes, found, bars, fmt="o-", color=colour, ms=4, capsize=3, label=system)
            last[system] = max(found)
        theirs = published_figures().get(dataset, {}).get("sr-gnn", {})
        for (name, found), style in zip(theirs.items(), (":", "--", "-."), strict=False):
            axes.axhline(100 * found[metric], color=plots.GREY, lw=1.2, ls=style, label=f"{name}, published", zorder=0)
        plots.log_x(axes)
        above = sum(value > max((100 * one[metric] for one in theirs.values()), default=0.0) for value in last.values())
        found = f"{max(last, key=lambda name: last[name])} is first"
        found += f"; {above} of {len(last)} pass both published figures" if len(theirs) == 2 else ""
        plots.label_axes(axes, found, ("CPU minutes of training", f"{title} in %"))
    plots.legend_beside(drawn)
    plots.save(drawn, picture(dataset, "sr-gnn", "race"))


if __name__ == "__main__":
    main()
