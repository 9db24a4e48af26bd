"""TIFU-kNN: a user's item frequencies with temporal decay, averaged with those of the nearest users."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

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


class TifuKNN:
    """Scores items by the user's own decayed frequencies and the mean of those of the nearest users.

    A user's n earlier sessions are cut from the latest back into G groups of ``group`` sessions; the oldest may have
    fewer. Within a group of size g, and over the groups, with positions from the oldest, 1:

        v_group = Σ_b r_b^(g − b) x_b / g,   v_u = Σ_j r_g^(G − j) v_group(j) / G,
        score   = α v_u + (1 − α) · mean of v_n over the k nearest users n,

    where x_b ∈ {0, 1}^items is a session. Nearest is the Euclidean distance of v_u and v_n (ties: the earlier user of
    the training log). A user without earlier sessions gets popularity.

    Args:
        log: the training log. The vectors v_n are those of its users at its end, so a later event of another user
            changes nothing; v_u is built from the sessions before the query. No user is a neighbour of itself.
        neighbours: k; if there are fewer other users, all of them.
        group: sessions per group.
        within, between: the decays r_b and r_g in (0, 1].
        alpha: α in [0, 1], the share of the user's own vector.

    Raises:
        InputError: ``neighbours`` or ``group`` below 1, a decay or ``alpha`` outside its range.

    Source: Hu et al. 2020, "Modeling personalized item frequency information for next-basket recommendation"; the
    defaults are those of its Ta-Feng row.
    Differs: the clicks of the query's own session do not count; they stay candidates, unless sessions repeat no item
    (:func:`~graphmeta.baselines.match_repeats`). Popularity for users without sessions is an addition.
    """

    reads_tasks, reads_history = False, True

    def __init__(
        self,
        log: EventLog,
        *,
        neighbours: int = 300,
        group: int = 7,
        within: float = 0.9,
        between: float = 0.7,
        alpha: float = 0.7,
    ) -> None:
        check_whole("neighbours", neighbours, 1)
        check_whole("group", group, 1)
        for name, value in (("within", within), ("between", between)):
            if not 0 < value <= 1:
                raise InputError(f"{name} must be above 0 and at most 1, not {value!r}; 1 does not decay")
        if not 0 <= alpha <= 1:
            raise InputError(f"alpha must be between 0 and 1, not {alpha!r}")
        self.items, self.num_items = log.items, log.num_items
        self.neighbours, self.group, self.within, self.between, self.alpha = neighbours, group, within, between, alpha
        self.trained_on = TrainingUsers(log)
        self.histories, self.popularity = self.trained_on.histories, popular(log)
        self.vectors = self._vectors(self.trained_on.own)
        self.by_item, self.squares = self.vectors.transposed(self.num_items), self.vectors.squares

    def scores(self, samples: Samples) -> Tensor:
        """``[S, num_items]``."""
        known = own_items(samples, self.items)
        own, itself = self._vectors(known), self.trained_on.of_samples(samples.earlier, rows=len(samples))
        work = own.terms(self.by_item) + len(self.vectors) + self.num_items
        parts = [self._scores(own.take(rows), itself[rows]) for rows in blocks(work)]
        return with_popular(torch.cat(parts), known, self.popularity)

    def votes(self, samples: Samples, item: int) -> Votes:
        """The user's own frequency of an item, and those of the nearest users; of a user without sessions none."""
        known = own_items(samples, self.items)
        own, itself = self._vectors(known), self.trained_on.of_samples(samples.earlier, rows=1)
        if not known.sessions[0]:
            return votes_of_users(self.vectors, item, 0.0, np.zeros(len(self.vectors)))
        mine = self.alpha * own.of_column(item).sum()
        return votes_of_users(self.vectors, item, mine, self._weights(own, itself)[0])

    def _scores(self, own: Vectors, itself: np.ndarray) -> Tensor:
        scaled = Vectors(own.ptr, own.column, self.alpha * own.weight).dense(self.num_items)
        return torch.from_numpy(self.vectors.mixed(self._weights(own, itself), begin=scaled)).float()

    def _weights(self, own: Vectors, itself: np.ndarray) -> np.ndarray:
        """The weight of each training user for each row."""
        distance = own.squares[:, None] + self.squares - 2 * own.products(self.by_item, others=len(self.vectors))
        some = np.flatnonzero(itself >= 0)
        distance[some, itself[some]] = np.inf
        # Rounding turns distances that are equal in exact arithmetic into ties.
        near, neighbour = nearest(distance.round(12), most=self.neighbours)
        found = np.maximum(np.bincount(near, minlength=len(own)), 1)
        weight = np.zeros_like(distance)
        weight[near, neighbour] = (1 - self.alpha) / found[near]
        return weight

    def _vectors(self, known: UserItems) -> Vectors:
        """v_u of each row."""
        total = known.sessions[known.row]
        behind, place = np.divmod(known.age - 1, self.group)  # groups after its own, sessions after it in its group
        groups = -(-total // self.group)
        size = np.minimum(total - behind * self.group, self.group)
        weight = self.within**place / size * self.between**behind / groups
        return known.vectors(weight, num_items=self.num_items)


def nearest(distance: np.ndarray, *, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of the ``most`` smallest finite values of each row, by row and column; ties: the lower column.

    >>> [found.tolist() for found in nearest(np.array([[3.0, 1.0, 1.0, 0.0]]), most=2)]
    [[0, 0], [1, 3]]
    """
    rows, columns = distance.shape
    if most >= columns:
        row, column = np.nonzero(np.isfinite(distance))
        return row, column
    bound = np.partition(distance, most - 1, axis=1)[:, most - 1 : most]
    chosen = distance < bound
    row, column = np.nonzero(distance == bound)
    free = most - chosen.sum(1)
    first = np.arange(len(row)) - np.searchsorted(row, row) < free[row]
    chosen[row[first], column[first]] = True
    row, column = np.nonzero(chosen & np.isfinite(distance))
    return row, column
