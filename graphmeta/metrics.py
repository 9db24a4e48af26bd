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


def of_lists(rank: Tensor, task: Tensor, k: int) -> dict[str, Tensor]:
    """Measures of tasks with several targets each, from the rank of every target.

    With n targets of which h rank at most k: hit = h / n; hit_of_best = h / min(k, n), which a perfect list brings to
    1; hit_any = [h > 0]; ndcg = Σ [r <= k] / log2(1 + r) over the same sum for ranks 1 … min(k, n).

    Shapes: rank, task ``[Q]``, tasks numbered from 0 without a gap -> each ``[T]``.
    """
    size = task.bincount()
    hits, gain = (size.new_zeros(len(size), dtype=rank.dtype).index_add(0, task, of(rank, k)) for of in (hit, ndcg))
    best = size.clamp(max=k)
    ideal = (1 / torch.log2(torch.arange(k, device=rank.device, dtype=rank.dtype) + 2)).cumsum(0)[best - 1]
    return {"hit": hits / size, "ndcg": gain / ideal, "hit_of_best": hits / best, "hit_any": (hits > 0).to(rank.dtype)}
