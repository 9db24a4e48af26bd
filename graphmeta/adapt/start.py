"""Where a task's weights start from, before it has taken a step."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from graphmeta.nn.gate import Gates, Granularity
from graphmeta.nn.memory import MemoryLayer, Profiles, SlopeSlots, SlotLayer

if TYPE_CHECKING:
    from graphmeta.adapt.scope import Scope
    from graphmeta.adapt.stacked.engine import Weights
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


class RememberedPeople(nn.Module):
    """A task begins as those before it with a profile like its own ended; what it makes of it is remembered too.

    With the profile p and three memories, ``a = softmax(FC cos(p, M_P))``, ``θ_u = φ_u − τ Σ_k a_k M_U,k`` for each
    parameter of the scope, and the weight of ``layer`` is ``Σ_k a_k M_UI,k``. In training, M_P takes in the
    profiles, M_UI the weights where tasks ended, and M_U the slopes of their query losses there.

    Args:
        scope: φ_u, the parameters whose start is personal.
        layer: name of the :class:`~graphmeta.nn.memory.SlotLayer`.
        profiles: M_P; the profile is the recommender's summary.
        bias: τ; rate: β, of M_U's moving average, see :class:`~graphmeta.nn.memory.Slots`.

    Source: MAMO (Dong et al. 2020). Differs: M_U begins as zeros; slopes are not clipped.
    """

    def __init__(self, scope: Scope, layer: str, *, profiles: Profiles, bias: float = 0.01, rate: float = 0.05) -> None:
        super().__init__()
        self.scope, self.layer, self.profiles, self.bias, self.rate = scope, layer, profiles, bias, rate
        self.slopes = nn.ModuleDict()
        self.seen: tuple[Tensor, Tensor] | None = None

    def bind(self, recommender: Recommender, names: list[str]) -> None:
        """Slots for the slope of each parameter of the scope."""
        for name in self.scope.names(recommender):
            begin = torch.zeros(len(self.profiles.slots), *recommender.get_parameter(name).shape)
            self.slopes[name.replace(".", "/")] = SlopeSlots(begin, rate=self.rate)

    def changes(self) -> list[str]:
        """The scope, and the layer's weight."""
        return [*self._slopes(), f"{self.layer}.weight"]

    def forward(
        self, recommender: Recommender, names: list[str], context: HeteroData, encoded: Encoded | None
    ) -> dict[str, Tensor]:
        """The personal weights ``[T, *shape]``."""
        profile = recommender.summary(context, encoded)
        address = self.profiles.address(profile)
        self.seen = (address.detach(), profile.detach()) if self.training else None
        own = {n: recommender.get_parameter(n) - self.bias * m.read(address) for n, m in self._slopes().items()}
        return own | {f"{self.layer}.weight": self._task_memory(recommender).read(address)}

    def reached(self, recommender: Recommender, weights: Weights) -> None:
        """In training, note profiles and weights; and the slopes, once the query's loss has gone backwards."""
        if self.seen is None:
            return
        (address, profile), self.seen = self.seen, None
        self.profiles.note(address, profile)
        for name, memory in {**self._slopes(), f"{self.layer}.weight": self._task_memory(recommender)}.items():
            end = weights[name]
            assert isinstance(end, Tensor)
            if not isinstance(memory, SlopeSlots):
                memory.note(address, end)
            elif end.requires_grad:
                end.register_hook(partial(memory.note, address))

    def _slopes(self) -> dict[str, SlopeSlots]:
        return {key.replace("/", "."): m for key, m in self.slopes.items() if isinstance(m, SlopeSlots)}

    def _task_memory(self, recommender: Recommender) -> SlotLayer:
        memory = recommender.get_submodule(self.layer)
        assert isinstance(memory, SlotLayer)
        return memory
