"""Causal convolutions over the clicks of a session.

The rows of a batch stay flat: a filter's inputs are gathered by row number, and are zero before the first click of a
session. A convolution is then one linear layer, whatever the session lengths.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData

Activation = Callable[[Tensor], Tensor]


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


class CausalConv(nn.Module):
    """One causal convolution: ``h_t = act(Σ_j W_j x_{t − j·dilation} + b)``, j = 0 … kernel − 1.

    Args:
        activation: ``act``; kernel: number of clicks read, the current one included; dilation: clicks between them.
        gated: WaveNet's gated unit, ``act(…) ⊙ σ(…)`` with separate gate weights.

    Shapes: ``[E, width] -> [E, width]``.
    """

    def __init__(self, width: int, *, activation: Activation, kernel: int, dilation: int, gated: bool) -> None:
        super().__init__()
        self.activation, self.gated = activation, gated
        self.lags = range(0, kernel * dilation, dilation)
        self.filters = nn.Linear(kernel * width, (1 + gated) * width)

    def forward(self, states: Tensor, batch: HeteroData) -> Tensor:
        """New states of the clicks."""
        found = self.filters(lagged(states, batch, self.lags).flatten(1))
        if not self.gated:
            return self.activation(found)
        value, gate = found.chunk(2, 1)
        return self.activation(value) * torch.sigmoid(gate)


# Their names on the command line and in build specs.
ACTIVATIONS: dict[str, Activation] = {"tanh": torch.tanh, "relu": torch.relu}


class CausalConvStack(nn.Module):
    """A stack of causal convolutions, layer i with dilation ``multiplier^(i mod 8)``.

    ``h⁰ = x``, ``h^{i+1}_t = act(Σ_j W^i_j h^i_{t − j·dilation} + b^i) + h^i_t``; the last term with ``residual``.

    Args:
        layers: their number; kernel: clicks read by a filter; activation: ``torch.tanh``, ``torch.relu``, or
            another element-wise function or module.
        gated: see :class:`CausalConv`.

    Shapes: ``x [I, width] -> [E, width]``.
    Source: WaveNet (van den Oord et al. 2016), section 2, as a recommender of Spotlight (Kula 2017). A click's state
    depends on it and earlier clicks; Spotlight's state t on those before t, which is the same, shifted by one.
    Differs: positions before the first click are zero in every layer; with left padding, upper layers read the biases
    of the layers below there.
    """

    def __init__(
        self,
        width: int,
        *,
        layers: int = 1,
        kernel: int = 3,
        multiplier: int = 1,
        residual: bool = True,
        activation: Activation = torch.tanh,
        gated: bool = False,
    ) -> None:
        super().__init__()
        self.residual = residual
        self.layers = nn.ModuleList(
            CausalConv(
                width,
                activation=activation,
                kernel=kernel,
                dilation=multiplier ** (layer % 8),
                gated=gated,
            )
            for layer in range(layers)
        )

    def forward(self, x: Tensor, batch: HeteroData) -> Tensor:
        """States of the clicks."""
        states = x.index_select(0, batch["event"].item)
        for layer in self.layers:
            found = layer(states, batch)
            states = found + states if self.residual else found
        return states


class RecentPatterns(nn.Module):
    """Caser's filters over the last ``length`` clicks, an image with one row per click, zero-padded.

    Horizontal filters of each height h span the width and detect patterns of h consecutive clicks anywhere:
    ``o_h = max_p ReLU(F_h · E[p : p + h] + b_h)``. Vertical filters are weighted sums of the clicks,
    ``õ_v = Σ_l F̃_{v,l} E_l``. ``z = ReLU(W [o ; õ] + b)``.

    Args:
        length: L; horizontal: n_h, filters of each height 1 … L; vertical: n_v; dropout: before the last layer.

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
