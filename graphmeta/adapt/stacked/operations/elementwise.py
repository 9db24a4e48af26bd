"""Per-task values in elementwise operations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from graphmeta.adapt.stacked.arguments import given
from graphmeta.adapt.stacked.notes import HANDLERS, Rows, name_of, tensors_in
from graphmeta.adapt.stacked.operations.base import (
    Args,
    Kwargs,
    as_rows,
    common_rows,
    constant,
    handles,
    once,
    replaced,
    stacked,
)
from graphmeta.adapt.stacked.rules.elementwise import ELEMENTWISE
from graphmeta.adapt.stacked.stack import Stack
from graphmeta.adapt.stacked.task_value import TaskValue
from graphmeta.adapt.stacked.task_weight import TaskWeight
from graphmeta.errors import Remedy, UnsupportedOp


@handles(*ELEMENTWISE)
def elementwise(stack: Stack, func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Tensor:
    name = name_of(func)
    if name in ("to", "type_as", "type"):
        return _cast(stack, func, args, kwargs)
    if name.endswith("dropout") and given(args, kwargs, 1, "p", 0.5) > 0 and given(args, kwargs, 2, "training", True):
        raise UnsupportedOp("dropout on a per-task weight")
    if name in ("requires_grad", "one_hot", "bernoulli", "rrelu"):
        raise UnsupportedOp(f"{name} of a per-task weight")
    tensors = list(tensors_in((args, kwargs)))
    rows = common_rows(stack, tensors)
    if rows is not None:
        return _with_rows(stack, func, args, kwargs, *rows)
    rank = max(x.dim() for x in tensors)

    def versions(x: Tensor) -> Tensor:
        if not isinstance(x, TaskValue):
            return constant(stack, x, name)
        own = stacked(x)
        return own.reshape(len(own), *(1,) * (rank - x.dim()), *own.shape[1:])

    own, shape = once([versions(x) for x in tensors])
    at = {id(x): y for x, y in zip(tensors, own, strict=True)}
    out = func(*replaced(args, lambda x: at[id(x)]), **replaced(kwargs, lambda x: at[id(x)]))
    return TaskWeight(out.expand(shape), stack)


def _cast(stack: Stack, func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Tensor:
    """Cast to another dtype or device; a second tensor only specifies these."""
    x, *others = tensors_in((args, kwargs))
    named = {"dtype": others[0].dtype, "device": others[0].device} if others else {}
    if not isinstance(x, TaskValue):
        out = x.to(**named) if others else x
        stack.follow("to", (x,), {}, out)
        return out
    own = stacked(x)
    return TaskWeight(own.to(**named) if others else func(own, *args[1:], **kwargs), stack)


def _with_rows(stack: Stack, func: Callable[..., Any], args: Args, kwargs: Kwargs, x: Tensor, note: Rows) -> Tensor:
    """Per-task values and rows, elementwise: by blocks ``[…, T, R, …]``, or each row with its own task's value."""
    right, size, tasks = x.dim() - note.dim, x.shape[note.dim], stack.num_tasks

    def by_blocks(y: Tensor) -> Tensor:
        at = y.dim() - right
        if isinstance(y, TaskValue):
            own = stacked(y)
            if at < 0:
                return own.reshape(tasks, *(1,) * (right - y.dim()), *own.shape[1:])
            if own.shape[at + 1] == 1:
                return own.movedim(0, at)
            y = as_rows(stack, y, x, note)
        if at < 0:
            return y
        return y.unflatten(at, (1, 1) if y.shape[at] == 1 else (tasks, size // tasks))

    def by_row(y: Tensor) -> Tensor:
        if not isinstance(y, TaskValue):
            return y
        at, own = y.dim() - right, stacked(y)
        if at >= 0 and own.shape[at + 1] != 1:
            return as_rows(stack, y, x, note)
        found = own.index_select(0, stack.task_of(x, note))
        return (
            found.reshape(size, *(1,) * (right - 1 - y.dim()), *own.shape[1:])
            if at < 0
            else found.movedim(0, at).squeeze(at + 1)
        )

    view = by_blocks if note.in_blocks else by_row
    out = func(*replaced(args, view), **replaced(kwargs, view))
    dim = out.dim() - right
    if note.in_blocks:
        out, dim = out.flatten(dim - 1, dim), dim - 1
    return stack.rows(out, dim, note.owner)


def _in_place(stack: Stack, func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Tensor:
    """In-place operations write into rows; writing into a per-task value is not supported."""
    name = name_of(func)[:-1]
    if isinstance(args[0], TaskValue):
        raise UnsupportedOp(f"{name} into a per-task weight in place", Remedy.COPY)
    stack.guard.write(f"{name}_", args[0])
    note = stack.note(args[0])
    if name in ("copy", "fill"):
        out = as_rows(stack, args[1].expand(args[0].shape), args[0], note) if type(note) is Rows else None
    else:
        before = stack.mark(args[0].clone(), note)  # the overwritten values may be needed for a derivative
        plain = getattr(torch, name, None) or getattr(Tensor, name)
        out = plain(before, *args[1:], **kwargs)  # dispatches to the handler of the per-task value
    if type(note) is not Rows or out is None or isinstance(out, TaskValue) or out.shape != args[0].shape:
        raise stack.refused(f"{name}_ of a per-task weight into {{}}", args[0], note)
    args[0].copy_(out)
    return stack.rows(args[0], note.dim, note.owner)


HANDLERS.update({f"{name}_": _in_place for name in ELEMENTWISE if f"{name}_" not in HANDLERS})
