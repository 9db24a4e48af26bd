"""Rules of layers that process each row, or each session, independently."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from graphmeta.adapt.stacked.arguments import given
from graphmeta.adapt.stacked.notes import Lost, Note, Rows, Shared, tensors_in
from graphmeta.adapt.stacked.rules.base import aligned, rule
from graphmeta.adapt.stacked.stack import Stack


@rule(
    "conv1d", "conv2d", "conv3d", "max_pool1d", "avg_pool1d", "adaptive_max_pool1d", "adaptive_avg_pool1d",
    "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "batch_norm", "instance_norm", "group_norm", "interpolate",
    "gru_cell", "lstm_cell", "rnn_tanh_cell", "rnn_relu_cell", "bilinear", "prelu", "local_response_norm",
)  # fmt: skip
def _of_batches(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
    """Operations that process entries of the first dimension independently; rows of all arguments must be along it."""
    x, batched = args[0], {"1d": 3, "2d": 4, "3d": 5}.get(name[-2:], 2)
    inputs = list(tensors_in((args, kwargs)))
    many = 2 if name == "bilinear" or name.endswith("_cell") else 1
    if name == "lstm_cell":
        many = 3
    if any(type(stack.note(weight)) is not Shared for weight in inputs[many:]):
        found = tuple(Lost(f"{name} with weights that differ by row") for _ in _results(out))
        return found[0] if isinstance(out, Tensor) else found
    note = paired_at(stack, inputs[:many], 0)
    results = _results(out)
    mixes = name == "batch_norm" and _in_training(args, kwargs)
    good = type(note) is Rows and type(stack.note(x)) is Rows and x.dim() >= batched and not mixes
    notes = tuple(note if good else Lost(f"the result of {name}") for _ in results)
    return notes[0] if isinstance(out, Tensor) else notes


def _results(out: Any) -> tuple[Any, ...]:
    return (out,) if isinstance(out, Tensor) else tuple(out)


def _in_training(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a batch norm ``(input, running_mean, running_var, weight, bias, training)`` reads all rows."""
    return given(args, kwargs, 1, "running_mean") is None or given(args, kwargs, 5, "training", False)


def paired_at(stack: Stack, tensors: Iterable[Tensor], dim: int) -> Rows | Lost | None:
    """The note of rows combined from these tensors, which must have theirs along ``dim``; None without rows."""
    rows = [(x, note) for x in tensors if type(note := stack.note(x)) is Rows]
    if any(note.dim != dim for _, note in rows):
        return Lost("rows of tasks along two dimensions at once")
    if not rows:
        return None
    first = rows[0]
    for other in rows[1:]:
        first = stack.together(*first, *other)
    return Rows(stack, dim, first[1].owner)


@rule("layer_norm", "rms_norm")
def _norms(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Note:
    note, shape = stack.note(args[0]), given(args, kwargs, 1, "normalized_shape")
    if type(note) is not Rows or note.dim >= args[0].dim() - len(shape):
        return Lost(f"{name} over the rows of tasks")
    return Rows(stack, note.dim, note.owner)


@rule("pad")
def _pads(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Note:
    note, pad = stack.note(args[0]), given(args, kwargs, 1, "pad")
    if type(note) is not Rows or note.dim >= args[0].dim() - len(pad) // 2:
        return Lost("padded rows of tasks")
    return Rows(stack, note.dim, note.owner)


@rule("tril", "triu")
def _triangles(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Note:
    note = stack.note(args[0])
    if type(note) is Rows and note.dim < out.dim() - 2:
        return Rows(stack, note.dim, note.owner)
    return Lost(f"{name} of rows of tasks")


@rule("gru", "lstm", "rnn_tanh", "rnn_relu")
def _recurrent(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
    x = args[0]
    note = stack.note(x)
    if len(args) != 9 or isinstance(args[1], Tensor) and isinstance(args[2], Tensor) or type(note) is not Rows:
        return tuple(Lost(f"the result of a packed {name}") for _ in out)
    batch_dim = 0 if args[8] else 1
    if note.dim != batch_dim or x.dim() != 3:
        return tuple(Lost(f"{name} over the rows of tasks") for _ in out)
    first = x, note
    for state in tensors_in((args[1],)):
        own = stack.note(state)
        if type(own) is Rows and own.dim != 1:
            return tuple(Lost("rows of tasks along two dimensions at once") for _ in out)
        first = stack.together(*first, state, own) if type(own) is Rows else first
    if any(type(stack.note(weight)) is not Shared for weight in tensors_in((args[2],))):
        return tuple(Lost(f"{name} with weights that differ by row") for _ in out)
    owner = first[1].owner
    return (Rows(stack, batch_dim, owner), *(Rows(stack, 1, owner) for _ in out[1:]))


@rule("scaled_dot_product_attention")
def _attends(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Note:
    note = aligned(stack, list(tensors_in((args, kwargs))), out)
    if type(note) is Rows and note.dim < out.dim() - 2:
        return note
    return Lost("attention across the rows of tasks")
