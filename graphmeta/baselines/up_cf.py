"""UP-CF: user-based collaborative filtering on how often each user's recent sessions contain an item."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from graphmeta.baselines.tifu_knn import nearest
from graphmeta.baselines.user_items import (
    TrainingUsers,
    UserItems,
    Vectors,
    blocks,
    own_items,
    popular,
    votes_of_users,
    with_popular,
)
from graphmeta.baselines.votes import Votes
from graphmeta.data.events import EventLog
from graphmeta.errors import InputError, check_whole
from graphmeta.sampling.samples import Samples


class UPCF:
    """Scores items by the recent purchases of the user and of users with the same items.

        π_n(i)   = share of the last min(r, all) sessions of n that contain i,
        sim(u, n) = |I_u ∩ I_n| / (|I_u|^α |I_n|^(1 − α)),
        score(i) = Σ_n sim(u, n)^q π_n(i),

    where I is the set of items of all earlier sessions, and n is the user itself (similarity 1) or one of the
    ``neighbours`` most similar users (ties: the earlier user of the training log). A user without earlier sessions
    gets popularity.

    Args:
        log: the training log. I_n and π_n of its users are those at its end, so a later event of another user changes
            nothing; I_u and π_u are built from the sessions before the query.
        neighbours: number of other users; None for all.
        recent: r, the recency window in sessions; None for all sessions.
        alpha: α in [0, 1], the asymmetry of the cosine; 0.5 is the cosine.
        locality: q > 0; higher values favour the most similar users.

    Raises:
        InputError: ``neighbours`` or ``recent`` below 1, another ``alpha`` or ``locality``.

    Source: Faggioli et al. 2020, "Recency aware collaborative filtering for next basket recommendation" (UP-CF@r).
    Differs: the window applies to π, not to I, as in a public implementation. The clicks of the query's own session do
    not count; they stay candidates, unless sessions repeat no item (:func:`~graphmeta.baselines.match_repeats`).
    Popularity for users without sessions is an addition.
    """

    reads_tasks, reads_history = False, True

    def __init__(
        self,
        log: EventLog,
        *,
        neighbours: int | None = None,
        recent: int | None = 5,
        alpha: float = 0.25,
        locality: float = 5.0,
    ) -> None:
        for name, value in (("neighbours", neighbours), ("recent", recent)):
            if value is not None:
                check_whole(name, value, 1)
        if not 0 <= alpha <= 1:
            raise InputError(f"alpha must be between 0 and 1, not {alpha!r}")
        if not 0 < locality < np.inf:
            raise InputError(f"locality must be a finite number above 0, not {locality!r}")
        self.items, self.num_items = log.items, log.num_items
        self.neighbours, self.recent, self.alpha, self.locality = neighbours, recent, alpha, locality
        self.trained_on = TrainingUsers(log)
        self.histories, self.popularity = self.trained_on.histories, popular(log)
        own = self.trained_on.own
        self.shares, sets = self._shares(own), self._sets(own)
        self.sizes, self.by_item = sets.lengths, sets.transposed(self.num_items)

    def scores(self, samples: Samples) -> Tensor:
        """``[S, num_items]``."""
        known = own_items(samples, self.items)
        sets, shares = self._sets(known), self._shares(known)
        itself = self.trained_on.of_samples(samples.earlier, rows=len(samples))
        work = sets.terms(self.by_item) + len(self.shares) + self.num_items
        parts = [self._scores(sets.take(rows), shares.take(rows), itself[rows]) for rows in blocks(work)]
        return with_popular(torch.cat(parts), known, self.popularity)

    def votes(self, samples: Samples, item: int) -> Votes:
        """The share of the user's own sessions with an item, and those of similar users; of a user without sessions
        none.
        """
        known = own_items(samples, self.items)
        if not known.sessions[0]:
            return votes_of_users(self.shares, item, 0.0, np.zeros(len(self.shares)))
        itself = self.trained_on.of_samples(samples.earlier, rows=1)
        mine = self._shares(known).of_column(item).sum()
        return votes_of_users(self.shares, item, mine, self._weights(self._sets(known), itself)[0])

    def _scores(self, sets: Vectors, shares: Vectors, itself: np.ndarray) -> Tensor:
        own = shares.dense(self.num_items)
        return torch.from_numpy(self.shares.mixed(self._weights(sets, itself), begin=own)).float()

    def _weights(self, sets: Vectors, itself: np.ndarray) -> np.ndarray:
        """The weight of each training user for each row."""
        shared = sets.products(self.by_item, others=len(self.shares))
        some = np.flatnonzero(itself >= 0)
        shared[some, itself[some]] = 0
        size = np.maximum(sets.lengths, 1)[:, None] ** self.alpha * np.maximum(self.sizes, 1) ** (1 - self.alpha)
        similarity = shared / size
        if self.neighbours is None:
            return similarity**self.locality
        # Rounding turns values that are equal in exact arithmetic into ties.
        row, user = nearest(np.where(shared > 0, -similarity.round(12), np.inf), most=self.neighbours)
        weight = np.zeros_like(similarity)
        weight[row, user] = similarity[row, user] ** self.locality
        return weight

    def _sets(self, known: UserItems) -> Vectors:
        """1 for each item of each row's sessions."""
        found = known.vectors(np.ones(len(known.row)), num_items=self.num_items)
        return Vectors(found.ptr, found.column, np.ones(len(found.column)))

    def _shares(self, known: UserItems) -> Vectors:
        """π of each row; 0 for an item that only older sessions contain."""
        recent = known.sessions if self.recent is None else np.minimum(known.sessions, self.recent)
        weight = (known.age <= recent[known.row]) / recent[known.row]
        return known.vectors(weight, num_items=self.num_items)
