"""The items of users' earlier sessions, and sparse vectors of users over items."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from graphmeta.baselines.votes import OWN, Votes
from graphmeta.data.events import EventLog
from graphmeta.data.tables import EntityTable, same_ids
from graphmeta.errors import InputError
from graphmeta.sampling.padding import ragged
from graphmeta.sampling.samples import Samples
from graphmeta.sampling.user_histories import Earlier, UserHistories

_TERMS_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class UserItems:
    """The distinct items of each earlier session, sorted by row (a sample or a user), item and age: all ``[entries]``.

    age int64: sessions ago, 1 is the latest; days float64: before the query, 0 in a log without times. sessions
    ``[rows]``: the number of each row's sessions.
    """

    row: np.ndarray
    item: np.ndarray
    age: np.ndarray
    days: np.ndarray
    sessions: np.ndarray

    @classmethod
    def of(cls, earlier: Earlier | None, *, rows: int, items: EntityTable) -> UserItems:
        """The items of these sessions; none without any.

        Raises:
            InputError: sessions with other item indices than ``items``.
        """
        if earlier is None:
            nothing = np.zeros(0, dtype=np.int64)
            return cls(nothing, nothing, nothing, np.zeros(0), np.zeros(rows, dtype=np.int64))
        if not same_ids(earlier.histories.items, items):
            raise InputError(
                "the users' earlier sessions have other item indices than the training log; align their log first: "
                "UserHistories.of(log.aligned_to(train.items, log.users))"
            )
        events = earlier.columns()
        longest = int(events.age.max(initial=0)) + 1
        key = (events.sample * len(items) + events.n_id) * longest + events.age
        key, first = np.unique(key, return_index=True)
        pair, age = np.divmod(key, longest)
        row, item = np.divmod(pair, max(len(items), 1))
        return cls(row, item, age, events.days[first], earlier.sessions)

    def vectors(self, weight: np.ndarray, *, num_items: int) -> Vectors:
        """The sum of the entries' weights ``[entries]`` for each row and item."""
        pair, term = np.unique(self.row * num_items + self.item, return_inverse=True)
        row, item = np.divmod(pair, max(num_items, 1))
        ptr = np.searchsorted(row, np.arange(len(self.sessions) + 1))
        return Vectors(ptr, item, _sums(term, weight, len(pair)))


@dataclass(frozen=True)
class Vectors:
    """Sparse rows: row r has the weights ``weight[ptr[r]:ptr[r + 1]]`` of the columns ``column[ptr[r]:ptr[r + 1]]``.

    Shapes: ptr ``[rows + 1]``, column ``[entries]`` int64, ascending within a row; weight ``[entries]`` float64.
    """

    ptr: np.ndarray
    column: np.ndarray
    weight: np.ndarray

    def __len__(self) -> int:
        return len(self.ptr) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Number of entries of each row."""
        return np.diff(self.ptr)

    @property
    def rows(self) -> np.ndarray:
        """The row of each entry."""
        return np.repeat(np.arange(len(self)), self.lengths)

    @property
    def squares(self) -> np.ndarray:
        """The squared Euclidean norm of each row."""
        return _sums(self.rows, self.weight**2, len(self))

    def transposed(self, columns: int) -> Vectors:
        """The same entries by column, of which there are ``columns``."""
        order = np.argsort(self.column, kind="stable")
        ptr = np.searchsorted(self.column[order], np.arange(columns + 1))
        return Vectors(ptr, self.rows[order], self.weight[order])

    def take(self, rows: slice) -> Vectors:
        """Consecutive rows."""
        ptr = self.ptr[rows.start : rows.stop + 1]
        return Vectors(ptr - ptr[0], self.column[ptr[0] : ptr[-1]], self.weight[ptr[0] : ptr[-1]])

    def weighted(self, row: np.ndarray, chosen: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, ...]:
        """The entries of the ``chosen`` rows times a weight each, as row, column and weight of terms to be summed."""
        at, ptr = ragged(self.ptr[:-1][chosen], self.lengths[chosen])
        each = np.repeat(np.arange(len(chosen)), np.diff(ptr))
        return row[each], self.column[at], self.weight[at] * weight[each]

    def dense(self, columns: int) -> np.ndarray:
        """The rows with zeros for what they do not have, ``[rows, columns]``."""
        return _sums(self.rows * columns + self.column, self.weight, len(self) * columns).reshape(len(self), columns)

    def mixed(self, weight: np.ndarray, *, begin: np.ndarray) -> np.ndarray:
        """``begin + weight · rows``, in double precision and in the order of the rows: ``[S, columns]``.

        Shapes: weight ``[S, rows]``, begin ``[S, columns]`` float64.
        """
        total, of_row = np.ascontiguousarray(begin.T), np.ascontiguousarray(weight.T)
        for row in np.flatnonzero(of_row.any(1)):
            own = slice(self.ptr[row], self.ptr[row + 1])
            total[self.column[own]] += self.weight[own, None] * of_row[row]
        return total.T

    def products(self, by_column: Vectors, *, others: int) -> np.ndarray:
        """Inner products with all rows of another matrix, given by column: ``[rows, others]``."""
        row, other, term = by_column.weighted(self.rows, self.column, self.weight)
        return _sums(row * others + other, term, len(self) * others).reshape(len(self), others)

    def of_column(self, column: int) -> np.ndarray:
        """The weights of one column, ``[rows]``."""
        own = self.column == column
        return _sums(self.rows[own], self.weight[own], len(self))

    def largest(self, row: int) -> np.ndarray:
        """The columns of a row, the one with the largest weight first."""
        own = slice(self.ptr[row], self.ptr[row + 1])
        return self.column[own][np.argsort(-self.weight[own], kind="stable")]

    def terms(self, by_column: Vectors) -> np.ndarray:
        """Number of terms of each row's :meth:`products`."""
        return np.bincount(self.rows, by_column.lengths[self.column], minlength=len(self))


def blocks(work: np.ndarray) -> Iterator[slice]:
    """Consecutive rows of a few million numbers in all, given those of each row."""
    full = np.floor(np.cumsum(work) / _TERMS_AT_ONCE)
    ends = [*(np.flatnonzero(np.diff(full)) + 1).tolist(), len(work)]
    for begin, end in zip([0, *ends[:-1]], ends, strict=True):
        yield slice(begin, end)


def _sums(index: np.ndarray, weight: np.ndarray, size: int) -> np.ndarray:
    """Sums of the weights per index, ``[size]`` float64, also without any weight."""
    return np.bincount(index, weight, minlength=size).astype(np.float64, copy=False)


class TrainingUsers:
    """The users of a training log: their sessions, and which of them are the users of samples.

    Args:
        log: the training log; without users there are none.
    """

    def __init__(self, log: EventLog) -> None:
        self.histories = None if log.users is None else UserHistories.of(log)
        self.items, self.num_items = log.items, log.num_items

    @property
    def own(self) -> UserItems:
        """The items of each training user's sessions."""
        if self.histories is None:
            return UserItems.of(None, rows=0, items=self.items)
        users = self.histories.users.ids
        return UserItems.of(self.histories.for_users(users.tolist()), rows=len(users), items=self.items)

    def of_samples(self, earlier: Earlier | None, *, rows: int) -> np.ndarray:
        """The training user of each sample with an earlier session, -1 for others: ``[S]``."""
        if earlier is None or self.histories is None:
            return np.full(rows, -1)
        users, some = earlier.histories.users, earlier.sessions > 0
        known = self.histories.users.rows_of(users.ids)
        owner = np.searchsorted(earlier.histories.ptr, earlier.since, side="right") - 1
        return np.where(some, np.append(known, -1)[np.where(some, owner, -1)], -1)


def votes_of_users(vectors: Vectors, item: int, own: float, weight: np.ndarray) -> Votes:
    """The votes for an item: the user's ``own`` one, and those of training users.

    Shapes: weight ``[rows]``, of each training user.
    """
    value = weight * vectors.of_column(item)
    number = np.flatnonzero(value)
    items = [vectors.largest(int(one)) for one in number]
    if own:
        return Votes("user", np.append(OWN, number), np.append(own, value[number]), [np.zeros(0, np.int64), *items])
    return Votes("user", number, value[number], items)


def popular(log: EventLog) -> np.ndarray:
    """Training events of each item as a share of 1 + the most of any item, in [0, 1): ``[num_items]``."""
    return log.support / (1 + log.support.max(initial=0))


def with_popular(scores: Tensor, items: UserItems, popularity: np.ndarray) -> Tensor:
    """The scores ``[S, num_items]``, with popularity in the rows without an earlier session; changes ``scores``."""
    scores[torch.from_numpy(items.sessions == 0)] = torch.from_numpy(popularity).float()
    return scores


def own_items(samples: Samples, items: EntityTable) -> UserItems:
    """The items of the samples' earlier sessions."""
    return UserItems.of(samples.earlier, rows=len(samples), items=items)
