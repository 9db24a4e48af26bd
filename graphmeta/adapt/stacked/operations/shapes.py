"""Shapes and reductions of a per-task value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from graphmeta.adapt.stacked.arguments import given
from graphmeta.adapt.stacked.notes import name_of, tensors_in
from graphmeta.adapt.stacked.operations.base import Args, Kwargs, handles, shift
from graphmeta.adapt.stacked.operations.elementwise import elementwise
from graphmeta.adapt.stacked.rules.elementwise import ALONG, dims_of
from graphmeta.adapt.stacked.rules.shapes import permutation
from graphmeta.adapt.stacked.stack import Stack
from graphmeta.adapt.stacked.task_value import TaskValue
from graphmeta.adapt.stacked.task_weight import TaskWeight
from graphmeta.errors import UnsupportedOp


def _only(args: Args, kwargs: Kwargs) -> TaskWeight:
    """The first argument, after a check that it is the only tensor."""
    tensors = list(tensors_in((args, kwargs)))
    if len(tensors) != 1 or not isinstance(args[0], TaskWeight):
        raise UnsupportedOp("an operation on a per-task weight and another tensor")
    return args[0]


@handles("t", ".T", ".mT", "transpose", "swapaxes", "swapdims", "permute", "movedim", "moveaxis")
def _permute(stack: Stack, func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Tensor:
    weight = _only(args, kwargs)
    order = permutation(name_of(func), args, kwargs, weight.dim())
    return TaskWeight(weight.stacked.permute(0, *(d + 1 for d in order)), stack)


@handles("view", "reshape", "flatten", "unflatten", "unsqueeze", "squeeze", "chunk", "split", "unbind", "select",
         "narrow", "tril", "triu", "diagonal", "repeat_interleave", "split_with_sizes")  # fmt: skip
def _shapes(stack: Stack, func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    weight, name, rest = _only(args, kwargs), name_of(func), list(args[1:])
    if rest and isinstance(rest[0], torch.dtype):
        raise UnsupportedOp("a view of a per-task weight in another dtype")
    if name in ("view", "reshape"):
        shape = rest[0] if len(rest) == 1 and not isinstance(rest[0], int) else rest
        return TaskWeight(weight.stacked.reshape(stack.num_tasks, *shape), stack)
    place = 1 if name in ("chunk", "split", "split_with_sizes", "repeat_interleave") else 0
    if name == "squeeze" and not rest and not kwargs:
        return TaskWeight(weight.stacked.reshape(stack.num_tasks, *(n for n in weight.shape if n != 1)), stack)
    if name == "flatten":
        start, end = given(args, kwargs, 1, "start_dim", 0), given(args, kwargs, 2, "end_dim", -1)
        return TaskWeight(weight.stacked.flatten(shift(start), shift(end)), stack)
    if name == "diagonal" or (name == "repeat_interleave" and given(args, kwargs, 2, "dim") is None):
        raise UnsupportedOp(f"{name} of a per-task weight")
    if name not in ("tril", "triu"):
        dim = given(args, kwargs, place + 1, "dim", 0)
        shifted = tuple(map(shift, dim)) if isinstance(dim, tuple) else shift(dim)
        rest, kwargs = rest[:place], {**kwargs, "dim": shifted} | _after(name, args[1:], place)
    out = func(weight.stacked, *rest, **kwargs)
    return TaskWeight(out, stack) if isinstance(out, Tensor) else type(out)([TaskWeight(part, stack) for part in out])


def _after(name: str, rest: Args, place: int) -> Kwargs:
    """Positional arguments after the dimension, by name."""
    names = {"select": ["index"], "narrow": ["start", "length"], "unflatten": ["sizes"]}.get(name, [])
    return dict(zip(names, rest[place + 1 :], strict=False))


@handles("expand", "expand_as", "broadcast_to")
def _expand(stack: Stack, func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Tensor:
    weight, rest = args[0], args[1:]
    if not isinstance(weight, TaskWeight) or any(isinstance(x, TaskValue) for x in tensors_in(rest)):
        raise UnsupportedOp("expand to the shape of a per-task weight")
    sizes = rest[0] if rest and not isinstance(rest[0], int) else rest
    sizes = tuple(sizes.shape) if isinstance(sizes, Tensor) else tuple(sizes)
    own = weight.stacked.reshape(stack.num_tasks, *(1,) * (len(sizes) - weight.dim()), *weight.shape)
    return TaskWeight(own.expand(-1, *sizes), stack)


@handles("repeat", "tile")
def _repeat(stack: Stack, func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Tensor:
    weight, rest = _only(args, kwargs), args[1:]
    many = tuple(rest[0] if rest and not isinstance(rest[0], int) else rest)
    many = (1,) * (weight.dim() - len(many)) + many
    own = weight.stacked.reshape(stack.num_tasks, *(1,) * (len(many) - weight.dim()), *weight.shape)
    single = [size == 1 for size in own.shape[1:]]  # kept as one entry in memory (stride 0), known to be repeated
    own = own.repeat(1, *(1 if one else n for n, one in zip(many, single, strict=True)))
    return TaskWeight(own.expand(-1, *(n if one else -1 for n, one in zip(many, single, strict=True))), stack)


_OF_ALL = ("sum", "mean", "amax", "amin", "logsumexp", "std", "var", "nansum", "nanmean", "norm", "linalg_vector_norm")


@handles(*ALONG)
def _along(stack: Stack, func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    name = name_of(func)
    if name in ("max", "min") and isinstance(given(args, kwargs, 1, "other"), Tensor):
        return elementwise(stack, func, args, kwargs)
    weight = _only(args, kwargs)
    dims = dims_of(name, args, kwargs, weight.dim())
    if name in ("roll", "flip", "msort", "diff") or weight.dim() == 0:
        raise UnsupportedOp(f"{name} of a per-task weight")
    shifted: Any = [d + 1 for d in (range(weight.dim()) if dims is None else dims)]
    if dims is None and name not in _OF_ALL:
        raise UnsupportedOp(f"{name} of a whole per-task weight")
    if dims is not None and len(dims) == 1:
        shifted = shifted[0]
    place = ALONG[name][0]
    rest = [shifted if number == place else value for number, value in enumerate(args) if number]
    more = {key: value for key, value in kwargs.items() if key not in ("dim", "dims", "axis")}
    more |= {} if len(args) > place else {"dim": shifted}
    out = func(weight.stacked, *rest, **more)
    return TaskWeight(out, stack) if isinstance(out, Tensor) else type(out)([TaskWeight(part, stack) for part in out])
