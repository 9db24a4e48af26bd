"""Pairwise and pointwise comparisons of a target's score with negatives', for
:class:`graphmeta.nn.losses.losses.RankingLoss`.

All take the target's score ``r [S]``, negatives' scores ``n [S, N]`` and the mask of valid negatives ``[S, N]``, and
return ``[S]``. Means and softmaxes run over valid negatives; a sample with none has loss 0 (under :class:`Binary`,
which also scores the target alone, the target's part).

Each is an :class:`~graphmeta.protocols.Objective`: the option ``loss=Bpr()`` is the loss against the negatives that a
system samples. :class:`CrossEntropy` samples none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphmeta.nn.losses.losses import RankingLoss, SoftmaxLoss
from graphmeta.protocols import Objective


def _mean(losses: Tensor, counts: Tensor) -> Tensor:
    return torch.where(counts, losses, 0.0).sum(1) / counts.sum(1).clamp(min=1)


def _log_softmax(scores: Tensor, counts: Tensor) -> Tensor:
    """Log-softmax over the valid negatives, -inf for the others; over all if none is valid."""
    some = counts | ~counts.any(1, keepdim=True)
    return torch.log_softmax(scores.masked_fill(~some, -torch.inf), 1)


def _softmax(scores: Tensor, counts: Tensor) -> Tensor:
    """Softmax over the valid negatives; zeros if none is valid."""
    return _log_softmax(scores, counts).exp() * counts


class Comparison:
    """Base of the comparisons: as an objective, each is a :class:`~graphmeta.nn.losses.losses.RankingLoss`."""

    least_negatives: ClassVar[int] = 1  # 2 for those that take the hardest of several

    def __call__(self, own: Tensor, other: Tensor, counts: Tensor) -> Tensor:
        """``[S]``, ``[S, N]``, ``[S, N]`` -> ``[S]``."""
        raise NotImplementedError

    def against(self, negatives: nn.Module) -> nn.Module:
        """The comparison of each target with these negatives."""
        return RankingLoss(self, negatives)


@dataclass(frozen=True)
class Bpr(Comparison):
    """``−log σ(r − n)``, mean over n. Source: Rendle et al. 2009; Hidasi et al. 2016."""

    def __call__(self, own: Tensor, other: Tensor, counts: Tensor) -> Tensor:
        """``[S]``."""
        return _mean(-F.logsigmoid(own[:, None] - other), counts)


@dataclass(frozen=True)
class Top1(Comparison):
    """``σ(n − r) + σ(n²)``, mean over n. Source: Hidasi et al. 2016, GRU4Rec."""

    def __call__(self, own: Tensor, other: Tensor, counts: Tensor) -> Tensor:
        """``[S]``."""
        return _mean(torch.sigmoid(other - own[:, None]) + torch.sigmoid(other.square()), counts)


@dataclass(frozen=True)
class BprMax(Comparison):
    """``−log Σ_j s_j σ(r − n_j) + λ Σ_j s_j n_j²``, s = softmax(n). Source: Hidasi & Karatzoglou 2018, eq 10.

    Args:
        penalty: λ on the scores of the negatives.
    """

    penalty: float = 1.0
    least_negatives: ClassVar[int] = 2

    def __call__(self, own: Tensor, other: Tensor, counts: Tensor) -> Tensor:
        """``[S]``."""
        # In log space: the sum underflows to zero if all negatives score far above the target.
        likely = torch.logsumexp(_log_softmax(other, counts) + F.logsigmoid(own[:, None] - other), 1)
        penalty = (_softmax(other, counts) * other.square()).sum(1)
        return torch.where(counts.any(1), self.penalty * penalty - likely, 0.0)


@dataclass(frozen=True)
class Top1Max(Comparison):
    """``Σ_j s_j (σ(n_j − r) + σ(n_j²))``, s = softmax(n). Source: Hidasi & Karatzoglou 2018, eq 8."""

    least_negatives: ClassVar[int] = 2

    def __call__(self, own: Tensor, other: Tensor, counts: Tensor) -> Tensor:
        """``[S]``."""
        losses = torch.sigmoid(other - own[:, None]) + torch.sigmoid(other.square())
        return (_softmax(other, counts) * losses).sum(1)


@dataclass(frozen=True)
class Hinge(Comparison):
    """``max(0, 1 + n − r)``, mean over n."""

    def __call__(self, own: Tensor, other: Tensor, counts: Tensor) -> Tensor:
        """``[S]``."""
        return _mean(torch.relu(1 + other - own[:, None]), counts)


@dataclass(frozen=True)
class HingeMax(Comparison):
    """``max(0, 1 + max_j n_j − r)``: the hinge against the hardest negative, also called adaptive hinge."""

    least_negatives: ClassVar[int] = 2

    def __call__(self, own: Tensor, other: Tensor, counts: Tensor) -> Tensor:
        """``[S]``."""
        gaps = torch.where(counts, 1 + other - own[:, None], 0.0)
        return F.pad(gaps, (0, 1)).amax(1)  # at least 0, also without negatives


@dataclass(frozen=True)
class Binary(Comparison):
    """``−log σ(r) − Σ_j log σ(−n_j)``: pointwise binary cross-entropy."""

    def __call__(self, own: Tensor, other: Tensor, counts: Tensor) -> Tensor:
        """``[S]``."""
        return -F.logsigmoid(own) - torch.where(counts, F.logsigmoid(-other), 0.0).sum(1)


@dataclass(frozen=True)
class SampledSoftmax(Comparison):
    """``−log softmax([r ; n])_0``: cross-entropy against the sampled negatives only."""

    def __call__(self, own: Tensor, other: Tensor, counts: Tensor) -> Tensor:
        """``[S]``."""
        scores = torch.cat([own[:, None], other.masked_fill(~counts, -torch.inf)], 1)
        return torch.logsumexp(scores, 1) - own


@dataclass(frozen=True)
class CrossEntropy:
    """Cross-entropy over the whole catalogue, without negatives: :class:`~graphmeta.nn.losses.losses.SoftmaxLoss`."""

    least_negatives: ClassVar[int] = 0

    def against(self, negatives: nn.Module) -> nn.Module:
        """The full softmax, whatever would be sampled."""
        return SoftmaxLoss()


RANKING: dict[str, type[Comparison]] = {
    "bpr": Bpr,
    "bpr_max": BprMax,
    "top1": Top1,
    "top1_max": Top1Max,
    "hinge": Hinge,
    "hinge_max": HingeMax,
    "binary": Binary,
    "sampled_softmax": SampledSoftmax,
}
# Objectives by their names on the command line and in build specs.
OBJECTIVES: dict[str, Objective] = {"cross_entropy": CrossEntropy(), **{name: kind() for name, kind in RANKING.items()}}
