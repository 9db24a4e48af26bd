"""Ranks and ranking metrics with one target per sample; ranks start at 1 and ties share their mean rank.
For ratings: errors, and nDCG of short lists in which every entry has a rating.

A NaN score ranks last as the target and first as any other candidate.
"""

from __future__ import annotations

import torch
from torch import Tensor

from graphmeta.errors import DivergedError


def usable(scores: Tensor) -> Tensor:
    """The scores ``[S, C]`` after a check; ``-inf`` excludes an item.

    Raises:
        DivergedError: scores with NaN or +inf.
    """
    if len(scores) and not bool(scores.amax() < torch.inf):  # the maximum is NaN if any score is
        raise DivergedError("the model's scores are not finite numbers; its training diverged, train it again")
    return scores


def ranks(scores: Tensor, target: Tensor) -> Tensor:
    """Rank of each sample's target among all candidates; tied candidates share the mean of their best and worst rank.

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
    """[r <= k]; with one target, hit rate and recall are equal."""
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


def list_ndcg(scores: Tensor, gains: Tensor, ptr: Tensor, k: int) -> Tensor:
    """nDCG@k of each list ranked by ``scores``: ``DCG / best DCG``, ``DCG = Σ_{r ≤ k} gain_r / log2(1 + r)``.

    Entries with equal scores share the mean of their gains, the expectation over random order, so that constant
    scores give chance level. A list without any gain counts as 1.

    Args:
        gains: the gain of each entry, e.g. ``2^rating − 1``; ptr: list l has the entries ``ptr[l]:ptr[l + 1]``.

    Shapes: scores, gains ``[N]``, ptr ``[L + 1]`` -> ``[L]`` float64.

    >>> list_ndcg(torch.tensor([2.0, 1.0]), torch.tensor([1.0, 4.0]), torch.tensor([0, 2]), 1).tolist()
    [0.25]
    """
    owner, gains = torch.arange(len(ptr) - 1).repeat_interleave(ptr.diff()), gains.double()
    found, best = _dcg(_shared(gains, scores, owner), scores, owner, ptr, k), _dcg(gains, gains, owner, ptr, k)
    return torch.where(best > 0, found / best, 1.0)


def _in_order(scores: Tensor, owner: Tensor) -> Tensor:
    """Rows sorted by list, then by descending score."""
    best_first = scores.argsort(descending=True, stable=True)
    return best_first[owner[best_first].argsort(stable=True)]


def _shared(gain: Tensor, scores: Tensor, owner: Tensor) -> Tensor:
    """Each entry's gain, averaged over the entries of its list with the same score."""
    order = _in_order(scores, owner)
    step = (scores[order].diff() != 0) | (owner[order].diff() != 0)
    group = torch.cat([step.new_zeros(min(len(order), 1)), step]).cumsum(0)
    mean = torch.zeros_like(gain).index_add(0, group, gain[order]) / group.bincount(minlength=len(gain)).clamp(min=1)
    return torch.empty_like(gain).index_copy(0, order, mean[group])


def _dcg(gain: Tensor, scores: Tensor, owner: Tensor, ptr: Tensor, k: int) -> Tensor:
    order = _in_order(scores, owner)
    rank = 1 + torch.arange(len(order)) - ptr[:-1][owner[order]]
    part = torch.where(rank <= k, gain[order] / torch.log2(1.0 + rank.double()), 0.0)
    return torch.zeros(len(ptr) - 1, dtype=gain.dtype).index_add(0, owner[order], part)


def of_lists(rank: Tensor, task: Tensor, k: int) -> dict[str, Tensor]:
    """Metrics of tasks with several targets each, from the rank of every target.

    With n targets of which h rank at most k: hit = h / n; hit_of_best = h / min(k, n), 1 for a perfect list;
    hit_any = [h > 0]; ndcg = Σ [r <= k] / log2(1 + r), divided by the same sum for ranks 1 … min(k, n).

    Shapes: rank, task ``[Q]``, tasks numbered from 0 without a gap -> each ``[T]``.
    """
    size = task.bincount()
    hits, gain = (size.new_zeros(len(size), dtype=rank.dtype).index_add(0, task, of(rank, k)) for of in (hit, ndcg))
    best = size.clamp(max=k)
    ideal = (1 / torch.log2(torch.arange(k, device=rank.device, dtype=rank.dtype) + 2)).cumsum(0)[best - 1]
    return {"hit": hits / size, "ndcg": gain / ideal, "hit_of_best": hits / best, "hit_any": (hits > 0).to(rank.dtype)}


def rating_errors(found: Tensor, true: Tensor) -> dict[str, float]:
    """MSE, RMSE and MAE over all ratings, ``[N], [N]``, in units of the rating scale (MSE: squared)."""
    error = found.double() - true.double()
    mse = float(error.square().mean())
    return {"mse": mse, "rmse": mse**0.5, "mae": float(error.abs().mean())}
