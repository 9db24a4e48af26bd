"""Average precision of tasks with several targets, with ties in random order."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from graphmeta.evaluation.metrics import Ranks


def average_precision(rank: Ranks | Tensor, task: Tensor, k: int) -> Tensor:
    """Average precision at k of tasks with several targets each: ``Σ_{i: r_i ≤ k} P(r_i) / min(k, n)``, ``[T]``.

    ``P(r)`` is the share of targets among the first r, n the task's targets. Ties: the expected value over random
    order. A target of a tie of c candidates at the ranks b … b + c − 1, m of them targets, with g targets above the
    tie, is at rank r with probability 1 / c; then ``1 + g + (m − 1)(r − b) / (c − 1)`` targets are expected among the
    first r. The sum over r of this, divided by r, has a closed form with harmonic numbers.

    Shapes: task ``[Q]``, tasks numbered from 0 without a gap.
    Source: MAP@k of RelBench (Robinson et al. 2024) and of the H&M competition.

    >>> average_precision(torch.tensor([1, 3]), torch.tensor([0, 0]), 12).tolist()
    [0.8333333333333333]
    """
    rank, size = rank if isinstance(rank, Ranks) else Ranks.of(rank), task.bincount()
    order = torch.from_numpy(np.lexsort((rank.best.numpy(force=True), task.numpy(force=True)))).to(task.device)
    best, tied, owner = rank.best[order], rank.tied[order], task[order]
    first = torch.ones_like(owner, dtype=torch.bool)
    first[1:] = (owner[1:] != owner[:-1]) | (best[1:] != best[:-1])
    tie = first.cumsum(0) - 1
    targets = tie.bincount()[tie].double()
    above = first.nonzero().squeeze(1)[tie] - (size.cumsum(0) - size)[owner]
    step = (targets - 1) / (tied - 1).clamp(min=1)
    last = (best + tied - 1).clamp(max=k)
    harmonic = torch.cat([best.new_zeros(1), (1 / torch.arange(1, k + 1, device=best.device).double()).cumsum(0)])
    sums = harmonic[last.long()] - harmonic[(best - 1).clamp(max=k).long()]
    alone = torch.where(best <= k, (1 + above) / best, 0.0)  # exactly the precision, not a difference of sums
    found = torch.where(tied == 1, alone, ((1 + above - step * best) * sums + step * (last - best + 1)) / tied)
    found = torch.where(best <= k, found, 0.0)
    return torch.zeros_like(size, dtype=torch.float64).index_add(0, owner, found) / size.clamp(max=k)
