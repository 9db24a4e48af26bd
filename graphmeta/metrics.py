"""Ranks and what is read off them. One target a sample; ranks count from 1; ties share their mean rank.

A score that is NaN never helps: as the target it ranks last, as a competitor it ranks first.
"""

from __future__ import annotations

import torch
from torch import Tensor


def ranks(scores: Tensor, target: Tensor) -> Tensor:
    """Rank of each sample's target among all candidates: the mean of the best and the worst rank a tie allows.

    Constant scores therefore give chance level, not rank 1.

    Shapes: scores ``[S, C]``, target ``[S]`` -> ``[S]`` float64.

    >>> ranks(torch.tensor([[3., 1., 2.], [5., 5., 5.]]), torch.tensor([2, 0])).tolist()
    [2.0, 2.0]
    """
    own = scores.gather(1, target[:, None])
    above = (scores > own).sum(1, dtype=torch.int32)
    level = (scores == own).sum(1, dtype=torch.int32) - 1
    broken = scores.isnan()
    if broken.any():
        bad_target = own.isnan().squeeze(1)
        above = torch.where(bad_target, scores.shape[1] - 1, above + broken.sum(1))
        level = torch.where(bad_target, 0, level)
    return 1.0 + above.double() + level.double() / 2


def hit(rank: Tensor, k: int) -> Tensor:
    """[r <= k]: recall and hit rate are the same with one target."""
    return (rank <= k).double()


def mrr(rank: Tensor, k: int) -> Tensor:
    """[r <= k] / r."""
    return hit(rank, k) / rank


def ndcg(rank: Tensor, k: int) -> Tensor:
    """[r <= k] / log2(1 + r)."""
    return hit(rank, k) / torch.log2(1 + rank)


def summary(rank: Tensor, ks: tuple[int, ...]) -> dict[str, float]:
    """Means over samples: ``{"hit@5": …, "mrr@5": …, "ndcg@5": …, …}``; empty without samples."""
    if len(rank) == 0:
        return {}
    measures = {"hit": hit, "mrr": mrr, "ndcg": ndcg}
    return {f"{name}@{k}": float(measure(rank, k).mean()) for k in ks for name, measure in measures.items()}
