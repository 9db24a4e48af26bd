"""Few-shot users: the fourth item after the first three, ranked as in MetaTL's protocol and among all items.

    GRAPHMETA_DATA=… python -m benchmarks.few_shot amazon_beauty --systems gru4rec,cluster_seq --epochs 5

Users are split 80:6:14 into training, validation and test. The fourth item is ranked among 100 sampled items that the
user never bought (``metatl``) and among all items (``metatl-all``). The epoch is chosen by MRR@10 among sampled items
for validation users; the test is evaluated once. Systems of users and meta-learners read three clicks before each
target, as in the test; other systems train on all positions of whole histories.
"""

from __future__ import annotations

import argparse
import json
import shlex
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from benchmarks import rows
from benchmarks.accuracy import BASELINES
from benchmarks.rows import cost, measured, picture, provenance, some_of
from graphmeta.baselines import match_repeats
from graphmeta.data.events import EventLog
from graphmeta.data.splits import split_users
from graphmeta.datasets import session_logs as datasets
from graphmeta.evaluation.ranking import Result, evaluate, evaluate_sampled, sampled_negatives
from graphmeta.plots.user_clusters import clusters, principal_components
from graphmeta.published.catalogue import CATALOGUE, build
from graphmeta.published.models.few_shot import ClusteredSystem, UserSequenceSystem
from graphmeta.sampling.few_shot import next_click
from graphmeta.sampling.samples import Samples
from graphmeta.system import System
from graphmeta.training.loop import train
from graphmeta.training.optimizers import Adam

DATASETS: dict[str, Callable[[], EventLog]] = {"amazon_beauty": lambda: datasets.amazon_histories("Beauty")}
SHOTS, KS = 3, (1, 5, 10)


def main() -> None:
    """Run rows from the command line."""
    options = parser().parse_args()
    logs = dealt(DATASETS[options.dataset](), seed=options.seed)
    print("users and events:", [(log.num_sessions, log.num_events) for log in logs], flush=True)
    for name in options.systems:
        began = time.perf_counter()
        model, history = fitted(name, logs[0], logs[1], options)
        seconds = time.perf_counter() - began
        queries = next_click(logs[2], SHOTS)
        against = sampled_negatives(queries, logs[2], seed=options.seed)
        found = clustered(model, queries, options)
        write(name, "metatl", evaluate_sampled(model, queries, against, ks=KS), history, options, seconds, found)
        write(name, "metatl-all", evaluate(model, queries, ks=KS), history, options, seconds, found)
        if options.save is not None and isinstance(model, System):
            model.save(options.save / name)


def parser() -> argparse.ArgumentParser:
    """The command-line options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=DATASETS)
    some = "popularity,item_knn,gru4rec,melu,meta_tl,cluster_seq"
    parser.add_argument("--systems", type=some_of([*CATALOGUE, *BASELINES]), default=some)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument(
        "--arguments", type=json.loads, default={}, help="of the systems, as JSON: '{\"negatives\": 20}'"
    )
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--batch-size", type=int, help="1024 tasks, or 128 whole histories, if not given")
    parser.add_argument("--save", type=Path, help="save the models in this folder")
    return parser


def dealt(log: EventLog, *, seed: int) -> tuple[EventLog, ...]:
    """The logs of training, validation and test users; the parts share no user."""
    return tuple(part.aligned_to(log.items) for part in split_users(log, shares=(80, 6, 14), seed=seed))


def fitted(
    name: str, learn: EventLog, valid: EventLog, options: argparse.Namespace
) -> tuple[Any, list[dict[str, Any]]]:
    """The model and a row for each epoch; a meta-learner starts from its encoder, trained alone, and is then trained
    for half the epochs, in batches a quarter as large and at a tenth of the rate.
    """
    if name in BASELINES:  # items never recur: a trained model can learn this, baselines are configured
        return match_repeats(learn, BASELINES[name](learn)), []
    encoder, history = CATALOGUE[name].encoder, []
    alone = None if encoder is None else trained(encoder, learn, valid, options, history)
    return trained(name, learn, valid, options, history, begin=alone, arguments=options.arguments), history


def trained(
    name: str, learn: EventLog, valid: EventLog, options: argparse.Namespace, history: list[dict[str, Any]],
    *, begin: System | None = None, arguments: Mapping[str, Any] = MappingProxyType({}),
) -> System:  # fmt: skip
    """The system with the weights of its best epoch; its epochs are appended to the history."""
    torch.manual_seed(options.seed)
    system = build(name, learn.items, width=options.width, **arguments)
    if begin is not None:
        system.load_matching(begin)
    if system.episodic or isinstance(system, UserSequenceSystem):  # as many clicks as in the test
        system.max_length = SHOTS
    queries = next_click(valid, SHOTS)

    against = sampled_negatives(queries, valid, seed=options.seed)

    def score(of: System) -> dict[str, float]:
        found = evaluate_sampled(of, queries, against, ks=KS).metrics
        return {(first := f"mrr@{max(KS)}"): found[first], **found}  # the first metric chooses the epoch

    again = begin is not None  # as gm.fit: half the epochs, a quarter of the batch and a tenth of the rate
    optimizer = Adam(lr=options.lr / (10 if again else 1), weight_decay=1e-6, decay_tables=True)
    batch = (options.batch_size or (1024 if system.episodic else 128)) // (4 if again else 1)
    epochs = max(1, options.epochs // 2) if again else options.epochs
    for report in train(
        system, learn, epochs=epochs, optimizer=optimizer, batch_size=batch, valid=score, seed=options.seed
    ):
        print(f"  {name} {report.epoch} loss {report.loss:.4f} {report.seconds:.0f} s {report.valid}", flush=True)
        history.append({"system": name, "epoch": report.epoch, "loss": report.loss, "seconds": report.seconds})
    return system


def clustered(model: Any, queries: Samples, options: argparse.Namespace) -> dict[str, Any]:
    """Sizes of the clusters of the test users by their first clicks, also as a picture; nothing without clusters."""
    if not isinstance(model, ClusteredSystem):
        return {}
    found = model.clusters(queries)
    clusters(found, picture(options.dataset, "metatl", "clusters"), title="Clusters of test users")
    sizes = {
        "sizes": found.sizes,
        "shares": found.shares,
        "largest_membership": found.largest_membership,
        "distinct": found.distinct,
        "variance_explained": principal_components(found.vectors)[1],
    }
    print("clusters:", json.dumps(sizes), flush=True)
    return {"clusters": sizes}


def write(
    name: str, protocol: str, result: Result, history: list[dict[str, Any]], options: argparse.Namespace,
    seconds: float, more: Mapping[str, Any],
) -> None:  # fmt: skip
    """Write the row's file.

    Args:
        more: further fields.
    """
    command = f"python -m benchmarks.few_shot {options.dataset} --systems {name} --epochs {options.epochs}"
    command += f" --lr {options.lr:g}" if options.lr != 1e-3 else ""
    command += f" --batch-size {options.batch_size}" if options.batch_size else ""
    command += f" --arguments {shlex.quote(json.dumps(options.arguments))}" if options.arguments else ""
    document = {
        "dataset": options.dataset,
        "protocol": protocol,
        "system": name,
        "arguments": {} if name in BASELINES else {"width": options.width, **options.arguments},
        **measured(result),
        **more,
        "seed": options.seed,
        "epochs": sum(epoch["system"] == name for epoch in history),
        "history": history,
        **cost(seconds),
        **provenance("benchmarks.few_shot"),
        "command": f"{command} --width {options.width} --seed {options.seed}",
    }
    rows.write(document, variant="-".join(f"{key}{value}" for key, value in options.arguments.items()))


if __name__ == "__main__":
    main()
