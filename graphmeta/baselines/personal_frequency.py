"""Personal frequency: the items of a user's earlier sessions by how often they occur, then the others by popularity."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from graphmeta.baselines.incidence import Clicks
from graphmeta.baselines.user_items import own_items, popular
from graphmeta.data.events import EventLog
from graphmeta.errors import InputError
from graphmeta.sampling.samples import Samples
from graphmeta.sampling.user_histories import UserHistories


class PersonalFrequency:
    """Ranks the items of the user's sessions by how many of them contain the item, then the others by popularity.

        w(i) = Σ_{a : i ∈ session a} ρ^a · exp(−days(a) / τ),

    where the user's latest earlier session has a = 1, and the session of the query, as far as it is known, a = 0. The
    score of one of the user's items is 1 + the number of them that rank below it; that of another item is its
    popularity (training events), below 1. A user without sessions gets popularity.

    Args:
        log: the training log: its popularity, and the sessions of its users, which :func:`evaluate
            <graphmeta.evaluation.ranking.evaluate>` adds to those of the test log.
        decay: ρ in (0, 1]; 1 counts sessions.
        days: τ, decay of a session's weight to 1/e, in days; None omits the factor, as does a log without times.
        popular_ties: order equal sums by popularity; otherwise they are tied.
        popular_rest: order the other items by popularity (GP-TopFreq); otherwise they are tied (P-TopFreq).

    Raises:
        InputError: another decay, days that are not positive.

    Source: Li et al. 2023, "A next basket recommendation reality check" (P-TopFreq, GP-TopFreq).
    Differs: the decays, the items of the session itself and the order of equal sums are additions;
    :func:`~graphmeta.baselines.match_repeats` excludes the items of the session where sessions repeat no item. The
    paper does not define the order of equal counts, which matters: Recall@10 on Ta-Feng at ρ = 1 is 13.5 % by
    popularity and 12.1 % in random order (RESULTS.md). The default of ρ is the best by MRR@20 of .8, .9, .95, .98 and
    1 on the validation sessions of the bundled log; 1 is the best on Ta-Feng.
    """

    reads_tasks, reads_history = False, True

    def __init__(
        self,
        log: EventLog,
        *,
        decay: float = 0.95,
        days: float | None = None,
        popular_ties: bool = True,
        popular_rest: bool = True,
    ) -> None:
        if not 0 < decay <= 1:
            raise InputError(f"decay must be above 0 and at most 1, not {decay!r}; 1 counts sessions")
        if days is not None and not days > 0:
            raise InputError(f"days must be positive, not {days!r}; None omits the factor")
        self.items, self.num_items = log.items, log.num_items
        self.histories = None if log.users is None else UserHistories.of(log)
        self.decay, self.days = decay, days
        self.popular_ties, self.popular_rest = popular_ties, popular_rest
        self.popularity = popular(log)

    def scores(self, samples: Samples) -> Tensor:
        """``[S, num_items]``."""
        known, clicks = own_items(samples, self.items), Clicks.of(samples, num_items=self.num_items)
        weight = self.decay**known.age
        if self.days is not None:
            weight = weight * np.exp(-known.days / self.days)
        row = np.concatenate([known.row, clicks.sample])
        item = np.concatenate([known.item, clicks.item])
        pair, term = np.unique(row * self.num_items + item, return_inverse=True)
        total = np.bincount(term, np.concatenate([weight, np.ones(len(clicks.sample))]), minlength=len(pair))
        row, item = np.divmod(pair, max(self.num_items, 1))
        rank = _rank(row, _rounded(total), self.popularity[item] if self.popular_ties else np.zeros(len(item)))
        rest = self.popularity if self.popular_rest else np.zeros(self.num_items)
        scores = torch.from_numpy(rest).float().repeat(len(samples), 1)
        scores[torch.from_numpy(row), torch.from_numpy(item)] = torch.from_numpy(rank).float()
        return scores


def _rank(row: np.ndarray, weight: np.ndarray, popularity: np.ndarray) -> np.ndarray:
    """1 + the number of entries of the same row with a lower weight, or the same weight and a lower popularity."""
    order = np.lexsort((popularity, weight, row))
    keys = np.stack([row[order], weight[order], popularity[order]])
    new = np.append(True, (np.diff(keys) != 0).any(0))[: len(order)]
    first = np.maximum.accumulate(np.where(new, np.arange(len(order)), 0))
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = 1 + first - np.searchsorted(keys[0], keys[0])
    return rank


def _rounded(weight: np.ndarray) -> np.ndarray:
    """The weights with twelve digits, which turns sums that are equal in exact arithmetic into ties."""
    scale = 10.0 ** (11 - np.floor(np.log10(np.maximum(weight, 1e-290))))
    return np.rint(weight * scale) / scale
