"""Functions shared by the rules: registration, and the dimension of rows in elementwise results.

A rule infers the tasks of the rows of a result from the notes of the arguments of a plain operation. It gets ``(stack,
name, args, kwargs, result)`` and returns the note of the result, or a tuple with one per result. Without a rule, the
result is :class:`~graphmeta.adapt.stacked.notes.Lost`: never wrong, but refused in operations with a per-task weight.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from graphmeta.adapt.stacked.notes import RULES, Lost, Note, Rows, Rule, Shared
from graphmeta.adapt.stacked.stack import Stack
from graphmeta.errors import UnsupportedOp


def rule(*names: str) -> Any:
    """Register the rule of these operations."""

    def register(own: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, own))
        return own

    return register


def paired(stack: Stack, tensors: Iterable[tuple[Tensor, Note]]) -> tuple[Tensor, Rows] | None:
    """The first tensor with rows of tasks, and the note of rows combined from all of them; None without rows.

    Raises:
        UnsupportedOp: rows at two different dimensions, counted from the right.
    """
    first: tuple[Tensor, Rows] | None = None
    for x, note in tensors:
        if type(note) is not Rows:
            continue
        if first is None:
            first = x, note
            continue
        if x.dim() - note.dim != first[0].dim() - first[1].dim or x.shape[note.dim] != first[0].shape[first[1].dim]:
            raise UnsupportedOp("rows of tasks along two dimensions at once")
        right = first[0].dim() - first[1].dim
        x, note = stack.together(*first, x, note)
        first = x, Rows(stack, x.dim() - right, note.owner)
    return first


def aligned(stack: Stack, tensors: Sequence[Tensor], out: Tensor) -> Note:
    """The note of an elementwise, broadcasting operation; all rows must be at the same dimension from the right."""
    notes = [(x, stack.note(x)) for x in tensors]
    try:
        first = paired(stack, notes)
    except UnsupportedOp as refused:
        return Lost(str(refused))
    lost = [(x, note) for x, note in notes if type(note) not in (Rows, Shared)]
    if first is None:
        return next((note for _, note in lost if type(note) is Lost), Lost("arithmetic on sample.ptr as a whole"))
    x, note = first
    # Lost data with an entry per row belongs to that row, since encoders do not mix samples (tensors that depend on
    # per-task weights are refused earlier); a lost integer may be an index of any row.
    numbers = not out.is_floating_point() and not out.is_complex() and out.dtype != torch.bool
    beside = next((other for y, other in lost if numbers or not _stands_by(y, x, note)), None)
    if beside is not None:
        return beside if type(beside) is Lost else Lost("arithmetic on sample.ptr as a whole")
    dim = out.dim() - (x.dim() - note.dim)
    if dim < 0 or out.shape[dim] != x.shape[note.dim]:
        return Lost("rows that an operation has repeated")
    return Rows(stack, dim, note.owner)


def _stands_by(y: Tensor, x: Tensor, note: Rows) -> bool:
    """Whether ``y`` has an entry for each row of ``x``, which then belongs to that row."""
    at = y.dim() - (x.dim() - note.dim)
    return at >= 0 and y.shape[at] == x.shape[note.dim]
