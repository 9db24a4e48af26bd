"""One inner step of one parameter: its gradients on the support loss, and its update."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from graphmeta.adapt.context import Support
from graphmeta.adapt.stacked.engine import LowRank, Weight
from graphmeta.adapt.stacked.task_value import LowRankValue


@dataclass(frozen=True)
class Update:
    """A step of one parameter: its rate α, its gradients, and the proximal factor ``α λ`` of ``θ_k − θ_0``, if any."""

    rate: float | Tensor
    grads: list[Tensor | None]
    proximal: float | Tensor | None


def updated(weight: Weight, own: Tensor, update: Update, support: Support, name: str) -> Weight:
    """``θ_k − α g_k``, and with a proximal term ``− α λ (θ_k − θ_0)``, where ``θ_0`` is the task's initial value.

    Args:
        own: the weight as used in the step.
        name: its name, to look up θ_0.
    """
    rate, proximal, second_order = update.rate, update.proximal, support.second_order
    if isinstance(weight, LowRank):
        assert isinstance(own, LowRankValue)
        return own.stepped(weight, rate, update.grads, keep_graph=second_order, proximal=proximal)
    (grad,) = update.grads
    end = weight if grad is None else weight - rate * grad
    if proximal is None:
        return end
    start = support.start[name]
    away = weight - (start.base if isinstance(start, LowRank) else start)
    return end - proximal * (away if second_order else away.detach())


def leaf(weight: Weight) -> Weight:
    """The weight as a leaf of the autograd graph, without history."""
    return weight.detach() if isinstance(weight, LowRank) else weight.detach().requires_grad_()


def differentiable_parts(own: Tensor, begin: Weight) -> list[Tensor]:
    """The tensors to differentiate with respect to: the weight itself, or the tensors read from a low-rank weight."""
    if isinstance(begin, Tensor):
        return [begin]
    assert isinstance(own, LowRankValue)
    return own.read()


def gradients_of(loss: Tensor, weights: Sequence[Tensor], second_order: bool) -> Sequence[Tensor | None]:
    """The gradients of the loss, None for weights that it does not depend on."""
    if not loss.requires_grad or not weights:
        return [None] * len(weights)
    return torch.autograd.grad(loss, weights, create_graph=second_order, allow_unused=True)
