"""Look-ups in per-task tables, and per-task values joined with others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from graphmeta.adapt.stacked.arguments import given
from graphmeta.adapt.stacked.notes import Rows, Shared, name_of, tensors_in
from graphmeta.adapt.stacked.operations.base import Args, Kwargs, as_rows, common_rows, handles, shift
from graphmeta.adapt.stacked.operations.products import plain_side
from graphmeta.adapt.stacked.stack import Stack
from graphmeta.adapt.stacked.task_value import TaskValue
from graphmeta.adapt.stacked.task_weight import TaskWeight
from graphmeta.errors import Remedy, UnsupportedOp


@handles("getitem")
def _getitem(stack: Stack, func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Tensor:
    weight, index = args
    if not isinstance(weight, TaskWeight) or any(isinstance(x, TaskValue) for x in tensors_in([index])):
        raise UnsupportedOp("indexing by a per-task weight")
    parts = index if isinstance(index, tuple) else (index,)
    if all(isinstance(part, (int, slice)) or part is None or part is Ellipsis for part in parts):
        return TaskWeight(weight.stacked[(slice(None), *parts)], stack)
    first, *rest = parts
    if not isinstance(first, Tensor) or any(part != slice(None) for part in rest):
        raise UnsupportedOp("mixed indexing of a per-task weight")
    return look_up(stack, first, weight, negative=True)


def look_up(stack: Stack, index: Tensor, weight: TaskWeight, *, negative: bool = False) -> Tensor:
    """Rows of each task's own table: ``[…]`` and ``[V, …]`` -> ``[…, …]``."""
    if index.dtype in (torch.bool, torch.uint8):
        raise UnsupportedOp("a mask of a per-task weight")
    stacked, size, note = weight.stacked, weight.shape[0], stack.note(index)
    if negative:
        index = torch.where(index < 0, index + size, index)
    stack.check((index >= 0) & (index < size), "an index outside of a table")
    index = index.clamp(0, max(size - 1, 0))
    if type(note) is Shared:
        return TaskWeight(stacked[:, index], stack)
    if type(note) is not Rows:
        raise stack.refused("a look-up in a per-task weight by {}", index, note)
    stack.use(note)
    shape = [1] * index.dim()
    shape[note.dim] = -1
    offset = stack.task_of(index, note).reshape(shape) * size
    rows = stacked.flatten(0, 1).index_select(0, (index + offset).reshape(-1))
    return stack.rows(rows.reshape(*index.shape, *stacked.shape[2:]), note.dim, note.owner)


@handles("embedding")
def _embedding(stack: Stack, func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Tensor:
    index, weight = given(args, kwargs, 0, "input"), given(args, kwargs, 1, "weight")
    padding, norm = given(args, kwargs, 2, "padding_idx"), given(args, kwargs, 3, "max_norm")
    frequency, sparse = given(args, kwargs, 5, "scale_grad_by_freq", False), given(args, kwargs, 6, "sparse", False)
    if isinstance(index, TaskValue) or norm is not None or frequency or sparse:
        raise UnsupportedOp("max_norm, scale_grad_by_freq or sparse of an embedding on a per-task weight")
    found = look_up(stack, index, weight)
    if padding is None:
        return found
    at = (index == padding % weight.shape[0])[(..., *(None,) * (weight.dim() - 1))]
    if isinstance(found, TaskWeight):
        return TaskWeight(torch.where(at, found.stacked.detach(), found.stacked), stack)
    note = stack.note(found)
    return stack.mark(torch.where(at, found.detach(), found), note)  # the row is used, but has no gradient


@handles("index_select")
def _index_select(stack: Stack, func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Tensor:
    weight, dim, index = args[0], given(args, kwargs, 1, "dim"), given(args, kwargs, 2, "index")
    if isinstance(index, TaskValue) or dim % max(weight.dim(), 1):
        raise UnsupportedOp("index_select along another dimension than 0 of a per-task weight")
    return look_up(stack, index, weight)


@handles("cat", "concat", "concatenate", "stack", "hstack", "vstack")
def _joined(stack: Stack, func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Tensor:
    parts, rest = list(given(args, kwargs, 0, "tensors")), list(args[1:])
    dim: Any
    kwargs = {key: value for key, value in kwargs.items() if key != "tensors"}
    name = name_of(func)
    dim = given((None, *rest), kwargs, 1, "dim", kwargs.get("axis", 0))
    rows = common_rows(stack, parts)
    if rows is not None:
        x, note = rows
        dim = {"hstack": min(1, x.dim() - 1), "vstack": 0}.get(name, dim)
        if name != "stack" and dim % x.dim() == note.dim:
            raise UnsupportedOp(f"{name} of per-task weights along the rows of tasks", Remedy.BATCH)
        plain = [as_rows(stack, part, x, note) if isinstance(part, TaskValue) else part for part in parts]
        with stack:
            out = func(plain, *rest, **kwargs)
        if type(stack.note(out)) is not Rows:
            raise UnsupportedOp(f"{name} of per-task weights along the rows of tasks", Remedy.BATCH)
        return out
    versions = [plain_side(stack, part) for part in parts]
    if name in ("hstack", "vstack"):
        raise UnsupportedOp(f"{name} of per-task weights")
    return TaskWeight((torch.stack if name == "stack" else torch.cat)(versions, shift(dim)), stack)
