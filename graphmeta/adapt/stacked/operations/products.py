"""Per-task values in products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from graphmeta.adapt.stacked.arguments import given
from graphmeta.adapt.stacked.notes import Owner, Rows, name_of
from graphmeta.adapt.stacked.operations.base import Args, Kwargs, as_rows, composed, constant, handles, once, stacked
from graphmeta.adapt.stacked.rules.products import einsum_letters, einsum_note
from graphmeta.adapt.stacked.stack import Stack
from graphmeta.adapt.stacked.task_matrix import TaskMatrix
from graphmeta.adapt.stacked.task_value import TaskValue
from graphmeta.adapt.stacked.task_weight import TaskWeight
from graphmeta.errors import Remedy, UnsupportedOp


def product(stack: Stack, a: Tensor, b: Tensor) -> Tensor:
    """``a @ b`` for each task, where at least one of them is a per-task value."""
    if isinstance(a, TaskValue) and not isinstance(b, TaskValue) and type(stack.note(b)) is Rows and b.dim() > 1:
        with stack:  # (W x)ᵀ = xᵀ Wᵀ, so that rows are on the left
            left = a if a.dim() > 1 else a[None]
            if left.dim() == 2:
                out = torch.matmul(b.transpose(-1, -2), left.t()).transpose(-1, -2)
                return out if a.dim() > 1 else out.squeeze(-2)
    rows = common_rows_of_product(stack, a, b)
    if rows is not None and rows[0].dim() - rows[1].dim > 2:  # a batch of products, one per row
        x, note = rows
        side = b if x is a else a
        at = side.dim() - (x.dim() - note.dim)
        if isinstance(side, TaskValue) and at >= 0 and side.shape[at] == x.shape[note.dim]:
            side = as_rows(stack, side, x, note)
            with stack:
                return torch.matmul(x, side) if x is a else torch.matmul(side, x)
    if rows is None:
        return TaskWeight(_batched(plain_side(stack, a), plain_side(stack, b), a.dim(), b.dim()), stack)
    x, note = rows
    if x is a and isinstance(b, TaskValue) and b.dim() <= 2:
        return rows_times_matrix(stack, a, note, stacked(b))
    stack.use(note)
    if not note.in_blocks:
        raise UnsupportedOp(
            "a batched product (a weight of three or more dimensions) with rows not grouped by task, such as edges"
        )
    size, tasks = x.shape[note.dim], stack.num_tasks

    def front(y: Tensor) -> Tensor:
        if isinstance(y, TaskValue):
            return stacked(y)
        own = stack.note(y)
        assert type(own) is Rows
        return y.unflatten(own.dim, (tasks, y.shape[own.dim] // tasks)).movedim(own.dim, 0)

    out = _batched(front(a), front(b), a.dim(), b.dim())
    at = _row_place(x is a, x, note, a, b, out.dim() - 1)
    if out.shape[at + 1] != size // tasks:
        raise UnsupportedOp("a product over the rows of tasks", Remedy.BATCH)
    return stack.rows(out.movedim(0, at).flatten(at, at + 1), at)


def common_rows_of_product(stack: Stack, a: Tensor, b: Tensor) -> tuple[Tensor, Rows] | None:
    """The side of a product that has rows of tasks, after a check that the product does not sum over them."""
    found = []
    for x, summed in ((a, 1), (b, 2 if b.dim() > 1 else 1)):
        note = None if isinstance(x, TaskValue) else stack.note(x)
        if type(note) is Rows:
            if x.dim() - note.dim == summed:
                raise UnsupportedOp("a product over the rows of tasks with a per-task weight", Remedy.BATCH)
            found.append((x, note))
    if found:
        stack.use(found[0][1])
    return found[0] if found else None


def plain_side(stack: Stack, x: Tensor) -> Tensor:
    return stacked(x) if isinstance(x, TaskValue) else constant(stack, x, "a product").expand(stack.num_tasks, *x.shape)


def _batched(a: Tensor, b: Tensor, rank_a: int, rank_b: int) -> Tensor:
    """``matmul`` of each task: both ``[T, *shape]``, where the shapes have these ranks."""
    a = a[:, None] if rank_a == 1 else a
    b = b[..., None] if rank_b == 1 else b
    rank = max(a.dim(), b.dim())
    a, b = (x.reshape(len(x), *(1,) * (rank - x.dim()), *x.shape[1:]) for x in (a, b))
    # Repeated entries are multiplied once, and the result is marked as repeated (stride 0).
    (left, right), shape = once([a[..., :1], b[..., :1, :]])
    for dim in range(1, rank):
        a = a.narrow(dim, 0, left.shape[dim]) if dim < rank - 1 else a
        b = b.narrow(dim, 0, right.shape[dim]) if dim != rank - 2 else b
    out = torch.matmul(a, b).expand(shape)
    out = out.squeeze(-2) if rank_a == 1 else out
    return out.squeeze(-1) if rank_b == 1 else out


def _row_place(left: bool, x: Tensor, note: Rows, a: Tensor, b: Tensor, rank: int) -> int:
    """The dimension of the rows of one side in a task's product."""
    right = x.dim() - note.dim
    if right > 2:
        return rank - right + (a.dim() == 1) + (b.dim() == 1)
    if left:
        return rank - (1 if b.dim() == 1 else 2)
    return rank - 1


def rows_times_matrix(stack: Stack, x: Tensor, note: Rows, weight: Tensor) -> Tensor:
    """Each row of ``x`` (rows anywhere but last) times its own task's ``[in, out]`` or ``[in]``."""
    blocks, undo = split_by_task(stack, x, note)
    if weight.dim() == 2:
        out = torch.bmm(blocks.flatten(1, -2), weight[:, :, None])
        return undo(out.reshape(blocks.shape[:-1]))
    out = torch.bmm(blocks.flatten(1, -2), weight)
    return undo(out.reshape(*blocks.shape[:-1], weight.shape[-1]))


def split_by_task(stack: Stack, x: Tensor, note: Rows) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """``x`` as ``[T, R, …]``, rows first, and the function that restores x's order in a result ``[T, R, …]``."""
    stack.use(note)
    front = x.movedim(note.dim, 0) if note.dim else x
    tasks = stack.num_tasks
    if note.in_blocks:

        def merged(out: Tensor) -> Tensor:
            flat = out.flatten(0, 1)
            dim = min(note.dim, flat.dim() - 1)
            return stack.rows(flat.movedim(0, dim) if dim else flat, dim, note.owner)

        return front.reshape(tasks, len(front) // tasks, *front.shape[1:]), merged
    assert note.owner is not None
    place, size = _dealt(note.owner, tasks)
    blocks = front.new_zeros(tasks * size, *front.shape[1:]).index_copy(0, place, front)

    def ordered(out: Tensor) -> Tensor:
        flat = out.flatten(0, 1).index_select(0, place)
        dim = min(note.dim, flat.dim() - 1)
        return stack.rows(flat.movedim(0, dim) if dim else flat, dim, note.owner)

    return blocks.reshape(tasks, size, *front.shape[1:]), ordered


def _dealt(owner: Owner, tasks: int) -> tuple[Tensor, int]:
    """The position of each row in T equal blocks, by task; cached in the owner, so sizes are read once per call."""
    if owner.dealt is None:
        task = owner.task
        order = torch.argsort(task, stable=True)
        counts = torch.bincount(task, minlength=tasks)
        size = int(counts.max()) if len(order) else 1
        of = task[order]
        place = torch.empty_like(order)
        place[order] = of * size + torch.arange(len(order), device=task.device) - (counts.cumsum(0) - counts)[of]
        owner.dealt = place, size
    return owner.dealt


@handles("linear")
def _linear(stack: Stack, func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Tensor:
    x, weight, bias = given(args, kwargs, 0, "input"), given(args, kwargs, 1, "weight"), given(args, kwargs, 2, "bias")
    note = None if isinstance(x, TaskValue) else stack.note(x)
    plain_rows = type(note) is Rows and note.in_blocks and note.dim < x.dim() - 1
    if isinstance(weight, TaskMatrix) and plain_rows:
        assert type(note) is Rows
        stack.use(note)
        front = x.movedim(note.dim, 0) if note.dim else x
        out = weight.linear(front if front is x else stack.rows(front))
        out = out.movedim(0, note.dim) if note.dim else out
        out = stack.rows(out.clone() if bias is None else out, note.dim)  # a module may write into the result
    elif isinstance(weight, TaskValue):
        with stack:
            out = torch.matmul(x, weight.t() if weight.dim() > 1 else weight)
    else:
        with stack:
            out = F.linear(x, weight) if not isinstance(x, TaskValue) else torch.matmul(x, weight.t())
    if bias is None:
        return out
    with stack:
        return out + bias


@handles("matmul", "mm", "bmm", "mv", "rmatmul", "dot", "linalg_matmul")
def _matmul(stack: Stack, func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Tensor:
    a, b = args
    return product(stack, *((b, a) if name_of(func) == "rmatmul" else (a, b)))


@composed("addmm", "baddbmm", "addmv")
def _addmm(stack: Stack, input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    made = torch.matmul(mat1, mat2)
    made = made if alpha == 1 else made * alpha
    return (input if beta == 1 else input * beta) + made


@handles("einsum")
def _einsum(stack: Stack, func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Tensor:
    equation, operands = args[0], list(args[1:])
    if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
        operands = list(operands[0])
    if not isinstance(equation, str) or "." in equation:
        raise UnsupportedOp("einsum with an ellipsis or sublists on a per-task weight")
    letters, result = einsum_letters(equation, operands)
    task = next(letter for letter in "TUVWXYZabcdefghijklmnopqrstuvwxyz" if letter not in equation)
    plain = [(word, x) for word, x in zip(letters, operands, strict=True) if not isinstance(x, TaskValue)]
    rows = [(word, x) for word, x in plain if type(stack.note(x)) is Rows]
    for _, x in plain:
        if all(x is not y for _, y in rows):
            constant(stack, x, "einsum")
    if not rows:
        words = [task + w if isinstance(x, TaskValue) else w for w, x in zip(letters, operands, strict=True)]
        found = [stacked(x) if isinstance(x, TaskValue) else x for x in operands]
        return TaskWeight(torch.einsum(f"{','.join(words)}->{task}{result}", *found), stack)
    note = einsum_note(stack, [word for word, _ in rows], result, [x for _, x in rows])
    if type(note) is not Rows:
        raise UnsupportedOp("einsum over the rows of tasks with a per-task weight", Remedy.BATCH)
    letter = result[note.dim]
    if any(letter in word for word, x in zip(letters, operands, strict=True) if all(x is not y for _, y in rows)):
        raise UnsupportedOp("einsum that pairs rows of tasks with entries of a weight", Remedy.BATCH)
    undo: Callable[[Tensor], Tensor] | None = None
    words, found = [], []
    for word, x in zip(letters, operands, strict=True):
        if isinstance(x, TaskValue):
            words.append(task + word)
            found.append(stacked(x))
        elif letter in word and any(x is y for _, y in rows):
            own = stack.note(x)
            assert type(own) is Rows
            blocks, undo = split_by_task(stack, x, Rows(stack, own.dim, note.owner))
            words.append(task + letter + word.replace(letter, ""))
            found.append(blocks)
        else:
            words.append(word)
            found.append(x)
    assert undo is not None
    out = torch.einsum(f"{','.join(words)}->{task}{letter}{result.replace(letter, '')}", *found)
    front = out.flatten(0, 1)
    if note.owner is not None and not note.owner.blocks:
        front = front.index_select(0, _dealt(note.owner, stack.num_tasks)[0])
    return stack.rows(front.movedim(0, note.dim), note.dim, note.owner)
