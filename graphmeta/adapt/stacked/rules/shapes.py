"""Rules of operations that move, split and join dimensions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from graphmeta.adapt.stacked.arguments import given
from graphmeta.adapt.stacked.notes import Lost, Note, Owner, Rows, Term
from graphmeta.adapt.stacked.rules.base import aligned, rule
from graphmeta.adapt.stacked.stack import Stack


@rule("view", "reshape", "flatten", "unflatten", "view_as", "reshape_as", "ravel", "_unsafe_view")
def _reshapes(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Note:
    x = args[0]
    note = stack.note(x)
    if type(note) is not Rows:
        return note
    if len(args) > 1 and isinstance(args[1], torch.dtype):
        return Lost("a view in another dtype")
    dim, size = note.dim, x.shape[note.dim]
    if tuple(out.shape[:dim]) != tuple(x.shape[:dim]):
        before, after = x.shape[:dim].numel(), 1
        dim = 0
        while dim < out.dim() and after < before:
            after, dim = after * out.shape[dim], dim + 1
        if after != before:
            return Lost("a reshape across the rows of tasks")
    # A new dimension of size 1 is skipped; with one task it may be the dimension of rows, of a single row.
    while dim < out.dim() - 1 and out.shape[dim] == 1 and size != 1 and stack.num_tasks > 1:
        dim += 1
    if dim >= out.dim():
        return Lost("a reshape across the rows of tasks")
    if note.in_blocks:
        # Blocks are contiguous: T equal blocks remain T equal blocks.
        if out.shape[dim] % stack.num_tasks:
            return Lost("a reshape across the rows of tasks")
        return Rows(stack, dim, note.owner, note.points)
    if out.shape[dim] == size:
        return Rows(stack, dim, note.owner, note.points)
    if out.shape[dim] % max(size, 1) == 0:
        each = out.shape[dim] // max(size, 1)
        tasks = stack.tasks_of(x, note)
        owner = stack.derived(note, lambda: tasks().repeat_interleave(each))
        return Rows(stack, dim, owner, note.points)
    if out.shape[dim] and size % out.shape[dim] == 0:
        return Rows(stack, dim, _gathered(stack, x, note, out.shape[dim]), note.points)
    return Lost("a reshape across the rows of tasks")


def _gathered(stack: Stack, x: Tensor, note: Rows, groups: int) -> Owner:
    """The owner of ``groups`` consecutive groups of rows; all rows of a group must belong to one task."""

    tasks = stack.tasks_of(x, note)

    def whole() -> None:
        task = tasks().reshape(groups, -1)
        stack.check(task == task[:, :1], "rows of one task are grouped with another's")

    return Owner(lambda: tasks().reshape(groups, -1)[:, 0], (*note.terms, Term(whole)))


@rule("unsqueeze")
def _unsqueeze(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Note:
    note, at = stack.note(args[0]), given(args, kwargs, 1, "dim") % out.dim()
    return _moved(note, note.dim + (at <= note.dim)) if type(note) is Rows else note


def _moved(note: Rows, dim: int) -> Rows:
    return Rows(note.stack, dim, note.owner, note.points)


@rule("squeeze")
def _squeeze(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Note:
    x, note = args[0], stack.note(args[0])
    if type(note) is not Rows:
        return note
    dim = given(args, kwargs, 1, "dim")
    dims = range(x.dim()) if dim is None else [dim] if isinstance(dim, int) else dim
    gone = [d % x.dim() for d in dims if x.shape[d] == 1]
    if note.dim in gone:
        return Lost("squeeze of the rows of tasks")
    return _moved(note, note.dim - sum(d < note.dim for d in gone))


@rule("transpose", "swapaxes", "swapdims", "t", ".T", ".mT", "movedim", "moveaxis", "permute")
def _permutes(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Note:
    x, note = args[0], stack.note(args[0])
    if type(note) is not Rows:
        return note
    return _moved(note, permutation(name, args, kwargs, x.dim()).index(note.dim))


def permutation(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], rank: int) -> list[int]:
    """The old dimension of each new one, found by applying the operation to a tensor of sizes 1, 2, …, ``rank``."""
    marked = torch.empty(tuple(range(1, rank + 1)), device="meta")
    moved = getattr(marked, name.removeprefix("."))
    return [size - 1 for size in (moved if name[0] == "." else moved(*args[1:], **kwargs)).shape]


@rule("expand", "expand_as", "broadcast_to", "repeat", "tile")
def _repeats(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Note:
    x, note = args[0], stack.note(args[0])
    if type(note) is not Rows:
        return note
    dim = out.dim() - (x.dim() - note.dim)
    return _moved(note, dim) if out.shape[dim] == x.shape[note.dim] else Lost(f"rows that {name} has repeated")


@rule("repeat_interleave")
def _interleaves(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Note:
    x, note, many = args[0], stack.note(args[0]), given(args, kwargs, 1, "repeats")
    dim = given(args, kwargs, 2, "dim")
    if type(note) is not Rows or dim is None and x.dim() != 1 or many is None:
        return Lost("the result of repeat_interleave")
    if (dim or 0) % x.dim() != note.dim:
        return Rows(stack, note.dim, note.owner) if not isinstance(many, Tensor) else Lost("repeat_interleave")
    if note.in_blocks and not (isinstance(many, Tensor) and many.numel() > 1):
        return Rows(stack, note.dim, note.owner, note.points)
    size, now = out.shape[note.dim], stack.as_now(many) if isinstance(many, Tensor) else lambda: many
    tasks = stack.tasks_of(x, note)
    owner = stack.derived(note, lambda: tasks().repeat_interleave(now(), output_size=size))
    return Rows(stack, note.dim, owner, note.points)


@rule("chunk", "split", "split_with_sizes", "tensor_split", "unsafe_chunk", "unsafe_split")
def _splits(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
    x, note = args[0], stack.note(args[0])
    dim = given(args, kwargs, 2, "dim", 0) % x.dim()
    if type(note) is not Rows or note.dim == dim and len(out) > 1:
        return tuple(Lost(f"{name} of the rows of tasks") for _ in out)
    return tuple(note for _ in out)


@rule("unbind")
def _unbinds(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
    x, note = args[0], stack.note(args[0])
    dim = given(args, kwargs, 1, "dim", 0) % x.dim()
    if type(note) is not Rows or note.dim == dim:
        return tuple(Lost("single rows of tasks") for _ in out)
    return tuple(_moved(note, note.dim - (dim < note.dim)) for _ in out)


@rule("select", "narrow")
def _selects(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Note:
    note, dim = stack.note(args[0]), given(args, kwargs, 1, "dim") % args[0].dim()
    if type(note) is not Rows or note.dim == dim:
        return Lost(f"{name} of the rows of tasks")
    return _moved(note, note.dim - (name == "select" and dim < note.dim))


@rule("cat", "concat", "concatenate", "hstack", "vstack")
def _cats(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Note:
    parts = [part for part in given(args, kwargs, 0, "tensors") if part.dim() == out.dim()]
    dim = given(args, kwargs, 1, "dim", kwargs.get("axis", {"hstack": min(1, out.dim() - 1)}.get(name, 0))) % out.dim()
    notes = [stack.note(part) for part in parts]
    rows = [(part, note) for part, note in zip(parts, notes, strict=True) if type(note) is Rows]
    if not rows or rows[0][1].dim != dim:
        return aligned(stack, parts, parts[0]) if rows else Lost(f"the result of {name}")
    if len(rows) < len(parts) or any(note.dim != dim for _, note in rows):
        return Lost(f"{name} of rows of tasks and of other rows")
    terms = tuple(term for _, note in rows for term in note.terms)
    tasks = [stack.tasks_of(part, note) for part, note in rows]
    owner = Owner(lambda: torch.cat([of_part() for of_part in tasks]), terms)
    points = {note.points for _, note in rows}
    return Rows(stack, dim, owner if len(rows) > 1 else rows[0][1].owner, points.pop() if len(points) == 1 else None)


@rule("stack")
def _stacks(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Note:
    parts, dim = given(args, kwargs, 0, "tensors"), given(args, kwargs, 1, "dim", 0) % out.dim()
    note = aligned(stack, parts, parts[0])
    return _moved(note, note.dim + (dim <= note.dim)) if type(note) is Rows else note


@rule("unfold")
def _unfolds(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Note:
    """``Tensor.unfold``: windows along one dimension, with their entries in a new last dimension."""
    x, note, dim = args[0], stack.note(args[0]), given(args, kwargs, 1, "dimension", kwargs.get("dim"))
    if type(note) is not Rows or not isinstance(dim, int) or dim % x.dim() == note.dim or out.dim() != x.dim() + 1:
        return Lost("windows over the rows of tasks")
    return _moved(note, note.dim)
