"""Rating baselines: means, shrunk towards the global mean where there are few ratings.

Each is fitted on a training log and evaluated by :func:`~graphmeta.evaluation.ratings.evaluate_ratings`.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from graphmeta.baselines.registry import baseline
from graphmeta.data.events import EventLog
from graphmeta.sampling.tasks import Tasks


@baseline("global_mean", "- (ratings)")
class GlobalMean:
    """Predicts the global mean: ``r̂ = μ``.

    Args:
        log: the training log.
    """

    def __init__(self, log: EventLog) -> None:
        assert log.value is not None
        self.mean = float(log.value.mean())

    def scores(self, samples: Tasks) -> Tensor:
        """The same number for each query, ``[Q, 1]``."""
        return torch.full((len(samples.query), 1), self.mean, dtype=torch.float64)


@baseline("item_mean", "- (ratings)")
class ItemMean(GlobalMean):
    """Predicts the item's mean: ``r̂ = μ + b_i``, ``b_i = Σ (r − μ) / (n_i + damping)``; b_i = 0 for items without
    ratings.

    Args:
        log: the training log.
        damping: number of pseudo-ratings at the mean.
    """

    def __init__(self, log: EventLog, *, damping: float = 5.0) -> None:
        super().__init__(log)
        assert log.value is not None
        total = np.bincount(log.item, weights=log.value - self.mean, minlength=log.num_items)
        self.item, self.damping = total / (log.support + damping), damping

    def scores(self, samples: Tasks) -> Tensor:
        """``[Q, 1]``."""
        return torch.from_numpy(self.mean + self.item[samples.query.target])[:, None]


@baseline("item_user_mean", "- (ratings)")
class ItemUserMean(ItemMean):
    """Adds a user bias from the task's support: ``r̂ = μ + b_i + b_u``.

    ``b_u = Σ_{j ∈ support} (r_j − μ − b_j) / (n_u + damping)``.

    Source: Koren, Factorization Meets the Neighborhood, KDD 2008, section 2.1 (baseline estimates).
    """

    def scores(self, samples: Tasks) -> Tensor:
        """``[Q, 1]``."""
        assert samples.support.value is not None
        rest = samples.support.value - self.mean - self.item[samples.support.target]
        owner = np.repeat(np.arange(len(samples)), samples.support_sizes)
        user_mean = np.bincount(owner, weights=rest, minlength=len(samples)) / (samples.support_sizes + self.damping)
        user_bias = np.repeat(user_mean, np.diff(samples.query_ptr))
        return super().scores(samples) + torch.from_numpy(user_bias)[:, None]
