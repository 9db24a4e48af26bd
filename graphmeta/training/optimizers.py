"""Optimizers and their learning-rate schedules."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Adam:
    """Fused Adam whose rate falls linearly from ``lr`` to ``lr · final`` over the whole training.

    ``weight_decay`` is the L2 term on all weights, as the session papers use it (1e-5).
    """

    lr: float = 1e-3
    weight_decay: float = 1e-5
    final: float = 0.05

    def build(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        """The optimiser of these parameters."""
        return torch.optim.Adam(parameters, lr=self.lr, weight_decay=self.weight_decay, fused=True)

    def rate(self, progress: float) -> float:
        """The learning rate after this share of all steps."""
        return self.lr * (1 - (1 - self.final) * progress)


@dataclass(frozen=True)
class Adagrad(Adam):
    """Adagrad, whose steps shrink by themselves: the rate stays as it is unless ``final`` is below 1."""

    lr: float = 0.1
    weight_decay: float = 0.0
    final: float = 1.0

    def build(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        """The optimiser of these parameters."""
        return torch.optim.Adagrad(parameters, lr=self.lr, weight_decay=self.weight_decay, fused=True)


@dataclass(frozen=True)
class Sgd(Adam):
    """Plain gradient descent at a constant rate."""

    lr: float = 0.1
    weight_decay: float = 0.0
    final: float = 1.0

    def build(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        """The optimiser of these parameters."""
        return torch.optim.SGD(parameters, lr=self.lr, weight_decay=self.weight_decay)
