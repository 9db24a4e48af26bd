"""Heads for cold-start users with a few known items: a task adapts one vector or one small network."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from graphmeta.nn.features.tables import UserFeatures
from graphmeta.nn.heads.dot import Dot
from graphmeta.sampling.session_batch import rows_like


class UserVector(Dot):
    """Score = inner product of a task-specific user vector with the candidate: ``p · q_i``.

    Outside tasks, ``p_u = p + o_u`` with an offset for each known user; p is then shared by all users.

    Args:
        readout: input from which a start computes the vector; not used for the scores.
        users: the offsets, for plain training.

    Shapes: states ``[E, D]``, candidates ``[C, width]`` -> ``[S, C]``.
    """

    def __init__(self, readout: nn.Module, width: int, *, users: UserFeatures | None = None) -> None:
        super().__init__(readout)
        self.vector, self.users = nn.Parameter(torch.zeros(width)), users

    def query(self, states: Tensor, batch: HeteroData) -> Tensor:
        """The vector, repeated for each sample ``[S, width]``."""
        own = rows_like(states.new_zeros(batch["sample"].num_nodes, 1), batch["sample"].last) + self.vector
        return own if self.users is None or batch.rows else own + self.users.of_samples(batch)


class PairNetwork(nn.Module):
    """Score = an MLP of item and user: ``w · ReLU(W [q_i ; r_u] + b) + b'``.

    r_u is a parameter, :attr:`identity`, which a start sets for each task and no step updates.

    Shapes: states ``[E, D]``, candidates ``[C, width]`` -> ``[S, C]``; memory ``S · C · 2 width``.
    """

    def __init__(self, readout: nn.Module, width: int, *, hidden: int = 64) -> None:
        super().__init__()
        self.readout = readout
        self.identity = nn.Parameter(torch.zeros(width), requires_grad=False)
        self.layers = nn.Sequential(nn.Linear(2 * width, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def forward(self, states: Tensor, batch: HeteroData, candidates: Tensor) -> Tensor:
        """Scores of all candidates for all samples."""
        every = candidates.expand(batch["sample"].num_nodes, *candidates.shape)
        return self._score(rows_like(every, batch["sample"].last))

    def of_items(self, states: Tensor, batch: HeteroData, candidates: Tensor, items: Tensor) -> Tensor:
        """Scores of given candidates: items ``[S, N]`` -> ``[S, N]``."""
        return self._score(F.embedding(items, candidates))

    def _score(self, vectors: Tensor) -> Tensor:
        own = rows_like(vectors.new_zeros(len(vectors), 1, vectors.shape[2]), vectors) + self.identity
        return self.layers(torch.cat([vectors, own.expand_as(vectors)], 2)).squeeze(2)
