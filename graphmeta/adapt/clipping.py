"""Gradient clipping per task, by the norm over all its adapted parameters; low-rank gradients stay low-rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from graphmeta.adapt.context import Support
from graphmeta.adapt.stacked.task_value import LowRankValue

# Gradients of one parameter: one tensor, or one per tensor read from a low-rank weight.
Grads = list[Tensor | None]


def clipped(grads: Mapping[str, Grads], own: Mapping[str, Tensor], limit: float, support: Support) -> dict[str, Grads]:
    """The gradients times ``min(1, limit / ‖g_t‖)``, one factor per task t, differentiated in second order.

    Args:
        grads: by name, the gradients of the tensors read from a low-rank weight, or of the weight, ``[T, *shape]``.
        own: the weights as used in the step.

    Source: Pascanu et al. 2013, gradient norm clipping; here per task.
    """
    some = next(grad for each in grads.values() for grad in each if grad is not None)
    with torch.autocast(some.device.type, enabled=False):
        squares = [
            _square(own[name], each, support) for name, each in grads.items() if any(g is not None for g in each)
        ]
        factor = _factor(torch.stack(squares).sum(0), limit)
        return {name: _scaled(own[name], each, factor) for name, each in grads.items()}


def _factor(square: Tensor, limit: float) -> Tensor:
    """``min(1, limit / √square)``; exactly 1, with derivative 0, at and below the limit, also for zero gradients."""
    return torch.where(square > limit**2, limit * square.clamp(min=limit**2).rsqrt(), 1.0)


def _square(own: Tensor, grads: Grads, support: Support) -> Tensor:
    """The squared norm of each task's gradient of one parameter, ``[T]``; a scalar for a single task."""
    if isinstance(own, LowRankValue):
        return own.norm_of_step(grads, keep_graph=support.second_order)
    (grad,) = grads
    assert grad is not None
    return grad.square().flatten(1).sum(1) if support.context.stacked else grad.square().sum()


def _scaled(own: Tensor, grads: Sequence[Tensor | None], factor: Tensor) -> Grads:
    """The gradients times their task's factor."""
    if isinstance(own, LowRankValue):
        return own.scaled(grads, factor)
    return [None if g is None else g * factor.reshape((*factor.shape, *(1,) * (g.dim() - factor.dim()))) for g in grads]
