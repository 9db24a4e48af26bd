"""Rules of layers that work on each row, or each session, by itself."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from graphmeta.adapt.stacked.notes import Lost, Note, Rows
from graphmeta.adapt.stacked.rules.base import given, rule
from graphmeta.adapt.stacked.stack import Stack


@rule(
    "conv1d", "conv2d", "conv3d", "max_pool1d", "avg_pool1d", "adaptive_max_pool1d", "adaptive_avg_pool1d",
    "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "batch_norm", "instance_norm", "group_norm", "interpolate",
    "gru_cell", "lstm_cell", "rnn_tanh_cell", "rnn_relu_cell", "bilinear", "prelu", "local_response_norm",
)  # fmt: skip
def _of_batches(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
    """What works on each entry of the first dimension by itself, or (batch norm) keeps them in their places."""
    x = args[0]
    note, batched = stack.note(x), {"1d": 3, "2d": 4, "3d": 5}.get(name[-2:], 2)
    results = (out,) if isinstance(out, Tensor) else tuple(out)
    good = type(note) is Rows and note.dim == 0 and x.dim() >= batched
    notes = tuple(Rows(stack, 0, note.owner) if good else Lost(f"the result of {name}") for _ in results)  # pyright: ignore
    return notes[0] if isinstance(out, Tensor) else notes


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
    return note if type(note) is Rows and note.dim < out.dim() - 2 else Lost(f"{name} of rows of tasks")


@rule("gru", "lstm", "rnn_tanh", "rnn_relu")
def _recurrent(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
    x = args[0]
    note = stack.note(x)
    if len(args) != 9 or isinstance(args[1], Tensor) and isinstance(args[2], Tensor) or type(note) is not Rows:
        return tuple(Lost(f"the result of a packed {name}") for _ in out)
    batch_dim = 0 if args[8] else 1
    if note.dim != batch_dim or x.dim() != 3:
        return tuple(Lost(f"{name} over the rows of tasks") for _ in out)
    return (Rows(stack, batch_dim, note.owner), *(Rows(stack, 1, note.owner) for _ in out[1:]))


@rule("scaled_dot_product_attention")
def _attends(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Note:
    note = stack.note(args[0])
    if type(note) is not Rows or note.dim >= out.dim() - 2:
        return Lost("attention across the rows of tasks")
    return Rows(stack, note.dim, note.owner)
