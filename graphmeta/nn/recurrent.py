"""Recurrent networks over the clicks of a session."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from graphmeta.errors import InputError
from graphmeta.nn.attention import from_dense, to_dense

CELLS: dict[str, type[nn.GRU] | type[nn.LSTM]] = {"gru": nn.GRU, "lstm": nn.LSTM}


class Recurrent(nn.Module):
    """The state after each click, beginning with zeros at each session's first: it looks back only.

    Sessions of like length run together: in one padded block, one session of 200 clicks among 63 of 3 would cost
    as much as 64 of 200.

    Args:
        cell: ``gru`` or ``lstm``; layers: how many, one above the other; dropout: before each.

    Shapes: ``x [I, width] -> [E, hidden]``.
    Source: GRU4Rec (Hidasi et al. 2016), section 3.
    """

    def __init__(self, width: int, hidden: int, *, cell: str = "gru", layers: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        if cell not in CELLS:
            raise InputError(f"cell={cell!r} must be one of {', '.join(CELLS)}")
        sizes = [width] + [hidden] * (layers - 1)
        self.layers = nn.ModuleList(CELLS[cell](size, hidden, batch_first=True) for size in sizes)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, batch: HeteroData) -> Tensor:
        """States of the clicks."""
        return self.over_clicks(x.index_select(0, batch["event"].item), batch)

    def over_clicks(self, clicks: Tensor, batch: HeteroData) -> Tensor:
        """The same for one vector a click, ``[E, width] -> [E, hidden]``."""
        if batch.rows:  # task-major: weights that differ by task need blocks that are alike for all tasks
            return from_dense(self._run(to_dense(clicks, batch)[0]), batch)
        blocks = [(self._run(clicks[place])[inside], place[inside]) for place, inside in alike(batch["sample"].ptr)]
        states, rows = (torch.cat(parts) for parts in zip(*blocks, strict=True))
        return states[rows.argsort()]

    def _run(self, states: Tensor) -> Tensor:
        """``[S, L, width] -> [S, L, hidden]``."""
        for layer in self.layers:
            states = layer(self.dropout(states))[0]
        return states


def alike(ptr: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Samples in groups, none of them half as long as the group's longest or less: their clicks as a block.

    Yields the row of each click ``[G, L]``, a shorter sample's last one repeated, and whether it is none of the
    repeated ones ``[G, L]``.

    >>> [place.tolist() for place, _ in alike(torch.tensor([0, 1, 4, 6]))]
    [[[1, 2, 3], [4, 5, 5]], [[0]]]
    """
    length, order = ptr.diff().sort(descending=True, stable=True)
    left = length.tolist()
    while left and left[0] > 0:
        size = next((n for n, other in enumerate(left) if 2 * other <= left[0]), len(left))
        at = torch.arange(left[0], device=ptr.device)
        inside = at < length[:size, None]
        yield ptr[order[:size], None] + torch.minimum(at, length[:size, None] - 1), inside
        left, length, order = left[size:], length[size:], order[size:]
