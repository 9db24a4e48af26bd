"""Batch sampling: which samples form a training batch, and in which order."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from graphmeta.protocols.members import ReadsMembers
from graphmeta.sampling.samples import Samples
from graphmeta.sampling.tasks import Tasks


@dataclass(frozen=True)
class TaskSampler:
    """Batches of sample rows for one epoch: shuffled; with ``bucket_batches`` > 1 bucketed by length, to limit
    padding.

    The order depends only on ``(seed, epoch)``, so epoch 7 can be repeated without epochs 0 to 6.

    Args:
        batch_size: samples (tasks) per batch.
        bucket_batches: batches per bucket; samples are sorted by length within a bucket (bucketing by length); 1 keeps
            the shuffled order.
    """

    batch_size: int = 64
    bucket_batches: int = 1
    seed: int = 0

    def epoch(self, sizes: np.ndarray, epoch: int) -> Iterator[np.ndarray]:
        """Rows of each batch; every row occurs once."""
        random = np.random.default_rng([self.seed, epoch])
        order = random.permutation(len(sizes))
        if self.bucket_batches > 1:
            order = _bucketed(order, sizes, self.batch_size * self.bucket_batches)
        batches = [order[at : at + self.batch_size] for at in range(0, len(order), self.batch_size)]
        for at in random.permutation(len(batches)) if self.bucket_batches > 1 else range(len(batches)):
            yield batches[at]


def _bucketed(order: np.ndarray, sizes: np.ndarray, length: int) -> np.ndarray:
    """The rows in order, but sorted by size within each bucket of ``length`` rows."""
    buckets = [order[at : at + length] for at in range(0, len(order), length)]
    return np.concatenate([rows[np.argsort(sizes[rows], kind="stable")] for rows in buckets] or [order])


Batches = Callable[..., Iterator[np.ndarray]]  # (samples, batch_size=, seed=, epoch=) -> row indices of each batch


@runtime_checkable
class ClickBudget(Protocol, metaclass=ReadsMembers):
    """A batch sampler that can fill batches up to a number of clicks (token-budget batches)."""

    def by_clicks(self, clicks: np.ndarray, *, budget: int, seed: int, epoch: int) -> Iterator[np.ndarray]:
        """Rows of each batch of an epoch; every row occurs once.

        Shapes: clicks ``[S]``, of each sample (or task).
        """
        ...


@dataclass(frozen=True)
class Shuffled:
    """Shuffled batches, of a number of samples (:class:`TaskSampler`) or of clicks.

    Args:
        bucket_batches: batches per bucket, see :class:`TaskSampler`.
    """

    bucket_batches: int = 1

    def __call__(self, samples: Samples | Tasks, *, batch_size: int, seed: int, epoch: int) -> Iterator[np.ndarray]:
        """Rows of each batch of an epoch."""
        return TaskSampler(batch_size, self.bucket_batches, seed).epoch(_sizes(samples), epoch)

    def by_clicks(self, clicks: np.ndarray, *, budget: int, seed: int, epoch: int) -> Iterator[np.ndarray]:
        """Rows of each batch: samples in order until their clicks would exceed the budget, at least one sample.

        The order depends only on ``(seed, epoch)``. A sample without clicks counts as one click.
        """
        clicks, random = np.maximum(clicks, 1), np.random.default_rng([seed, epoch])
        order = random.permutation(len(clicks))
        if self.bucket_batches > 1 and len(order):
            order = _bucketed(order, clicks, max(round(self.bucket_batches * budget / clicks.mean()), 1))
        total, begin, batches = np.cumsum(clicks[order]), 0, []
        while begin < len(order):
            before = total[begin - 1] if begin else 0
            end = max(int(np.searchsorted(total, before + budget, side="right")), begin + 1)
            batches.append(order[begin:end])
            begin = end
        return iter([batches[at] for at in random.permutation(len(batches))] if self.bucket_batches > 1 else batches)


def user_parallel(samples: Samples, *, batch_size: int, seed: int, epoch: int) -> Iterator[np.ndarray]:
    """User-parallel mini-batches: each of ``batch_size`` positions reads one user's samples, then the next's.

    Batch n holds the n-th sample of each position, so a user's sessions are in order and never two in one batch. The
    order of users depends only on ``(seed, epoch)``; a sample without a user counts as a user of its own. The last
    batches contain only the users with most samples; with few very active users, use :class:`Shuffled` instead.

    Source: ASARS, section 3.3.
    """
    random, size = np.random.default_rng([seed, epoch]), len(samples)
    unknown = -1 - np.arange(size)
    user = unknown if samples.user is None else np.where(samples.user >= 0, samples.user, unknown)
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


def _sizes(samples: Samples | Tasks) -> np.ndarray:
    """The support samples of each task; with users' earlier sessions, the events of these."""
    earlier = samples.earlier if isinstance(samples, Samples) else None
    return samples.support_sizes if earlier is None else earlier.events
