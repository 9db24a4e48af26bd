"""Gates: numbers in (0, 1), computed from what is known of a task or a sample, that scale the weights of a layer."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from graphmeta.errors import InputError


class Granularity(Protocol):
    """How a gate's values are spread over a weight; vectors (biases) always get one value an entry."""

    def size(self, weight: Tensor) -> int:
        """How many gate values this weight takes."""
        ...

    def spread(self, gate: Tensor, weight: Tensor) -> Tensor:
        """``[N, size]`` -> something that broadcasts against ``[N, *weight.shape]``."""
        ...


class Full:
    """One gate value for each number of the weight."""

    __name__ = "full"  # what a recipe calls it, as it does functions

    def size(self, weight: Tensor) -> int:
        """All of them."""
        return weight.numel()

    def spread(self, gate: Tensor, weight: Tensor) -> Tensor:
        """In the shape of the weight."""
        return gate.reshape(-1, *weight.shape)


class Row(Full):
    """One value an output (a row of ``[out, in]``): scales the layer's output before the bias."""

    __name__ = "row"

    def size(self, weight: Tensor) -> int:
        """Outputs."""
        return weight.shape[0]

    def spread(self, gate: Tensor, weight: Tensor) -> Tensor:
        """``[N, out, 1]``."""
        return gate.reshape(-1, weight.shape[0], *(1,) * (weight.dim() - 1))


class Column(Full):
    """One value an input (a column of ``[out, in]``): scales the layer's input."""

    __name__ = "column"

    def size(self, weight: Tensor) -> int:
        """Inputs."""
        return weight.shape[-1]

    def spread(self, gate: Tensor, weight: Tensor) -> Tensor:
        """``[N, 1, in]``."""
        return gate.reshape(-1, *(1,) * (weight.dim() - 1), weight.shape[-1])


class Rank1(Full):
    """The outer product of a row and a column gate: inputs and outputs are scaled, with few numbers."""

    __name__ = "rank1"

    def size(self, weight: Tensor) -> int:
        """Outputs and inputs."""
        return sum(weight.shape)

    def spread(self, gate: Tensor, weight: Tensor) -> Tensor:
        """``[N, out, in]``."""
        if weight.dim() == 1:
            return gate
        row, column = gate.split(list(weight.shape), dim=1)
        return row[:, :, None] * column[:, None, :]


GRANULARITIES: dict[str, Granularity] = {kind.__name__: kind for kind in (Full(), Row(), Column(), Rank1())}


def granularity_by_name(name: Granularity | str) -> Granularity:
    """The granularity of that name (or the granularity itself).

    Raises:
        InputError: none is called so.
    """
    if not isinstance(name, str):
        return name
    if name not in GRANULARITIES:
        raise InputError(f"no granularity is called {name!r}; there are {', '.join(GRANULARITIES)}")
    return GRANULARITIES[name]


class Gates(nn.Module):
    """Gates for weights added one by one: ``w · σ(FC(c))``, one ``FC`` a weight.

    Args:
        width: size of c.
        granularity: how many gate values a matrix gets; ``Full()`` if not given.
        bias: initial bias of each FC; 2 opens the gates to 0.88, so that training starts near the plain weights.

    Shapes: ``c [N, width]``, ``w`` -> ``[N, *w.shape]``.
    """

    def __init__(self, width: int, *, granularity: Granularity | None = None, bias: float = 2.0) -> None:
        super().__init__()
        self.width, self.granularity, self.bias = width, granularity or Full(), bias
        self.gates = nn.ModuleDict()

    def extra_repr(self) -> str:
        """Granularity."""
        return type(self.granularity).__name__

    def add(self, name: str, weight: Tensor) -> None:
        """Make the gate of one weight."""
        gate = nn.Linear(self.width, self.granularity.size(weight))
        nn.init.constant_(gate.bias, self.bias)
        self.gates[name.replace(".", "/")] = gate

    def names(self) -> list[str]:
        """The weights that have a gate."""
        return [key.replace("/", ".") for key in self.gates]

    def of(self, name: str, weight: Tensor, seen: Tensor) -> Tensor:
        """The weight under its gate for each row of ``seen [N, width]``: ``[N, *shape]``."""
        gate = torch.sigmoid(self.gates[name.replace(".", "/")](seen))
        return weight * self.granularity.spread(gate, weight)
