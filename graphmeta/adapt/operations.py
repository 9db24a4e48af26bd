"""What per-task values do when they meet an operation: one handler for each kind that is known.

The principle is one: an operation does for each task what the module wrote for one. So a per-task value ``[T, *shape]``
and rows of tasks, cut into T blocks, get the dimension T in front, as one more dimension of a batch. Importing this
module registers the handlers; :mod:`graphmeta.adapt.engine` does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from graphmeta.adapt.matrix import TaskMatrix
from graphmeta.adapt.ownership import HANDLERS, Handler, Owner, Rows, Shared, Stack, TaskValue, name_of, tensors_in
from graphmeta.adapt.rules import ALONG, ELEMENTWISE, KEEPS_VALUES, dims_of, einsum_letters, einsum_note, given, permutation
from graphmeta.adapt.weight import TaskWeight
from graphmeta.errors import UnsupportedOp

Args = tuple[Any, ...]
Kwargs = dict[str, Any]


def handles(*names: str) -> Callable[[Handler], Handler]:
    """Register a handler ``(stack, func, args, kwargs)`` for the operations of these names."""

    def register(handler: Handler) -> Handler:
        HANDLERS.update(dict.fromkeys(names, handler))
        return handler

    return register


def composed(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register what an operation is in terms of others, which the stack then sees one by one."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        def handler(stack: Stack, func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
            with stack:
                return function(stack, *args, **kwargs)

        HANDLERS.update(dict.fromkeys(names, handler))
        return function

    return register


def _stacked(x: Any) -> Tensor:
    """The T versions of a per-task value.

    Raises:
        UnsupportedOp: an item table in scope, which has none.
    """
    if not isinstance(x, TaskWeight):
        raise UnsupportedOp("an operation between an item table in scope and a per-task weight")
    return x.stacked


def _constant(stack: Stack, x: Tensor, of: str) -> Tensor:
    """``x``, which must be the same for all tasks."""
    note = stack.note(x)
    if type(note) is not Shared:
        raise UnsupportedOp(f"{of} of a per-task weight and {stack.describe(x, note)}")
    return x


def _replaced(values: Any, by: Callable[[Tensor], Tensor]) -> Any:
    """Arguments with every tensor replaced."""
    if isinstance(values, Tensor):
        return by(values)
    if isinstance(values, (list, tuple)):
        return type(values)(_replaced(value, by) for value in values)
    return {key: _replaced(value, by) for key, value in values.items()} if isinstance(values, dict) else values


def common_rows(stack: Stack, tensors: Sequence[Tensor]) -> tuple[Tensor, Rows] | None:
    """The tensor among these whose rows all others go along with, at one place from the right; None without rows."""
    first: tuple[Tensor, Rows] | None = None
    for x in tensors:
        note = None if isinstance(x, TaskValue) else stack.note(x)
        if type(note) is not Rows:
            continue
        if first is None:
            first = x, note
            continue
        if x.dim() - note.dim != first[0].dim() - first[1].dim or x.shape[note.dim] != first[0].shape[first[1].dim]:
            raise UnsupportedOp("a per-task weight between rows of tasks along two dimensions")
        first = first[0], Rows(stack, first[1].dim, stack.merged(*first, x, note))
    if first is not None:
        stack.use(first[1])
    return first


# elementwise -----------------------------------------------------------------------------------------------------


@handles(*ELEMENTWISE)
def _elementwise(stack: Stack, func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Tensor:
    name = name_of(func)
    if name.endswith("dropout") and given(args, kwargs, 1, "p", 0.5) > 0 and given(args, kwargs, 2, "training", True):
        raise UnsupportedOp("dropout on a per-task weight")
    if name == "requires_grad" or name == "one_hot":
        raise UnsupportedOp(f"{name} of a per-task weight")
    tensors = list(tensors_in((args, kwargs)))
    rows = common_rows(stack, tensors)
    if rows is not None:
        return _with_rows(stack, func, args, kwargs, *rows)
    rank = max(x.dim() for x in tensors)

    def versions(x: Tensor) -> Tensor:
        if not isinstance(x, TaskValue):
            return _constant(stack, x, name)
        own = _stacked(x)
        return own.reshape(len(own), *(1,) * (rank - x.dim()), *own.shape[1:])

    return TaskWeight(func(*_replaced(args, versions), **_replaced(kwargs, versions)), stack)


def _with_rows(stack: Stack, func: Callable[..., Any], args: Args, kwargs: Kwargs, x: Tensor, note: Rows) -> Tensor:
    """Per-task values and rows, elementwise: along rows in blocks ``[…, T, R, …]``, or each row with its own value."""
    right, size, tasks = x.dim() - note.dim, x.shape[note.dim], stack.num_tasks

    def by_blocks(y: Tensor) -> Tensor:
        at = y.dim() - right
        if isinstance(y, TaskValue):
            own = _stacked(y)
            if at < 0:
                return own.reshape(tasks, *(1,) * (right - y.dim()), *own.shape[1:])
            if own.shape[at + 1] == 1:
                return own.movedim(0, at)
            y = as_rows(stack, y, x, note)
        if at < 0:
            return y
        return y.unflatten(at, (1, 1) if y.shape[at] == 1 else (tasks, size // tasks))

    def by_row(y: Tensor) -> Tensor:
        if not isinstance(y, TaskValue):
            return y
        at, own = y.dim() - right, _stacked(y)
        if at >= 0 and own.shape[at + 1] != 1:
            return as_rows(stack, y, x, note)
        found = own.index_select(0, stack.task_of(x, note))
        return found.reshape(size, *(1,) * (right - 1 - y.dim()), *own.shape[1:]) if at < 0 else found.movedim(0, at).squeeze(at + 1)

    view = by_blocks if note.in_blocks else by_row
    out = func(*_replaced(args, view), **_replaced(kwargs, view))
    dim = out.dim() - right
    if note.in_blocks:
        out, dim = out.flatten(dim - 1, dim), dim - 1
    return stack.rows(out, dim, note.owner)


def as_rows(stack: Stack, value: Tensor, x: Tensor, note: Rows) -> Tensor:
    """A per-task value that has an entry for every row of ``x``, as rows: each from its own task's version."""
    at, size, own = value.dim() - (x.dim() - note.dim), x.shape[note.dim], _stacked(value)
    if at < 0 or value.shape[at] not in (1, size):
        raise UnsupportedOp(f"a per-task weight of shape {tuple(value.shape)} beside rows of shape {tuple(x.shape)}")
    if value.shape[at] == 1:
        own = own.expand(-1, *value.shape[:at], size, *value.shape[at + 1 :])
    if note.in_blocks:
        blocks = own.unflatten(at + 1, (stack.num_tasks, -1)).diagonal(0, 0, at + 1)  # T comes last
        return stack.rows(blocks.movedim(-1, at).flatten(at, at + 1), at, note.owner)
    task = stack.task_of(x, note)
    picked = own.movedim(at + 1, 1)[task, torch.arange(size, device=x.device)]
    return stack.rows(picked.movedim(0, at), at, note.owner)


def _in_place(stack: Stack, func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Tensor:
    """Writing into rows takes place in the rows; a per-task value is no place to write into."""
    name = name_of(func)[:-1]
    if isinstance(args[0], TaskValue):
        raise UnsupportedOp(f"{name} into a per-task weight in place")
    plain = getattr(torch, name, None) or getattr(Tensor, name)
    note = stack.note(args[0])
    if name in ("copy", "fill"):
        out = as_rows(stack, args[1].expand(args[0].shape), args[0], note) if type(note) is Rows else None
    else:
        out = plain(*args, **kwargs)  # by way of the per-task value, to its handler
    if type(note) is not Rows or out is None or isinstance(out, TaskValue) or out.shape != args[0].shape:
        raise UnsupportedOp(f"{name} of a per-task weight in place, into {stack.describe(args[0], note)}")
    args[0].copy_(out)
    return stack.rows(args[0], note.dim, note.owner)


HANDLERS.update({f"{name}_": _in_place for name in ELEMENTWISE if f"{name}_" not in HANDLERS})


# products --------------------------------------------------------------------------------------------------------


def product(stack: Stack, a: Tensor, b: Tensor) -> Tensor:
    """``a @ b`` for each task, where at least one of them is a per-task value."""
    if not isinstance(a, TaskValue) and not isinstance(b, TaskValue):
        raise AssertionError("a product without a per-task value")
    if isinstance(a, TaskValue) and not isinstance(b, TaskValue) and type(stack.note(b)) is Rows and b.dim() > 1:
        with stack:  # (W x)ᵀ = xᵀ Wᵀ, so that rows stand on the left
            left = a if a.dim() > 1 else a[None]
            if left.dim() == 2:
                out = torch.matmul(b.transpose(-1, -2), left.t()).transpose(-1, -2)
                return out if a.dim() > 1 else out.squeeze(-2)
    rows = common_rows_of_product(stack, a, b)
    if rows is not None and rows[0].dim() - rows[1].dim > 2:  # a batch of products, each of one row's
        x, note = rows
        side = b if x is a else a
        at = side.dim() - (x.dim() - note.dim)
        if isinstance(side, TaskValue) and at >= 0 and side.shape[at] == x.shape[note.dim]:
            side = as_rows(stack, side, x, note)
            with stack:
                return torch.matmul(x, side) if x is a else torch.matmul(side, x)
    if rows is None:
        return TaskWeight(_batched(*(_plain_side(stack, x) for x in (a, b)), a.dim(), b.dim()), stack)
    x, note = rows
    if x is a and isinstance(b, TaskValue) and b.dim() <= 2:
        return rows_times_matrix(stack, a, note, _stacked(b))
    stack.use(note)
    if not note.in_blocks:
        raise UnsupportedOp("a product of edges, or other rows in no order, with per-task weights of several matrices")
    size, tasks = x.shape[note.dim], stack.num_tasks

    def front(y: Tensor) -> Tensor:
        if isinstance(y, TaskValue):
            return _stacked(y)
        own = stack.note(y)
        if type(own) is Rows:
            return y.unflatten(own.dim, (tasks, y.shape[own.dim] // tasks)).movedim(own.dim, 0)
        return _constant(stack, y, "a product").expand(tasks, *y.shape)

    out = _batched(front(a), front(b), a.dim(), b.dim())
    at = _row_place(x is a, x, note, a, b, out.dim() - 1)
    if out.shape[at + 1] != size // tasks:
        raise UnsupportedOp("a product over the rows of tasks")
    return stack.rows(out.movedim(0, at).flatten(at, at + 1), at)


def common_rows_of_product(stack: Stack, a: Tensor, b: Tensor) -> tuple[Tensor, Rows] | None:
    """The side of a product that has rows of tasks, which must not be what it sums over."""
    found = []
    for x, summed in ((a, 1), (b, 2 if b.dim() > 1 else 1)):
        note = None if isinstance(x, TaskValue) else stack.note(x)
        if type(note) is Rows:
            if x.dim() - note.dim == summed:
                raise UnsupportedOp("a product over the rows of tasks with a per-task weight")
            found.append((x, note))
    if found:
        stack.use(found[0][1])
    return found[0] if found else None


def _plain_side(stack: Stack, x: Tensor) -> Tensor:
    return _stacked(x) if isinstance(x, TaskValue) else _constant(stack, x, "a product").expand(stack.num_tasks, *x.shape)


def _batched(a: Tensor, b: Tensor, rank_a: int, rank_b: int) -> Tensor:
    """``matmul`` of each task: ``[T, *shape]`` each, of which the shapes have these ranks."""
    a = a[:, None] if rank_a == 1 else a
    b = b[..., None] if rank_b == 1 else b
    rank = max(a.dim(), b.dim())
    a, b = (x.reshape(len(x), *(1,) * (rank - x.dim()), *x.shape[1:]) for x in (a, b))
    out = torch.matmul(a, b)
    out = out.squeeze(-2) if rank_a == 1 else out
    return out.squeeze(-1) if rank_b == 1 else out


def _row_place(left: bool, x: Tensor, note: Rows, a: Tensor, b: Tensor, rank: int) -> int:
    """The dimension of a task's product at which the rows of one side stand."""
    right = x.dim() - note.dim
    if right > 2:
        return rank - right + (a.dim() == 1) + (b.dim() == 1)
    if left:
        return rank - (1 if b.dim() == 1 else 2)
    return rank - 1


def rows_times_matrix(stack: Stack, x: Tensor, note: Rows, weight: Tensor) -> Tensor:
    """Each row of ``x`` (rows anywhere but last) times its own task's ``[in, out]`` or ``[in]``."""
    blocks, undo = in_blocks(stack, x, note)
    if weight.dim() == 2:
        out = torch.bmm(blocks.flatten(1, -2), weight[:, :, None])
        return undo(out.reshape(blocks.shape[:-1]))
    out = torch.bmm(blocks.flatten(1, -2), weight)
    return undo(out.reshape(*blocks.shape[:-1], weight.shape[-1]))


def in_blocks(stack: Stack, x: Tensor, note: Rows) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """``x`` as ``[T, R, …]``, the rows in front, and what puts a result ``[T, R, …]`` back in x's order."""
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
    """A place for each row in T equal blocks, by task; kept with the owner, so that one call asks for sizes once."""
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
        out = stack.rows(out.clone() if bias is None else out, note.dim)  # a module may write into what it gets
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
    a, b = args[0], given(args, kwargs, 1, "other", kwargs.get("mat2", kwargs.get("vec")))
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
            _constant(stack, x, "einsum")
    if not rows:
        words = [task + w if isinstance(x, TaskValue) else w for w, x in zip(letters, operands, strict=True)]
        found = [_stacked(x) if isinstance(x, TaskValue) else x for x in operands]
        return TaskWeight(torch.einsum(f"{','.join(words)}->{task}{result}", *found), stack)
    note = einsum_note(stack, [word for word, _ in rows], result, [x for _, x in rows])
    if type(note) is not Rows:
        raise UnsupportedOp("einsum over the rows of tasks with a per-task weight")
    letter = result[note.dim]
    if any(letter in word for word, x in zip(letters, operands, strict=True) if all(x is not y for _, y in rows)):
        raise UnsupportedOp("einsum that pairs rows of tasks with entries of a weight")
    undo: Callable[[Tensor], Tensor] | None = None
    words, found = [], []
    for word, x in zip(letters, operands, strict=True):
        if isinstance(x, TaskValue):
            words.append(task + word)
            found.append(_stacked(x))
        elif letter in word and any(x is y for _, y in rows):
            own = stack.note(x)
            assert type(own) is Rows
            blocks, undo = in_blocks(stack, x, Rows(stack, own.dim, note.owner))
            words.append(task + letter + word.replace(letter, ""))
            found.append(blocks)
        else:
            words.append(word)
            found.append(x)
    assert undo is not None
    out = torch.einsum(f"{','.join(words)}->{task}{letter}{result.replace(letter, '')}", *found)
    front = out.flatten(0, 1) if note.in_blocks else out.flatten(0, 1).index_select(0, _dealt(note.owner, stack.num_tasks)[0])
    return stack.rows(front.movedim(0, note.dim), note.dim, note.owner)


# shapes and reductions of a per-task value -------------------------------------------------------------------------


def _only(args: Args, kwargs: Kwargs) -> TaskWeight:
    """The one tensor among the arguments, the first of them."""
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
        shape = rest[0] if len(rest) == 1 and not isinstance(rest[0], int) else rest or kwargs["shape"]
        return TaskWeight(weight.stacked.reshape(stack.num_tasks, *shape), stack)
    place = {"chunk": 1, "split": 1, "split_with_sizes": 1, "repeat_interleave": 1, "tril": 9, "triu": 9, "diagonal": 9}.get(name, 0)
    if name == "squeeze" and not rest and not kwargs:
        return TaskWeight(weight.stacked.reshape(stack.num_tasks, *(n for n in weight.shape if n != 1)), stack)
    if name == "flatten":
        start, end = given(args, kwargs, 1, "start_dim", 0), given(args, kwargs, 2, "end_dim", -1)
        return TaskWeight(weight.stacked.flatten(start + 1 if start >= 0 else start, end + 1 if end >= 0 else end), stack)
    if name in ("diagonal",) or (name == "repeat_interleave" and given(args, kwargs, 2, "dim") is None):
        raise UnsupportedOp(f"{name} of a per-task weight")
    if name not in ("tril", "triu"):
        dim = given(args, kwargs, place + 1, "dim", 0)
        shifted = tuple(map(_shift, dim)) if isinstance(dim, tuple) else _shift(dim)
        rest, kwargs = rest[:place], {**kwargs, "dim": shifted} | _after(name, args[1:], place)
    out = func(weight.stacked, *rest, **kwargs)
    return TaskWeight(out, stack) if isinstance(out, Tensor) else tuple(TaskWeight(part, stack) for part in out)


def _after(name: str, rest: Args, place: int) -> Kwargs:
    """Positional arguments behind the dimension, by their names."""
    names = {"select": ["index"], "narrow": ["start", "length"], "unflatten": ["sizes"]}.get(name, [])
    return dict(zip(names, rest[place + 1 :], strict=False))


def _shift(dim: int) -> int:
    """The dimension of the stacked tensor that is ``dim`` of the value."""
    return dim if dim < 0 else dim + 1


@handles("expand", "expand_as", "broadcast_to")
def _expand(stack: Stack, func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Tensor:
    weight, rest = args[0], args[1:]
    if not isinstance(weight, TaskWeight) or any(isinstance(x, TaskValue) for x in tensors_in(rest)):
        raise UnsupportedOp("expand to the shape of a per-task weight")
    sizes = rest[0] if rest and not isinstance(rest[0], int) else rest or kwargs["size"]
    sizes = tuple(sizes.shape) if isinstance(sizes, Tensor) else tuple(sizes)
    own = weight.stacked.reshape(stack.num_tasks, *(1,) * (len(sizes) - weight.dim()), *weight.shape)
    return TaskWeight(own.expand(-1, *sizes), stack)


@handles("repeat", "tile")
def _repeat(stack: Stack, func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Tensor:
    weight, rest = _only(args, kwargs), args[1:]
    many = tuple(rest[0] if rest and not isinstance(rest[0], int) else rest or next(iter(kwargs.values())))
    many = (1,) * (weight.dim() - len(many)) + many
    own = weight.stacked.reshape(stack.num_tasks, *(1,) * (len(many) - weight.dim()), *weight.shape)
    return TaskWeight(own.repeat(1, *many), stack)


@handles(*ALONG)
def _along(stack: Stack, func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    name = name_of(func)
    if name in ("max", "min") and isinstance(given(args, kwargs, 1, "other"), Tensor):
        return _elementwise(stack, func, args, kwargs)
    weight = _only(args, kwargs)
    dims = dims_of(name, args, kwargs, weight.dim())
    if name in ("quantile", "unfold", "roll", "flip", "msort", "cross", "renorm", "diff") or weight.dim() == 0:
        raise UnsupportedOp(f"{name} of a per-task weight")
    shifted: Any = [d + 1 for d in (range(weight.dim()) if dims is None else sorted(dims))]
    if dims is None and name not in ("sum", "mean", "amax", "amin", "logsumexp", "std", "var", "nansum", "nanmean"):
        if name not in ("norm", "linalg_vector_norm", "linalg_norm"):
            raise UnsupportedOp(f"{name} of a whole per-task weight")
    if dims is not None and len(dims) == 1:
        shifted = shifted[0]
    place = ALONG[name][0]
    rest = [shifted if number == place else value for number, value in enumerate(args) if number]
    more = {**kwargs} if len(args) > place else {**kwargs, "dim": shifted}
    out = func(weight.stacked, *rest, **more)
    return TaskWeight(out, stack) if isinstance(out, Tensor) else tuple(TaskWeight(part, stack) for part in out)


# indexing --------------------------------------------------------------------------------------------------------


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
        raise UnsupportedOp(f"a look-up in a per-task weight by {stack.describe(index, note)}")
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
    return stack.mark(torch.where(at, found.detach(), found), note)  # the row is used, and not learned


@handles("index_select")
def _index_select(stack: Stack, func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Tensor:
    weight, dim, index = args[0], given(args, kwargs, 1, "dim"), given(args, kwargs, 2, "index")
    if isinstance(index, TaskValue) or dim % max(weight.dim(), 1):
        raise UnsupportedOp("index_select along another dimension than 0 of a per-task weight")
    return look_up(stack, index, weight)


@handles("cat", "concat", "concatenate", "stack", "hstack", "vstack")
def _joined(stack: Stack, func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Tensor:
    parts, rest = list(given(args, kwargs, 0, "tensors")), list(args[1:])
    kwargs = {key: value for key, value in kwargs.items() if key != "tensors"}
    rows = common_rows(stack, parts)
    if rows is not None:
        x, note = rows
        plain = [as_rows(stack, part, x, note) if isinstance(part, TaskValue) else part for part in parts]
        with stack:
            out = func(plain, *rest, **kwargs)
        if type(stack.note(out)) is not Rows:
            raise UnsupportedOp(f"{name_of(func)} of per-task weights along the rows of tasks")
        return out
    versions = [_plain_side(stack, part) for part in parts]
    name = name_of(func)
    dim = given((None, *rest), kwargs, 1, "dim", 0)
    if name in ("hstack", "vstack"):
        raise UnsupportedOp(f"{name} of per-task weights")
    return TaskWeight((torch.stack if name == "stack" else torch.cat)(versions, _shift(dim)), stack)


# norms and activations in terms of the above -------------------------------------------------------------------------


@composed("layer_norm")
def _layer_norm(
    stack: Stack,
    input: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Tensor:
    if isinstance(input, TaskValue):
        raise UnsupportedOp("layer_norm of a per-task weight")
    out = F.layer_norm(input, normalized_shape, eps=eps)
    out = out if weight is None else out * weight
    return out if bias is None else out + bias


@composed("rms_norm")
def _rms_norm(
    stack: Stack, input: Tensor, normalized_shape: Any, weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    if isinstance(input, TaskValue):
        raise UnsupportedOp("rms_norm of a per-task weight")
    return F.rms_norm(input, normalized_shape, eps=eps) * weight


def _by_channel(x: Tensor, value: Tensor) -> Tensor:
    """One number a channel (dimension 1) against ``x``."""
    return value if x.dim() <= 2 else value.reshape(-1, *(1,) * (x.dim() - 2))


@composed("group_norm")
def _group_norm(
    stack: Stack,
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Tensor:
    if isinstance(input, TaskValue):
        raise UnsupportedOp("group_norm of a per-task weight")
    out = F.group_norm(input, num_groups, eps=eps)
    out = out if weight is None else out * _by_channel(input, weight)
    return out if bias is None else out + _by_channel(input, bias)


@composed("batch_norm")
def _batch_norm(
    stack: Stack,
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    *rest: Any,
    **more: Any,
) -> Tensor:
    if training or running_mean is None or running_var is None or isinstance(input, TaskValue):
        raise UnsupportedOp("batch_norm over the samples of a batch, which mixes tasks,")
    out = F.batch_norm(input, running_mean, running_var, None, None, False, *rest, **more)
    out = out if weight is None else out * _by_channel(input, weight)
    return out if bias is None else out + _by_channel(input, bias)


@composed("prelu")
def _prelu(stack: Stack, input: Tensor, weight: Tensor) -> Tensor:
    slope = weight if weight.numel() == 1 else _by_channel(input, weight)
    return torch.where(input > 0, input, input * slope)


@composed("normalize")
def _normalize(stack: Stack, input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: Any = None) -> Tensor:
    if out is not None:
        raise UnsupportedOp("normalize of a per-task weight into another tensor")
    return input / torch.linalg.vector_norm(input, p, dim, keepdim=True).clamp_min(eps)


@composed("bilinear")
def _bilinear(stack: Stack, input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    made = torch.einsum("ni,oij,nj->no", input1, weight, input2)
    return made if bias is None else made + bias


@handles("conv1d", "conv2d", "conv3d")
def _convolution(stack: Stack, func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Tensor:
    x, weight, bias = given(args, kwargs, 0, "input"), given(args, kwargs, 1, "weight"), given(args, kwargs, 2, "bias")
    options = dict(zip(("stride", "padding", "dilation", "groups"), args[3:], strict=False)) | {
        key: value for key, value in kwargs.items() if key not in ("input", "weight", "bias")
    }
    note, spatial = stack.note(x), int(name_of(func)[4])
    if isinstance(x, TaskValue) or type(note) is not Rows or note.dim or x.dim() != spatial + 2:
        raise UnsupportedOp(f"{name_of(func)} of {stack.describe(x, note)} with a per-task weight")
    if isinstance(weight, TaskValue):
        blocks, undo = in_blocks(stack, x, note)
        groups, own = options.pop("groups", 1), _stacked(weight)
        channels = blocks.transpose(0, 1).flatten(1, 2)  # the tasks' channels side by side, a group of groups each
        out = func(channels, own.flatten(0, 1), None, **options, groups=groups * stack.num_tasks)
        out = undo(out.unflatten(1, (stack.num_tasks, -1)).transpose(0, 1))
    else:
        with stack:
            out = func(x, weight, None, **options)
    if bias is None:
        return out
    with stack:
        return out + _by_channel(out, bias)
