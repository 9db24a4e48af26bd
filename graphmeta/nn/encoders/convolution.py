"""Causal convolutions over the clicks of a session.

The rows of a batch stay flat: a filter's inputs are gathered by row number, and are zero before the first click of a
session. A convolution is then one linear layer, whatever the session lengths.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData


def lagged(states: Tensor, batch: HeteroData, lags: Iterable[int]) -> Tensor:
    """For each click, the states ``lag`` clicks earlier in its session; zeros before the first.

    Shapes: ``[E, D] -> [E, len(lags), D]``.
    """
    order = batch["event"].order
    steps = torch.cat([torch.full((1,), lag, device=order.device) for lag in lags])  # a list would be copied there
    click = torch.arange(len(order), device=order.device)[:, None]
    at = torch.where(order[:, None] >= steps, click - steps, click)
    found = states.index_select(0, at.reshape(-1)).reshape(*at.shape, states.shape[1])
    return torch.where((order[:, None] >= steps)[:, :, None], found, 0.0)


class GatedConv(nn.Module):
    """One layer of WaveNet: ``z_t = tanh(Σ_j V_j h_{t − j·dilation} + a) ⊙ σ(Σ_j U_j h_{t − j·dilation} + b)``, j = 0 …
    kernel − 1; the next layer reads ``h_t + R z_t + r``, and ``S z_t + s`` is added to the output of the stack.

    Args:
        kernel: number of clicks read, the current one included.
        dilation: clicks between them.

    Shapes: ``[E, width] -> ([E, width], [E, width])``.
    """

    def __init__(self, width: int, *, kernel: int, dilation: int) -> None:
        super().__init__()
        self.lags = range(0, kernel * dilation, dilation)
        self.filters = nn.Linear(kernel * width, 2 * width)
        self.residual, self.skip = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, states: Tensor, batch: HeteroData) -> tuple[Tensor, Tensor]:
        """What the next layer reads, and the skip connection."""
        value, gate = self.filters(lagged(states, batch, self.lags).flatten(1)).chunk(2, 1)
        unit = torch.tanh(value) * torch.sigmoid(gate)
        return states + self.residual(unit), self.skip(unit)


class CausalConvStack(nn.Module):
    """WaveNet's stack of gated causal convolutions, dilated by 1, 2, 4, …, with residual and skip connections.

    Layer i has dilation ``2^(i mod cycle)``; a state is ``ReLU(W ReLU(Σ_i skip_i) + b)``. It depends on the last
    ``1 + (kernel − 1) Σ_i 2^(i mod cycle)`` clicks.

    Args:
        layers: their number.
        kernel: clicks read by a filter.
        cycle: layers until the dilation is 1 again.

    Shapes: ``x [I, width] -> [E, width]``.
    Source: WaveNet (van den Oord et al. 2016), sections 2.1–2.4, figure 4 and eq 2; its last 1×1 convolution, to the
    classes, is the head's product with the items.
    Differs: positions before the first click are zero in every layer; with left padding, upper layers read the biases
    of the layers below there. All channels have one width, and there is no first convolution before the stack.
    """

    def __init__(self, width: int, *, layers: int = 4, kernel: int = 2, cycle: int = 4) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            GatedConv(width, kernel=kernel, dilation=2 ** (layer % cycle)) for layer in range(layers)
        )
        self.output = nn.Linear(width, width)

    def forward(self, x: Tensor, batch: HeteroData) -> Tensor:
        """States of the clicks."""
        states = x.index_select(0, batch["event"].item)
        total = torch.zeros_like(states)
        for layer in self.layers:
            states, skip = layer(states, batch)
            total = total + skip
        return torch.relu(self.output(torch.relu(total)))


class RecentPatterns(nn.Module):
    """Caser's filters over the last ``length`` clicks, an image with one row per click, zero-padded.

    Horizontal filters of each height h span the width and detect patterns of h consecutive clicks anywhere:
    ``o_h = max_p ReLU(F_h · E[p : p + h] + b_h)``. Vertical filters are weighted sums of the clicks,
    ``õ_v = Σ_l F̃_{v,l} E_l``. ``z = ReLU(W [o ; õ] + b)``.

    Args:
        length: L.
        horizontal: n_h, filters of each height 1 … L.
        vertical: n_v.
        dropout: before the last layer.

    Shapes: ``x [I, width] -> [E, width]``.
    Source: Caser (Tang & Wang 2018), eqs 3–9. Differs: every click ends a window, where the paper slides windows over a
    user's clicks; vertical filters have no bias, which the last layer would absorb.
    """

    def __init__(
        self, width: int, *, length: int = 5, horizontal: int = 16, vertical: int = 4, dropout: float = 0.5
    ) -> None:
        super().__init__()
        self.length = length
        self.horizontal = nn.ModuleList(nn.Linear(height * width, horizontal) for height in range(1, length + 1))
        self.vertical = nn.Linear(length, vertical, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.join = nn.Linear(horizontal * length + vertical * width, width)

    def forward(self, x: Tensor, batch: HeteroData) -> Tensor:
        """States of the clicks."""
        clicks = x.index_select(0, batch["event"].item)
        image = lagged(clicks, batch, range(self.length - 1, -1, -1))
        found = [self._best(image, height) for height in range(1, self.length + 1)]
        vertical = self.vertical(image.transpose(1, 2)).flatten(1)
        return torch.relu(self.join(self.dropout(torch.cat([*found, vertical], 1))))

    def _best(self, image: Tensor, height: int) -> Tensor:
        """Maximum activation of each filter of this height, ``[E, L, width] -> [E, horizontal]``."""
        places = image.unfold(1, height, 1).transpose(2, 3).flatten(2)
        return torch.relu(self.horizontal[height - 1](places)).amax(1)
