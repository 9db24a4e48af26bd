"""Support and query: what a task may learn from, and what it is asked.

The task of a session: each click but the known last one is predicted from those before it (support), then the
next click from all of them (query). The query's own target is in no support row, by construction and by check.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch_geometric.data import HeteroData

from graphmeta.batch import Samples, ragged, session_batch


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
