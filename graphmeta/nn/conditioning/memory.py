"""What earlier tasks came to, kept in a few slots that a new task reads a mixture of."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Slots(nn.Module):
    """K remembered tensors: a task at address a reads ``Σ_k a_k M_k``; in training, it tells what came of it.

    Slots are no parameters: gradients reach the address, never M. What T tasks came to, x_t (:meth:`note`), is
    written into the slots (:meth:`settle`) as a moving average, into a slot the more the more it was addressed:

    ``M_k ← M_k + rate · mean_t a_tk (x_t − M_k)``.

    Nothing else changes the slots, and reading them changes nothing.

    Args:
        begin: the slots, ``[K, *shape]``; rate: of the moving average.

    Source: MAMO (Dong et al. 2020), whose code has ``M_k ← rate · a_k x_t + (1 − rate) M_k``.
    Differs: that form takes the rate off every slot however little was added (a_k < 1), so with K slots the memory
    dies away by a factor near ``1 − rate · (1 − 1/K)`` a write; here what is taken off is what is put in. For a_k = 1
    they agree. Written once a batch, with the mean over its tasks.
    """

    def __init__(self, begin: Tensor, *, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.slots: Tensor
        self.register_buffer("slots", begin.clone())
        self.noted: tuple[Tensor, Tensor] | None = None

    def read(self, address: Tensor) -> Tensor:
        """What is remembered there, ``[T, K] -> [T, *shape]``."""
        return (address @ self.slots.flatten(1)).unflatten(1, self.slots.shape[1:])

    def note(self, address: Tensor, reached: Tensor) -> None:
        """Keep for :meth:`settle` what tasks that read at ``address [T, K]`` came to, ``[T, *shape]``."""
        address, reached = address.detach(), reached.detach()
        if self.noted is not None:  # the tasks of a batch that is taken in chunks
            address, reached = torch.cat([self.noted[0], address]), torch.cat([self.noted[1], reached])
        self.noted = address, reached

    @torch.no_grad()
    def settle(self) -> None:
        """Write what was noted since the last time, once."""
        if self.noted is not None:
            address, reached = self.noted
            self.noted = None
            written = (address.t() @ self.told(reached).flatten(1)).unflatten(1, self.slots.shape[1:]) / len(address)
            share = address.mean(0).reshape(-1, *(1,) * (self.slots.dim() - 1))
            self.slots += self.rate * (written - share * self.slots)

    def told(self, noted: Tensor) -> Tensor:
        """What is written for T tasks, of what was noted ``[T, *shape]``: that itself."""
        return noted


class GradientSlots(Slots):
    """Slots that remember slopes of the tasks' query losses.

    What is noted is the slope of a batch's loss, a mean over T tasks: a task's own is T times that (for tasks that
    are asked as much as each other).
    """

    def told(self, noted: Tensor) -> Tensor:
        """The tasks' own slopes."""
        return noted * len(noted)


class Profiles(Slots):
    """Which slots a person takes: ``a = softmax(FC cos(p, M))`` for a profile p and the profiles M of earlier ones.

    Args:
        width: of a profile; slots: K; rate: α of the moving average, see :class:`Slots`.

    Source: MAMO (Dong et al. 2020), its profile memory. Differs: the public code makes a new random FC each time it
    reads; here it is one, is trained, and begins as five times the identity, so that people take the slots they are
    like. Reading does not write.
    """

    def __init__(self, width: int, *, slots: int = 3, rate: float = 0.5) -> None:
        super().__init__(torch.randn(slots, width) / math.sqrt(width), rate=rate)
        self.mix = nn.Linear(slots, slots)
        with torch.no_grad():
            self.mix.weight.copy_(5 * torch.eye(slots))
            self.mix.bias.zero_()

    def address(self, profile: Tensor) -> Tensor:
        """How much of each slot a profile takes, rows sum to 1: ``[T, width] -> [T, K]``."""
        return torch.softmax(self.mix(F.cosine_similarity(profile[:, None], self.slots, dim=2)), 1)


class SlotLayer(Slots):
    """``W x + b``, a task's W being what it reads.

    ``weight`` is what the layer uses without a task, the mean of the slots; a start puts a task's in its place. All
    slots begin near the identity, each with noise of its own.

    Args:
        width: of x and the result; slots: K; rate: γ of the moving average, see :class:`Slots`.

    Shapes: x ``[…, width] -> […, width]``; slots ``[K, width, width]``.
    Source: MAMO (Dong et al. 2020), its task memory. Differs: slots are tensors of their own, where the code's are one.
    """

    def __init__(self, width: int, *, slots: int = 3, rate: float = 0.1) -> None:
        super().__init__(torch.eye(width) + 0.1 / math.sqrt(width) * torch.randn(slots, width, width), rate=rate)
        self.bias = nn.Parameter(torch.zeros(width))
        self.weight = nn.Parameter(self.slots.mean(0), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """The layer, with the mean slot (or with what stands for its weight in a task)."""
        return F.linear(x, self.weight, self.bias)

    @torch.no_grad()
    def settle(self) -> None:
        """Write what was noted, and take the new mean."""
        super().settle()
        self.weight.copy_(self.slots.mean(0))


class MemoryLayer(SlotLayer):
    """A :class:`SlotLayer` that a session addresses: ``a = softmax(S κ)`` with learned keys κ.

    Shapes: S ``[T, width]``. Differs: from MAMO, in that S takes the place of profiles, which CBML's setting has not.
    """

    def __init__(self, width: int, *, slots: int = 3, rate: float = 0.1) -> None:
        keys = torch.randn(slots, width) / math.sqrt(width)
        super().__init__(width, slots=slots, rate=rate)
        self.keys = nn.Parameter(keys)

    def address(self, session: Tensor) -> Tensor:
        """How much of each slot a session takes, rows sum to 1: ``[T, width] -> [T, K]``."""
        return torch.softmax(session @ self.keys.t(), 1)


class MemoryAugmented(nn.Linear):
    """A linear layer behind a :class:`MemoryLayer`: ``W memory(S) + b``.

    Shapes: ``[S, width] -> [S, out]``.
    """

    def __init__(self, width: int, out: int, *, slots: int = 3, rate: float = 0.1) -> None:
        super().__init__(width, out)
        self.memory = MemoryLayer(width, slots=slots, rate=rate)

    def forward(self, session: Tensor) -> Tensor:
        """One vector a session."""
        return super().forward(self.memory(session))
