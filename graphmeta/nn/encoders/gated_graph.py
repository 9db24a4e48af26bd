"""Gated message passing on the session graph."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from graphmeta.nn.sizes import counts
from graphmeta.sampling.batch_rows import NEXT


def mean_from(x: Tensor, source: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean of each row's in-neighbours; zero without any. ``[I, D] -> [I, D]``; weight of each edge ``[M]``.

    Uses ``index_add``, whose second derivative is exact with and without torch-scatter.
    """
    found = x.index_select(0, source)
    if weight is None:
        size = counts(target, len(x)).to(x.dtype)
    else:
        found, size = found * weight[:, None], weight.new_zeros(len(x)).index_add(0, target, weight)
    return torch.zeros_like(x).index_add(0, target, found) / size.clamp(min=1)[:, None]


class GatedSessionGraph(nn.Module):
    """SR-GNN's encoder: items of a session exchange messages along its transitions, in both directions, through a GRU
    cell.

    With A_in, A_out the session's transition matrices, rows normalised to a sum of 1, a step is
    ``a = [A_in(H W_in + b_in) + b'_in ; A_out(H W_out + b_out) + b'_out]``, ``H' = GRU(a, H)``.

    Args:
        steps: rounds of message passing.
        weighted: edges are weighted by the number of times that the session has the transition, as in the paper; if
            False, a repeated transition counts once, as in the public code.

    Shapes: ``x [I, width] -> [E, width]``, the state of each click's item.
    Source: SR-GNN (Wu et al. 2019) eqs 1–5.
    """

    def __init__(self, width: int, *, steps: int = 1, weighted: bool = False) -> None:
        super().__init__()
        self.steps, self.weighted = steps, weighted
        self.incoming, self.outgoing = nn.Linear(width, width), nn.Linear(width, width)
        self.bias = nn.Parameter(torch.zeros(2 * width))
        self.cell = nn.GRUCell(2 * width, width)

    def forward(self, x: Tensor, batch: HeteroData) -> Tensor:
        """States of the clicks."""
        source, target = batch[NEXT].edge_index
        weight = batch[NEXT].weight.to(x.dtype) if self.weighted else None
        for _ in range(self.steps):
            messages = [
                mean_from(self.incoming(x), source, target, weight),
                mean_from(self.outgoing(x), target, source, weight),
            ]
            x = self.cell(torch.cat(messages, 1) + self.bias, x)
        return x.index_select(0, batch["event"].item)
