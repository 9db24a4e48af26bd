"""Where a task's weights start from, before it has taken a step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData

if TYPE_CHECKING:
    from graphmeta.recommender import Encoded, Recommender


class Start(Protocol):
    """``start(recommender, names, context, encoded)`` -> for each name the T tasks' weights ``[T, *shape]``.

    ``context`` is everything a task shows before it is asked: its query samples without their targets. A name that
    is left out starts from the shared weights.
    """

    def __call__(
        self, recommender: Recommender, names: list[str], context: HeteroData, encoded: Encoded | None
    ) -> dict[str, Tensor]: ...

    def bind(self, recommender: Recommender, names: list[str]) -> None:
        """Make the parameters that depend on the recommender's shapes; called once."""
        ...

    def changes(self) -> list[str]:
        """Names of the parameters that do not start from the shared weights."""
        ...


class Shared(nn.Module):
    """Every task starts from the same shared weights. Source: MAML (Finn et al. 2017)."""

    def bind(self, recommender: Recommender, names: list[str]) -> None:
        """Nothing to make."""

    def changes(self) -> list[str]:
        """None."""
        return []

    def forward(
        self, recommender: Recommender, names: list[str], context: HeteroData, encoded: Encoded | None
    ) -> dict[str, Tensor]:
        """No task differs from the shared weights."""
        return {}


class Gated(nn.Module):
    """Each task's weights are the shared ones times a gate computed from its context: ``θ_t = θ · σ(FC(c_t))``.

    The context ``c_t`` is what the head's readout makes of the task's known clicks (averaged over its queries).

    Args:
        prefix: which parameters are gated, by the beginning of the name.
        width: size of the readout.
        part: which entries of the readout the gate sees; all if not given.
        granularity: ``Full()``, ``Row()``, ``Column()`` or ``Rank1()``: how many gate values a matrix gets.
        bias: initial bias of the gate; 2 opens it to 0.88, so that training starts near the shared weights.

    Source: CBML eqs 12–14; MetaHIN's task-wise adaptation is the same block.
    Differs: the paper leaves the gate's width open; ``Full()`` has one value for each weight and bias.
    """

    def __init__(
        self,
        prefix: str,
        width: int,
        *,
        part: slice = slice(None),
        granularity: Granularity | None = None,
        bias: float = 2.0,
    ) -> None:
        super().__init__()
        self.prefix, self.part, self.bias = prefix, part, bias
        self.width = len(range(width)[part])
        self.granularity = granularity or Full()
        self.gates = nn.ModuleDict()

    def bind(self, recommender: Recommender, names: list[str]) -> None:
        """One gate for each parameter below the prefix."""
        for name, parameter in recommender.named_parameters():
            if name.startswith(self.prefix):
                self.gates[name.replace(".", "/")] = gate = nn.Linear(self.width, self.granularity.size(parameter))
                nn.init.constant_(gate.bias, self.bias)

    def changes(self) -> list[str]:
        """The gated parameters."""
        return [key.replace("/", ".") for key in self.gates]

    def forward(
        self, recommender: Recommender, names: list[str], context: HeteroData, encoded: Encoded | None
    ) -> dict[str, Tensor]:
        """The gated weights ``[T, *shape]`` of every parameter below the prefix."""
        seen = recommender.summary(context, encoded)[:, self.part]
        gated = {}
        for key, gate in self.gates.items():
            name = key.replace("/", ".")
            weight = recommender.get_parameter(name)
            gated[name] = weight * self.granularity.spread(torch.sigmoid(gate(seen)), weight)
        return gated


class Granularity(Protocol):
    """How a gate's values are spread over a weight; vectors (biases) always get one value an entry."""

    def size(self, weight: Tensor) -> int:
        """How many gate values this weight takes."""
        ...

    def spread(self, gate: Tensor, weight: Tensor) -> Tensor:
        """``[T, size]`` -> something that broadcasts against ``[T, *weight.shape]``."""
        ...


class Full:
    """One gate value for each number of the weight."""

    def size(self, weight: Tensor) -> int:
        """All of them."""
        return weight.numel()

    def spread(self, gate: Tensor, weight: Tensor) -> Tensor:
        """In the shape of the weight."""
        return gate.reshape(-1, *weight.shape)


class Row(Full):
    """One value an output (a row of ``[out, in]``): scales the layer's output before the bias."""

    def size(self, weight: Tensor) -> int:
        """Outputs."""
        return weight.shape[0]

    def spread(self, gate: Tensor, weight: Tensor) -> Tensor:
        """``[T, out, 1]``."""
        return gate.reshape(-1, weight.shape[0], *(1,) * (weight.dim() - 1))


class Column(Full):
    """One value an input (a column of ``[out, in]``): scales the layer's input."""

    def size(self, weight: Tensor) -> int:
        """Inputs."""
        return weight.shape[-1]

    def spread(self, gate: Tensor, weight: Tensor) -> Tensor:
        """``[T, 1, in]``."""
        return gate.reshape(-1, *(1,) * (weight.dim() - 1), weight.shape[-1])


class Rank1(Full):
    """The outer product of a row and a column gate: inputs and outputs are scaled, with few numbers."""

    def size(self, weight: Tensor) -> int:
        """Outputs and inputs."""
        return sum(weight.shape)

    def spread(self, gate: Tensor, weight: Tensor) -> Tensor:
        """``[T, out, in]``."""
        if weight.dim() == 1:
            return gate
        row, column = gate.split(list(weight.shape), dim=1)
        return row[:, :, None] * column[:, None, :]
