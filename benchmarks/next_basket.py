"""Evaluate one system on the next basket of each user and write one row of results.

    GRAPHMETA_DATA=… python -m benchmarks.next_basket tafeng personal_frequency --choices '{"decay": [0.9, 1.0]}'

The last basket of each user is the target, all earlier ones are known, and the query has no click
(:func:`~graphmeta.evaluation.next_basket.evaluate_next_basket`). ``--choices`` lists values of arguments: the
combination with the highest Recall@10 on the validation baskets, the last known one of each user, is fitted on all
known baskets. The test baskets are evaluated once. Any system of the catalogue is trained by the options of
``benchmarks.accuracy``, or loaded with ``--warm-start FOLDER --epochs 0``; with ``--fit`` it is trained as ``gm.fit``
does, on all known sessions and for all epochs. A re-ranker of empty sessions (``empty`` 1) needs no trained base.

With ``--days 7`` the targets are instead the items of the 7 days after a time, the last event's less 7 days, for each
user with an event in them (:func:`~graphmeta.data.windows.next_days`, the form of RelBench's recommendation tasks).
Settings are then chosen by MAP@12 on the 7 days before.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

from tqdm import tqdm

from benchmarks.accuracy import BASELINES, USER_BASELINES, arguments, fitted
from benchmarks.rows import Row, cost, measured, provenance, write
from benchmarks.sessions import Sessions
from graphmeta.data.events import EventLog
from graphmeta.data.splits import split_by_time
from graphmeta.data.windows import next_days
from graphmeta.datasets import session_logs as datasets
from graphmeta.evaluation.next_basket import BasketResult, evaluate_next_basket, last_baskets
from graphmeta.published.catalogue import TRAINED
from graphmeta.published.fit import fit_plan
from graphmeta.published.training_plan import Plan
from graphmeta.training.recipes import TrainingRecipe

DATASETS: Mapping[str, Callable[[], tuple[EventLog, EventLog]]] = {
    "tafeng": datasets.tafeng,
    "complete_journey": lambda: last_baskets(datasets.complete_journey()),
}
WITH_TIMES: Mapping[str, Callable[[], EventLog]] = {"complete_journey": datasets.complete_journey}


@dataclass(frozen=True)
class Targets:
    """The targets of a protocol: the last basket of each user, or the items of some days."""

    days: float | None = None

    @property
    def protocol(self) -> str:
        """The name of the protocol."""
        return "next-basket" if self.days is None else f"next-{self.days:g}-days"

    @property
    def chosen_by(self) -> str:
        """The metric that settings are chosen by."""
        return "recall@10" if self.days is None else "map@12"

    @property
    def ks(self) -> tuple[int, ...]:
        """Lengths of the lists."""
        return (10, 20) if self.days is None else (10, 12, 20)

    def of(self, dataset: str) -> tuple[EventLog, EventLog]:
        """The known sessions of a data set, and the targets."""
        return DATASETS[dataset]() if self.days is None else self.last(WITH_TIMES[dataset]())

    def last(self, log: EventLog) -> tuple[EventLog, EventLog]:
        """A log before its last targets, and these."""
        return last_baskets(log) if self.days is None else next_days(log, days=self.days)


def main() -> None:
    """Run one row from the command line."""
    options = parser().parse_args()
    known, future = Targets(options.days).of(options.dataset)
    print(f"{options.dataset}: known {known}\nnext {future}", flush=True)
    row, sessions = row_of(options, known, future)
    write(row, variant=options.tag, sessions=sessions)


def parser() -> argparse.ArgumentParser:
    """The command-line options."""
    parser = arguments(__doc__, DATASETS, [*TRAINED, *BASELINES, *USER_BASELINES])
    parser.add_argument("--choices", type=json.loads, default={}, help="values of arguments, as JSON, see above")
    parser.add_argument("--share", type=float, default=1.0, help="train on the last share of the training sessions")
    parser.add_argument("--held-out", type=int, default=3000, help="last known sessions, to choose the epoch")
    parser.add_argument("--fit", action="store_true", help="train by gm.fit, the base included")
    parser.add_argument("--recipe", action="store_true", help="values that are not given follow the log, as in fit")
    parser.add_argument("--days", type=float, help="targets are the items of the last days, see above")
    parser.set_defaults(epochs=None, lr=None, batch_size=None)  # as in benchmarks.accuracy
    return parser


def row_of(options: argparse.Namespace, known: EventLog, future: EventLog) -> tuple[Row, Sessions]:
    """The row of a system whose arguments are chosen on the last known baskets, and its metrics per user."""
    ran, began, cpu = provenance("benchmarks.next_basket"), time.perf_counter(), time.process_time()
    tried = list(trials(options, known)) if options.choices else []
    targets = Targets(options.days)
    given = max(tried, key=lambda trial: trial[targets.chosen_by])["arguments"] if tried else options.arguments
    result, history = evaluated(options, given, known, future)
    sessions = Sessions.of_baskets(result)
    row = {
        "dataset": options.dataset,
        "protocol": targets.protocol,
        "system": options.system,
        "arguments": given,
        "note": options.note,
        **measured(result, sessions),
        "validation": tried,
        "seed": options.seed,
        "epochs": len(history),
        "history": history,
        **cost(time.perf_counter() - began, cpu=time.process_time() - cpu),
        **ran,
    }
    return row, sessions


def trials(options: argparse.Namespace, known: EventLog) -> Iterator[Row]:
    """Arguments and metrics on the validation baskets, for each combination of the choices."""
    targets = Targets(options.days)
    before, last = targets.last(known)
    for values in product(*options.choices.values()):
        given = {**options.arguments, **dict(zip(options.choices, values, strict=True))}
        result, _ = evaluated(options, given, before, last)
        print(given, {name: round(result.metrics[name], 4) for name in (targets.chosen_by, "ndcg@10")}, flush=True)
        yield {"arguments": given, **result.metrics}


def evaluated(
    options: argparse.Namespace, given: Mapping[str, Any], known: EventLog, future: EventLog
) -> tuple[BasketResult, list[Row]]:
    """The result of the system with these arguments, fitted on the known sessions, and a row for each epoch."""
    options = copy(options)
    options.arguments = dict(given)
    if options.fit:
        cut = split_by_time(known, test=0.0, valid=0.0)
        own = {name: value for name, value in given.items() if name != "width"}
        recipe = TrainingRecipe(epochs=options.epochs)
        plan = Plan(options.system, given.get("width", 64), options.seed, recipe, options=own)
        model = fit_plan(plan, cut, progress=True)
        history = model.notes["history"][options.system]
    else:
        model, history = fitted(options, known, None)
    progress, ks = partial(tqdm, mininterval=10), Targets(options.days).ks
    return evaluate_next_basket(model, future, history=known, ks=ks, progress=progress), history


if __name__ == "__main__":
    main()
