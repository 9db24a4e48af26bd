"""TaskWeight: one parameter with a different value for each task, inside modules written for a single task.

A parameter adapted by T tasks is a tensor ``[T, *shape]``. Wrapped as a :class:`TaskWeight` it reports the shape
``shape`` that its module expects, and :mod:`graphmeta.adapt.stacked.operations` implements its
operations: with rows of tasks as one ``bmm`` or a broadcast over ``[T, rows, …]``; with shared tensors the result is
again a per-task value. No vmap, no loop, no copy of the module; autograd sees ordinary tensors, to any order.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor

from graphmeta.adapt.stacked.stack import Stack
from graphmeta.adapt.stacked.task_value import TaskValue


class TaskWeight(TaskValue):
    """A tensor ``[T, *shape]`` that reports ``shape``; see the module's docstring.

    It has no memory of that shape, so that code which reads memory directly fails instead of being wrong.

    Args:
        stacked: the T versions, ``[T, *shape]``.
        stack: the call that it is used in.
    """

    stacked: Tensor

    @staticmethod
    def __new__(cls, stacked: Tensor, stack: Stack) -> TaskWeight:
        weight = without_memory(cls, stacked.shape[1:], stacked)
        weight.stacked, weight.stack = stacked, stack
        return weight

    def __init__(self, stacked: Tensor, stack: Stack) -> None:
        super().__init__()

    @property
    def needs_gradient(self) -> bool:
        """``requires_grad`` of each task's version."""
        return self.stacked.requires_grad


Value = TypeVar("Value", bound=TaskValue)


def without_memory(cls: type[Value], shape: torch.Size, like: Tensor) -> Value:
    """A tensor of this class and shape, with dtype and device of ``like``, without memory."""
    return torch.Tensor._make_wrapper_subclass(cls, shape, dtype=like.dtype, device=like.device)  # pyright: ignore
