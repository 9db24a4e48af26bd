"""Support and query: what a task may learn from, and what it is asked.

The task of a session: each click but the known last one is predicted from those before it (support), then the
next click from all of them (query). The query's own target is in no support row, by construction and by check.

Where support and query are chosen instead (some ratings of a person are known, others are asked for), they are
:class:`Tasks`; training, adapting and scoring take either.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from torch_geometric.data import HeteroData

from graphmeta.batch import Samples, last_clicks, ragged, session_batch
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
    return replace(query.take(task), end=end, target=query.item[end], value=None), task


@dataclass(frozen=True)
class Tasks:
    """Tasks with a support and queries of their own: task t's are the rows ``ptr[t]:ptr[t + 1]`` of each.

    Args:
        support: what a task may learn from; query: what it is asked, any number of samples a task.

    Shapes: support_ptr, query_ptr ``[T + 1]`` int64.
    """

    support: Samples
    query: Samples
    support_ptr: np.ndarray
    query_ptr: np.ndarray

    def __len__(self) -> int:
        return len(self.query_ptr) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Support samples of each task, ``[T]``."""
        return np.diff(self.support_ptr)

    def take(self, rows: np.ndarray) -> Tasks:
        """These tasks, in this order."""
        support, support_ptr = ragged(self.support_ptr[:-1][rows], self.lengths[rows])
        query, query_ptr = ragged(self.query_ptr[:-1][rows], np.diff(self.query_ptr)[rows])
        return Tasks(self.support.take(support), self.query.take(query), support_ptr, query_ptr)

    def first_queries(self) -> Tasks:
        """The same tasks with the first of their queries alone."""
        return replace(self, query=self.query.take(self.query_ptr[:-1]), query_ptr=np.arange(len(self) + 1))

    def latest(self, length: int) -> Tasks:
        """The same tasks with at most the last ``length`` clicks of each sample."""
        return replace(self, support=self.support.latest(length), query=self.query.latest(length))

    def batch(self, *, num_items: int) -> TaskBatch:
        """The tasks as graphs."""
        parts = []
        for samples, ptr in ((self.support, self.support_ptr), (self.query, self.query_ptr)):
            task = np.repeat(np.arange(len(self)), np.diff(ptr))
            parts.append(session_batch(samples, num_items=num_items, task=task, num_tasks=len(self)))
        return TaskBatch(parts[0] if len(self.support) else None, parts[1])


@dataclass(frozen=True)
class Sizes:
    """How large tasks are: support samples, and rows (clicks of support and query samples) of each, both ``[T]``."""

    support: np.ndarray
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)


def sizes_of(samples: Samples | Tasks, max_support: int) -> Sizes:
    """The sizes of these tasks, or of one task a sample with its own clicks as support (:func:`support_of`)."""
    if isinstance(samples, Tasks):
        clicks = [
            np.add.reduceat(np.append(part.lengths, 0), ptr[:-1]) * (np.diff(ptr) > 0)
            for part, ptr in ((samples.support, samples.support_ptr), (samples.query, samples.query_ptr))
        ]
        return Sizes(samples.lengths, clicks[0] + clicks[1])
    length = samples.lengths
    support = np.minimum(np.maximum(length - 1, 0), max_support)
    shortest = length - support
    return Sizes(support, support * (shortest + length - 1) // 2 + length)


def tasks_of(log: EventLog, support: np.ndarray, query: np.ndarray) -> Tasks:
    """One task for each session of the log with a query: what is known of it, and what it is asked.

    For ratings, a "session" is a person. A query knows all the clicks of its support; a support sample knows those
    before it (the first knows none), so that no sample sees its own target.

    Args:
        support, query: which events are which, ``[N]`` bool; an event may be neither.

    Raises:
        InputError: an event that is both, or no query at all.
    """
    if (support & query).any():
        raise InputError(f"event {np.argmax(support & query)} is both support and query; keep it in one")
    if not query.any():
        raise InputError("no event is asked about; mark some as queries")
    asked = np.unique(log.session[query])
    known = support & np.isin(log.session, asked)
    support_ptr, query_ptr = (_pointer(log.session[part], asked) for part in (known, query))
    begin, size = support_ptr[:-1], np.diff(support_ptr)
    own, task = np.arange(support_ptr[-1]), np.repeat(np.arange(len(asked)), np.diff(query_ptr))
    item = log.item[known]

    def samples(events: np.ndarray, begin: np.ndarray, end: np.ndarray) -> Samples:
        session = log.session[events]
        user = None if log.session_user is None else log.session_user[session]
        value = None if log.value is None else log.value[events]
        return Samples(item, begin, end, log.item[events], session, None, user, value)

    before = samples(known, np.repeat(begin, size), own)
    return Tasks(before, samples(query, begin[task], (begin + size)[task]), support_ptr, query_ptr)


def known_clicks(query: Samples, *, max_support: int | None = None) -> Tasks:
    """One task a sample, whose support is all its known clicks: the first is predicted from none, then as above.

    For systems that see a set where others see a session, so that a single known click is something to learn from.
    With ``max_support``, only the last so many are targets.
    """
    count = query.lengths if max_support is None else np.minimum(query.lengths, max_support)
    at, ptr = ragged(query.end - count, count)
    task = np.repeat(np.arange(len(query)), count)
    support = replace(query.take(task), end=at, target=query.item[at], value=None)
    return Tasks(support, query, ptr, np.arange(len(query) + 1))


def click_after(log: EventLog, known: int) -> Samples:
    """The first ``known`` clicks of each session that has more, the next one the target: few-shot questions."""
    longer = last_clicks(log, min_length=known + 1, max_length=int(log.lengths.max(initial=1)))
    end = longer.begin + known
    return replace(longer, end=end, target=longer.item[end])


def drawn_tasks(log: EventLog, *, least: int = 2, most: int = 10, seed: int = 0, max_length: int = 50) -> Tasks:
    """A few records of each session drawn at random; half of them, rounded down, are known, the others are asked.

    ``n`` is drawn evenly from ``least`` to ``most`` (or what there is); a session of fewer different items is left
    out. Each item counts once, at its first event.

    Args:
        log: a "session" is a person's history, drawn from as a whole.
        max_length: of what is known, the last so many are looked at.

    Raises:
        InputError: no session of two different items, or limits that make no task.

    Source: MetaCF (Wei et al. 2020), section on data.
    """
    if not 2 <= least <= most:
        raise InputError(f"least={least} and most={most} records of a person: 2 at least, and no more least than most")
    random = np.random.default_rng(seed)
    _, first = np.unique(log.session * log.num_items + log.item, return_index=True)
    rows = np.sort(first)
    count = np.bincount(log.session[rows], minlength=log.num_sessions)
    wanted = random.integers(least, np.maximum(np.minimum(most, count), least), endpoint=True)
    wanted[count < least] = 0
    shuffled_rows = rows[np.lexsort((random.random(len(rows)), log.session[rows]))]
    session = log.session[shuffled_rows]
    place = np.arange(len(rows)) - (np.cumsum(count) - count)[session]
    known, asked = np.zeros((2, log.num_events), dtype=bool)
    known[shuffled_rows[place < wanted[session] // 2]] = True
    asked[shuffled_rows[(place >= wanted[session] // 2) & (place < wanted[session])]] = True
    return tasks_of(log, known, asked).latest(max_length)


def _pointer(session: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Where the rows of each wanted session begin, in rows sorted by session."""
    return np.concatenate([np.searchsorted(session, wanted), [len(session)]]).astype(np.int64)


def random_queries(
    log: EventLog, among: np.ndarray, *, queries: int = 10, least: int = 13, most: int = 100, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Which events are known and which are asked about: of each session, ``queries`` events at random are asked.

    Only sessions with ``least`` to ``most`` events among those allowed take part.

    Args:
        among: the events that may be either, ``[N]`` bool.

    Source: MeLU, section 4.1 (ten of 13 to 100 ratings). Differs: the draw has a seed.
    """
    count = np.bincount(log.session[among], minlength=log.num_sessions)
    among = among & ((count >= least) & (count <= most))[log.session]
    lot = np.where(among, np.random.default_rng(seed).random(log.num_events), 2.0)
    order = np.lexsort((lot, log.session))
    place = np.empty(log.num_events, dtype=np.int64)
    place[order] = np.arange(log.num_events) - log.ptr[log.session]
    query = among & (place < queries)
    return among & ~query, query


@dataclass(frozen=True)
class RandomQueries:
    """The tasks of a log by :func:`random_queries`; ``System(samples=RandomQueries())`` trains on them."""

    queries: int = 10
    least: int = 13
    most: int = 100
    seed: int = 0

    def __call__(self, log: EventLog, *, max_length: int = 50) -> Tasks:
        """One task for each session with enough events; a sample knows the ``max_length`` clicks before it."""
        if log.value is None:
            raise InputError("the log has no ratings; name their column when reading it (value=)")
        return self.of(log, np.ones(log.num_events, dtype=bool)).latest(max_length)

    def known(self, log: EventLog) -> EventLog:
        """The log without what the tasks of it ask about; ids keep their numbers."""
        _, asked = random_queries(log, np.ones(log.num_events, dtype=bool), **asdict(self))
        return log.without(asked)

    def of(self, log: EventLog, among: np.ndarray) -> Tasks:
        """The tasks of these events (a mask ``[N]``) alone."""
        return tasks_of(log, *random_queries(log, among, **asdict(self)))


def task_batch(query: Samples | Tasks, *, num_items: int, max_support: int | None = None) -> TaskBatch:
    """The tasks as graphs: those given, or one a query sample with the support that the sample itself contains."""
    if isinstance(query, Tasks):
        return query.batch(num_items=num_items)
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


Batches = Callable[..., Iterator[np.ndarray]]  # the last two below, for Samples or Tasks


def shuffled(
    samples: Samples | Tasks, *, batch_size: int, seed: int, epoch: int, pool: int = 1
) -> Iterator[np.ndarray]:
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
