"""Samples: contexts (contiguous windows of clicks) and their next items, for training and evaluation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from graphmeta.data.events import EventLog
from graphmeta.data.splits import check_log
from graphmeta.data.tables import EntityTable, same_ids
from graphmeta.errors import InputError
from graphmeta.sampling.padding import ragged

if TYPE_CHECKING:
    from graphmeta.sampling.tasks import Tasks
    from graphmeta.sampling.user_histories import Earlier


@dataclass(frozen=True)
class Samples:
    """Sample s has the context ``item[begin[s]:end[s]]`` and the next item ``target[s]`` (-1: unknown).

    A sample stores a range of the log's clicks, not a copy.

    Shapes: item ``[N]`` (the log's clicks); begin, end, target, session ``[S]`` (its index in the log); all int64.
    Optional: ``time [N]`` float64 seconds,
    ``user [S]`` int64 (-1: unknown), ``value [S]`` float64, the rating of the target, ``age [S]`` float64, how many
    sessions before the task's query a support sample's session is, ``start [S]`` float64 seconds, the time of the first
    click of the sample's session (infinite: now), and ``earlier``, the user's earlier sessions.

    ``items`` and ``users`` are the tables that the indices refer to, if known.
    """

    item: np.ndarray
    begin: np.ndarray
    end: np.ndarray
    target: np.ndarray
    session: np.ndarray
    time: np.ndarray | None = None
    user: np.ndarray | None = None
    value: np.ndarray | None = None
    items: EntityTable | None = field(default=None, repr=False)
    users: EntityTable | None = field(default=None, repr=False)
    age: np.ndarray | None = None
    start: np.ndarray | None = None
    earlier: Earlier | None = field(default=None, repr=False)

    has_given_support: ClassVar[bool] = False  # whether the samples are tasks with a given support

    def __len__(self) -> int:
        return len(self.begin)

    @property
    def query(self) -> Samples:
        """The query samples: the samples themselves."""
        return self

    @property
    def query_ptr(self) -> np.ndarray:
        """Pointer of the queries if each sample is a task, ``[S + 1]``: one query each."""
        return np.arange(len(self) + 1)

    def with_support(self, make: Callable[[Samples], Tasks]) -> Tasks:
        """One task per sample, with the support that ``make`` adds; tasks with a given support keep theirs."""
        return make(self)

    def task_rows(self, max_support: int) -> tuple[np.ndarray, np.ndarray]:
        """If each sample is a task: its support samples, and the clicks of support and query together, ``[S]`` each."""
        length, support = self.lengths, np.minimum(self.support_sizes, max_support)
        shortest = length - support
        return support, support * (shortest + length - 1) // 2 + length

    @property
    def support(self) -> Samples:
        """Empty; ``support_of`` makes the support from each sample's own clicks."""
        return self.take(slice(0, 0))

    @property
    def support_sizes(self) -> np.ndarray:
        """Number of support samples if each sample is a task: its clicks after the first, ``[S]``."""
        return np.maximum(self.lengths - 1, 0)

    @property
    def lengths(self) -> np.ndarray:
        """Context length of each sample (clicks observed), ``[S]``."""
        return self.end - self.begin

    def check_items(self, items: EntityTable | None, *, size: int | None = None) -> None:
        """Check that the samples have the item indices of a model.

        Args:
            items: the model's table.
            size: its number of items, which bounds the indices if either table is unknown.

        Raises:
            InputError: samples of another vocabulary, or an index that is not below ``size``.
        """
        known = np.arange(0) if self.items is not None and items is not None else np.append(self.flat()[0], self.target)
        if size is not None and (known >= size).any():
            raise InputError(
                f"the samples have item {known.max()} and the model items 0 to {size - 1}: they are of another "
                f"vocabulary; make them from log.aligned_to(model.items, model.users)"
            )
        if not same_ids(self.items, items):
            raise InputError(
                "the samples have other item indices than the model; pass the log itself to evaluate, or align it: "
                "log.aligned_to(model.items, model.users)"
            )

    def take(self, rows: np.ndarray | slice) -> Samples:
        """These samples (a mask, slice or indices); the clicks are shared, not copied."""
        names = ("begin", "end", "target", "session", "user", "value", "age", "start")
        known = {name: getattr(self, name) for name in names}
        taken = {name: None if column is None else column[rows] for name, column in known.items()}
        return replace(self, **taken, earlier=None if self.earlier is None else self.earlier.take(rows))

    def latest(self, length: int) -> Samples:
        """The samples with at most their last ``length`` clicks."""
        return replace(self, begin=np.maximum(self.begin, self.end - length))

    def flat(self) -> tuple[np.ndarray, np.ndarray]:
        """All clicks concatenated ``[E]``, and the pointer of the samples ``[S + 1]``."""
        where, ptr = ragged(self.begin, self.lengths)
        return self.item[where], ptr


def prefixes(log: EventLog, *, max_length: int = 50) -> Samples:
    """Every click but the first of each session as a target; its context has at most ``max_length`` clicks.

    >>> from graphmeta.testing import fake_log
    >>> len(prefixes(fake_log(sessions=10, length=6)))
    50
    """
    check_log("prefixes", log)
    begin = log.ptr[:-1][log.session]
    at = np.arange(log.num_events)
    rows = at[at > begin]
    return samples_at(log, np.maximum(begin[rows], rows - max_length), rows, log.session[rows])


def last_clicks(log: EventLog, *, min_length: int = 2, max_length: int = 50) -> Samples:
    """One sample per session of at least ``min_length`` clicks: its last click is the target.

    >>> from graphmeta.testing import fake_log
    >>> last_clicks(fake_log(sessions=3, length=6)).lengths.tolist()
    [5, 5, 5]
    """
    check_log("last_clicks", log)
    chosen = np.flatnonzero(log.lengths >= max(min_length, 2))
    at = log.ptr[chosen + 1] - 1
    return samples_at(log, np.maximum(log.ptr[chosen], at - max_length), at, chosen)


def whole_sessions(log: EventLog, *, max_length: int = 50) -> Samples:
    """Each session once, with its last click as target; longer ones are split into windows of ``max_length`` clicks.

    With :class:`~graphmeta.nn.losses.losses.AllPositions`, all clicks but the first of each session are targets, as
    in :func:`prefixes`, but each click is encoded once.
    """
    check_log("whole_sessions", log)
    steps = np.maximum(log.lengths - 1, 0)
    piece, ptr = ragged(np.zeros_like(steps), -(-steps // max_length))
    session = np.repeat(np.arange(len(steps)), np.diff(ptr))
    begin = log.ptr[session] + piece * max_length
    return samples_at(log, begin, np.minimum(begin + max_length, log.ptr[session + 1] - 1), session)


def joined(one: Samples, other: Samples) -> Samples:
    """The samples of both, which are of one log and without ``earlier`` sessions."""
    offset = len(one.item)
    moved = replace(other, begin=other.begin + offset, end=other.end + offset)

    def both(name: str) -> np.ndarray | None:
        parts = getattr(one, name), getattr(moved, name)
        return None if parts[0] is None or parts[1] is None else np.concatenate(parts)

    names = ("item", "begin", "end", "target", "session", "time", "user", "value", "age", "start")
    return replace(one, **{name: both(name) for name in names})


def samples_at(log: EventLog, begin: np.ndarray, end: np.ndarray, session: np.ndarray) -> Samples:
    """Samples of these sessions, with the contexts ``begin`` to ``end`` and the clicks at ``end`` as targets."""
    user = None if log.session_user is None else log.session_user[session]
    time, start = (log.time, log.time[log.ptr[session]]) if log.has_time else (None, None)
    target, tables = log.item[end], (log.items, log.users)
    return Samples(log.item, begin, end, target, session, time, user, None, *tables, start=start)


def sessions_without_target(
    sessions: list[np.ndarray],
    *,
    max_length: int = 50,
    times: list[np.ndarray] | None = None,
    users: np.ndarray | None = None,
) -> Samples:
    """Samples without a target, for recommending. Sessions are arrays of item indices.

    Args:
        times: seconds of each click, shaped as ``sessions``.
        users: ``[S]`` user indices, -1 if unknown.
    """
    ptr = np.concatenate([[0], np.cumsum([len(s) for s in sessions])]).astype(np.int64)
    item = np.concatenate([*sessions, np.zeros(0, np.int64)]).astype(np.int64)
    begin = np.maximum(ptr[:-1], ptr[1:] - max_length)
    time = None if times is None else np.concatenate([*times, np.zeros(0)])
    first = np.where(np.diff(ptr) > 0, ptr[:-1], len(item))
    start = np.append(np.full(len(item), np.inf) if time is None else time, np.inf)[first]  # infinite: now
    target, number = np.full(len(sessions), -1), np.arange(len(sessions))
    return Samples(item, begin, ptr[1:], target, number, time, users, start=start)
