"""Rules of scatter operations and indexed writes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from graphmeta.adapt.stacked.arguments import given
from graphmeta.adapt.stacked.notes import Lost, Note, Owner, Rows, Shared, Term
from graphmeta.adapt.stacked.rules.base import paired, rule
from graphmeta.adapt.stacked.rules.indexing import expanded, is_mask, masked
from graphmeta.adapt.stacked.stack import Stack
from graphmeta.errors import UnsupportedOp


def scattered(
    stack: Stack, out: Tensor, base: Note, dim: int, index: Tensor, source: Any, *, put: int | None = None
) -> Note:
    """The note of ``out``, into whose rows ``index`` along ``dim`` the rows of ``source`` were scattered.

    If ``out`` has the number of rows of a store, or a multiple of it, every source row must go to the block of its own
    task; this holds for a batch's own indices, and is checked for others. Otherwise, and if the index numbers distinct
    values (``unique``), a row belongs to the task of the rows scattered into it. With one row more than a store it does
    too, unless that row is cut off.

    Args:
        put: for ``out[index, …] = source``, the number of dimensions of the written part, those of the index first.
    """
    of_index, of_source = stack.note(index), stack.note(source) if isinstance(source, Tensor) else Shared()
    whole = index.dim() == out.dim() and put is None
    place = dim if put is None else 0
    known = [(out, base, dim), (source, of_source, place), (index, of_index, dim if whole else 0)]
    rows = [(x, note, at) for x, note, at in known if type(note) is Rows]
    along = [(x, note) for x, note, at in rows if note.dim == at]
    if type(of_source) is Rows and put is not None and source.dim() != put:
        along = [(x, note) for x, note in along if x is not source]
    if len(along) < len(rows):
        if along or (type(of_index) is not Shared and not whole):
            return Lost("rows of tasks along two dimensions at once")
        return _beside(stack, out, [(x, note) for x, note, _ in known if isinstance(x, Tensor)])
    sources = [(x, note) for x, note in along if x is not out]
    size = out.shape[dim]
    if not sources:
        return _as_before(stack, base, of_source) or Lost("a scatter whose rows are of no known task")
    if type(base) is Lost:
        return Lost("a scatter into rows of which nothing is known")
    x, note = sources[0]
    per_task = size // stack.num_tasks
    trusted = type(of_index) is Rows and of_index.points == per_task and size % stack.num_tasks == 0
    if len(sources) == 2:  # a source and its index must be of one task, whatever they depend on
        if x.shape[note.dim] != index.shape[sources[1][1].dim]:
            return Lost("a scatter of rows by another number of indices")
        note = Rows(stack, note.dim, stack.merged(*sources[0], *sources[1], strict=True))
    if type(base) is Rows and not base.in_blocks and base.cut is None:
        return _into_rows(stack, out, base, index, x, note)
    before = () if type(base) is not Rows else base.terms if base.cut is None else base.cut.terms
    if trusted and note.in_blocks:
        return Rows(stack, dim, Owner(None, (*note.terms, *before)))
    at = _targets(index, dim if whole else 0)
    if len(at) != x.shape[note.dim]:
        return Lost("a scatter of rows by another number of indices")
    now = stack.as_now(at)
    tasks = stack.tasks_of(x, note)
    numbers = type(of_index) is Lost and of_index.numbers
    blocks = type(base) is Rows and base.in_blocks or not numbers and stack.like_a_store(size)
    spare = not (blocks or numbers) and dim == 0 and stack.like_a_store(size - 1)  # the last row may be of no task
    per_task = (size - spare) // stack.num_tasks

    def inside() -> None:
        own = now() // max(per_task, 1) == tasks()[:, None]
        own = own | (now() == size - 1) if spare else own
        stack.check(own, "a scatter writes rows of one task to another's")

    in_blocks = Owner(None, (*note.terms, *before, Term(inside)))
    if blocks:
        return Rows(stack, dim, in_blocks)
    cut = in_blocks if spare else None
    if type(base) is Rows:  # with a spare row, already written into
        found = _into_rows(stack, out, base, index, x, note)
        return replace(found, cut=cut) if type(found) is Rows else found
    return Rows(stack, dim, stack.derived(note, _of_the_sources(stack, tasks, now, size)), cut=cut)


def _of_the_sources(
    stack: Stack, tasks: Callable[[], Tensor], now: Callable[[], Tensor], size: int
) -> Callable[[], Tensor]:
    """A function that returns the tasks of ``size`` rows, from those of the rows scattered to ``now()``."""

    def owners() -> Tensor:
        task = tasks()[:, None].expand(now().shape)
        found = torch.full((size,), -1, device=task.device).index_copy(0, now().flatten(), task.flatten())
        stack.check(found[now()] == task, "a scatter writes rows of several tasks to one")
        stack.check(found >= 0, "a scatter leaves rows of no task")
        return found.clamp(min=0)

    return owners


def _as_before(stack: Stack, base: Note, written: Note) -> Rows | None:
    """The rows that a tensor has after constants are written into it; None if it had none, or they are no constants."""
    return replace(base, points=None) if type(base) is Rows and type(written) is Shared else None


def _beside(stack: Stack, out: Tensor, known: list[tuple[Tensor, Note]]) -> Note:
    """Rows along another dimension than the scattered one: each row is written from the same row."""
    lost = next((note for _, note in known if type(note) not in (Rows, Shared)), None)
    if lost is not None:
        return Lost("a scatter with a tensor of which nothing is known")
    try:
        found = paired(stack, known)
    except UnsupportedOp as refused:
        return Lost(str(refused))
    assert found is not None
    x, note = found
    dim = out.dim() - (x.dim() - note.dim)
    if dim < 0 or out.shape[dim] != x.shape[note.dim]:
        return Lost("a scatter of rows into another number of rows")
    return Rows(stack, dim, note.owner)


def _targets(index: Tensor, dim: int) -> Tensor:
    """The target rows of each source row, ``[n, k]``: one, or one per column."""
    front = index.movedim(dim, 0)
    for d in range(1, front.dim()):
        if front.stride(d) == 0:  # one index for all columns
            front = front.narrow(d, 0, min(1, front.shape[d]))
    return front.reshape(len(front), -1) if front.numel() else front.new_zeros(len(front), 1)


def _into_rows(stack: Stack, out: Tensor, base: Rows, index: Tensor, x: Tensor, note: Rows) -> Note:
    """Rows written into rows that are not in blocks: each must be written into a row of its own task."""
    at = _targets(index, base.dim if index.dim() == out.dim() and index.dim() > 1 else 0)
    if len(at) != x.shape[note.dim]:
        return Lost("a scatter of rows by another number of indices")
    now, target, source = stack.as_now(at), stack.tasks_of(out, base), stack.tasks_of(x, note)

    def same() -> None:
        mixed = target()[now()] == source()[:, None]
        stack.check(mixed, "a scatter mixes rows of tasks")

    return Rows(stack, base.dim, Owner(target, (*base.terms, *note.terms, Term(same))))


@rule("index_add", "index_copy", "index_reduce", "scatter", "scatter_add", "scatter_reduce", "index_fill")
def _scatters(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Note:
    source = given(args, kwargs, 3, "source", kwargs.get("src", kwargs.get("value")))
    dim = given(args, kwargs, 1, "dim") % max(out.dim(), 1)
    return scattered(stack, out, stack.note(args[0]), dim, given(args, kwargs, 2, "index"), source)


@rule("scatter_max", "scatter_min", "scatter_mul")
def _scatters_of_torch_scatter(
    stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any
) -> Note | tuple[Note, ...]:
    """torch-scatter's ``(src, index, dim, out, dim_size)``: the result, and the source row of each value."""
    results = (out,) if isinstance(out, Tensor) else out
    given_out = given(args, kwargs, 3, "out")
    base = Shared() if given_out is None else stack.note(given_out)
    dim = given(args, kwargs, 2, "dim", -1) % results[0].dim()
    note = scattered(stack, results[0], base, dim, given(args, kwargs, 1, "index"), args[0])
    return note if isinstance(out, Tensor) else (note, *(note for _ in results[1:]))


@rule("index_put")
def _puts(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Note:
    indices, values = given(args, kwargs, 1, "indices"), given(args, kwargs, 2, "values")
    return _written(stack, args[0], stack.note(args[0]), tuple(indices), values, out)


@rule("setitem")
def _setitem(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Note:
    x, index, value = args
    return _written(stack, x, stack.note(x), index if isinstance(index, tuple) else (index,), value, x)


def _written(stack: Stack, x: Tensor, base: Note, index: tuple[Any, ...], value: Any, out: Tensor) -> Note:
    own = stack.note(value) if isinstance(value, Tensor) else Shared()
    parts = expanded(index, out.dim())
    tensors = [part for part in parts if isinstance(part, Tensor)]
    if not tensors:
        return _written_part(stack, x, base, parts, value, own)
    if any(stack.met(part) for part in tensors[1:] if type(stack.note(part)) is not Shared):
        return Lost("elements written where per-task weights decide")
    if type(own) is not Rows and not any(type(stack.note(part)) is Rows for part in tensors):
        return _as_before(stack, base, own) or Lost("written elements")
    first = parts[0]
    if not isinstance(first, Tensor):
        return Lost("written elements")
    if is_mask(first):
        if type(stack.note(first)) is not Rows or len(tensors) > 1:
            return Lost("elements written through a mask")
        return _written_by_mask(stack, x, base, parts, first, value, own)
    if first.dim() < max(part.dim() for part in tensors):
        return Lost("elements written by indices of several ranks")
    rank = first.dim() + sum(isinstance(part, slice) or part is None for part in parts)
    return scattered(stack, out, base, 0, first, value, put=rank)


def _written_by_mask(
    stack: Stack, x: Tensor, base: Note, parts: list[Any], mask: Tensor, value: Any, own: Note
) -> Note:
    """The note of ``x`` after a write where a mask with rows of tasks is true."""
    of_mask = stack.note(mask)
    assert type(of_mask) is Rows
    if type(base) is Rows and base.dim != of_mask.dim:
        return Lost("a mask along another dimension than the rows")
    if type(own) is Rows:
        written = masked(stack, x, base, parts, mask)
        assert type(written) is Rows
        terms = stack.merged(value, own, value, written)
        tasks = None if of_mask.in_blocks else stack.tasks_of(mask, of_mask)
        owner = Owner(tasks, () if terms is None else terms.terms)
        found = Rows(stack, of_mask.dim, owner)
        return Rows(stack, base.dim, stack.merged(x, base, x, found)) if type(base) is Rows else found
    if type(base) is Rows:
        return Rows(stack, base.dim, stack.merged(x, base, mask, of_mask))
    return Rows(stack, of_mask.dim, of_mask.owner)


def _written_part(stack: Stack, x: Tensor, base: Note, parts: list[Any], value: Any, own: Note) -> Note:
    """The note of ``x`` after a write into slices of it."""
    if type(own) is Shared:  # constants fit any row
        return replace(base, points=None) if type(base) is Rows else base
    if type(own) is not Rows:
        return Lost("written elements")
    left = [part for part in parts if part is not None]
    kept = [dim for dim, part in enumerate(left) if isinstance(part, slice)]
    at = len(kept) - (value.dim() - own.dim)
    if at < 0 or left[kept[at]].indices(x.shape[kept[at]]) != (0, x.shape[kept[at]], 1):
        return Lost("some rows of tasks written among others")
    if type(base) is not Rows:
        return Rows(stack, kept[at], own.owner) if type(base) is Shared else Lost("written elements")
    if base.dim != kept[at]:
        return Lost("rows of tasks along two dimensions at once")
    return Rows(stack, base.dim, stack.merged(x, base, value, own))


@rule("bincount")
def _bincounts(stack: Stack, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Note:
    """Counts of row indices are a scatter of ones."""
    return scattered(stack, out, Shared(), 0, args[0], given(args, kwargs, 1, "weights"))
