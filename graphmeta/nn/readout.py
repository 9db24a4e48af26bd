"""From the states of a sample's clicks to one vector: ``(states [E, D], batch) -> [S, D']``."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from graphmeta.nn.cluster import Prototypes


class Last(nn.Module):
    """The state of the last click. ``[E, D] -> [S, D]``."""

    def forward(self, states: Tensor, batch: HeteroData) -> Tensor:
        """One vector a sample."""
        return states.index_select(0, batch["sample"].last)


class Mean(nn.Module):
    """The mean state of the clicks. ``[E, D] -> [S, D]``."""

    def forward(self, states: Tensor, batch: HeteroData) -> Tensor:
        """One vector a sample."""
        total = states.new_zeros(batch["sample"].num_nodes, states.shape[1])
        return total.index_add(0, batch["event"].batch, states) / batch["sample"].ptr.diff()[:, None]


class SoftAttention(nn.Module):
    """SR-GNN's readout: a weighted sum of all clicks beside the last one, ``[Σ_i α_i h_i ; h_last]``.

    ``α_i = qᵀ σ(W_1 h_last + W_2 h_i + c)``, without a softmax; a repeated click counts each time.

    Shapes: ``[E, width] -> [S, 2·width]``. Source: SR-GNN eqs 6–7.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.of_last, self.of_each = nn.Linear(width, width, bias=False), nn.Linear(width, width)
        self.weigh = nn.Linear(width, 1, bias=False)

    def forward(self, states: Tensor, batch: HeteroData) -> Tensor:
        """One vector a sample."""
        last, owner = states.index_select(0, batch["sample"].last), batch["event"].batch
        alpha = self.weigh(torch.sigmoid(self.of_last(last).index_select(0, owner) + self.of_each(states)))
        total = torch.zeros_like(last).index_add(0, owner, alpha * states)
        return torch.cat([total, last], 1)


class Clustered(nn.Module):
    """A readout S beside the cluster centre it belongs to: ``[S ; C]``.

    Shapes: ``[E, D] -> [S, width + code]``. Source: CBML eqs 9–11 and the input of eq 15.
    """

    def __init__(self, readout: nn.Module, prototypes: Prototypes) -> None:
        super().__init__()
        self.readout, self.prototypes = readout, prototypes

    def forward(self, states: Tensor, batch: HeteroData) -> Tensor:
        """One vector a sample."""
        session = self.readout(states, batch)
        return torch.cat([session, self.prototypes(session)], 1)
