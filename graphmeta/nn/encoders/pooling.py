"""Encoders that ignore click order, and concatenation of encoders."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from graphmeta.nn.encoders.attention import from_dense, to_dense
from graphmeta.nn.features.tables import UserFeatures
from graphmeta.nn.readout import Mean


class RunningMean(nn.Module):
    """The mean of the clicks so far and of one vector of zeros: ``u_t = Σ_{i ≤ t} e_i / (t + 1)``, t from 1.

    Shapes: ``x [I, width] -> [E, width]``.
    Source: the user vector of YouTube's candidate generator (Covington et al. 2016), as Spotlight builds it; the zero
    vector shrinks the vectors of short sessions.
    """

    def forward(self, x: Tensor, batch: HeteroData) -> Tensor:
        """States of the clicks."""
        clicks, _ = to_dense(x.index_select(0, batch["event"].item), batch)
        total = from_dense(clicks.cumsum(1), batch)
        return total / (batch["event"].order + 2)[:, None]


class SampleMean(nn.Module):
    """Each click's state is the mean over all clicks of its sample, in any order.

    Shapes: ``x [I, D] -> [E, D]``.
    """

    def forward(self, x: Tensor, batch: HeteroData) -> Tensor:
        """States of the clicks."""
        clicks = x.index_select(0, batch["event"].item)
        return Mean()(clicks, batch).index_select(0, batch["event"].batch)


class UserStates(nn.Module):
    """Each click's state is its user's vector, whatever was clicked; zeros for unknown users.

    Shapes: ``x [I, D] -> [E, width]``.
    """

    def __init__(self, num_users: int, width: int) -> None:
        super().__init__()
        self.users = UserFeatures(num_users, width)

    def knows(self, user: Tensor) -> Tensor:
        """Whether each user has a vector, ``[S]``."""
        return self.users.known(user)

    def forward(self, x: Tensor, batch: HeteroData) -> Tensor:
        """States of the clicks."""
        return self.users.of_samples(batch).index_select(0, batch["event"].batch)


class ConcatenatedEncoders(nn.Module):
    """Encoders that all read the same item vectors; their states are concatenated, ``[h ; h' ; …]``.

    Shapes: ``x [I, D] -> [E, D_1 + D_2 + …]``.
    """

    def __init__(self, *encoders: nn.Module) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(encoders)

    def forward(self, x: Tensor, batch: HeteroData) -> Tensor:
        """States of the clicks."""
        return torch.cat([encoder(x, batch) for encoder in self.encoders], 1)
