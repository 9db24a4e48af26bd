"""Memory-augmented starts."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from graphmeta.nn.conditioning.memory import GradientSlots, MemoryLayer, Profiles, SlotLayer

if TYPE_CHECKING:
    from graphmeta.adapt.scope import Scope
    from graphmeta.adapt.stacked.engine import Weights
    from graphmeta.recommender import Encoded, Recommender


class MemoryStart(nn.Module):
    """A task's weight of a memory layer is read from the memory; in training, the adapted weight is written back.

    Args:
        layer: name of the :class:`~graphmeta.nn.conditioning.memory.MemoryLayer`; it is addressed by the recommender's
            summary.

    Source: MAMO (Dong et al. 2020), the task memory.
    """

    def __init__(self, layer: str) -> None:
        super().__init__()
        self.layer = layer
        self.address: Tensor | None = None  # of the last forward, read by on_adapted

    def bind(self, recommender: Recommender) -> None:
        """No parameters to create: keys and slots belong to the layer."""

    def initialised_names(self) -> list[str]:
        """The layer's weight."""
        return [f"{self.layer}.weight"]

    def forward(self, recommender: Recommender, observed: HeteroData, encoded: Encoded | None) -> dict[str, Tensor]:
        """The weights read from memory, ``[T, width, width]``."""
        memory = self._memory(recommender)
        address = memory.address(recommender.summary(observed, encoded))
        self.address = address.detach() if self.training else None
        return {f"{self.layer}.weight": memory.read(address)}

    def on_adapted(self, recommender: Recommender, weights: Weights) -> None:
        """In training, record the adapted weights; the layer writes them into its slots after the step."""
        end = weights[f"{self.layer}.weight"]
        if self.address is not None:
            assert isinstance(end, Tensor)
            self._memory(recommender).note(self.address, end)
            self.address = None

    def _memory(self, recommender: Recommender) -> MemoryLayer:
        memory = recommender.get_submodule(self.layer)
        assert isinstance(memory, MemoryLayer)
        return memory


class UserMemoryStart(nn.Module):
    """A task's start is read from memories of earlier tasks with similar profiles; its own are written back.

    With the profile p, a linear layer FC, and memories of profiles (M_P), gradients (M_U) and task weights (M_UI) of K
    slots each, ``a = softmax(FC cos(p, M_P))``, ``θ_u = φ_u − τ Σ_k a_k M_U,k`` for each parameter of the scope, and
    the weight of ``layer`` is ``Σ_k a_k M_UI,k``. In training, M_P is updated with the profiles, M_UI with the adapted
    weights, and M_U with the gradients of their query losses.

    Args:
        scope: φ_u, the parameters whose start is personal.
        layer: name of the :class:`~graphmeta.nn.conditioning.memory.SlotLayer`.
        profiles: M_P; the profile is the recommender's summary.
        bias_scale: τ.
        momentum: β, of M_U's moving average, see :class:`~graphmeta.nn.conditioning.memory.Slots`.

    Source: MAMO (Dong et al. 2020). Differs: M_U is initialised to zeros; gradients are not clipped.
    """

    def __init__(
        self, scope: Scope, layer: str, *, profiles: Profiles, bias_scale: float = 0.01, momentum: float = 0.05
    ) -> None:
        super().__init__()
        self.scope, self.layer, self.profiles = scope, layer, profiles
        self.bias_scale, self.momentum = bias_scale, momentum
        self.gradient_slots = nn.ModuleDict()
        self.seen: tuple[Tensor, Tensor] | None = None  # address and profile of the last forward

    def bind(self, recommender: Recommender) -> None:
        """Slots for the gradient of each parameter of the scope."""
        for name in self.scope.names(recommender):
            begin = torch.zeros(len(self.profiles.slots), *recommender.get_parameter(name).shape)
            self.gradient_slots[name.replace(".", "/")] = GradientSlots(begin, rate=self.momentum)

    def initialised_names(self) -> list[str]:
        """The scope, and the layer's weight."""
        return [*self._gradient_slots(), f"{self.layer}.weight"]

    def forward(self, recommender: Recommender, observed: HeteroData, encoded: Encoded | None) -> dict[str, Tensor]:
        """The personal weights ``[T, *shape]``."""
        profile = recommender.summary(observed, encoded)
        address = self.profiles.address(profile)
        self.seen = (address.detach(), profile.detach()) if self.training else None
        own = {
            name: recommender.get_parameter(name) - self.bias_scale * slots.read(address)
            for name, slots in self._gradient_slots().items()
        }
        return own | {f"{self.layer}.weight": self._task_memory(recommender).read(address)}

    def on_adapted(self, recommender: Recommender, weights: Weights) -> None:
        """In training, record profiles and weights, and the gradients during the backward pass of the query loss."""
        if self.seen is None:
            return
        (address, profile), self.seen = self.seen, None
        self.profiles.note(address, profile)
        end = weights[f"{self.layer}.weight"]
        assert isinstance(end, Tensor)
        self._task_memory(recommender).note(address, end)
        for name, slots in self._gradient_slots().items():
            end = weights[name]
            assert isinstance(end, Tensor)
            if end.requires_grad:
                end.register_hook(partial(slots.note, address))

    def _gradient_slots(self) -> dict[str, GradientSlots]:
        return {key.replace("/", "."): m for key, m in self.gradient_slots.items() if isinstance(m, GradientSlots)}

    def _task_memory(self, recommender: Recommender) -> SlotLayer:
        memory = recommender.get_submodule(self.layer)
        assert isinstance(memory, SlotLayer)
        return memory
