"""Settings of the nearest-neighbour baselines, compared on training logs only.

    GRAPHMETA_DATA=… python -m benchmarks.neighbours [diginetica yoochoose1_64 yoochoose_times] [--only stan]

The last 3,000 sessions of a training log are held out; each setting is fitted on the sessions before them and ranks
the target of every held-out prefix among all items. Test sessions are not used: the last 3,416 of ``yoochoose_times``,
the only one of these logs with times, are its test day and are left out. The defaults in :mod:`graphmeta.baselines` and
the figures in its docstrings come from here.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from graphmeta.baselines import ItemKNN, SessionKNN, Stan
from graphmeta.data.events import EventLog
from graphmeta.datasets import session_logs as datasets
from graphmeta.evaluation.ranking import evaluate
from graphmeta.protocols import Scorer
from graphmeta.sampling.samples import Samples, prefixes

HELD_OUT, TEST_DAY = 3_000, 3_416
Build = Callable[[EventLog], Scorer]


class LastClick:
    """A model that reads the last click only."""

    def __init__(self, model: Scorer) -> None:
        self.model, self.num_items = model, model.num_items

    def scores(self, samples: Samples) -> Tensor:
        """``[S, num_items]``."""
        return self.model.scores(replace(samples, begin=np.maximum(samples.begin, samples.end - 1)))


def without_itself(log: EventLog) -> ItemKNN:
    """Item-kNN without an item as its own neighbour."""
    model = ItemKNN(log)
    model.similarity = np.where(model.similar.rows == model.similar.value, 0.0, model.similarity)
    return model


def settings() -> dict[str, dict[str, Build]]:
    """The settings, by system and by difference from its defaults."""
    return {
        "item_knn": {
            "defaults": ItemKNN,
            **varied(ItemKNN, alpha=(0.5, 0.6, 0.7, 0.8, 0.9, 1.0), neighbours=(500,)),
            "last click alone": lambda log: LastClick(ItemKNN(log)),
            "without itself": without_itself,
            "last click alone, without itself": lambda log: LastClick(without_itself(log)),
        },
        "session_knn": {"defaults": SessionKNN, **varied(SessionKNN, idf=(False,), neighbours=(500,))},
        "stan": {
            "defaults": Stan,
            **varied(Stan, lambda1=(None, 1.0, 3.5), lambda2=(None, 0.5, 1.0, 20.0), lambda3=(None, 2.0, 10.0)),
            **varied(Stan, idf=(False,), neighbours=(100,), recent=(1000,)),
        },
    }


def varied(build: Callable[..., Scorer], **options: tuple[Any, ...]) -> dict[str, Build]:
    """One option changed at a time."""
    return {f"{name}={value}": partial(build, **{name: value}) for name, values in options.items() for value in values}


def logs() -> dict[str, Callable[[], EventLog]]:
    """The training logs."""
    return {
        "diginetica": lambda: datasets.diginetica(categories=False)[0],
        "yoochoose1_64": lambda: datasets.yoochoose_1_64()[0],
        "yoochoose_times": lambda: split(datasets.yoochoose_times(), TEST_DAY)[0],
    }


def split(log: EventLog, last: int) -> tuple[EventLog, EventLog]:
    """The log without its last sessions, and those, numbered by the items of the whole."""
    late = np.arange(log.num_sessions) >= log.num_sessions - last
    return log.of_sessions(~late), log.of_sessions(late).aligned_to(log.items)


def compared(name: str, systems: list[str]) -> Iterator[str]:
    """A line per setting."""
    log = logs()[name]()
    learn, valid = split(log, HELD_OUT)
    learn, queries = learn.aligned_to(log.items), prefixes(valid)
    yield f"{name}: {learn.num_sessions:,} sessions, then {len(queries):,} prefixes, {log.num_items:,} items"
    for system in systems:
        for label, build in settings()[system].items():
            if "lambda2" in label and not log.has_time:
                continue
            found = evaluate(build(learn), queries, ks=(20,)).metrics
            yield f"  {system:12} {label:34} P@20 {100 * found['hit@20']:5.2f}  MRR@20 {100 * found['mrr@20']:5.2f}"


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("logs", nargs="*", help="all if none is named: " + ", ".join(logs()))
    parser.add_argument("--only", choices=settings(), action="append", help="compare this system's settings")
    options = parser.parse_args()
    for name in options.logs or logs():
        for line in compared(name, options.only or list(settings())):
            print(line, flush=True)


if __name__ == "__main__":
    main()
