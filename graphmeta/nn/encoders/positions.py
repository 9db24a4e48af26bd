"""Where in its session a click is, counted from the last one."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from graphmeta.nn.features.tables import Table


def clicks_left(batch: HeteroData) -> Tensor:
    """How many clicks of its sample come after each click, ``[E]``: 0 for the last one."""
    last = batch["sample"].ptr[1:].index_select(0, batch["event"].batch) - 1
    return last - torch.arange(len(last), device=last.device)


class Positions(nn.Module):
    """Add a vector for the place to each click's state, places counted from the end: ``h_t + p_{n−t}``.

    Around a graph encoder the vectors are added to its states; around
    :class:`~graphmeta.nn.encoders.attention.Clicks` to the item vectors that blocks above then read. A place depends on
    how many clicks follow, so it is nothing for encoders that must look back only
    (:class:`~graphmeta.nn.losses.losses.AllPositions`).

    Args:
        encoder: gives the states; width: theirs.
        longest: places that have a vector; clicks further back share the last.

    Shapes: ``x [I, D] -> [E, width]``.
    Source: NISER+ (Gupta et al. 2019); the count from the end is GCE-GNN's (Wang et al. 2020).
    """

    def __init__(self, encoder: nn.Module, width: int, *, longest: int = 50) -> None:
        super().__init__()
        self.encoder, self.place, self.longest = encoder, Table(longest, width), longest

    def forward(self, x: Tensor, batch: HeteroData) -> Tensor:
        """States of the clicks."""
        return self.encoder(x, batch) + self.place(clicks_left(batch).clamp(max=self.longest - 1))
