"""Functions shared by the handlers of per-task values.

An operation written for one task is applied to each task: a per-task value ``[T, *shape]``, and rows of tasks split
into T blocks, get T as a leading batch dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from graphmeta.adapt.stacked.notes import HANDLERS, Handler, Lost, Rows, Shared
from graphmeta.adapt.stacked.rules.base import paired
from graphmeta.adapt.stacked.stack import Stack
from graphmeta.adapt.stacked.task_value import TaskValue
from graphmeta.adapt.stacked.task_weight import TaskWeight
from graphmeta.errors import Remedy, UnsupportedOp

_LARGEST = 2**24  # largest size of a constant that is expanded to every task
Args = tuple[Any, ...]
Kwargs = dict[str, Any]


def handles(*names: str) -> Callable[[Handler], Handler]:
    """Register a handler ``(stack, func, args, kwargs)`` for the operations of these names."""

    def register(handler: Handler) -> Handler:
        HANDLERS.update(dict.fromkeys(names, handler))
        return handler

    return register


def in_parts(function: Callable[..., Any]) -> Handler:
    """The handler of an operation that ``function(stack, …)`` composes from others, each of which the stack handles."""

    def handler(stack: Stack, func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
        with stack:
            return function(stack, *args, **kwargs)

    return handler


def composed(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a decomposition of operations into others, each of which the stack handles."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        HANDLERS.update(dict.fromkeys(names, in_parts(function)))
        return function

    return register


def stacked(x: Any) -> Tensor:
    """The T versions of a per-task value.

    Raises:
        UnsupportedOp: an item table in scope, which has none.
    """
    if not isinstance(x, TaskWeight):
        raise UnsupportedOp("an operation between an item table in scope and a per-task weight")
    return x.stacked


def constant(stack: Stack, x: Tensor, of: str) -> Tensor:
    """``x``, after a check that it is the same for all tasks."""
    note = stack.note(x)
    if type(note) is not Shared:
        raise stack.refused(f"{of} of a per-task weight and {{}}", x, note)
    if x.numel() * stack.num_tasks > _LARGEST:
        raise UnsupportedOp(
            f"{of} of a per-task weight and a constant of shape {tuple(x.shape)}, {stack.num_tasks} times as large for "
            f"all tasks (where it has a row for each row of the batch, declare it with "
            f"graphmeta.sampling.session_batch.rows_like)"
        )
    return x


def replaced(values: Any, by: Callable[[Tensor], Tensor]) -> Any:
    """Arguments with every tensor replaced."""
    if isinstance(values, Tensor):
        return by(values)
    if isinstance(values, (list, tuple)):
        return type(values)(replaced(value, by) for value in values)
    return {key: replaced(value, by) for key, value in values.items()} if isinstance(values, dict) else values


def common_rows(stack: Stack, tensors: Sequence[Tensor]) -> tuple[Tensor, Rows] | None:
    """The first tensor with rows of tasks, after a check that all others have theirs at the same dimension from the
    right; None without rows.
    """
    known = [(x, stack.note(x)) for x in tensors if not isinstance(x, TaskValue)]
    lost = next((note for x, note in known if type(note) is Lost and stack.met(x)), None)
    if lost is not None:
        raise UnsupportedOp(f"a per-task weight and {lost.reason}", lost.remedy)
    first = paired(stack, known)
    if first is not None:
        stack.use(first[1])
    return first


def as_rows(stack: Stack, value: Tensor, x: Tensor, note: Rows) -> Tensor:
    """A per-task value as rows like those of ``x``: each row has its own task's version.

    Raises:
        UnsupportedOp: a value with several entries along the rows, unless ``expand`` or ``repeat`` made them of one: an
            equal number of entries and rows does not imply that they correspond.
    """
    at, size, own = value.dim() - (x.dim() - note.dim), x.shape[note.dim], stacked(value)
    repeated = at >= 0 and (value.shape[at] == 1 or (value.shape[at] == size and own.stride(at + 1) == 0))
    if not repeated:
        raise UnsupportedOp(
            f"a per-task weight of shape {tuple(value.shape)} beside rows of shape {tuple(x.shape)}", Remedy.BATCH
        )
    if value.shape[at] == 1:
        own = own.expand(-1, *value.shape[:at], size, *value.shape[at + 1 :])
    if note.in_blocks:
        blocks = own.unflatten(at + 1, (stack.num_tasks, -1)).diagonal(0, 0, at + 1)  # T comes last
        return stack.rows(blocks.movedim(-1, at).flatten(at, at + 1), at, note.owner)
    task = stack.task_of(x, note)
    picked = own.movedim(at + 1, 1)[task, torch.arange(size, device=x.device)]
    return stack.rows(picked.movedim(0, at), at, note.owner)


def once(values: Sequence[Tensor]) -> tuple[list[Tensor], tuple[int, ...]]:
    """Broadcastable tensors ``[T, …]``, narrowed to one entry along dimensions in which all of them are repeated.

    Returns:
        The tensors, and the shape to expand a result to, so that it is marked as repeated as well (stride 0).
    """
    shape = torch.broadcast_shapes(*(x.shape for x in values))
    for dim in range(1 - len(shape), 0):
        known = [x for x in values if x.dim() >= -dim and x.shape[dim] != 1]
        if known and all(x.stride(dim) == 0 for x in known):
            values = [x.narrow(dim, 0, 1) if x.dim() >= -dim else x for x in values]
    return list(values), tuple(shape)


def shift(dim: int) -> int:
    """The dimension of the stacked tensor that is ``dim`` of the value."""
    return dim if dim < 0 else dim + 1
