"""Recurrent networks over the clicks of a session."""

from __future__ import annotations

from torch import Tensor, nn
from torch_geometric.data import HeteroData

from graphmeta.errors import InputError
from graphmeta.nn.encoders.attention import in_blocks

Cell = type[nn.GRU] | type[nn.LSTM]
CELLS: dict[str, Cell] = {"gru": nn.GRU, "lstm": nn.LSTM}  # their names on the command line and in build specs


class Recurrent(nn.Module):
    """The state after each click, reset to zeros at each session's first click; causal.

    Args:
        cell: ``nn.GRU`` or ``nn.LSTM``.
        layers: number of stacked layers.
        dropout: before each.

    Shapes: ``x [I, width] -> [E, hidden]``.
    Source: GRU4Rec (Hidasi et al. 2016), section 3.
    """

    def __init__(self, width: int, hidden: int, *, cell: Cell = nn.GRU, layers: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        if not callable(cell):
            raise InputError(f"cell={cell!r} must be a class of torch.nn: GRU or LSTM")
        made = (cell(hidden if number else width, hidden, batch_first=True) for number in range(layers))
        self.layers = nn.ModuleList(made)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, batch: HeteroData) -> Tensor:
        """States of the clicks."""
        return self.over_clicks(x.index_select(0, batch["event"].item), batch)

    def over_clicks(self, clicks: Tensor, batch: HeteroData) -> Tensor:
        """The same for one input vector per click, ``[E, width] -> [E, hidden]``."""
        return in_blocks(lambda block, _: self._run(block), clicks, batch)

    def _run(self, states: Tensor) -> Tensor:
        """``[S, L, width] -> [S, L, hidden]``."""
        for layer in self.layers:
            states = layer(self.dropout(states))[0]
        return states
