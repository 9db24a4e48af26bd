"""A decoder that takes one recurrent step with attention over a recurrent encoder's states."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from graphmeta.nn.encoders.recurrent import Recurrent
from graphmeta.nn.heads.dot import Dot
from graphmeta.nn.readout import Last, softmax_of


class RecurrentWithInput(nn.Module):
    """The state of a recurrent network after each click, concatenated with its input: ``[h ; x]``.

    Args:
        width: number of leading columns of x that the network reads.
        hidden: width of its state.
        dropout: of x.

    Shapes: ``x [I, width + …] -> [E, hidden + width + …]``.
    """

    def __init__(self, width: int, hidden: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.width, self.recurrent, self.dropout = width, Recurrent(width, hidden), nn.Dropout(dropout)

    def forward(self, x: Tensor, batch: HeteroData) -> Tensor:
        """States of the clicks."""
        clicks = self.dropout(x).index_select(0, batch["event"].item)
        return torch.cat([self.recurrent.over_clicks(clicks[:, : self.width], batch), clicks], 1)


class AttentionDecoder(nn.Module):
    """One decoder step from the encoder's last state ``s = h_last``, predicting the next item vector, ``[S, width]``.

    ``a = softmax_i(v·tanh(W h_i + W' s))``, ``c = Σ a_i h_i``, ``s' = GRU([e_last ; c], s)``, ``z = W_o [s' ; c] + b``.

    Shapes: states ``[h ; e ; …]``, ``[E, hidden + width + …] -> [S, width]``.
    Source: Bahdanau et al. 2015, for the attention.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.width, self.hidden = width, hidden
        self.of_each, self.of_state = (nn.Linear(hidden, hidden, bias=False) for _ in range(2))
        self.score = nn.Linear(hidden, 1, bias=False)
        self.cell, self.output = nn.GRUCell(width + hidden, hidden), nn.Linear(2 * hidden, width)

    def forward(self, states: Tensor, batch: HeteroData) -> Tensor:
        """One vector per sample."""
        each, owner = states[:, : self.hidden], batch["event"].batch
        state = Last()(each, batch)
        energy = torch.tanh(self.of_each(each) + self.of_state(state).index_select(0, owner))
        attention = softmax_of(self.score(energy), owner, len(state))
        context = torch.zeros_like(state).index_add(0, owner, attention * each)
        item = Last()(states[:, self.hidden : self.hidden + self.width], batch)
        return self.output(torch.cat([self.cell(torch.cat([item, context], 1), state), context], 1))


class DecoderHead(Dot):
    """Score = inner product of the decoder's output with the candidate: ``z · e_i``.

    Args:
        readout: input of a start's gates; not used for the scores.
    """

    reads_only_readout = False  # the decoder reads the states of the clicks

    def __init__(self, decoder: AttentionDecoder, readout: nn.Module) -> None:
        super().__init__(readout)
        self.decoder = decoder

    def query(self, states: Tensor, batch: HeteroData) -> Tensor:
        """The query vectors ``[S, width]``."""
        return self.of_clicks(self.decoder(states, batch), batch)
