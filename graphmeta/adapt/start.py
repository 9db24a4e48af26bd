"""Where a task's weights start from, before it has taken a step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from torch import Tensor, nn
from torch_geometric.data import HeteroData

from graphmeta.nn.gate import Gates, Granularity
from graphmeta.nn.memory import MemoryLayer

if TYPE_CHECKING:
    from graphmeta.adapt.engine import Weights
    from graphmeta.adapt.scope import Scope
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

    def reached(self, recommender: Recommender, weights: Weights) -> None:
        """Told where the tasks of the last call have ended: their weights, ``[T, *shape]`` by name."""
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

    def reached(self, recommender: Recommender, weights: Weights) -> None:
        """Nothing to learn from it."""


class Gated(Gates):
    """Each task's weights are the shared ones times a gate computed from its context: ``θ_t = θ · σ(FC(c_t))``.

    The context ``c_t`` is what the head's last layer reads of the task's known clicks
    (:meth:`~graphmeta.recommender.Recommender.summary`).

    Args:
        scope: which parameters are gated.
        width: size of the summary.
        part: which entries of the summary the gate sees; all if not given.
        granularity, bias: see :class:`~graphmeta.nn.gate.Gates`.

    Source: CBML eqs 12–14; MetaHIN's task-wise adaptation is the same block.
    Differs: the paper leaves the gate's width open; ``Full()`` has one value for each weight and bias.
    """

    def __init__(
        self,
        scope: Scope,
        width: int,
        *,
        part: slice = slice(None),
        granularity: Granularity | None = None,
        bias: float = 2.0,
    ) -> None:
        super().__init__(len(range(width)[part]), granularity=granularity, bias=bias)
        self.scope, self.part = scope, part

    def bind(self, recommender: Recommender, names: list[str]) -> None:
        """One gate for each parameter of the scope."""
        for name in self.scope.names(recommender):
            self.add(name, recommender.get_parameter(name))

    def changes(self) -> list[str]:
        """The gated parameters."""
        return self.names()

    def reached(self, recommender: Recommender, weights: Weights) -> None:
        """Nothing to learn from it."""

    def forward(
        self, recommender: Recommender, names: list[str], context: HeteroData, encoded: Encoded | None
    ) -> dict[str, Tensor]:
        """The gated weights ``[T, *shape]`` of every parameter of the scope."""
        return self.under(recommender, recommender.summary(context, encoded))

    def under(self, recommender: Recommender, summary: Tensor) -> dict[str, Tensor]:
        """The same for summaries ``[T, width]`` that are known already."""
        seen = summary[:, self.part]
        return {name: self.of(name, recommender.get_parameter(name), seen) for name in self.names()}


class Remembered(nn.Module):
    """A task's weight of a memory layer is what it finds there; in training, what it makes of it is noted there.

    Args:
        layer: name of the :class:`~graphmeta.nn.memory.MemoryLayer`; it is addressed by the recommender's summary.

    Source: MAMO (Dong et al. 2020), the task memory.
    """

    def __init__(self, layer: str) -> None:
        super().__init__()
        self.layer = layer
        self.address: Tensor | None = None

    def bind(self, recommender: Recommender, names: list[str]) -> None:
        """Nothing to make: keys and slots are the layer's."""

    def changes(self) -> list[str]:
        """The layer's weight."""
        return [f"{self.layer}.weight"]

    def forward(
        self, recommender: Recommender, names: list[str], context: HeteroData, encoded: Encoded | None
    ) -> dict[str, Tensor]:
        """The remembered weights ``[T, width, width]``."""
        memory = self._memory(recommender)
        address = memory.address(recommender.summary(context, encoded))
        self.address = address.detach() if self.training else None
        return {f"{self.layer}.weight": memory.read(address)}

    def reached(self, recommender: Recommender, weights: Weights) -> None:
        """In training, note the weights for the layer to write into its slots once the step is taken."""
        end = weights[f"{self.layer}.weight"]
        if self.address is not None:
            assert isinstance(end, Tensor)
            self._memory(recommender).note(self.address, end)
            self.address = None

    def _memory(self, recommender: Recommender) -> MemoryLayer:
        memory = recommender.get_submodule(self.layer)
        assert isinstance(memory, MemoryLayer)
        return memory
