"""Train one rating system on a public log and evaluate it in the four cold-start scenarios: one row of results.

    GRAPHMETA_DATA=… python -m benchmarks.ratings melu_ml1m melu_rating --epochs 30 --arguments '{"lr": 0.01}'

The epoch is chosen by the error on users held out of training; no rating of a scenario is used for selection.
``warm, as trained`` is the paper's warm-warm cell, evaluated on training data; ``warm`` uses held-out ratings.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.rows import cost, epoch_row, provenance, write
from graphmeta.baselines import means
from graphmeta.data.events import EventLog
from graphmeta.datasets.ratings import melu_movielens, metahin
from graphmeta.evaluation.cold_start import ColdStart
from graphmeta.evaluation.ratings import evaluate_ratings
from graphmeta.published.catalogue import CATALOGUE, build
from graphmeta.sampling.tasks import Tasks
from graphmeta.training.loop import train
from graphmeta.training.optimizers import Adam
from graphmeta.training.settings import TrainOptions

DATASETS: dict[str, Callable[[], ColdStart]] = {
    "melu_ml1m": melu_movielens,
    "metahin_ml1m": partial(metahin, "movielens"),
    "metahin_dbook": partial(metahin, "dbook"),
}
BASELINES = {"global_mean": means.GlobalMean, "item_mean": means.ItemMean, "item_user_mean": means.ItemUserMean}
SYSTEMS = [name for name, entry in CATALOGUE.items() if entry.predicts_ratings]


def main() -> None:
    """Run one row from the command line."""
    options = parser().parse_args()
    ran, cut = provenance("benchmarks.ratings"), DATASETS[options.dataset]()
    scenarios = list(cut.scenarios())
    print(options.dataset, *scenarios, sep="\n  ", flush=True)
    began = time.perf_counter()
    model, history = fitted(options, cut)
    seconds = time.perf_counter() - began
    row: dict[str, Any] = {
        "dataset": options.dataset,
        "protocol": "cold-start",
        "system": options.system,
        "arguments": options.arguments,
        "history": history,
        "seed": options.seed,
        "epochs": options.epochs,
        "scenarios": {},
    }
    for scenario in scenarios:
        result = evaluate_ratings(model, scenario.tasks)
        print(f"{scenario.name:16s}", {name: round(value, 4) for name, value in result.metrics.items()}, flush=True)
        row["scenarios"][scenario.name] = {
            "metrics": result.metrics,
            "tasks": result.tasks,
            "samples": result.samples,
            "known": len(scenario.tasks.support),
            "trained": scenario.trained,
            "rule": scenario.rule,
        }
        row |= {"candidates": result.candidates, "ties": result.ties}
    write(row | cost(seconds) | ran, variant=options.tag)


def parser() -> argparse.ArgumentParser:
    """The command-line options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=DATASETS)
    parser.add_argument("system", choices=[*SYSTEMS, *BASELINES])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--weight-decay", type=float, default=1e-5)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--patience", type=int, help="stop after this many epochs without improvement")
    parser.add_argument("--held-out", type=int, default=150, help="training users, held out to choose the epoch")
    parser.add_argument("--arguments", type=json.loads, default={}, help="of the system, as JSON: '{\"lr\": 0.01}'")
    parser.add_argument("--tag", default="", help="name of the variant in the file name")
    return parser


def fitted(options: argparse.Namespace, cut: ColdStart) -> tuple[Any, list[dict[str, Any]]]:
    """The trained model and a row for each epoch."""
    if options.system in BASELINES:
        return BASELINES[options.system](cut.training), []
    learn, valid = hold_out(cut, options.held_out)
    torch.manual_seed(options.seed)
    system = build(options.system, cut.log.items, users=cut.log.users, **options.arguments)
    reports = []
    for report in train(
        system,
        learn,
        epochs=options.epochs,
        optimizer=Adam(lr=options.lr, weight_decay=options.weight_decay, decay_tables=True),
        batch_size=options.batch_size,
        valid=lambda model: evaluate_ratings(model, valid).metrics,
        seed=options.seed,
        options=TrainOptions(patience=options.patience),
    ):
        print(report, flush=True)
        reports.append(epoch_row(report))
    return system, reports


def hold_out(cut: ColdStart, users: int) -> tuple[EventLog, Tasks]:
    """The training log without this many users, and their tasks.

    Users outside the warm scenario are preferred, where there are enough.
    """
    log = cut.training
    used = np.isin(log.sessions, cut.log.sessions[np.unique(cut.log.session[cut.held_out])])
    enough = (log.lengths >= cut.queries.min_events) & (log.lengths <= cut.queries.max_events)
    free = np.flatnonzero(enough & ~used) if users < (enough & ~used).sum() else np.flatnonzero(enough)
    out = np.zeros(log.num_sessions, dtype=bool)
    out[np.random.default_rng(0).permutation(free)[:users]] = True
    learn, valid = (log.of_sessions(part).aligned_to(log.items, log.users) for part in (~out, out))
    return learn, cut.queries(valid, max_length=0)


if __name__ == "__main__":
    main()
