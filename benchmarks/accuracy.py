"""Train one system on a public log under a published protocol and write one row of results.

    GRAPHMETA_DATA=… python -m benchmarks.accuracy diginetica sr_gnn --epochs 3

Protocols: ``sr-gnn`` ranks the target of every test prefix, ``cbml`` the last click of test sessions of at least
three clicks, ``asars`` that of all test sessions; all among the items of the training log. The epoch is chosen on
the validation log, or on the last training sessions, held out, where the protocol has no validation log.
``--held-out 0`` trains on all sessions for a number of epochs that is fixed beforehand. The test log is evaluated once,
at the end.

Score terms over co-occurrence counts must learn how reliable counts are on sessions that were not counted (stacked
generalisation). ``--statistics-held-out N`` trains on the last N sessions and fits the statistics on those before; the
statistics are refitted on the whole training log before the test. ``--refit-base`` also replaces the frozen weights by
those of a base that was trained on all sessions.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.rows import cost, epoch_row, measured, provenance, write
from benchmarks.sessions import Sessions
from graphmeta import baselines as neighbours
from graphmeta.adapt.scope import Scope
from graphmeta.data.events import EventLog
from graphmeta.data.splits import last_sessions
from graphmeta.datasets import session_logs as datasets
from graphmeta.evaluation.queries import with_history
from graphmeta.evaluation.ranking import evaluate
from graphmeta.published.catalogue import CATALOGUE, TRAINED, build
from graphmeta.published.load import load
from graphmeta.sampling.samples import Samples, last_clicks, prefixes
from graphmeta.system import System
from graphmeta.training.loop import train
from graphmeta.training.optimizers import Adagrad, Adam
from graphmeta.training.recipes import TrainingRecipe
from graphmeta.training.run import Checkpoint, Report
from graphmeta.training.settings import TrainOptions

OPTIMIZERS = {"adam": Adam, "adagrad": Adagrad}
Parts = tuple[EventLog, EventLog | None, EventLog]
Protocol = Callable[[EventLog], Samples]


@dataclass(frozen=True)
class Dataset:
    """A log and its evaluation protocols.

    Args:
        load: training, validation (if the protocol has one) and test log.
        protocols: name to the test samples that are ranked.
        counts: published numbers of training and test samples, by protocol.
    """

    name: str
    load: Callable[[], Parts]
    protocols: Mapping[str, Protocol]
    counts: Mapping[str, tuple[int, int]]

    def parts(self) -> Parts:
        """The logs. Refuses data whose numbers of samples differ from the published ones."""
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
    """The logs of a protocol without a validation log."""
    train_log, test_log = load()
    return train_log, None, test_log


def by_session_end(load: Callable[[], EventLog], *, test: float = 0.2, valid: float = 0.1) -> Parts:
    """Split by the end of sessions: the last share ``test``, the share ``valid`` before it, and the training log.

    Items and users that do not occur in training are left out of the other two.
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
    """The sessions of users that occur in training, numbered as before."""
    if log.session_user is None:
        return log
    return log.of_sessions(log.session_user >= 0).aligned_to(log.items, log.users)


def movielens() -> EventLog:
    """MovieLens-1M with ASARS's filter: at least 10 events per item, 2 per session, 10 sessions per user."""
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
USER_BASELINES = {  # read the earlier sessions of a query's user
    "personal_frequency": neighbours.PersonalFrequency,
    "tifu_knn": neighbours.TifuKNN,
    "up_cf": neighbours.UPCF,
}


def main() -> None:
    """Run one row from the command line."""
    options = parser().parse_args()
    dataset = DATASETS[options.dataset]
    train_log, valid_log, test_log = dataset.parts()
    ran, began, cpu = provenance("benchmarks.accuracy"), time.perf_counter(), time.process_time()
    model, history = fitted(options, train_log, valid_log)
    spent = cost(time.perf_counter() - began, cpu=time.process_time() - cpu)
    for protocol in options.protocols or dataset.protocols:
        samples_of = dataset.protocols[protocol]
        samples = with_history(model, samples_of(test_log), test_log, train_log, valid_log)
        result = evaluate(model, samples, support=train_log.support, progress=tqdm)
        sessions = Sessions.of(result, samples)
        row = {
            "dataset": options.dataset,
            "protocol": protocol,
            "system": options.system,
            "arguments": options.arguments,
            "note": options.note,
            **measured(result, sessions),
            "seed": options.seed,
            "epochs": len(history),
            "history": history,
            **spent,
            **ran,
        }
        write(row, variant=options.tag, sessions=sessions)


def parser() -> argparse.ArgumentParser:
    """The command-line options."""
    parser = arguments(__doc__, DATASETS, [*TRAINED, *BASELINES, *USER_BASELINES])
    parser.add_argument("--share", type=float, default=1.0, help="train on the last share of the training sessions")
    parser.add_argument(
        "--held-out", type=int, default=3000, help="last training sessions, to choose the epoch; 0: the last epoch"
    )
    parser.add_argument("--protocols", nargs="+", help="evaluation protocols; default: all of the data set")
    parser.add_argument("--recipe", action="store_true", help="values that are not given follow the log, as in fit")
    parser.set_defaults(epochs=None, lr=None, batch_size=None)  # 3, 1e-3 and 100 without --recipe, see trained_by
    return parser


def arguments(description: str | None, names: Iterable[str], systems: Iterable[str]) -> argparse.ArgumentParser:
    """The command-line options of the trained system and its training."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=list(names))
    parser.add_argument("system", choices=list(systems))
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="adam")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--patience", type=int, help="stop after this many epochs without improvement")
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--clicks", type=int, help="per step, instead of --batch-size samples; the rate follows")
    parser.add_argument("--negatives", type=int, help="of the sampled softmax; full softmax if 0 or not given")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="of products with the item table")
    parser.add_argument("--statistics-held-out", type=int, help="train on the last N sessions, not counted")
    parser.add_argument("--arguments", type=json.loads, default={}, help="of the system, as JSON: '{\"width\": 100}'")
    parser.add_argument("--warm-start", type=Path, help="folder of a saved system whose weights are loaded first")
    parser.add_argument("--refit-base", type=Path, help="folder of a base trained on all sessions; see above")
    parser.add_argument("--only", nargs="+", help="names or prefixes of the weights to train")
    parser.add_argument("--checkpoint", type=Path, help="folder to save every epoch in and to resume from")
    parser.add_argument("--save", type=Path, help="folder to save the trained system in")
    parser.add_argument("--tag", default="", help="name of the variant in the file name")
    parser.add_argument("--note", default="", help="shown beside the system's name in RESULTS.md")
    return parser


def fitted(
    options: argparse.Namespace, train_log: EventLog, valid_log: EventLog | None
) -> tuple[Any, list[dict[str, Any]]]:
    """The trained model and a row for each epoch."""
    known = BASELINES | USER_BASELINES
    if options.system in known:
        # a trained system can learn whether items recur within a session; baselines are configured
        return neighbours.match_repeats(train_log, known[options.system](train_log, **options.arguments)), []
    learn, valid = train_log, valid_log
    if valid is None and options.held_out:
        learn, valid = last_sessions(train_log, options.held_out)
    statistics_log = learn
    if options.statistics_held_out:
        statistics_log, learn = last_sessions(learn, options.statistics_held_out)
    if options.share < 1:
        _, learn = last_sessions(learn, round(learn.num_sessions * options.share))
    torch.manual_seed(options.seed)
    system = build(options.system, train_log.items, users=train_log.users, **options.arguments)
    with_base = options.warm_start or options.arguments.get("empty") == 1  # the base does not score empty sessions
    if CATALOGUE[options.system].held_out and not (with_base and options.statistics_held_out):
        raise SystemExit(f"{options.system} needs a trained base (--warm-start) and --statistics-held-out sessions")
    if options.warm_start:
        print("warm start:", system.load_matching(load(options.warm_start)), flush=True)
    if options.only:
        chosen = Scope(*options.only)
        for name, weight in system.named_parameters():
            weight.requires_grad_(chosen.holds(name))
    reports = []
    if options.epochs == 0:
        system.fit_statistics(statistics_log)
    else:
        for report in _trained(options, system, learn, statistics_log, valid):
            print(report, flush=True)
            reports.append(epoch_row(report))
    if options.refit_base:
        print("refitted base:", system.load_matching(load(options.refit_base), frozen_only=True), flush=True)
    if options.statistics_held_out:
        system.fit_statistics(train_log)  # training is over: all sessions may be counted
    if options.save:
        system.save(options.save)
    return system, reports


def _trained(
    options: argparse.Namespace, system: System, learn: EventLog, statistics_log: EventLog, valid: EventLog | None
) -> Iterable[Report]:
    """Train by the recipe, an epoch at a time."""
    recipe = trained_by(options, system, learn)
    print(recipe, flush=True)
    return train(
        system,
        learn,
        epochs=recipe.epochs or 1,
        optimizer=recipe.optimizer,
        batch_size=recipe.batch_size or 1,
        valid=valid,
        seed=options.seed,
        options=TrainOptions(
            statistics_log=statistics_log,
            patience=recipe.patience,
            loss=recipe.loss(system),
            clicks=recipe.clicks,
            precision=options.precision,
            checkpoint=Checkpoint(options.checkpoint, resume=True) if options.checkpoint else None,
            progress=lambda batches: tqdm(batches, mininterval=10),
        ),
    )


def trained_by(options: argparse.Namespace, system: System, log: EventLog) -> TrainingRecipe:
    """The recipe for this log, or the papers' (full softmax), with the settings that are given."""
    kind = OPTIMIZERS[options.optimizer]
    optimizer = None if options.lr is None else kind(lr=options.lr, weight_decay=0.0)
    recipe = TrainingRecipe(
        options.epochs, options.batch_size, optimizer, options.negatives, options.patience, clicks=options.clicks
    )
    if getattr(options, "recipe", False):
        return recipe.filled_from(CATALOGUE[options.system].recipe).for_size(
            len(system.training_samples(log)), log.num_items
        )
    optimizer = kind(lr=1e-3 if options.lr is None else options.lr, decay_tables=True)
    return replace(recipe, optimizer=optimizer).filled_from(TrainingRecipe(epochs=3, batch_size=100, negatives=0))


if __name__ == "__main__":
    main()
