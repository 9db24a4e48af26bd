"""Train one system on a public log under a published protocol and write one row of results.

    GRAPHMETA_DATA=… python -m benchmarks.accuracy diginetica sr_gnn --epochs 3

Protocols: ``sr-gnn`` ranks the target of every test prefix, ``cbml`` the last click of test sessions of at least
three clicks, ``asars`` that of all test sessions; all among the items of the training log. The epoch is chosen on
the validation log, or where the protocol has none on the last training sessions, which are held out; the test log
is looked at once, at the end. With ``--uncounted``, neighbours are counted without the sessions that are learned on,
and once more on the whole training log before the test; with ``--then``, the weights that did not learn are those of a
base that has learned from it all by then.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.rows import cost, measured, provenance, told, write
from graphmeta import baselines as neighbours
from graphmeta.adapt.scope import Scope
from graphmeta.data.events import EventLog
from graphmeta.data.splits import last_sessions
from graphmeta.datasets import session_logs as datasets
from graphmeta.evaluation.ranking import evaluate
from graphmeta.published.catalogue import CATALOGUE, RANKING, build
from graphmeta.published.load import load
from graphmeta.sampling.samples import Samples, last_clicks, prefixes
from graphmeta.training.loop import train
from graphmeta.training.optimizers import Adagrad, Adam
from graphmeta.training.run import Checkpoint

OPTIMIZERS = {"adam": Adam, "adagrad": Adagrad}
Parts = tuple[EventLog, EventLog | None, EventLog]
Protocol = Callable[[EventLog], Samples]


@dataclass(frozen=True)
class Dataset:
    """A log and what is asked about it.

    Args:
        load: training, validation (if the protocol has one) and test log.
        protocols: name to the samples of the test log that are ranked.
        counts: where they are published, how many samples a protocol finds in the training and the test log.
    """

    name: str
    load: Callable[[], Parts]
    protocols: Mapping[str, Protocol]
    counts: Mapping[str, tuple[int, int]]

    def parts(self) -> Parts:
        """The logs, after a look at their size: nothing is reported on anything but the published data."""
        train_log, valid_log, test_log = self.load()
        found = {name: (len(of(train_log)), len(of(test_log))) for name, of in self.protocols.items()}
        strange = {name: count for name, count in found.items() if name in self.counts and self.counts[name] != count}
        if strange:
            raise SystemExit(f"{self.name}: found {strange}, published {dict(self.counts)}")
        sizes = [f"{a:,} / {b:,} samples ({name})" for name, (a, b) in found.items()]
        events = [part.num_events for part in (train_log, valid_log, test_log) if part is not None]
        print(f"{self.name}: {', '.join(sizes)}; {train_log.num_items:,} items; events {events}", flush=True)
        return train_log, valid_log, test_log


def without_validation(load: Callable[[], tuple[EventLog, EventLog]]) -> Parts:
    """The logs of a protocol that has none to validate on."""
    train_log, test_log = load()
    return train_log, None, test_log


def by_session_end(load: Callable[[], EventLog], *, test: float = 0.2, valid: float = 0.1) -> Parts:
    """The share ``test`` of sessions that end last, the share ``valid`` before it, and the rest.

    Events on items, and sessions of users, that the rest does not know are left out of both.
    """
    log = load()
    ended = np.argsort(log.time[log.ptr[1:] - 1], kind="stable")
    size = log.num_sessions
    part = np.zeros(size, dtype=np.int64)
    part[ended[size - round(size * (test + valid)) :]] = 1
    part[ended[size - round(size * test) :]] = 2
    train_log, *later = (log.of_sessions(part == k) for k in range(3))
    valid_log, test_log = (of_known_users(one.aligned_to(train_log.items, train_log.users)) for one in later)
    return train_log, valid_log, test_log


def of_known_users(log: EventLog) -> EventLog:
    """The sessions whose user is known, numbered as before."""
    if log.session_user is None:
        return log
    return log.of_sessions(log.session_user >= 0).aligned_to(log.items, log.users)


def movielens() -> EventLog:
    """MovieLens-1M with ASARS's supports: 10 events an item, 2 a session, 10 sessions a user."""
    return datasets.movielens_1m().filter(min_item_support=10, min_session_length=2, min_user_sessions=10)


PREFIXES: Mapping[str, Protocol] = {"sr-gnn": prefixes, "cbml": partial(last_clicks, min_length=3)}
LAST: Mapping[str, Protocol] = {"asars": partial(last_clicks, max_length=200)}
DATASETS = {
    row.name: row
    for row in (
        Dataset(
            "diginetica",
            partial(without_validation, datasets.diginetica),
            PREFIXES,
            {"sr-gnn": (719_470, 60_858), "cbml": (133_724, 11_446)},
        ),
        Dataset(
            "yoochoose1_64",
            partial(without_validation, datasets.yoochoose_1_64),
            PREFIXES,
            {"sr-gnn": (369_859, 55_898), "cbml": (65_172, 9_344)},
        ),
        Dataset("movielens1m", partial(by_session_end, movielens), LAST, {}),
        Dataset("complete_journey", partial(by_session_end, datasets.complete_journey), LAST, {}),
    )
}
BASELINES = {
    "popularity": neighbours.Popularity,
    "session_popularity": neighbours.SessionPopularity,
    "item_knn": neighbours.ItemKNN,
    "session_knn": neighbours.SessionKNN,
    "stan": neighbours.Stan,
}


def main() -> None:
    """Run one row from the command line."""
    options = parser().parse_args()
    dataset = DATASETS[options.dataset]
    train_log, valid_log, test_log = dataset.parts()
    ran, began = provenance("benchmarks.accuracy"), time.perf_counter()
    model, history = fitted(options, train_log, valid_log)
    seconds = time.perf_counter() - began
    for protocol in options.protocols or dataset.protocols:
        samples_of = dataset.protocols[protocol]
        result = evaluate(model, samples_of(test_log), support=train_log.support, progress=tqdm)
        row = {
            "dataset": options.dataset,
            "protocol": protocol,
            "system": options.system,
            "arguments": options.arguments,
            "note": options.note,
            **measured(result),
            "seed": options.seed,
            "epochs": options.epochs,
            "history": history,
            **cost(seconds),
            **ran,
        }
        write(row, variant=options.tag)


def parser() -> argparse.ArgumentParser:
    """The words of the command line."""
    parser = arguments(__doc__, DATASETS, [*RANKING, *BASELINES])
    parser.add_argument("--share", type=float, default=1.0, help="of the training sessions, the last ones, to learn on")
    parser.add_argument("--held-out", type=int, default=3000, help="last training sessions, for choosing the epoch")
    parser.add_argument("--protocols", nargs="+", help="to be asked under; all of the dataset if not given")
    return parser


def arguments(description: str | None, names: Iterable[str], systems: Iterable[str]) -> argparse.ArgumentParser:
    """The words of the command line that say what is trained and how."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=list(names))
    parser.add_argument("system", choices=list(systems))
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="adam")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--patience", type=int, help="end after so many epochs without a better one")
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="of products with the item table")
    parser.add_argument("--uncounted", type=int, help="learn on the last so many alone, which neighbours do not count")
    parser.add_argument("--arguments", type=json.loads, default={}, help="of the system, as JSON: '{\"width\": 100}'")
    parser.add_argument("--start-from", type=Path, help="folder of a saved system whose weights it begins with")
    parser.add_argument("--then", type=Path, help="folder of a saved base, learned on all: its weights in the end")
    parser.add_argument("--only", nargs="+", help="names (or beginnings of names) of the weights to train")
    parser.add_argument("--checkpoint", type=Path, help="folder to save every epoch in, and to go on from")
    parser.add_argument("--save", type=Path, help="folder to save the trained system in")
    parser.add_argument("--tag", default="", help="a word for the file name of a variant")
    parser.add_argument("--note", default="", help="what RESULTS.md says of it, beside the system's name")
    return parser


def fitted(
    options: argparse.Namespace, train_log: EventLog, valid_log: EventLog | None
) -> tuple[Any, list[dict[str, Any]]]:
    """The trained model, and what its epochs brought."""
    if options.system in BASELINES:
        # what never comes twice in a session, a system that learns has learned; what counts is told
        return neighbours.as_in(train_log, BASELINES[options.system](train_log)), []
    learn, valid = (train_log, valid_log) if valid_log is not None else last_sessions(train_log, options.held_out)
    counted = learn
    if options.uncounted:
        counted, learn = last_sessions(learn, options.uncounted)
    if options.share < 1:
        _, learn = last_sessions(learn, round(learn.num_sessions * options.share))
    torch.manual_seed(options.seed)
    system = build(options.system, train_log.items, users=train_log.users, **options.arguments)
    if CATALOGUE[options.system].held_out and not (options.start_from and options.uncounted):
        raise SystemExit(f"{options.system} needs a trained base (--start-from) and sessions to learn on (--uncounted)")
    if options.start_from:
        print("begins with", system.load_matching(load(options.start_from)), flush=True)
    if options.only:
        chosen = Scope(*options.only).names(system)
        for name, weight in system.named_parameters():
            weight.requires_grad_(name in chosen)
    reports = []
    for report in train(
        system,
        learn,
        epochs=options.epochs,
        optimizer=OPTIMIZERS[options.optimizer](lr=options.lr),
        batch_size=options.batch_size,
        valid=valid,
        statistics_log=counted,
        patience=options.patience,
        seed=options.seed,
        precision=options.precision,
        checkpoint=Checkpoint(options.checkpoint, resume=True) if options.checkpoint else None,
        progress=lambda batches: tqdm(batches, mininterval=10),
    ):
        print(report, flush=True)
        reports.append(told(report))
    if options.then:
        print("ends with", system.load_matching(load(options.then), frozen_only=True), flush=True)
    if options.uncounted:
        system.fit_statistics(train_log)  # what is counted may be counted on all that is known by now
    if options.save:
        system.save(options.save)
    return system, reports


if __name__ == "__main__":
    main()
