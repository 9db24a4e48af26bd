"""Support and query: what a task may learn from, and what it is asked.

The task of a session: each click but the known last one is predicted from those before it (support), then the
next click from all of them (query). The query's own target is in no support row, by construction and by check.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch_geometric.data import HeteroData

from graphmeta.batch import Samples, ragged, session_batch, whole_sessions
from graphmeta.errors import InputError
from graphmeta.events import EventLog


@dataclass(frozen=True)
class TaskBatch:
    """The tasks of one step, task-major: ``support`` is None where no task has any support sample."""

    support: HeteroData | None
    query: HeteroData

    @property
    def num_tasks(self) -> int:
        """How many tasks there are."""
        return self.query.num_tasks

    def to(self, device: torch.device | str) -> TaskBatch:
        """The same tasks on another device."""
        return TaskBatch(None if self.support is None else self.support.to(device), self.query.to(device))


def support_of(query: Samples, *, max_support: int | None = None) -> tuple[Samples, np.ndarray]:
    """The support samples of each query sample, and the task (= query row) of each, sorted.

    For a query that knows clicks x_1 … x_n: (x_1 → x_2), (x_1 x_2 → x_3), …, (x_1 … x_{n-1} → x_n); with
    ``max_support``, only the last so many. Source: CBML, §4 (sub-sequences of a session as its support set).
    """
    count = np.maximum(query.lengths - 1, 0)
    if max_support is not None:
        count = np.minimum(count, max_support)
    end, _ = ragged(query.end - count, count)
    task = np.repeat(np.arange(len(query)), count)
    if not (end < query.end[task]).all():
        raise AssertionError("a support target lies at or behind its query target")
    return replace(query.take(task), end=end, target=query.item[end]), task


def task_batch(query: Samples, *, num_items: int, max_support: int | None = None) -> TaskBatch:
    """One task a query sample, with the support the sample itself contains."""
    support, task = support_of(query, max_support=max_support)
    asked = session_batch(query, num_items=num_items, task=np.arange(len(query)), num_tasks=len(query))
    if len(support) == 0:
        return TaskBatch(None, asked)
    return TaskBatch(session_batch(support, num_items=num_items, task=task, num_tasks=len(query)), asked)


@dataclass(frozen=True)
class TaskSampler:
    """Batches of sample rows for one epoch: shuffled, then grouped by length so that little is padded.

    The order depends on ``(seed, epoch)`` alone, so epoch 7 can be run again without running epochs 0 to 6.

    Args:
        batch_size: samples (tasks) a batch.
        pool: how many batches are sorted by length at a time; 1 leaves the shuffled order as it is.
    """

    batch_size: int = 64
    pool: int = 1
    seed: int = 0

    def epoch(self, lengths: np.ndarray, epoch: int) -> Iterator[np.ndarray]:
        """Rows of each batch, every row once."""
        random = np.random.default_rng([self.seed, epoch])
        order = random.permutation(len(lengths))
        if self.pool > 1:
            size = self.batch_size * self.pool
            pools = [order[at : at + size] for at in range(0, len(order), size)]
            order = np.concatenate([rows[np.argsort(lengths[rows], kind="stable")] for rows in pools] or [order])
        batches = [order[at : at + self.batch_size] for at in range(0, len(order), self.batch_size)]
        for at in random.permutation(len(batches)) if self.pool > 1 else range(len(batches)):
            yield batches[at]


Batches = Callable[..., Iterator[np.ndarray]]


def shuffled(samples: Samples, *, batch_size: int, seed: int, epoch: int, pool: int = 1) -> Iterator[np.ndarray]:
    """Rows of each batch of an epoch, by a :class:`TaskSampler`."""
    return TaskSampler(batch_size, pool, seed).epoch(samples.lengths, epoch)


def user_parallel(samples: Samples, *, batch_size: int, seed: int, epoch: int) -> Iterator[np.ndarray]:
    """Each of ``batch_size`` rows walks one user's samples in order; the row that is free first takes the next user.

    Batch n holds what the rows read in step n, so a user's sessions come one after another, never two in a batch.
    Users come in an order that depends on ``(seed, epoch)`` alone; a sample without a user is one of its own. The
    last batches belong to the few users with most samples: where these are few and have many, take :func:`shuffled`.

    Source: ASARS, section 3.3.
    """
    random, size = np.random.default_rng([seed, epoch]), len(samples)
    nobody = -1 - np.arange(size)
    user = nobody if samples.user is None else np.where(samples.user >= 0, samples.user, nobody)
    _, user = np.unique(user, return_inverse=True)
    order, count = np.argsort(user, kind="stable"), np.bincount(user)
    first = np.cumsum(count) - count
    step, free = np.empty(size, dtype=np.int64), [0] * batch_size
    for one in random.permutation(len(count)):
        begins, many = heapq.heappop(free), int(count[one])
        step[order[first[one] : first[one] + many]] = begins + np.arange(many)
        heapq.heappush(free, begins + many)
    by_step = np.argsort(step, kind="stable")
    return iter(np.split(by_step, np.flatnonzero(np.diff(step[by_step])) + 1) if size else [])


def user_histories(log: EventLog, *, max_length: int = 50) -> Samples:
    """All clicks of each user as one session, in pieces as :func:`~graphmeta.batch.whole_sessions` makes them.

    Sessions without a user stay by themselves. For encoders whose state runs on over a user's sessions.

    Raises:
        InputError: a log without users.
    """
    return whole_sessions(_by_user(log)[0], max_length=max_length)


def with_history(samples: Samples, log: EventLog, *, max_length: int = 50) -> Samples:
    """The same samples, each beginning with the clicks of its user's earlier sessions; ``max_length`` clicks at most.

    Args:
        samples: of this log, e.g. ``last_clicks(log)`` or some of its rows.

    Raises:
        InputError: a log without users.
    """
    rows, order = _by_user(log)
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    end = place[samples.end - 1] + 1
    begin = np.maximum(rows.ptr[rows.session[end - 1]], end - max_length)
    return replace(samples, item=rows.item, time=rows.time if log.has_time else None, begin=begin, end=end)


def _by_user(log: EventLog) -> tuple[EventLog, np.ndarray]:
    """The log with each user's clicks as one session, and the old row of each event."""
    if log.session_user is None:
        raise InputError("nobody knows whose sessions these are; name the log's user column")
    nobody = -1 - np.arange(log.num_sessions)
    _, first, owner = np.unique(
        np.where(log.session_user >= 0, log.session_user, nobody), return_index=True, return_inverse=True
    )
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))  # by each user's first session, as sessions are numbered
    session = rank[owner][log.session]
    order, first = np.lexsort((log.time, session)), np.sort(first)  # by time also where sessions overlap
    whole = replace(
        log,
        session=session[order],
        item=log.item[order],
        time=log.time[order],
        sessions=log.sessions[first],
        session_user=log.session_user[first],
        value=None if log.value is None else log.value[order],
    )
    return whole, order
