"""Tasks of support and query samples.

A session is a task: its observed clicks after the first are the support targets, each predicted from the clicks before
it; the query predicts the next click from all of them. The query's target click is in no support sample (its item
may be); this is checked.

Tasks with a given support and query (e.g. ratings of a user split in two) are :class:`Tasks`; training, adaptation and
scoring take either.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from torch_geometric.data import HeteroData

from graphmeta.data.events import EventLog
from graphmeta.errors import InputError
from graphmeta.sampling.padding import pointer, ragged
from graphmeta.sampling.samples import Samples
from graphmeta.sampling.session_batch import session_batch

MakesBatches = Callable[..., HeteroData]  # (samples, num_items=, task=, num_tasks=) -> batch


@dataclass(frozen=True)
class SharedSupport:
    """Which support samples tasks have, in a batch in which each distinct support sample is one row.

    Shapes: task, sample ``[N]`` int64, sorted by sample: task ``task[n]`` has the support sample ``sample[n]``, which
    is ``age[n]`` sessions old (None if the support has no ages); query_task ``[S]`` int64, the task of each query.
    """

    task: np.ndarray
    sample: np.ndarray
    age: np.ndarray | None
    query_task: np.ndarray
    num_tasks: int


@dataclass(frozen=True)
class TaskBatch:
    """A batch of tasks, grouped by task; ``support`` is None if no task has a support sample.

    With ``shared``, support and query are plain batches, not grouped by task, and tasks share support samples.
    """

    support: HeteroData | None
    query: HeteroData
    shared: SharedSupport | None = None

    @property
    def num_tasks(self) -> int:
        """Number of tasks."""
        return self.query.num_tasks if self.shared is None else self.shared.num_tasks

    def to(self, device: torch.device | str) -> TaskBatch:
        """The same tasks on another device."""
        support = None if self.support is None else self.support.to(device)
        return TaskBatch(support, self.query.to(device), self.shared)


def support_of(query: Samples, *, max_support: int | None = None) -> tuple[Samples, np.ndarray]:
    """The support samples of each query sample, and the task (= query row) of each, sorted.

    Every click but the first is a target (:func:`~graphmeta.sampling.few_shot.support_from_clicks`: the first too).

    For a query with context x_1 … x_n: (x_1 → x_2), (x_1 x_2 → x_3), …, (x_1 … x_{n-1} → x_n); with ``max_support``,
    only the last ``max_support`` of them. Source: CBML, §4 (sub-sequences of a session as its support set).
    """
    count = query.support_sizes
    if max_support is not None:
        count = np.minimum(count, max_support)
    end, _ = ragged(query.end - count, count)
    task = np.repeat(np.arange(len(query)), count)
    if not (end < query.end[task]).all():
        raise AssertionError("a support target is at or after its query target")
    return replace(query.take(task), end=end, target=query.item[end], value=None), task


@dataclass(frozen=True)
class Tasks:
    """Tasks with given support and query samples: task t has the rows ``X_ptr[t]:X_ptr[t + 1]`` of each X.

    Args:
        support, query: the samples of all tasks, any number per task.

    Shapes: support_ptr, query_ptr ``[T + 1]`` int64.
    """

    support: Samples
    query: Samples
    support_ptr: np.ndarray
    query_ptr: np.ndarray
    has_given_support: ClassVar[bool] = True

    def __len__(self) -> int:
        return len(self.query_ptr) - 1

    @property
    def support_sizes(self) -> np.ndarray:
        """Number of support samples of each task, ``[T]``."""
        return np.diff(self.support_ptr)

    def take(self, rows: np.ndarray) -> Tasks:
        """These tasks, in this order."""
        support, support_ptr = ragged(self.support_ptr[:-1][rows], self.support_sizes[rows])
        query, query_ptr = ragged(self.query_ptr[:-1][rows], np.diff(self.query_ptr)[rows])
        return Tasks(self.support.take(support), self.query.take(query), support_ptr, query_ptr)

    def with_support(self, make: Callable[[Samples], Tasks]) -> Tasks:
        """The tasks themselves, whose support is given."""
        return self

    def task_rows(self, max_support: int) -> tuple[np.ndarray, np.ndarray]:
        """Support samples of each task, and the clicks of its support and query together, ``[T]`` each."""
        clicks = [
            np.add.reduceat(np.append(part.lengths, 0), ptr[:-1]) * (np.diff(ptr) > 0)
            for part, ptr in ((self.support, self.support_ptr), (self.query, self.query_ptr))
        ]
        return self.support_sizes, clicks[0] + clicks[1]

    def first_queries(self) -> Tasks:
        """The same tasks with only their first query."""
        return replace(self, query=self.query.take(self.query_ptr[:-1]), query_ptr=np.arange(len(self) + 1))

    def latest(self, length: int) -> Tasks:
        """The same tasks with at most the last ``length`` clicks of each sample."""
        return replace(self, support=self.support.latest(length), query=self.query.latest(length))

    def distinct_support(self) -> tuple[Samples, SharedSupport]:
        """Each distinct support sample once, and which of them each task has."""
        own, task = self.support, np.repeat(np.arange(len(self)), self.support_sizes)
        names = ("begin", "end", "target", "session", "user", "value", "start")
        columns = [column for name in names if (column := getattr(own, name)) is not None]
        keys = np.stack([np.asarray(column, dtype=np.float64) for column in columns], 1)
        _, first, sample = np.unique(keys, axis=0, return_index=True, return_inverse=True)
        order = np.argsort(sample, kind="stable")
        age = None if own.age is None else own.age[order]
        queries = np.repeat(np.arange(len(self)), np.diff(self.query_ptr))
        shared = SharedSupport(task[order], sample[order], age, queries, len(self))
        return replace(own.take(first), age=None), shared

    def batch(self, *, num_items: int, make: MakesBatches = session_batch, share: bool = False) -> TaskBatch:
        """The tasks as graphs, made by ``make``; with ``share``, with each distinct support sample once."""
        if share:
            support, shared = self.distinct_support()
            made = make(support, num_items=num_items) if len(support) else None
            return TaskBatch(made, make(self.query, num_items=num_items), shared)
        parts = []
        for samples, ptr in ((self.support, self.support_ptr), (self.query, self.query_ptr)):
            task = np.repeat(np.arange(len(self)), np.diff(ptr))
            parts.append(make(samples, num_items=num_items, task=task, num_tasks=len(self)))
        return TaskBatch(parts[0] if len(self.support) else None, parts[1])


@dataclass(frozen=True)
class TaskSizes:
    """Support samples of each task, and its rows (padded clicks of all its samples), both ``[T]``."""

    support: np.ndarray
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)


def task_sizes(samples: Samples | Tasks, max_support: int) -> TaskSizes:
    """The sizes of these tasks, or of one task per sample with its own clicks as support (:func:`support_of`)."""
    return TaskSizes(*samples.task_rows(max_support))


def tasks_of(log: EventLog, support: np.ndarray, query: np.ndarray) -> Tasks:
    """One task for each session of the log with a query event.

    For ratings, a "session" is a user. The context of a query is all support events of its session; that of a support
    sample is the support events before it (none for the first), so no sample contains its own target.

    Args:
        support, query: masks of the support and query events, ``[N]`` bool; an event may be neither.

    Raises:
        InputError: an event that is both, or no query event.
    """
    if (support & query).any():
        raise InputError(f"event {np.argmax(support & query)} is both support and query; keep it in one")
    if not query.any():
        raise InputError("there is no query event; mark some events as queries")
    sessions = np.unique(log.session[query])
    known = support & np.isin(log.session, sessions)
    support_ptr, query_ptr = (pointer(log.session[part], sessions) for part in (known, query))
    begin, size = support_ptr[:-1], np.diff(support_ptr)
    own, task = np.arange(support_ptr[-1]), np.repeat(np.arange(len(sessions)), np.diff(query_ptr))
    item = log.item[known]

    def samples(events: np.ndarray, begin: np.ndarray, end: np.ndarray) -> Samples:
        session = log.session[events]
        user = None if log.session_user is None else log.session_user[session]
        value = None if log.value is None else log.value[events]
        start = log.time[log.ptr[session]] if log.has_time else None
        return Samples(item, begin, end, log.item[events], session, None, user, value, log.items, log.users, start)

    before = samples(known, np.repeat(begin, size), own)
    return Tasks(before, samples(query, begin[task], (begin + size)[task]), support_ptr, query_ptr)


def task_batch(
    query: Samples | Tasks,
    *,
    num_items: int,
    max_support: int | None = None,
    make: MakesBatches = session_batch,
    share: bool = False,
) -> TaskBatch:
    """The tasks as graphs: those given, or one task per sample with its own clicks as support.

    Args:
        make: makes the batches of support and query: ``session_batch``, or a
            :class:`~graphmeta.sampling.subgraph.SubgraphSampler`.
        share: each distinct support sample is one row, which tasks share, see :class:`TaskBatch`.
    """
    tasks = query.with_support(partial(_own_support, max_support=max_support))
    return tasks.batch(num_items=num_items, make=make, share=share)


def _own_support(query: Samples, *, max_support: int | None) -> Tasks:
    """One task per sample, with its own clicks as support."""
    support, task = support_of(query, max_support=max_support)
    rows = np.arange(len(query) + 1)
    return Tasks(support, query, pointer(task, rows[:-1]), rows)
