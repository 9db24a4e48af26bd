"""Where a task's support comes from: the session's own clicks, or the user's earlier sessions."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from graphmeta.errors import InputError
from graphmeta.protocols import IgnoresEmptySessions, reads_earlier_sessions
from graphmeta.protocols.members import ReadsMembers
from graphmeta.recommender import Recommender, task_mean
from graphmeta.sampling.samples import Samples
from graphmeta.sampling.session_batch import real_samples
from graphmeta.sampling.tasks import Tasks, TaskSizes, task_sizes
from graphmeta.sampling.user_histories import Earlier


@runtime_checkable
class SupportSource(Protocol, metaclass=ReadsMembers):
    """Makes the support of each sample, and averages its losses."""

    reads_history: bool  # whether the samples need their users' earlier sessions
    min_length: int  # clicks of the shortest session whose last click is a query to train on

    def bind(self, recommender: Recommender) -> None:
        """Called once with the recommender that is adapted."""
        ...

    def tasks(self, samples: Samples, max_support: int) -> Samples | Tasks:
        """The tasks of these samples; samples stay samples where :func:`~graphmeta.sampling.tasks.task_batch` adds the
        support.
        """
        ...

    def sizes(self, samples: Samples | Tasks, max_support: int) -> TaskSizes:
        """The sizes of the tasks."""
        ...

    def mean(self, batch: HeteroData, losses: Tensor) -> Tensor:
        """The support loss of each task ``[T]``, from the losses of the real support samples ``[S]``."""
        ...


@runtime_checkable
class WeighsSupport(Protocol, metaclass=ReadsMembers):
    """A support whose loss is a weighted mean over its samples, with weights that no loss changes."""

    def weights(self, task: Tensor, tasks: int, age: Tensor | None) -> Tensor:
        """The weight of each support sample in its task's mean, ``[N]``.

        Args:
            task: the task of each sample ``[N]``.
            tasks: their number.
            age: in sessions ``[N]``.
        """
        ...


class SessionSupport(nn.Module):
    """A session is a task: its clicks after the first are the support targets; the support loss is their mean.

    Source: CBML, §4.
    """

    reads_history, min_length = False, 3

    def bind(self, recommender: Recommender) -> None:
        """Nothing to do."""

    def tasks(self, samples: Samples, max_support: int) -> Samples | Tasks:
        """The samples themselves."""
        return samples

    def sizes(self, samples: Samples | Tasks, max_support: int) -> TaskSizes:
        """Of tasks with each sample's own clicks as support."""
        return task_sizes(samples, max_support)

    def mean(self, batch: HeteroData, losses: Tensor) -> Tensor:
        """The mean of a task's losses."""
        return task_mean(batch, losses)

    def weights(self, task: Tensor, tasks: int, age: Tensor | None) -> Tensor:
        """Equal weights of a task's samples."""
        return _softmax_by_task(task, tasks, torch.zeros(len(task), device=task.device))


class UserSupport(nn.Module):
    """A user is a task: the items of the user's earlier sessions are the support targets, the session the query.

    Each event of an earlier session is predicted from those before it in that session; the first has no context. What a
    head reads of an empty session is arbitrary, so its query vector is zero there, in support and query
    (:class:`~graphmeta.protocols.IgnoresEmptySessions`): biases and score terms predict it. With a head that has no
    such form, first events are no support samples. The support loss is the weighted mean ``Σ_j w_j ℓ_j``,
    ``w_j ∝ exp(−λ age_j)``, ``age_j``: how many sessions ago. λ is learned in log space with the shared weights,
    through the steps (order 2). A user without an earlier session is not adapted.

    Args:
        sessions: at most the last ``sessions`` sessions of a user; all if not given.
        decay: the initial λ, above 0; None for equal weights.

    Raises:
        InputError: another decay, or fewer than one session.
    """

    reads_history, min_length = True, 2

    def __init__(self, *, sessions: int | None = None, decay: float | None = 0.05) -> None:
        super().__init__()
        if sessions is not None and sessions < 1:
            raise InputError(f"sessions={sessions!r} must be at least 1, or None for all")
        if decay is not None and not 0 < decay < math.inf:
            raise InputError(f"decay={decay!r} must be a finite number above 0, or None for equal weights")
        self.sessions, self.nested, self.firsts = sessions, False, True
        self.log_decay = None if decay is None else nn.Parameter(torch.tensor(math.log(decay)))

    def extra_repr(self) -> str:
        """Sessions and the current decay."""
        decay = None if self.log_decay is None else round(float(self.log_decay.detach().exp()), 4)
        return f"sessions={self.sessions}, decay={decay}"

    def bind(self, recommender: Recommender) -> None:
        """Make the head ignore empty sessions, and note what support samples are and need."""
        head = recommender.head
        self.firsts = isinstance(head, IgnoresEmptySessions)
        if isinstance(head, IgnoresEmptySessions):
            head.ignore_empty_sessions()
        self.nested = any(reads_earlier_sessions(part) for part in recommender.modules())

    def tasks(self, samples: Samples, max_support: int) -> Samples | Tasks:
        """One task per sample, with at most the last ``max_support`` events of the user's earlier sessions."""
        earlier = self._earlier(samples)
        query_ptr = np.arange(len(samples) + 1)
        if earlier is None:
            nothing = replace(samples.take(slice(0, 0)), age=np.zeros(0))
            return Tasks(nothing, samples, np.zeros(len(samples) + 1, dtype=np.int64), query_ptr)
        known = earlier.histories
        rows, ptr, session = self._events(earlier, max_support)
        task = np.repeat(np.arange(len(samples)), np.diff(ptr))
        support = Samples(
            known.item,
            known.begin[session],
            rows,
            known.item[rows],
            session,
            known.time if known.has_time else None,
            None if samples.user is None else samples.user[task],
            items=samples.items,
            users=samples.users,
            age=(earlier.until[task] - session).astype(np.float64),
            earlier=known.before_sessions(session) if self.nested else None,
        )
        return Tasks(support, replace(samples, earlier=earlier), ptr, query_ptr)

    def _earlier(self, samples: Samples) -> Earlier | None:
        """The last ``sessions`` earlier sessions."""
        if samples.earlier is None or self.sessions is None:
            return samples.earlier
        return samples.earlier.last(self.sessions)

    def _events(self, earlier: Earlier, max_support: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows of the support targets, their pointer, and the session of each."""
        rows, ptr = earlier.latest(max_support)
        session = earlier.histories.session_of(rows)
        if self.firsts:
            return rows, ptr, session
        kept = rows > earlier.histories.begin[session]
        return rows[kept], np.append(0, np.cumsum(kept))[ptr], session[kept]

    def sizes(self, samples: Samples | Tasks, max_support: int) -> TaskSizes:
        """Support samples of each task, and clicks of support and query."""
        if isinstance(samples, Tasks):
            return task_sizes(samples, max_support)
        earlier = self._earlier(samples)
        if earlier is None:
            return TaskSizes(np.zeros(len(samples), dtype=np.int64), samples.lengths)
        rows, ptr, session = self._events(earlier, max_support)
        clicks = np.append(0, np.cumsum(rows - earlier.histories.begin[session]))[ptr]
        return TaskSizes(np.diff(ptr), np.diff(clicks) + samples.lengths)

    def mean(self, batch: HeteroData, losses: Tensor) -> Tensor:
        """The weighted mean of a task's losses."""
        if self.log_decay is None:
            return task_mean(batch, losses)
        age = real_samples(batch, batch["sample"].age).to(losses.dtype)
        return weighted_task_mean(batch, losses, -self.log_decay.exp() * age)

    def weights(self, task: Tensor, tasks: int, age: Tensor | None) -> Tensor:
        """The weights w."""
        assert age is not None
        log_weight = torch.zeros_like(age) if self.log_decay is None else -self.log_decay.exp() * age
        return _softmax_by_task(task, tasks, log_weight)


def weighted_task_mean(batch: HeteroData, values: Tensor, log_weight: Tensor) -> Tensor:
    """``Σ_j softmax_j(log_weight) values_j`` over the real samples of each task, ``[S], [S] -> [T]``; 0 without any."""
    real = batch["sample"].get("real")
    tasks = 1 if real is None else batch.num_tasks
    task = torch.zeros_like(values, dtype=torch.int64) if real is None else real // batch.rows["sample"]
    return values.new_zeros(tasks).index_add(0, task, _softmax_by_task(task, tasks, log_weight) * values)


def _softmax_by_task(task: Tensor, tasks: int, log_weight: Tensor) -> Tensor:
    """Weights that sum to one over the samples of each task: ``[N], [N] -> [N]``."""
    top = log_weight.detach().new_full((tasks,), -torch.inf).scatter_reduce(0, task, log_weight.detach(), "amax")
    weight = (log_weight - top.index_select(0, task)).exp()
    total = weight.new_zeros(tasks).index_add(0, task, weight)
    return weight / total.index_select(0, task)
