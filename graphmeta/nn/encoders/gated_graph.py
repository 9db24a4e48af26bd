"""Gated message passing on the session graph."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from graphmeta.nn.sizes import counts
from graphmeta.sampling.batch_rows import NEXT


def mean_from(x: Tensor, source: Tensor, target: Tensor) -> Tensor:
    """Mean of each row's in-neighbours; zero without any. ``[I, D] -> [I, D]``.

    Uses ``index_add``, whose second derivative is exact with and without torch-scatter.
    """
    total = torch.zeros_like(x).index_add(0, target, x.index_select(0, source))
    return total / counts(target, len(x)).clamp(min=1).to(x.dtype)[:, None]


class GatedSessionGraph(nn.Module):
    """SR-GNN's encoder: items of a session exchange messages along its transitions, in both directions, through a GRU
    cell.

    With A_in, A_out the session's 0/1 transition matrices, normalised by in- and out-degree, a step is
    ``a = [A_in(H W_in + b_in) + b'_in ; A_out(H W_out + b_out) + b'_out]``, ``H' = GRU(a, H)``.

    Shapes: ``x [I, width] -> [E, width]``, the state of each click's item.
    Source: SR-GNN (Wu et al. 2019) eqs 1–5. A repeated transition counts once.
    """

    def __init__(self, width: int, *, steps: int = 1) -> None:
        super().__init__()
        self.steps = steps
        self.incoming, self.outgoing = nn.Linear(width, width), nn.Linear(width, width)
        self.bias = nn.Parameter(torch.zeros(2 * width))
        self.cell = nn.GRUCell(2 * width, width)

    def forward(self, x: Tensor, batch: HeteroData) -> Tensor:
        """States of the clicks."""
        source, target = batch[NEXT].edge_index
        for _ in range(self.steps):
            messages = [
                mean_from(self.incoming(x), source, target),
                mean_from(self.outgoing(x), target, source),
            ]
            x = self.cell(torch.cat(messages, 1) + self.bias, x)
        return x.index_select(0, batch["event"].item)
