"""Train one system on a public log under a published protocol and write one row of results.

    GRAPHMETA_DATA=… python -m benchmarks.accuracy diginetica sr_gnn --epochs 3

Protocols: ``sr-gnn`` ranks the target of every test prefix, ``cbml`` the last click of test sessions of at least
three clicks; both among all items of the training log. The epoch is chosen on the last training sessions, which
are held out; the test log is looked at once, at the end.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from graphmeta import datasets, neighbours
from graphmeta.batch import Samples, last_clicks, prefixes
from graphmeta.evaluate import evaluate
from graphmeta.events import EventLog
from graphmeta.published import CATALOGUE, build
from graphmeta.storage import write_json
from graphmeta.system import System
from graphmeta.train import Adam, train

RESULTS = Path(__file__).parent / "results"
LOGS = {"diginetica": datasets.diginetica, "yoochoose1_64": datasets.yoochoose_1_64}
COUNTS = {  # train and test prefixes; sessions of at least three clicks
    "diginetica": ((719_470, 60_858), (133_724, 11_446)),
    "yoochoose1_64": ((369_859, 55_898), (65_172, 9_344)),
}
BASELINES = {
    "popularity": neighbours.Popularity,
    "session_popularity": neighbours.SessionPopularity,
    "item_knn": neighbours.ItemKNN,
    "session_knn": neighbours.SessionKNN,
}


def main() -> None:
    """Run one row from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=LOGS)
    parser.add_argument("system", choices=[*CATALOGUE, *BASELINES])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--held-out", type=int, default=3000, help="last training sessions, for choosing the epoch")
    parser.add_argument("--arguments", type=json.loads, default={}, help="of the system, as JSON: '{\"width\": 100}'")
    parser.add_argument("--start-from", type=Path, help="folder of a saved system whose weights it begins with")
    parser.add_argument("--save", type=Path, help="folder to save the trained system in")
    parser.add_argument("--tag", default="", help="a word for the file name of a variant")
    options = parser.parse_args()
    train_log, test_log = LOGS[options.dataset]()
    check_counts(options.dataset, train_log, test_log)
    ran, began = provenance(), time.perf_counter()
    model, history = fitted(options, train_log)
    seconds = time.perf_counter() - began
    for protocol, samples in protocols(test_log).items():
        result = evaluate(model, samples, support=train_log.support, progress=tqdm)
        row = {
            "dataset": options.dataset,
            "protocol": protocol,
            "system": options.system,
            "arguments": options.arguments,
            "metrics": result.metrics,
            "slices": result.slices,
            "samples": result.samples,
            "candidates": result.candidates,
            "ties": result.ties,
            "seed": options.seed,
            "epochs": options.epochs,
            "history": history,
            "wall_s": round(seconds, 1),
            "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
            **ran,
        }
        name = "-".join(filter(None, [options.dataset, protocol, options.system, options.tag, f"seed{options.seed}"]))
        write_json(RESULTS / f"{name}.json", row)
        print(json.dumps({"protocol": protocol, "system": options.system, **result.metrics}))


def check_counts(dataset: str, train_log: EventLog, test_log: EventLog) -> None:
    """Refuse to report on anything but the published data."""
    found = (
        (len(prefixes(train_log)), len(prefixes(test_log))),
        (len(last_clicks(train_log, min_length=3)), len(last_clicks(test_log, min_length=3))),
    )
    if found != COUNTS[dataset]:
        raise SystemExit(f"{dataset}: found {found}, published {COUNTS[dataset]}")
    print(f"{dataset}: {found[0][0]:,} / {found[0][1]:,} prefixes, {found[1][0]:,} / {found[1][1]:,} tasks")


def protocols(test_log: EventLog) -> dict[str, Samples]:
    """The samples that each protocol ranks."""
    return {"sr-gnn": prefixes(test_log), "cbml": last_clicks(test_log, min_length=3)}


def fitted(options: argparse.Namespace, train_log: EventLog) -> tuple[Any, list[dict[str, Any]]]:
    """The trained model, and what its epochs brought."""
    if options.system in BASELINES:
        return BASELINES[options.system](train_log), []
    held_out = np.arange(train_log.num_sessions) >= train_log.num_sessions - options.held_out
    learn, valid = (
        train_log.of_sessions(part).aligned_to(train_log.items, train_log.users) for part in (~held_out, held_out)
    )
    torch.manual_seed(options.seed)
    system = build(options.system, train_log.items, users=train_log.users, **options.arguments)
    if options.start_from:
        print("begins with", system.start_from(System.load(options.start_from)), flush=True)
    reports = []
    for report in train(
        system,
        learn,
        epochs=options.epochs,
        optimizer=Adam(lr=options.lr),
        batch_size=options.batch_size,
        valid=valid,
        seed=options.seed,
        progress=lambda batches: tqdm(batches, mininterval=10),
    ):
        print(report, flush=True)
        reports.append({"epoch": report.epoch, "loss": report.loss, "seconds": report.seconds, **report.valid})
    if options.save:
        system.save(options.save)
    return system, reports


def provenance() -> dict[str, str]:
    """The command, the commit it ran at and the day."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    command = "python -m " + " ".join(["benchmarks.accuracy", *sys.argv[1:]])
    return {"command": command, "commit": commit.stdout.strip(), "date": date.today().isoformat()}


if __name__ == "__main__":
    main()
