"""Ranks and ranking metrics with one target per sample, as expected values over random order of ties.
For ratings: errors, and nDCG of short lists in which every entry has a rating.

Candidates with equal scores have no order. The target is then equally likely at each rank of its tie, and every metric
is the mean over these ranks, in closed form: for a tie of n candidates at the ranks b … b + n − 1 it is
``(M(min(k, b + n − 1)) − M(min(k, b − 1))) / n``, with ``M(r)`` the sum of the metric's gains at the ranks 1 … r.
A constant scorer therefore has Hit@k = k / candidates. Without ties it is the usual value of the metric.

Scores are tied in counting baselines (popularity, item kNN, session kNN, STAN, personal frequency, TIFU-kNN, UP-CF)
and in models that rank by attributes alone; scores of trained id vectors are rarely equal. Until version 0.2 a tie
counted as its mean rank, by which a metric of a tie across rank k is 0 or 1.

A NaN score ranks last as the target and first as any other candidate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from graphmeta.errors import DivergedError, InputError


def usable(scores: Tensor) -> Tensor:
    """The scores ``[S, C]`` after a check; ``-inf`` excludes an item.

    Raises:
        DivergedError: scores with NaN or +inf.
    """
    if len(scores) and not bool(scores.amax() < torch.inf):  # the maximum is NaN if any score is
        raise DivergedError("the model's scores are not finite numbers; its training diverged, train it again")
    return scores


@dataclass(frozen=True)
class Ranks:
    """The ranks that each sample's target may have in random order of ties: ``best`` … ``best + tied − 1``, from 1.

    Shapes: best, tied (the candidates with the target's score, itself included) ``[S]`` float64.
    """

    best: Tensor
    tied: Tensor

    @classmethod
    def of(cls, ranks: Tensor | Sequence[float]) -> Ranks:
        """Ranks without ties.

        Raises:
            InputError: a rank that is not a whole number from 1.
        """
        best = torch.as_tensor(ranks).double()
        if not ((best >= 1) & (best == best.floor())).all():
            raise InputError("ranks must be whole numbers from 1; for ties pass the result of ranks(scores, target)")
        return cls(best, torch.ones_like(best))

    @classmethod
    def empty(cls, size: int) -> Ranks:
        """Ranks of this many samples, to be assigned."""
        return cls(*torch.ones(2, size, dtype=torch.float64))

    def __len__(self) -> int:
        return len(self.best)

    def __getitem__(self, rows: Tensor | slice) -> Ranks:
        return Ranks(self.best[rows], self.tied[rows])

    def __setitem__(self, rows: Tensor | slice, found: Ranks) -> None:
        self.best[rows], self.tied[rows] = found.best.to(self.best.device), found.tied.to(self.tied.device)

    @property
    def mean(self) -> Tensor:
        """The expected rank, ``[S]``: the mean of the best and the worst rank of the tie."""
        return self.best + (self.tied - 1) / 2

    def sums(self, gain: Callable[[Tensor], Tensor], k: int) -> Tensor:
        """The expected gain among the first k, ``[S]``; ``gain`` maps ranks to their gains.

        >>> Ranks(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.0])).sums(torch.reciprocal, 2).tolist()
        [1.0, 0.25]
        """
        first = torch.arange(1, k + 1, device=self.best.device, dtype=torch.float64)
        upto = torch.cat([first.new_zeros(1), gain(first).cumsum(0)])
        below, last = self.best - 1, self.best + self.tied - 1
        found = upto[last.clamp(max=k).long()] - upto[below.clamp(max=k).long()]
        alone = torch.where(self.best <= k, gain(self.best), 0.0)  # exactly the gain, not a difference of sums
        return torch.where(self.tied == 1, alone, found / self.tied)


def ranks(scores: Tensor, target: Tensor) -> Ranks:
    """Ranks of each sample's target among all candidates.

    Shapes: scores ``[S, C]``, target ``[S]``.

    >>> found = ranks(torch.tensor([[3., 1., 2.], [5., 5., 5.]]), torch.tensor([2, 0]))
    >>> found.best.tolist(), found.tied.tolist(), found.mean.tolist(), hit(found, 1).tolist()
    ([2.0, 1.0], [1.0, 3.0], [2.0, 2.0], [0.0, 0.3333333333333333])
    """
    own = scores.gather(1, target[:, None])
    above = (scores > own).sum(1, dtype=torch.int32)
    level = (scores == own).sum(1, dtype=torch.int32)
    broken = scores.isnan()
    if broken.any():
        bad_target = own.isnan().squeeze(1)
        above = torch.where(bad_target, scores.shape[1] - 1, above + broken.sum(1))
        level = torch.where(bad_target, 1, level)
    return Ranks(1.0 + above.double(), level.double())


def hit(rank: Ranks | Tensor, k: int) -> Tensor:
    """The probability that the target is among the first k; with one target, hit rate and recall are equal.

    A tensor ``[S]`` instead of :class:`Ranks` has ranks without ties, here and in the other metrics.
    """
    return _ranks(rank).sums(torch.ones_like, k)


def mrr(rank: Ranks | Tensor, k: int) -> Tensor:
    """The expected ``[r <= k] / r``."""
    return _ranks(rank).sums(torch.reciprocal, k)


def ndcg(rank: Ranks | Tensor, k: int) -> Tensor:
    """The expected ``[r <= k] / log2(1 + r)``."""
    return _ranks(rank).sums(_discount, k)


def _discount(rank: Tensor) -> Tensor:
    return 1 / torch.log2(1 + rank)


def _ranks(rank: Ranks | Tensor) -> Ranks:
    return rank if isinstance(rank, Ranks) else Ranks.of(rank)


def summary(rank: Ranks | Tensor, ks: tuple[int, ...]) -> dict[str, float]:
    """Means over samples: ``{"hit@5": …, "mrr@5": …, "ndcg@5": …, …}``; empty without samples."""
    rank = _ranks(rank)
    if len(rank) == 0:
        return {}
    measures = {"hit": hit, "mrr": mrr, "ndcg": ndcg}
    return {f"{name}@{k}": float(measure(rank, k).mean()) for k in ks for name, measure in measures.items()}


def list_ndcg(scores: Tensor, gains: Tensor, ptr: Tensor, k: int) -> Tensor:
    """nDCG@k of each list ranked by ``scores``: ``DCG / best DCG``, ``DCG = Σ_{r ≤ k} gain_r / log2(1 + r)``.

    Entries with equal scores share the mean of their gains, the expectation over random order, so that constant
    scores give chance level. An entry with a NaN score adds no gain and takes one of the first places, which is never
    better than a number. A list without any gain counts as 1.

    Args:
        gains: the gain of each entry, e.g. ``2^rating − 1``.
        ptr: list l has the entries ``ptr[l]:ptr[l + 1]``.

    Shapes: scores, gains ``[N]``, ptr ``[L + 1]`` -> ``[L]`` float64.

    >>> list_ndcg(torch.tensor([2.0, 1.0]), torch.tensor([1.0, 4.0]), torch.tensor([0, 2]), 1).tolist()
    [0.25]
    """
    owner, gains = torch.arange(len(ptr) - 1).repeat_interleave(ptr.diff()), gains.double()
    best = _dcg(gains, gains, owner, ptr, k)
    found = _dcg(_shared(gains.masked_fill(scores.isnan(), 0.0), scores, owner), scores, owner, ptr, k)
    return torch.where(best > 0, found / best, 1.0)


def _in_order(scores: Tensor, owner: Tensor) -> Tensor:
    """Rows sorted by list, then by descending score; NaN comes first."""
    best_first = scores.argsort(descending=True, stable=True)
    return best_first[owner[best_first].argsort(stable=True)]


def _shared(gain: Tensor, scores: Tensor, owner: Tensor) -> Tensor:
    """Each entry's gain, averaged over the entries of its list with the same score."""
    order = _in_order(scores, owner)
    step = (scores[order][1:] != scores[order][:-1]) | (owner[order].diff() != 0)
    group = torch.cat([step.new_zeros(min(len(order), 1)), step]).cumsum(0)
    mean = torch.zeros_like(gain).index_add(0, group, gain[order]) / group.bincount(minlength=len(gain)).clamp(min=1)
    return torch.empty_like(gain).index_copy(0, order, mean[group])


def _dcg(gain: Tensor, scores: Tensor, owner: Tensor, ptr: Tensor, k: int) -> Tensor:
    order = _in_order(scores, owner)
    rank = 1 + torch.arange(len(order)) - ptr[:-1][owner[order]]
    part = torch.where(rank <= k, gain[order] / torch.log2(1.0 + rank.double()), 0.0)
    return torch.zeros(len(ptr) - 1, dtype=gain.dtype).index_add(0, owner[order], part)


def of_lists(rank: Ranks | Tensor, task: Tensor, k: int) -> dict[str, Tensor]:
    """Metrics of tasks with several targets each, from the ranks of every target among the same candidates.

    With n targets of which h rank at most k: hit = h / n; hit_of_best = h / min(k, n), 1 for a perfect list;
    hit_any = [h > 0]; ndcg = Σ [r <= k] / log2(1 + r), divided by the same sum for ranks 1 … min(k, n). Ties: the
    expected values over random order; a tie across rank k, of c candidates of which f are among the first k, has
    none of its m targets there with probability ``Π_{i < m} (c − f − i) / (c − i)``.

    Shapes: task ``[Q]``, tasks numbered from 0 without a gap -> each ``[T]``.
    """
    rank, size = _ranks(rank), task.bincount()
    hits, gain = (torch.zeros_like(size, dtype=torch.float64).index_add(0, task, of(rank, k)) for of in (hit, ndcg))
    best = size.clamp(max=k)
    ideal = _discount(torch.arange(1, k + 1, device=task.device, dtype=torch.float64)).cumsum(0)[best - 1]
    found = {"hit": hits / size, "ndcg": gain / ideal, "hit_of_best": hits / best}
    return found | {"hit_any": 1 - _no_hit(rank, task, k)}


def _no_hit(rank: Ranks, task: Tensor, k: int) -> Tensor:
    """The probability that no target of a task is among its first k, ``[T]``."""
    order = task.argsort(stable=True)
    rank, task = rank[order], task[order]
    inside = (k - rank.best + 1).clamp(min=0).minimum(rank.tied)  # places of the tie among the first k
    across = (inside > 0) & (inside < rank.tied)  # all targets of a task that are in its one tie across rank k
    before = (across.long().cumsum(0) - across.long()).double()
    first = torch.full((int(task.max()) + 1,), torch.inf, dtype=torch.float64, device=task.device)
    number = before - first.scatter_reduce(0, task, torch.where(across, before, torch.inf), "amin")[task]
    missed = torch.where(across, (rank.tied - inside - number) / (rank.tied - number), (inside == 0).double())
    return torch.ones_like(first).scatter_reduce(0, task, missed.clamp(min=0), "prod")


def rating_errors(found: Tensor, true: Tensor) -> dict[str, float]:
    """MSE, RMSE and MAE over all ratings, ``[N], [N]``, in units of the rating scale (MSE: squared)."""
    error = found.double() - true.double()
    mse = float(error.square().mean())
    return {"mse": mse, "rmse": mse**0.5, "mae": float(error.abs().mean())}
