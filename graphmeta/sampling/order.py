"""The order of training: which samples make up a batch."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from graphmeta.sampling.samples import Samples
from graphmeta.sampling.tasks import Tasks


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
