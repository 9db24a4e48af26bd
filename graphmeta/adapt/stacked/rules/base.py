"""What the rules share: how they are registered, and where the rows of elementwise results stand.

A rule says whose rows the result of a plain operation holds, given its arguments'. It gets ``(stack, name, args,
kwargs, result)`` and returns the note of the result, or one for each of several. What has no rule is
:class:`~graphmeta.adapt.stacked.notes.Lost`: never wrong, only refused where it meets a per-task weight.
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


def given(args: tuple[Any, ...], kwargs: dict[str, Any], place: int, name: str, default: Any = None) -> Any:
    """An argument by its place or its name."""
    return args[place] if len(args) > place else kwargs.get(name, default)


def paired(stack: Stack, tensors: Iterable[tuple[Tensor, Note]]) -> tuple[Tensor, Rows] | None:
    """The first rows of tasks among these, as the owner of what they make with the others; None without rows.

    Raises:
        UnsupportedOp: rows at two places, counted from the right.
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
        first = first[0], Rows(stack, first[1].dim, stack.merged(*first, x, note))
    return first


def aligned(stack: Stack, tensors: Sequence[Tensor], out: Tensor) -> Note:
    """The note of an elementwise, broadcasting operation: all rows must stand at one place counted from the right."""
    notes = [(x, stack.note(x)) for x in tensors]
    try:
        first = paired(stack, notes)
    except UnsupportedOp as refused:
        return Lost(str(refused))
    lost = [(x, note) for x, note in notes if type(note) not in (Rows, Shared)]
    if first is None:
        return next((note for _, note in lost if type(note) is Lost), Lost("arithmetic on sample.ptr as a whole"))
    x, note = first
    # Lost data beside a row goes with that row, since no encoder mixes samples (what a weight has met never gets here);
    # a lost row number may point anywhere.
    numbers = not out.is_floating_point() and not out.is_complex() and out.dtype != torch.bool
    beside = next((other for y, other in lost if numbers or not _stands_by(y, x, note)), None)
    if beside is not None:
        return beside if type(beside) is Lost else Lost("arithmetic on sample.ptr as a whole")
    dim = out.dim() - (x.dim() - note.dim)
    if dim < 0 or out.shape[dim] != x.shape[note.dim]:
        return Lost("rows that an operation has repeated")
    return Rows(stack, dim, note.owner)


def _stands_by(y: Tensor, x: Tensor, note: Rows) -> bool:
    """Whether ``y`` has an entry for each row of ``x``, so that what it holds goes with that row."""
    at = y.dim() - (x.dim() - note.dim)
    return at >= 0 and y.shape[at] == x.shape[note.dim]
