"""External memory: a few slots of past task weights, of which a new task reads a mixture."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphmeta.distributed.group import step


class Slots(nn.Module):
    """K memory slots: a task with address a reads ``Σ_k a_k M_k``; in training, its result is written back.

    Slots are buffers: gradients reach the address, never M. The results x_t of T tasks (recorded by :meth:`note`) are
    written by :meth:`update_after_step` as a moving average, weighted by the address:

    ``M_k ← M_k + rate · mean_t a_tk (x_t − M_k)``.

    Nothing else changes the slots; reading does not.

    Args:
        begin: initial slots, ``[K, *shape]``.
        rate: of the moving average.

    Source: MAMO (Dong et al. 2020), whose code has ``M_k ← rate · a_k x_t + (1 − rate) M_k``.
    Differs: that form decays every slot by the rate even if little is written (a_k < 1), so with K slots the memory
    shrinks by a factor near ``1 − rate · (1 − 1/K)`` per write; here decay and write are proportional. For a_k = 1 both
    agree. Written once per batch, with the mean over its tasks.
    """

    def __init__(self, begin: Tensor, *, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.slots: Tensor
        self.register_buffer("slots", begin.clone())
        self.noted: tuple[Tensor, Tensor] | None = None

    def read(self, address: Tensor) -> Tensor:
        """The memory content at an address, ``[T, K] -> [T, *shape]``."""
        return (address @ self.slots.flatten(1)).unflatten(1, self.slots.shape[1:])

    def note(self, address: Tensor, adapted: Tensor) -> None:
        """Record results ``[T, *shape]`` of tasks with ``address [T, K]``; :meth:`update_after_step` writes them."""
        address, adapted = address.detach(), adapted.detach()
        if self.noted is not None:  # a batch that is processed in chunks of tasks
            address, adapted = torch.cat([self.noted[0], address]), torch.cat([self.noted[1], adapted])
        self.noted = address, adapted

    @torch.no_grad()
    def update_after_step(self) -> None:
        """Write what was recorded since the last call, once; of all ranks, where they share the step's tasks."""
        noted, self.noted, group = self.noted, None, step().group
        if noted is None and group.size == 1:
            return
        count, share, written = 0, self.slots.new_zeros(len(self.slots)), torch.zeros_like(self.slots)
        if noted is not None:
            address, results = noted
            count, share = len(address), address.sum(0)
            written = (address.t() @ results.flatten(1)).unflatten(1, self.slots.shape[1:])
        if group.size > 1:
            sums = group.sum(torch.cat([share.new_tensor([count]), share, written.flatten()]))
            count, share = round(float(sums[0])), sums[1 : 1 + len(share)]
            written = sums[1 + len(share) :].view_as(written)
        if count:
            share = (share / count).reshape(-1, *(1,) * (self.slots.dim() - 1))
            self.slots += self.rate * (self.to_write(written, count) / count - share * self.slots)

    def to_write(self, total: Tensor, tasks: int) -> Tensor:
        """What is written, given the weighted sum of the results of all tasks ``[K, *shape]``: here the same."""
        return total


class GradientSlots(Slots):
    """Slots that store gradients of the tasks' query losses.

    The recorded gradient is that of a batch's mean loss over T tasks: a task's own is T times that (if all tasks have
    equally many queries).
    """

    def to_write(self, total: Tensor, tasks: int) -> Tensor:
        """The sum of the gradients of the tasks' own losses."""
        return total * tasks


class Profiles(Slots):
    """Addresses slots by profile similarity: ``a = softmax(FC cos(p, M))`` for a profile p and stored profiles M.

    Args:
        width: of a profile.
        slots: K.
        rate: α of the moving average, see :class:`Slots`.

    Source: MAMO (Dong et al. 2020), its profile memory. Differs: the public code creates a new random FC at each read;
    here it is one trained layer, initialised to five times the identity, so that users address the most similar slots.
    Reading does not write.
    """

    def __init__(self, width: int, *, slots: int = 3, rate: float = 0.5) -> None:
        super().__init__(torch.randn(slots, width) / math.sqrt(width), rate=rate)
        self.mix = nn.Linear(slots, slots)
        with torch.no_grad():
            self.mix.weight.copy_(5 * torch.eye(slots))
            self.mix.bias.zero_()

    def address(self, profile: Tensor) -> Tensor:
        """Slot weights of a profile, rows sum to 1: ``[T, width] -> [T, K]``."""
        return torch.softmax(self.mix(F.cosine_similarity(profile[:, None], self.slots, dim=2)), 1)


class SlotLayer(Slots):
    """``W x + b`` with a task-specific W read from memory.

    ``weight`` is used outside tasks and holds the mean of the slots; a start replaces it per task. All slots are
    initialised near the identity, each with its own noise.

    Args:
        width: of x and the result.
        slots: K.
        rate: γ of the moving average, see :class:`Slots`.

    Shapes: x ``[…, width] -> […, width]``; slots ``[K, width, width]``.
    """

    def __init__(self, width: int, *, slots: int = 3, rate: float = 0.1) -> None:
        super().__init__(torch.eye(width) + 0.1 / math.sqrt(width) * torch.randn(slots, width, width), rate=rate)
        self.bias = nn.Parameter(torch.zeros(width))
        self.weight = nn.Parameter(self.slots.mean(0), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer with the mean slot (or the task's weight)."""
        return F.linear(x, self.weight, self.bias)

    @torch.no_grad()
    def update_after_step(self) -> None:
        """Write what was recorded, and update the mean."""
        super().update_after_step()
        self.weight.copy_(self.slots.mean(0))


class MemoryLayer(SlotLayer):
    """A :class:`SlotLayer` addressed by the session: ``a = softmax(S κ)`` with learned keys κ.

    Shapes: S ``[T, width]``. Differs from MAMO: S replaces the profile, which sessions do not have.
    """

    not_adapted = ("keys",)  # they identify a task

    def __init__(self, width: int, *, slots: int = 3, rate: float = 0.1) -> None:
        keys = torch.randn(slots, width) / math.sqrt(width)
        super().__init__(width, slots=slots, rate=rate)
        self.keys = nn.Parameter(keys)

    def address(self, session: Tensor) -> Tensor:
        """Slot weights of a session, rows sum to 1: ``[T, width] -> [T, K]``."""
        return torch.softmax(session @ self.keys.t(), 1)


class MemoryAugmented(nn.Linear):
    """A linear layer behind a :class:`MemoryLayer`: ``W memory(S) + b``.

    Shapes: ``[S, width] -> [S, out]``.
    """

    def __init__(self, width: int, out: int, *, slots: int = 3, rate: float = 0.1) -> None:
        super().__init__(width, out)
        self.memory = MemoryLayer(width, slots=slots, rate=rate)

    def forward(self, session: Tensor) -> Tensor:
        """One vector per session."""
        return super().forward(self.memory(session))
