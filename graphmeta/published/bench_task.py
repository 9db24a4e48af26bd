"""Bench of a recommendation task: baselines of users and ContextGNN, with the shipped settings."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from graphmeta.baselines import UPCF, PersonalFrequency, Popularity, TifuKNN
from graphmeta.baselines.registry import MOST_USERS
from graphmeta.data.events import EventLog
from graphmeta.data.relbench import RecommendationTask
from graphmeta.data.splits import split_by_time
from graphmeta.errors import counted
from graphmeta.evaluation.intervals import Interval, Paired, bootstrap_interval, paired, scipy_stats
from graphmeta.evaluation.next_basket import BasketResult, evaluate_next_basket
from graphmeta.evaluation.precision import average_precision
from graphmeta.protocols import Bar, Scorer
from graphmeta.published.training_plan import Plan, Say, train_plan
from graphmeta.training.run import Checkpoint


@dataclass(frozen=True)
class TaskRow:
    """One system: MAP@k over the labelled users with its interval, and the seconds of its fit and test.

    ``ahead`` compares it with the next row, which has a lower MAP; None in the last row.
    """

    name: str
    map: Interval
    fit_seconds: float
    test_seconds: float
    ahead: Paired | None = None


@dataclass(frozen=True)
class TaskBench:
    """The rows of one task by falling MAP@k."""

    log: str
    k: int
    sizes: dict[str, int]
    rows: tuple[TaskRow, ...]

    def summary(self) -> str:
        """The sizes of the task in one line."""
        sizes = self.sizes
        return (
            f"{self.log}: {counted(sizes['known events'], 'known event')}, {counted(sizes['items'], 'item')}; "
            f"{counted(sizes['labelled users'], 'labelled user')}"
        )

    def document(self) -> dict[str, Any]:
        """The whole result as JSON values."""
        return asdict(self)


def bench_task(task: RecommendationTask, name: str, *, seed: int = 0, width: int = 64, say: Say, bar: Bar) -> TaskBench:
    """Fit popularity, personal frequency, TIFU-kNN and UP-CF (these two for few users) and ``context_gnn`` on the known
    events of a task, and rank each labelled user's items.

    Nothing is chosen on the test labels; all settings are the shipped ones, for next baskets (``empty`` 1).

    Args:
        name: of the task, for display.
        seed: of training and resamples.
        width: of item vectors.
        say: called with each log line.
        bar: ``(batches, name) -> batches``, shows progress.

    Raises:
        InputError: scipy is not installed.
    """
    scipy_stats()
    known = task.known
    values: dict[str, np.ndarray] = {}
    seconds: dict[str, tuple[float, float]] = {}
    for title, make in _kinds(known, seed, width, say, bar).items():
        say(f"fitting {title}")
        began = time.perf_counter()
        model = make(known)
        fitted = time.perf_counter() - began
        say(f"evaluating {title} on {counted(task.test.num_sessions, 'user')}")
        found = evaluate_next_basket(model, task.test, history=known, ks=(task.k,))
        values[title], seconds[title] = _of_users(found, task.k), (fitted, found.seconds)
    order = sorted(values, key=lambda title: -values[title].mean())
    rows = []
    for number, title in enumerate(order):
        ahead = paired(values[title], values[order[number + 1]]) if number + 1 < len(order) else None
        rows.append(TaskRow(title, bootstrap_interval(values[title], seed=seed), *seconds[title], ahead))
    sizes = {"known events": known.num_events, "items": known.num_items, "labelled users": task.test.num_sessions}
    return TaskBench(name, task.k, sizes, tuple(rows))


def _kinds(known: EventLog, seed: int, width: int, say: Say, bar: Bar) -> dict[str, Callable[[EventLog], Scorer]]:
    def context_gnn(log: EventLog) -> Scorer:
        plan = Plan("context_gnn", width, seed, options={"empty": 1.0})
        with TemporaryDirectory(prefix="graphmeta-") as folder:
            split = split_by_time(log, test=0.0, valid=0.1)
            return train_plan(plan, split, Checkpoint(Path(folder)), say=say, bar=bar).system

    found: dict[str, Callable[[EventLog], Scorer]] = {"popularity": Popularity, "personal_frequency": PersonalFrequency}
    if known.users is not None and len(known.users) <= MOST_USERS:
        found |= {"tifu_knn": TifuKNN, "up_cf": UPCF}
    return {**found, "context_gnn": context_gnn}


def _of_users(found: BasketResult, k: int) -> np.ndarray:
    """The average precision of each user, ``[U]``."""
    owner = torch.from_numpy(np.repeat(np.arange(len(found.users)), np.diff(found.ptr)))
    return average_precision(found.positions, owner, k).numpy()
