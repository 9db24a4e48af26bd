"""Reverse position embeddings: a click's position, counted from the last click."""

from __future__ import annotations

from torch import Tensor, nn
from torch_geometric.data import HeteroData

from graphmeta.nn.features.tables import Table
from graphmeta.nn.readout import clicks_left


class Positions(nn.Module):
    """Add a reverse position embedding to each click's state: ``h_t + p_{n−t}``.

    On a graph encoder the embeddings are added to its output states; on
    :class:`~graphmeta.nn.encoders.attention.Clicks` to the item vectors that later blocks read. A reverse position
    depends on later clicks, so it cannot be used in causal encoders
    (:class:`~graphmeta.nn.losses.losses.AllPositions`).

    Args:
        encoder: of the states.
        width: of a state.
        longest: number of positions with an embedding; earlier clicks share the last.

    Shapes: ``x [I, D] -> [E, width]``.
    Source: NISER+ (Gupta et al. 2019); counting from the end is GCE-GNN's (Wang et al. 2020).
    """

    def __init__(self, encoder: nn.Module, width: int, *, longest: int = 50) -> None:
        super().__init__()
        self.encoder, self.place, self.longest = encoder, Table(longest, width), longest

    def forward(self, x: Tensor, batch: HeteroData) -> Tensor:
        """States of the clicks."""
        return self.encoder(x, batch) + self.place(clicks_left(batch).clamp(max=self.longest - 1))
