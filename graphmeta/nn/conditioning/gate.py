"""Gates: values in (0, 1), computed from a task's or sample's vector, that scale the weights of a layer."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from graphmeta.errors import InputError


class Granularity(Protocol):
    """How gate values are broadcast over a weight matrix; vectors (biases) always get one value per entry."""

    def size(self, weight: Tensor) -> int:
        """Number of gate values for this weight."""
        ...

    def spread(self, gate: Tensor, weight: Tensor) -> Tensor:
        """``[N, size]`` -> a tensor that broadcasts against ``[N, *weight.shape]``."""
        ...


class Full:
    """One gate value per entry of the weight."""

    __name__ = "full"  # its name in a build spec

    def size(self, weight: Tensor) -> int:
        """The number of entries."""
        return weight.numel()

    def spread(self, gate: Tensor, weight: Tensor) -> Tensor:
        """Reshaped to the weight."""
        return gate.reshape(-1, *weight.shape)


class Row(Full):
    """One value per output (a row of ``[out, in]``): scales the layer's output before the bias."""

    __name__ = "row"

    def size(self, weight: Tensor) -> int:
        """The number of outputs."""
        return weight.shape[0]

    def spread(self, gate: Tensor, weight: Tensor) -> Tensor:
        """``[N, out, 1]``."""
        return gate.reshape(-1, weight.shape[0], *(1,) * (weight.dim() - 1))


class Column(Full):
    """One value per input (a column of ``[out, in]``): scales the layer's input."""

    __name__ = "column"

    def size(self, weight: Tensor) -> int:
        """The number of inputs."""
        return weight.shape[-1]

    def spread(self, gate: Tensor, weight: Tensor) -> Tensor:
        """``[N, 1, in]``."""
        return gate.reshape(-1, *(1,) * (weight.dim() - 1), weight.shape[-1])


class Rank1(Full):
    """Outer product of a row gate and a column gate: scales inputs and outputs with few values."""

    __name__ = "rank1"

    def size(self, weight: Tensor) -> int:
        """The number of outputs plus inputs."""
        return sum(weight.shape)

    def spread(self, gate: Tensor, weight: Tensor) -> Tensor:
        """``[N, out, in]``."""
        if weight.dim() == 1:
            return gate
        row, column = gate.split(list(weight.shape), dim=1)
        return row[:, :, None] * column[:, None, :]


GRANULARITIES: dict[str, Granularity] = {kind.__name__: kind for kind in (Full(), Row(), Column(), Rank1())}


def granularity_by_name(name: Granularity | str) -> Granularity:
    """The granularity of that name (or the object itself).

    Raises:
        InputError: an unknown name.
    """
    if not isinstance(name, str):
        return name
    if name not in GRANULARITIES:
        raise InputError(f"unknown granularity {name!r}; choose {', '.join(GRANULARITIES)}")
    return GRANULARITIES[name]


class Gates(nn.Module):
    """Gates for a set of weights: ``w · σ(FC(c))``, one ``FC`` per weight.

    Args:
        width: size of c.
        granularity: of matrix gates; ``Full()`` if not given.
        bias: initial bias of each FC; 2 opens the gates to 0.88, so that training starts near the ungated weights.

    Shapes: ``c [N, width]``, ``w`` -> ``[N, *w.shape]``.
    """

    def __init__(self, width: int, *, granularity: Granularity | None = None, bias: float = 2.0) -> None:
        super().__init__()
        self.width, self.granularity, self.bias = width, granularity or Full(), bias
        self.gates = nn.ModuleDict()

    def extra_repr(self) -> str:
        """The granularity."""
        return type(self.granularity).__name__

    def add(self, name: str, weight: Tensor) -> None:
        """Create the gate of one weight."""
        gate = nn.Linear(self.width, self.granularity.size(weight))
        nn.init.constant_(gate.bias, self.bias)
        self.gates[name.replace(".", "/")] = gate

    def names(self) -> list[str]:
        """The gated weights."""
        return [key.replace("/", ".") for key in self.gates]

    def of(self, name: str, weight: Tensor, c: Tensor) -> Tensor:
        """The gated weight for each row of ``c [N, width]``: ``[N, *shape]``."""
        gate = torch.sigmoid(self.gates[name.replace(".", "/")](c))
        return weight * self.granularity.spread(gate, weight)
