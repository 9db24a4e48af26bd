"""Time to accuracy: encoders trained by the recipe for different numbers of epochs, each from the start.

    GRAPHMETA_DATA=… python -m benchmarks.race diginetica --systems niser,sr_gnn --epochs 1 3 6

Every test prefix is ranked (SR-GNN's protocol) once per training. The recipe and the numbers of epochs are fixed
beforehand; no setting was tuned on the test set. Rows are written to ``results/<data>/race/<system>``; trainings that
have a row are not repeated. Prints a table and draws accuracy against minutes. Run it on a quiet machine, with
``GOMP_SPINCOUNT=1000``. The floor of a step and the official SR-GNN's step are in ``python -m benchmarks.speed``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import torch

from benchmarks.accuracy import DATASETS, fitted
from benchmarks.accuracy import parser as accuracy
from benchmarks.rows import (
    Row,
    commands,
    cost,
    linked,
    measured,
    path_of,
    picture,
    provenance,
    published_figures,
    results,
    some_of,
    write,
)
from graphmeta.evaluation.ranking import evaluate
from graphmeta.plots import figures as plots
from graphmeta.published.catalogue import CATALOGUE
from graphmeta.sampling.samples import prefixes

ENCODERS = [name for name, row in CATALOGUE.items() if row.family in ("session", "graph") and row.base is None]
TARGETS = {  # Hit@20 and MRR@20: SR-GNN's published figures, and a higher pair
    "diginetica": {"50.73 / 17.59": (0.5073, 0.1759), "54 / 19": (0.54, 0.19)},
    "yoochoose1_64": {"70.57 / 30.94": (0.7057, 0.3094), "72 / 31.5": (0.72, 0.315)},
}
COLOURS = (plots.BLUE, plots.ORANGE, plots.GREEN, plots.PINK, plots.SKY, plots.VERMILION, plots.INK, "0.5", "0.75")


def main() -> None:
    """Run the trainings without a row, print the table and draw the picture."""
    options = parser().parse_args()
    for system in options.systems:
        for epochs in options.epochs:
            run(options.dataset, system, epochs, options.seed)
    rows = results(options.dataset, "race")
    print(table(rows))
    draw(rows, options.dataset)


def parser() -> argparse.ArgumentParser:
    """The command-line options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=["diginetica", "yoochoose1_64"])
    parser.add_argument("--systems", type=some_of(ENCODERS), default=["niser", "sr_gnn"])
    parser.add_argument("--epochs", type=int, nargs="+", default=[1, 3, 6])
    parser.add_argument("--seed", type=int, default=0)
    return parser


def run(dataset: str, system: str, epochs: int, seed: int) -> None:
    """Train and test a system for so many epochs, unless there is a row."""
    row: Row = {"dataset": dataset, "protocol": "race", "system": system, "epochs": epochs, "seed": seed}
    if path_of(row, f"{epochs}-epochs").exists():
        return
    train_log, valid_log, test_log = DATASETS[dataset].parts()
    given = ["--recipe", "--epochs", str(epochs), "--seed", str(seed)]
    cpu, wall = time.process_time(), time.perf_counter()
    model, history = fitted(accuracy().parse_args([dataset, system, *given]), train_log, valid_log)
    row |= {"cpu_s": round(time.process_time() - cpu, 1), **cost(time.perf_counter() - wall)}
    row |= measured(evaluate(model, prefixes(test_log))) | {"history": history, "threads": torch.get_num_threads()}
    write(row | provenance("benchmarks.race"), variant=f"{epochs}-epochs")


def reached(rows: Sequence[Row], target: tuple[float, float]) -> str:
    """Minutes of the shortest training of a system that reaches both figures."""
    hit, mrr = target
    enough = [r["wall_s"] for r in rows if r["metrics"]["hit@20"] >= hit and r["metrics"]["mrr@20"] >= mrr]
    return f"{min(enough) / 60:.1f}" if enough else "–"


def table(rows: Sequence[Row]) -> str:
    """One line per training, and the minutes to each target (training, with its set-up and validation)."""
    targets = TARGETS[rows[0]["dataset"]]
    lines = [
        f"| system | epochs | P@20 | MRR@20 | minutes | CPU minutes | {' | '.join(f'to {name}' for name in targets)} |",
        "|---|--:|--:|--:|--:|--:|" + "--:|" * len(targets),
    ]
    for system, seed in sorted({(row["system"], row["seed"]) for row in rows}):
        own = [row for row in rows if (row["system"], row["seed"]) == (system, seed)]
        own.sort(key=lambda row: row["epochs"])
        for row in own:
            found = [100 * row["metrics"][name] for name in ("hit@20", "mrr@20")]
            marks = [reached(own, mark) if row is own[0] else "" for mark in targets.values()]
            cells = [system, row["epochs"], *(f"{value:.2f}" for value in found)]
            cells += [f"{row['wall_s'] / 60:.1f}", f"{row['cpu_s'] / 60:.1f}", *marks]
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def race_section(title: str, rows: list[Row], text: str) -> str:
    """A data set's table and picture in RESULTS.md."""
    file = picture(rows[0]["dataset"], "race", "race")
    drawn = [f"![race]({linked(file)})\n"] if file.exists() else []
    return "\n".join([f"## {title}\n", *([text] if text else []), table(rows), "", *drawn, *commands(rows)])


def draw(rows: Sequence[Row], dataset: str) -> None:
    """Draw P@20 and MRR@20 against minutes of training, with the published figures."""
    drawn = plots.figure(10, 4)
    for axes, metric, title in zip(drawn.subplots(1, 2), ("hit@20", "mrr@20"), ("P@20", "MRR@20"), strict=True):
        for colour, system in zip(COLOURS, sorted({row["system"] for row in rows}), strict=False):
            own = sorted((row["wall_s"] / 60, row["metrics"][metric]) for row in rows if row["system"] == system)
            axes.plot([x for x, _ in own], [100 * y for _, y in own], "o-", color=colour, ms=4, label=system)
        for name, found in published_figures().get(dataset, {}).get("sr-gnn", {}).items():
            axes.axhline(100 * found[metric], color=plots.INK, lw=0.8, ls=":")
            axes.annotate(f"{name}, published", (1, 100 * found[metric]), xycoords=("axes fraction", "data"),
                          ha="right", va="bottom", fontsize=7)  # fmt: skip
        axes.set(xscale="log", xlabel="minutes of training", ylabel=f"{title} in %")
    drawn.axes[0].legend(frameon=False, fontsize=8)
    plots.save(drawn, picture(dataset, "race", "race"))


if __name__ == "__main__":
    main()
