"""Ragged incidence lists (items of each session, sessions of each item) and sparse sums that become scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from graphmeta.data.events import EventLog
from graphmeta.errors import InputError
from graphmeta.sampling.padding import ragged
from graphmeta.sampling.samples import Samples


@dataclass(frozen=True)
class Clicks:
    """The distinct items of each sample, sorted by sample and item: all ``[clicks]`` int64.

    ``count`` is the number of clicks on the item; place and step are defined in :mod:`graphmeta.baselines`.
    """

    sample: np.ndarray
    item: np.ndarray
    count: np.ndarray
    place: np.ndarray
    step: np.ndarray

    @classmethod
    def of(cls, samples: Samples, *, num_items: int) -> Clicks:
        """The clicks of these samples.

        Raises:
            InputError: an item number outside the training log's items.
        """
        click, ptr = samples.flat()
        if len(click) and (click.min() < 0 or click.max() >= num_items):
            raise InputError(
                f"the samples have item numbers outside the training log's 0 … {num_items - 1}; "
                f"align their log first: test.aligned_to(train.items, train.users)"
            )
        sample = np.repeat(np.arange(len(samples)), np.diff(ptr))
        step = ptr[sample + 1] - np.arange(len(click))
        latest_first = (sample * num_items + click)[::-1]
        pair, last, count = np.unique(latest_first, return_index=True, return_counts=True)
        sample, item = np.divmod(pair, max(num_items, 1))
        step = step[::-1][last]
        return cls(sample, item, count, samples.lengths[sample] + 1 - step, step)

    @property
    def length(self) -> np.ndarray:
        """Length L of the whole session."""
        return self.place + self.step - 1


@dataclass(frozen=True)
class Lists:
    """Ragged rows: row r holds ``value[ptr[r]:ptr[r + 1]]``."""

    ptr: np.ndarray
    value: np.ndarray

    @classmethod
    def of_pairs(cls, row: np.ndarray, value: np.ndarray, *, shape: tuple[int, int]) -> Lists:
        """The distinct pairs, with each row's values ascending."""
        pair = np.unique(row * shape[1] + value)
        row, value = np.divmod(pair, max(shape[1], 1))
        return cls(np.searchsorted(row, np.arange(shape[0] + 1)), value)

    @property
    def lengths(self) -> np.ndarray:
        """Number of values per row."""
        return np.diff(self.ptr)

    @property
    def rows(self) -> np.ndarray:
        """The row of each value."""
        return np.repeat(np.arange(len(self.ptr) - 1), self.lengths)

    def positions(self, rows: np.ndarray, *, most: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The (first ``most``) values of these rows: index into ``rows`` and position in ``value``."""
        lengths = self.lengths[rows]
        lengths = lengths if most is None else np.minimum(lengths, most)
        return np.repeat(np.arange(len(rows)), lengths), ragged(self.ptr[rows], lengths)[0]


def incidence(log: EventLog) -> tuple[Lists, Lists]:
    """The items of each session and the sessions of each item. Sessions are numbered by age, 0 the latest."""
    session, item = log.graph["session", "contains", "item"].edge_index.numpy()
    sessions, items = log.num_sessions, log.num_items
    age = sessions - 1 - session
    return Lists.of_pairs(age, item, shape=(sessions, items)), Lists.of_pairs(item, age, shape=(items, sessions))


def rank(group: np.ndarray) -> np.ndarray:
    """0, 1, … within each run of equal numbers of a sorted array."""
    return np.arange(len(group)) - np.searchsorted(group, group)


def largest(group: np.ndarray, value: np.ndarray, *, most: int) -> np.ndarray:
    """Positions of the ``most`` largest values of each group, in descending order; ties go to the earlier one.

    >>> largest(np.array([0, 0, 0, 1]), np.array([2, 3, 3, 1]), most=2).tolist()
    [1, 2, 3]
    """
    return np.lexsort((-value, group))[rank(group) < most]


def dense(sample: np.ndarray, item: np.ndarray, *, weight: np.ndarray, shape: tuple[int, int]) -> Tensor:
    """Sums of the weights per sample and item, ``shape`` float32; 0 where there is none.

    Summed in double precision and in the given order, so a row is the same in every batch.
    """
    cell, term = np.unique(sample * shape[1] + item, return_inverse=True)
    scores = torch.zeros(shape, dtype=torch.float32)
    scores.view(-1)[torch.from_numpy(cell)] = torch.from_numpy(np.bincount(term, weight)).float()
    return scores
