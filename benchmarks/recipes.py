"""The default recipe against eleven others on validation sessions: batch size, learning rate and epochs.

    GRAPHMETA_DATA=… python -m benchmarks.recipes yoochoose_times niser

The log's last tenth of sessions by end is the validation log; nothing is tested. Nine recipes have half, the same and
twice the default's batch size and learning rate, three its epochs times ½, 1½ and 2. Writes one row with all twelve,
after each; an interrupted run resumes. Prints the default's MRR@20 as a share of the best.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import product
from typing import Any

import torch

from benchmarks.accuracy import movielens
from benchmarks.rows import MEASURE, Row, commands, path_of, provenance, read
from graphmeta.data.events import EventLog
from graphmeta.data.splits import split_by_time
from graphmeta.datasets import session_logs as datasets
from graphmeta.published.catalogue import CATALOGUE, TRAINED, build
from graphmeta.storage import write_json
from graphmeta.training.loop import train
from graphmeta.training.optimizers import Adam
from graphmeta.training.recipes import TrainingRecipe
from graphmeta.training.settings import TrainOptions

LOGS: Mapping[str, Callable[[], EventLog]] = {
    "complete_journey": datasets.complete_journey,
    "eshop_clothing": datasets.eshop_clothing,
    "yoochoose_times": datasets.yoochoose_times,
    "amazon_beauty": lambda: datasets.amazon_histories("Beauty"),
    "movielens1m": movielens,
}
FACTORS = (1.0, 0.5, 2.0)
EPOCHS = (0.5, 1.5, 2.0)


def main() -> None:
    """Try the recipes from the command line."""
    options = parser().parse_args()
    row = {**vars(options), "protocol": "recipes", **provenance("benchmarks.recipes")}
    path = path_of(row)
    trials: list[Row] = read(path)["trials"] if path.exists() else []
    split = split_by_time(LOGS[options.dataset](), test=0.0, valid=0.1)
    for recipe in twelve(default(options.system, split.train))[len(trials) :]:
        trials.append(tried(options.system, recipe, split.train, split.valid, options.seed))
        print(trials[-1], flush=True)
        write_json(path, {**row, "trials": trials, "share": share(trials)})
    print(f"{options.dataset} {options.system}: the default has {share(trials):.1%} of the best recipe's {MEASURE}")


def parser() -> argparse.ArgumentParser:
    """The command-line options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=LOGS)
    parser.add_argument("system", choices=TRAINED)
    parser.add_argument("--seed", type=int, default=0)
    return parser


def default(system: str, log: EventLog) -> TrainingRecipe:
    """The recipe that ``fit`` trains with."""
    samples = len(build(system, log.items, users=log.users).training_samples(log))
    return TrainingRecipe().filled_from(CATALOGUE[system].recipe).for_size(samples, log.num_items)


def twelve(recipe: TrainingRecipe) -> list[TrainingRecipe]:
    """The recipe, first, and eleven around it."""
    assert recipe.batch_size is not None and recipe.epochs is not None and isinstance(recipe.optimizer, Adam)
    tried = []
    for size, rate in product(FACTORS, FACTORS):
        optimizer = replace(recipe.optimizer, lr=recipe.optimizer.lr * rate)
        tried.append(replace(recipe, batch_size=max(round(recipe.batch_size * size), 1), optimizer=optimizer))
    return tried + [replace(recipe, epochs=max(round(recipe.epochs * factor), 1)) for factor in EPOCHS]


def tried(system: str, recipe: TrainingRecipe, log: EventLog, valid: EventLog, seed: int) -> Row:
    """Train by a recipe; the validation metrics of the best epoch, as ``fit`` keeps it."""
    torch.manual_seed(seed)
    built, began = build(system, log.items, users=log.users), time.perf_counter()
    assert recipe.epochs is not None and recipe.batch_size is not None and isinstance(recipe.optimizer, Adam)
    settings: dict[str, Any] = {"epochs": recipe.epochs, "batch_size": recipe.batch_size, "seed": seed}
    reports = list(
        train(
            built,
            log,
            optimizer=recipe.optimizer,
            valid=valid,
            options=TrainOptions(loss=recipe.loss(built)),
            **settings,
        )
    )
    best = next(report for report in reversed(reports) if report.best)
    seconds = round(time.perf_counter() - began, 1)
    chosen = {"batch size": recipe.batch_size, "rate": recipe.optimizer.rate(0.0), "epochs": recipe.epochs}
    return {
        "recipe": chosen,
        "negatives": recipe.negatives,
        "valid": best.valid,
        "epoch": best.epoch,
        "seconds": seconds,
    }


def share(trials: list[Row]) -> float:
    """The default's metric as a share of the best."""
    return trials[0]["valid"][MEASURE] / max(trial["valid"][MEASURE] for trial in trials)


def recipes_section(title: str, rows: list[Row], text: str) -> str:
    """The twelve recipes of each system on a log, the default first."""
    lines = [f"## {title}\n", *([text] if text else [])]
    for row in rows:
        lines += [
            f"{row['system']}, seed {row['seed']}; validation of the best epoch. The default has "
            f"{share(row['trials']):.1%} of the best recipe's MRR@20.\n",
            "| batch size | rate | epochs | Hit@20 | MRR@20 | seconds |",
            "|--:|--:|--:|--:|--:|--:|",
        ]
        for trial in row["trials"]:
            recipe, found = trial["recipe"], [f"{100 * trial['valid'][name]:.2f}" for name in ("hit@20", MEASURE)]
            cells = [recipe["batch size"], f"{recipe['rate']:g}", recipe["epochs"], *found, f"{trial['seconds']:.0f}"]
            lines.append(f"| {' | '.join(map(str, cells))} |")
        lines.append("")
    return "\n".join([*lines, *commands(rows)])


if __name__ == "__main__":
    main()
