"""Translation heads: a user-specific vector leads from one item to the next, ``e_head + r ≈ e_next``."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from graphmeta.nn.readout import Last

_TINY = 1e-12  # under the square root, whose derivative is infinite at zero


class MeanTransition(nn.Module):
    """Mean representation of a sample's transitions: ``mean_i MLP([h_i ; h_{i+1}])``, zero for a sample of one click.

    Args:
        hidden: hidden widths.
        dropout: after each hidden layer.

    Shapes: ``[E, width] -> [S, width]``.
    Source: MetaTL (Wang, Ding & Caverlee 2021), eqs 1–2. Differs: no batch norm, which would make a user's relation
    depend on the other users in the batch.
    """

    def __init__(self, width: int, *, hidden: tuple[int, ...] = (500, 200), dropout: float = 0.5) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for one, other in pairwise((2 * width, *hidden)):
            layers += [nn.Linear(one, other), nn.LeakyReLU(), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers, nn.Linear(hidden[-1], width))

    def forward(self, states: Tensor, batch: HeteroData) -> Tensor:
        """One vector per sample."""
        owner = batch["event"].batch
        step = (owner[1:] == owner[:-1]).nonzero().squeeze(1)
        pairs = torch.cat([states.index_select(0, step), states.index_select(0, step + 1)], 1)
        total = states.new_zeros(batch["sample"].num_nodes, states.shape[1])
        total = total.index_add(0, owner.index_select(0, step), self.layers(pairs))
        return total / (batch["sample"].ptr.diff() - 1).clamp(min=1)[:, None]


class Translation(nn.Module):
    """Score = negative distance of the candidate from the translated last click: ``−‖h_last + r − e_i‖``.

    r is a parameter, :attr:`relation`, which a start computes from the readout for each task.

    Shapes: states ``[E, width]``, candidates ``[C, width]`` -> ``[S, C]``.
    Source: MetaTL, eq 3, after TransE (Bordes et al. 2013).
    """

    def __init__(self, readout: nn.Module, width: int) -> None:
        super().__init__()
        self.readout = readout
        self.relation = nn.Parameter(torch.zeros(width), requires_grad=False)

    def translated(self, states: Tensor, batch: HeteroData) -> Tensor:
        """``h_last + r``, ``[S, width]``."""
        return Last()(states, batch) + self.relation

    def forward(self, states: Tensor, batch: HeteroData, candidates: Tensor) -> Tensor:
        """Scores of all candidates for all samples."""
        place = self.translated(states, batch)
        squares = place.square().sum(1, keepdim=True) + candidates.square().sum(1) - 2 * F.linear(place, candidates)
        return -(squares.clamp(min=0) + _TINY).sqrt()

    def of_items(self, states: Tensor, batch: HeteroData, candidates: Tensor, items: Tensor) -> Tensor:
        """Scores of given candidates: items ``[S, N]`` -> ``[S, N]``."""
        gap = self.translated(states, batch)[:, None] - F.embedding(items, candidates)
        return -(gap.square().sum(2) + _TINY).sqrt()
