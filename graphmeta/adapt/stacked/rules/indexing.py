"""Rules of indexing: rows are those of the index; without rows in the index, they keep the task they are taken from."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphmeta.adapt.stacked.arguments import given
from graphmeta.adapt.stacked.notes import Fence, Lost, Note, Rows, Shared
from graphmeta.adapt.stacked.rules.base import aligned, rule
from graphmeta.adapt.stacked.stack import Stack
from graphmeta.errors import Remedy, UnsupportedOp


def taken(stack: Stack, x: Tensor, note: Note, index: Tensor, dim: int) -> Note:
    """The note of ``x`` with dimension ``dim`` replaced by those of ``index``, whose rows determine the tasks."""
    of_index = stack.note(index)
    if type(note) is Rows and note.dim != dim:
        if type(of_index) is Rows:
            return Lost("rows of tasks along two dimensions at once")
        return Rows(stack, note.dim + (index.dim() - 1 if note.dim > dim else 0), note.owner, note.points)
    points = note.points if type(note) is Rows else None
    if type(of_index) is Rows:
        if type(note) is not Rows:
            return Rows(stack, dim + of_index.dim, of_index.owner)
        owner = stack.pointed(x, note, index, index, of_index)
        return Rows(stack, dim + of_index.dim, owner, points if stack.trusts(x, note, of_index) else None)
    if type(note) is Rows and index.dim() == 1:
        return Rows(stack, dim, stack.owner_by_value(index, x, note), points)
    return Lost("an index of which nothing is known")


@rule("index_select")
def _index_selects(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Note:
    x, index = args[0], given(args, kwargs, 2, "index")
    return taken(stack, x, stack.note(x), index, given(args, kwargs, 1, "dim") % max(x.dim(), 1))


@rule("embedding")
def _embeds(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Note:
    table = given(args, kwargs, 1, "weight")
    return taken(stack, table, stack.note(table), given(args, kwargs, 0, "input"), 0)


@rule("gather", "take_along_dim")
def _gathers(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Note:
    x, dim, index = args[0], given(args, kwargs, 1, "dim"), given(args, kwargs, 2, "index")
    if name == "take_along_dim":
        index, dim = given(args, kwargs, 1, "indices"), given(args, kwargs, 2, "dim")
    if dim is None:
        return Lost(f"{name} of all entries")
    note, of_index = stack.note(x), stack.note(index)
    if type(note) is Rows and note.dim == dim % x.dim():
        if type(of_index) is not Rows:
            return Lost(f"the result of {name}")
        return Rows(stack, of_index.dim, stack.pointed(x, note, index, index, of_index))
    # The row of the index selects within the row of x at the same position.
    if any(type(known) not in (Rows, Shared) for known in (note, of_index)):
        return Lost(f"the result of {name}")
    return aligned(stack, [x, index], out)


@rule("unique", "unique_consecutive")
def _unique(
    stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor | tuple[Tensor, ...]
) -> Note | tuple[Note, ...]:
    """Distinct values, the number of each entry's value, and counts; all of no known task."""
    numbered = given(args, kwargs, 2 if name == "unique" else 1, "return_inverse", False)
    notes = [Lost(f"the result of {name}", numbers=number == 1 and numbered) for number in range(3)]
    return notes[0] if isinstance(out, Tensor) else tuple(notes[: len(out)])


@rule("getitem")
def _getitem(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Note:
    x, index = args
    note = stack.note(x)
    cut = note.cut if type(note) is Rows and isinstance(index, slice) else None
    if cut is not None and index.indices(len(x)) == (0, len(x) - 1, 1):
        return Rows(stack, 0, cut)
    if type(note) is Fence:
        begins = isinstance(index, slice) and index in (slice(1, None, None), slice(None, -1, None))
        return Rows(stack) if begins else Lost("sample.ptr indexed in another way than [1:] or [:-1]")
    return indexed(stack, x, note, index if isinstance(index, tuple) else (index,), out)


def indexed(stack: Stack, x: Tensor, note: Note, index: tuple[Any, ...], out: Tensor) -> Note:
    """The note of ``x[index]``."""
    parts = expanded(index, x.dim())
    advanced = [part for part in parts if isinstance(part, Tensor)]
    if any(isinstance(part, (list, np.ndarray)) for part in parts):
        return Lost("indexing by a list")
    masks = [part for part in advanced if is_mask(part)]
    if masks:
        return masked(stack, x, note, parts, masks[0]) if len(advanced) == 1 else Lost("indexing by several masks")
    dim, made, found, place = 0, 0, None, None  # dimension of x, of the result, of the rows, of the first index
    at: Tensor | None = None  # the index along the rows of x
    for part in parts:
        if part is None:
            made += 1
            continue
        if isinstance(part, Tensor):
            place = made if place is None else place
            at = part if type(note) is Rows and note.dim == dim else at
        elif isinstance(part, slice):
            if type(note) is Rows and note.dim == dim:
                found = made, part
            made += 1
        elif type(note) is Rows and note.dim == dim:
            return Lost("a single row of tasks")
        dim += 1
    if not advanced:
        if type(note) is not Rows or found is None:
            return note
        return _sliced(stack, x, note, *found)
    apart = _apart(parts)
    place = 0 if apart or place is None else place
    rank = max(part.dim() for part in advanced)
    rows = [(part, n) for part in advanced if type(n := stack.note(part)) is Rows]
    if rows:
        part, of_index = _together(stack, rows)
        if found is not None:
            return Lost("rows of tasks along two dimensions at once")
        at_rows = place + rank - (part.dim() - of_index.dim)
        if at is None or type(note) is not Rows:
            return Rows(stack, at_rows, of_index.owner)
        points = note.points if at is part and stack.trusts(x, note, of_index) else None
        return Rows(stack, at_rows, stack.pointed(x, note, at, part, of_index), points)
    if found is not None:
        return Lost("rows of tasks beside an index") if apart else _beside(stack, x, note, found, place, rank)
    if type(note) is Rows and len(advanced) == 1 and rank == 1:
        return Rows(stack, place, stack.owner_by_value(advanced[0], x, note), note.points)
    return Lost("an index of which nothing is known")


def _together(stack: Stack, rows: list[tuple[Tensor, Rows]]) -> tuple[Tensor, Rows]:
    """The rows of the first index, with the conditions of others that depend on per-task weights."""
    first, note = rows[0]
    for part, other in rows[1:]:
        if not any(stack.met(x) for x in (first, part)):
            continue
        if part.dim() - other.dim != first.dim() - note.dim or part.shape[other.dim] != first.shape[note.dim]:
            raise UnsupportedOp("indices with rows of tasks along two dimensions", Remedy.BATCH)
        right = first.dim() - note.dim
        first, note = stack.together(first, note, part, other)
        note = Rows(stack, first.dim() - right, note.owner)
    return first, note


def _beside(stack: Stack, x: Tensor, note: Note, found: tuple[int, slice], place: int, rank: int) -> Note:
    """Rows that are kept whole, while an index selects along other dimensions."""
    made, part = found
    assert type(note) is Rows
    kept = _sliced(stack, x, note, made + (rank if made >= place else 0), part)
    return Rows(stack, kept.dim, kept.owner) if type(kept) is Rows else kept


def _sliced(stack: Stack, x: Tensor, note: Rows, dim: int, part: slice) -> Note:
    size = x.shape[note.dim]
    if part.indices(size) == (0, size, 1):
        return Rows(stack, dim, note.owner, note.points)
    tasks = stack.tasks_of(x, note)
    return Rows(stack, dim, stack.derived(note, lambda: tasks()[part]), note.points)


def masked(stack: Stack, x: Tensor, note: Note, parts: list[Any], mask: Tensor) -> Note:
    of_mask = stack.note(mask)
    before = next(number for number, part in enumerate(parts) if part is mask)
    if any(not isinstance(part, slice) or part != slice(None) for part in parts if part is not mask) or before:
        return Lost("a mask beside other indices")
    if type(note) is Rows and note.dim < mask.dim():
        source, own = x, note
    elif type(of_mask) is Rows:
        source, own = mask, of_mask
    else:
        return Lost("rows chosen by a mask")
    shape = [1] * mask.dim()
    shape[own.dim] = -1
    now, tasks, size = stack.as_now(mask), stack.tasks_of(source, own), mask.shape
    owner = stack.derived(own, lambda: tasks().reshape(shape).expand(size)[now().bool()])
    return Rows(stack, 0, owner, note.points if type(note) is Rows else None)


def expanded(index: tuple[Any, ...], rank: int) -> list[Any]:
    """An index with ``...`` expanded, one entry per dimension (a mask of n dimensions covers n)."""
    used = sum(
        part.dim() if isinstance(part, Tensor) and is_mask(part) else part is not None
        for part in index
        if part is not Ellipsis
    )
    spare = [slice(None)] * (rank - used)
    if any(part is Ellipsis for part in index):
        at = next(number for number, part in enumerate(index) if part is Ellipsis)
        return [*index[:at], *spare, *index[at + 1 :]]
    return [*index, *spare]


def is_mask(part: Tensor) -> bool:
    """Whether an index selects where it is true."""
    return part.dtype in (torch.bool, torch.uint8)


def _apart(parts: list[Any]) -> bool:
    """Whether a dimension lies between the tensors of an index, which moves their dimensions to the front."""
    places = [number for number, part in enumerate(parts) if isinstance(part, Tensor)]
    return any(part is None or isinstance(part, slice) for part in parts[places[0] : places[-1]])
