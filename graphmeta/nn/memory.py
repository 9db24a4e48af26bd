"""A layer whose weight a task looks up among a few remembered ones, and what the tasks make of it is remembered."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class MemoryLayer(nn.Module):
    """``W x + b``, a task's W being ``Σ_k a_k M_k`` with ``a = softmax(S κ)``: slots M, keys κ, its session S.

    Slots are no parameters: gradients reach keys and sessions through a, never M. In training, the weights W_t that T
    tasks end with (:meth:`note`) are written into the slots (:meth:`settle`) as a moving average, a slot the more the
    more it was addressed:

    ``M_k ← M_k + rate · mean_t a_tk (W_t − M_k)``.

    Nothing else changes the slots, and reading them changes nothing. ``weight`` is what a layer without a task uses,
    the mean of the slots. All slots begin near the identity, each with noise of its own.

    Args:
        width: of S, x and the result; slots: K; rate: γ of the moving average.

    Shapes: x ``[…, width] -> […, width]``; slots ``[K, width, width]``.
    Source: MAMO (Dong et al. 2020), its task memory, in the code's notation ``M_k ← γ a_k W_t + (1 − γ) M_k``.
    Differs: that form takes 1 − γ off every slot however little was added (a_k < 1), so with K slots the memory dies
    away by a factor near ``1 − γ (1 − 1/K)`` a write; here what is taken off is what is put in. For a_k = 1 they agree.
    Addressed by S (CBML's setting has no profiles); slots are tensors of their own, where the code's are one.
    """

    def __init__(self, width: int, *, slots: int = 3, rate: float = 0.1) -> None:
        super().__init__()
        self.rate = rate
        self.keys = nn.Parameter(torch.randn(slots, width) / math.sqrt(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.slots: Tensor
        self.register_buffer("slots", torch.eye(width) + 0.1 / math.sqrt(width) * torch.randn(slots, width, width))
        self.weight = nn.Parameter(self.slots.mean(0), requires_grad=False)
        self.noted: tuple[Tensor, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """The layer, with the mean slot (or with what stands for its weight in a task)."""
        return nn.functional.linear(x, self.weight, self.bias)

    def address(self, session: Tensor) -> Tensor:
        """How much of each slot a session takes, rows sum to 1: ``[T, width] -> [T, K]``."""
        return torch.softmax(session @ self.keys.t(), 1)

    def read(self, address: Tensor) -> Tensor:
        """The remembered weights, ``[T, K] -> [T, width, width]``."""
        return (address @ self.slots.flatten(1)).unflatten(1, self.slots.shape[1:])

    def note(self, address: Tensor, reached: Tensor) -> None:
        """Keep for :meth:`settle` where tasks that read at ``address [T, K]`` ended, ``[T, width, width]``."""
        address, reached = address.detach(), reached.detach()
        if self.noted is not None:  # the tasks of a batch that is taken in chunks
            address, reached = torch.cat([self.noted[0], address]), torch.cat([self.noted[1], reached])
        self.noted = address, reached

    @torch.no_grad()
    def settle(self) -> None:
        """Write what was noted since the last time, once."""
        if self.noted is not None:
            address, reached = self.noted
            written = (address.t() @ reached.flatten(1)).unflatten(1, self.slots.shape[1:]) / len(address)
            self.slots += self.rate * (written - address.mean(0)[:, None, None] * self.slots)
            self.weight.copy_(self.slots.mean(0))
            self.noted = None


class Remembering(nn.Linear):
    """A linear layer behind a :class:`MemoryLayer`: ``W memory(S) + b``.

    Shapes: ``[S, width] -> [S, out]``.
    """

    def __init__(self, width: int, out: int, *, slots: int = 3, rate: float = 0.1) -> None:
        super().__init__(width, out)
        self.memory = MemoryLayer(width, slots=slots, rate=rate)

    def forward(self, session: Tensor) -> Tensor:
        """One vector a session."""
        return super().forward(self.memory(session))
