"""Ownership of rows: which task each row of a tensor belongs to, tracked through every operation, never by size.

While the stacked engine calls a recommender, a :class:`Stack` intercepts each torch function (a ``TorchFunctionMode``,
one per thread) and attaches a note to each result:

* :class:`Rows`: one dimension runs over rows of tasks, in T equal blocks or with the task of each row stored;
* :class:`Shared`: computed from parameters and constants only, so the same for every task;
* :class:`Lost`: anything else, with the operation after which the tasks are unknown.

An operation of a per-task weight with Rows uses the weight of each row's own task; with Shared, its result is again a
per-task value; with Lost, the call is refused (:class:`~graphmeta.errors.UnsupportedOp`) and the per-task loop runs.
A per-task value has entries for rows only if ``expand`` or ``repeat`` made them of one (stride 0), never because the
numbers are equal. So a tensor that happens to have as many entries as the batch has rows, or a batch with as many
sessions as a fixed length, is not misread.

A tensor without a note counts as Lost unless its memory belongs to the recommender, so results of code that bypasses
torch functions (``jit.script``, a custom ``autograd.Function``) are refused. A note is valid for one version of the
memory: a write through another tensor invalidates it. A user's function that torch dispatches to by
``__torch_function__`` has no rule. Conditions on the *values* of indices (in a scatter, target rows must belong to the
tasks of their sources) are collected as checks on the device and read once, after the call, if a per-task weight was
combined with the result; a batch that fails one is computed again by the loop.

Tensors that an inner step differentiates must not be modified after they were read, and original parameters must not be
read elsewhere than from their module: a :class:`~graphmeta.adapt.stacked.guard.Guard` refuses both, and any write into
a parameter.

Lost data that is added to Rows is taken to belong to these rows: by the contract, an encoder does not mix samples, so
it masks what it read from others. A tensor that depends on per-task weights (:meth:`Stack.met`) is not: it stays Lost
after any operation that moves it across rows, or selects from it by indices that may leave their task. A value that is
expanded to all rows may be taken from any row of its task, and never from another task's.

Not detected are writes without a new version (``.data``, the memory behind ``.numpy()``), and an encoder that mixes
samples on purpose, which violates the contract; :func:`graphmeta.testing.check_encoder` finds it.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._C import _functorch as functorch  # pyright: ignore[reportAttributeAccessIssue]
from torch._C._autograd import (
    _top_saved_tensors_default_hooks as _saved_tensor_hooks,  # pyright: ignore[reportMissingImports]
)
from torch.overrides import TorchFunctionMode
from torch_geometric.data import HeteroData

from graphmeta.adapt.stacked.guard import Guard
from graphmeta.adapt.stacked.notes import (
    ALWAYS,
    DATA,
    FOREIGN,
    HANDLERS,
    MET,
    NOTE,
    PASSED,
    RULES,
    Fence,
    Handler,
    Lost,
    Note,
    Owner,
    Rows,
    Shared,
    Tailed,
    Term,
    address,
    name_of,
    tensors_in,
    writes,
)
from graphmeta.errors import MixedRows, Remedy, UnsupportedOp


class TaskValue(Tensor):
    """A tensor with one version per task; see :class:`~graphmeta.adapt.stacked.task_weight.TaskWeight`."""

    stack: Stack

    def __deepcopy__(self, memo: Any) -> Any:
        raise UnsupportedOp("a deep copy of a per-task weight", Remedy.COPY)

    operations: Handler | None = None  # set by subclasses that support only their own operations

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        stack = next(value.stack for value in tensors_in((args, kwargs)) if isinstance(value, TaskValue))
        return stack.handle(func, args, kwargs)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Refuse operations that bypass all handlers, such as compiled or scripted functions."""
        raise UnsupportedOp(f"{func} on a per-task weight, by code that torch functions do not see", Remedy.PLAIN)


class Stack(TorchFunctionMode):
    """Tracks the task of each row of each tensor through one call of a recommender for T tasks at once.

    Args:
        num_tasks: T.
        shared: addresses of the recommender's parameters, buffers and constants, see :func:`address`.
        exact: whether every derivative must exist, as in second order.
        guard: checks reads and writes of the recommender's code.
    """

    def __init__(
        self, num_tasks: int, shared: frozenset[int] = frozenset(), *, exact: bool = True, guard: Guard | None = None
    ) -> None:
        super().__init__()
        self.num_tasks, self.shared, self.exact = num_tasks, shared, exact
        self.guard = Guard() if guard is None else guard
        self.grad = torch.is_grad_enabled()
        self.hooks = _saved_tensor_hooks(True)  # hooks that enclose the whole call are allowed
        self.checks: list[tuple[Tensor, str]] = []
        self.sizes: tuple[int, ...] = ()  # rows per task of each store
        self._owners: dict[tuple[Any, ...], tuple[Tensor, Rows, Owner]] = {}
        self._merged: dict[tuple[int, int], tuple[Owner, Owner | None, Owner | None]] = {}

    # notes of tensors ------------------------------------------------------------------------------------------

    def __deepcopy__(self, memo: Any) -> Stack:
        """The stack itself: notes of copied tensors belong to this call."""
        return self

    def note(self, x: Tensor) -> Note:
        """The note of ``x``."""
        kept = x.__dict__.get(NOTE)
        if kept is None:
            return Shared() if isinstance(x, TaskValue) or address(x) in self.shared else FOREIGN
        note, version = kept
        if version != x._version:
            reason = "a tensor that was written into by way of another, or by code that torch functions do not see"
            return Lost(reason, Remedy.COPY)
        if type(note) in (Rows, Fence, Tailed) and note.stack is not self:
            return Lost("a tensor kept from another batch")
        return note

    def mark(self, x: Tensor, note: Note) -> Tensor:
        """Attach a note to the current version of ``x``; returns it. Parameters need no note."""
        if isinstance(x, nn.Parameter):
            return x
        if type(note) is Rows and note.in_blocks and x.shape[note.dim] % self.num_tasks:
            note = Lost("rows that are not as many for each task")
        setattr(x, NOTE, (note, x._version))
        return x

    def met(self, x: Tensor) -> bool:
        """Whether ``x`` may depend on per-task weights; if not, it depends on data and constants only."""
        kept = x.__dict__.get(NOTE)
        if kept is None:
            return isinstance(x, TaskValue) or address(x) not in self.shared
        return MET in x.__dict__ or kept[1] != x._version != _root(x).__dict__.get(DATA)

    def mark_met(self, x: Tensor) -> None:
        """Mark ``x`` as dependent on per-task weights."""
        if not isinstance(x, TaskValue | nn.Parameter):
            setattr(x, MET, True)

    def rows(self, x: Tensor, dim: int = 0, owner: Owner | None = None, points: int | None = None) -> Tensor:
        """Mark ``x`` as rows of tasks along ``dim``; returns it."""
        return self.mark(x, Rows(self, dim, owner, points))

    def constant(self, x: Tensor) -> Tensor:
        """Mark ``x`` as the same for every task; returns it."""
        return self.mark(x, Shared())

    def task_of(self, x: Tensor, note: Rows) -> Tensor:
        """The task of each row along ``note.dim``, ``[n]``."""
        if note.owner is not None and not note.owner.blocks:
            return note.owner.task
        size = x.shape[note.dim]
        return torch.arange(size, device=x.device) // max(size // self.num_tasks, 1)

    def blocks(self, x: Tensor) -> Tensor:
        """``[T·R, …]`` as ``[T, R, …]``.

        Raises:
            UnsupportedOp: a tensor whose first dimension is not T equal blocks of rows.
        """
        note = self.note(x)
        if type(note) is not Rows or note.dim != 0 or not note.in_blocks:
            raise self.refused("a per-task weight met {}, not rows laid out by task", x, note)
        self.use(note)
        return x.reshape(self.num_tasks, x.shape[0] // self.num_tasks, *x.shape[1:])

    def refused(self, message: str, x: Tensor, note: Note) -> UnsupportedOp:
        """The error with a description of ``x`` and its note in place of ``{}``."""
        what = {
            Rows: "rows that are not grouped by task",
            Shared: "a shared tensor",
            Fence: "sample.ptr",
            Tailed: "rows with a waste slot",
        }
        named = f"{note.reason if type(note) is Lost else what[type(note)]} of shape {tuple(x.shape)}"
        return UnsupportedOp(message.format(named), note.remedy if type(note) is Lost else Remedy.BATCH)

    def like_a_store(self, size: int) -> bool:
        """Whether ``size`` is the number of rows of a store of the batch, or a multiple of it."""
        return any(rows and size % (rows * self.num_tasks) == 0 for rows in self.sizes)

    def use(self, note: Rows) -> None:
        """Record the checks of a note's conditions, because its rows are combined with a per-task weight."""
        for term in note.terms:
            term.use()

    def together(self, x: Tensor, one: Rows, y: Tensor, other: Rows) -> tuple[Tensor, Rows]:
        """Rows combined pairwise, as rows along the dimension of the first; depends on per-task weights if one does."""
        owner = self.merged(x, one, y, other)
        return (y if self.met(y) and not self.met(x) else x), Rows(self, one.dim, owner)

    def merged(self, x: Tensor, one: Rows, y: Tensor, other: Rows) -> Owner | None:
        """The owner of rows that are combined pairwise with others; both rows of a pair must belong to one task."""
        if self.met(x) != self.met(y):  # data go with the rows they are paired with
            return one.owner if self.met(x) else other.owner
        if one.owner is other.owner or other.owner is None and one.in_blocks:
            return one.owner
        if one.owner is None and other.in_blocks:
            return other.owner
        key = id(one.owner), id(other.owner)
        if key not in self._merged:
            terms = (*one.terms, *(term for term in other.terms if term not in one.terms))
            if not (one.in_blocks and other.in_blocks):
                reason = "rows of one task are paired with another's"
                equal = Term(lambda: self.check(self.task_of(x, one) == self.task_of(y, other), reason))
                terms = (*terms, equal)
            of = (one, x) if not one.in_blocks else (other, y)
            make = None if one.in_blocks or other.in_blocks else (lambda: self.task_of(of[1], of[0]))
            self._merged[key] = Owner(make, terms), one.owner, other.owner  # kept alive, so that ids are not reused
        return self._merged[key][0]

    def trusts(self, x: Tensor, note: Rows, of_index: Rows) -> bool:
        """Whether an index of this note points at rows of ``x`` within the block of its own task."""
        per_task = x.shape[note.dim] // self.num_tasks if note.in_blocks else None
        return of_index.points is not None and of_index.points == per_task

    def pointed(self, x: Tensor, note: Rows, index: Tensor, rows: Tensor, of: Rows) -> Owner | None:
        """The owner of ``x[index]`` if its rows are those of ``rows``; each must be taken from a row of its own task.

        Data may be taken from any row: an encoder does not mix samples, so it masks what it read from others.
        """
        if not self.met(x) or (rows is index and self.trusts(x, note, of)):
            return of.owner
        now = self.as_now(index)

        def same() -> None:
            task = self.task_of(rows, of).reshape(-1, *(1,) * (rows.dim() - of.dim - 1))
            self.check(self.task_of(x, note)[now()] == task, "rows of one task are taken from another's")

        make = None if of.in_blocks else (lambda: self.task_of(rows, of))
        return Owner(make, (*note.terms, *of.terms, Term(same)))

    def derived(self, note: Rows, make: Callable[[], Tensor]) -> Owner:
        """The owner of rows made from others, under the same conditions."""
        return Owner(make, note.terms)

    def owner_by_value(self, index: Tensor, x: Tensor, note: Rows) -> Owner:
        """The owner of the rows ``x[index]``, for an index without a note of its own."""
        per_task = x.shape[note.dim] // self.num_tasks if note.in_blocks else id(note.owner)
        key = (index.data_ptr(), index.shape, index.stride(), index._version, note.in_blocks, per_task)
        if key not in self._owners:
            now = self.as_now(index)

            size = x.shape[note.dim]

            def make() -> Tensor:
                at = torch.where(now() < 0, now() + size, now())
                return at // max(per_task, 1) if note.in_blocks else self.task_of(x, note)[at]

            # Index and note are kept alive, so that memory and ids are not reused.
            self._owners[key] = index.detach(), note, self.derived(note, make)
        return self._owners[key][2]

    def as_now(self, index: Tensor) -> Callable[[], Tensor]:
        """A function that returns the index later; it raises if the index was written into."""
        kept, version = index.detach(), index._version

        def read() -> Tensor:
            if kept._version != version:
                raise UnsupportedOp("an index that was written into after its use", Remedy.COPY)
            return kept

        return read

    def check(self, holds: Tensor, reason: str) -> None:
        """Record a check, read after the call, that ``holds`` is true everywhere."""
        self.checks.append((holds.all(), reason))

    def settle(self) -> None:
        """Read the checks of the call, all at once.

        Raises:
            MixedRows: one does not hold for this batch.
        """
        checks, self.checks = self.checks, []
        self._owners.clear()  # their tensors' notes refer to the stack: a reference cycle
        self._merged.clear()
        if checks and not bool(torch.stack([holds for holds, _ in checks]).all()):
            raise MixedRows(next(reason for holds, reason in checks if not bool(holds)))

    # propagation of notes --------------------------------------------------------------------------------------

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = name_of(func)
        if name in PASSED:
            return func(*args, **kwargs)
        if not args and name not in _LATER:
            args, kwargs = _by_position(kwargs)
        self.guard.reach(args, kwargs)
        if kwargs and kwargs.get("out") is not None:
            self.guard.write(name, kwargs["out"])
            if isinstance(kwargs["out"], Tensor) and not any(issubclass(kind, TaskValue) for kind in types):
                return self.write(func, name, args, kwargs, kwargs["out"])
        if any(issubclass(kind, TaskValue) for kind in types):
            return self.handle(func, args, kwargs)
        if name == "register_hook" and type(self.note(args[0])) is not Shared:
            raise UnsupportedOp("a gradient hook, which sees the rows of all tasks,", Remedy.DERIVATIVE)
        if name in ALWAYS:
            return ALWAYS[name](self, func, args, kwargs)
        if not writes(name):
            out = func(*args, **kwargs)
            self.follow(name, args, kwargs, out)
            return out
        self.guard.write(_readable(name), args[0] if args else None)
        return self.write(func, name, args, kwargs, args[0] if args else None)

    def write(
        self, func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any], into: Any
    ) -> Any:
        """Run an operation that writes into a tensor."""
        if not isinstance(into, Tensor):
            return func(*args, **kwargs)
        before, root, kept, was_met = self.note(into), _root(into), into.__dict__.get(NOTE), self.met(into)
        if type(before) is Rows and before.points is not None:
            before = replace(before, points=None)  # other values now
        data = into._version in (root.__dict__.get(DATA), None if kept is None else kept[1])
        weighty = [x for x in tensors_in((args, kwargs)) if type(self.note(x)) is not Shared and self.met(x)]
        if weighty and address(into) in self.shared:
            raise UnsupportedOp(f"{_readable(name)} of what depends on per-task weights, into a buffer", Remedy.COPY)
        data = data and not weighty
        out = func(*args, **kwargs)
        setattr(root, DATA, into._version if data else None)
        if into is not kwargs.get("out"):
            self.mark(into, before)
        if was_met and type(before) is not Shared:
            self.mark_met(into)
        self.follow(name, args, kwargs, into if out is None else out)
        return out

    def handle(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an operation with a per-task value among its arguments."""
        name = name_of(func)
        if name in PASSED:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        if name == "register_hook":
            raise UnsupportedOp("a gradient hook on a per-task weight", Remedy.DERIVATIVE)
        own = next(
            (x.operations for x in tensors_in((args, kwargs)) if isinstance(x, TaskValue) and x.operations), None
        )
        handler = own or HANDLERS.get(name)
        if handler is None:
            raise UnsupportedOp(f"{_readable(name)} on a per-task weight", _INSTEAD.get(name, Remedy.LISTED))
        if self.grad and not torch.is_grad_enabled() and _inside_a_function():
            where = "inside a custom autograd.Function (or reentrant checkpointing)"
            raise UnsupportedOp(f"{_readable(name)} on a per-task weight {where}", Remedy.PLAIN)
        if functorch.maybe_current_level() is not None:
            where = "inside a torch.func transform"
            raise UnsupportedOp(f"{_readable(name)} on a per-task weight {where}", Remedy.DERIVATIVE)
        if self.grad and _saved_tensor_hooks(True) != self.hooks:
            where = "under checkpointing or saved-tensor hooks"
            raise UnsupportedOp(f"{_readable(name)} on a per-task weight {where}", Remedy.KEEP)
        out = handler(self, func, args, kwargs)
        for x in tensors_in((out,)):
            self.mark_met(x)
            note = self.note(x)
            if type(note) is Rows:
                self.use(note)
        return out

    def follow(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        """Attach notes to the results of a plain operation."""
        notes = [(x, self.note(x)) for x in tensors_in((args, kwargs))]
        read = notes[:1] if name in _OF_THE_FIRST else notes  # only shape or dtype of the second is used
        met = [(x, note) for x, note in read if type(note) is not Shared and self.met(x)]
        if isinstance(out, Tensor):
            results: tuple[Any, ...] = (out,)
        else:
            results = tuple(out) if isinstance(out, (tuple, list)) else ()
        if met and (_sized(name, args, kwargs) or not any(isinstance(x, Tensor) for x in results)):
            reason = f"{_readable(name)} of a tensor that depends on per-task weights"
            raise UnsupportedOp(reason, _INSTEAD.get(name, Remedy.LISTED))
        if met and name in ("getitem", "setitem"):
            self._check_index(args[1])
        lost = next((note for _, note in met if type(note) is Lost), None)
        found: Note | tuple[Note, ...] | None
        if name in _RESHAPES:  # in place: the rule would read the shape after it
            found = Lost(f"the result of {_readable(name)}", Remedy.COPY)
        elif len(notes) == sum(type(note) is Shared for _, note in notes):
            found = None
        elif lost is not None:  # the tasks of the weights in it are unknown
            found = lost
        else:
            rule = RULES.get(name) or (RULES.get(name[:-1]) if name.endswith("_") else None)
            found = Lost(f"the result of {_readable(name)}")
            if rule is not None:
                found = rule(self, name, args, kwargs, out)
        for number, result in enumerate(results):
            if isinstance(result, Tensor):
                note = found[number] if isinstance(found, tuple) else found
                if type(note) in (Fence, Tailed) and name not in _ALIKE and name != "setitem":
                    note = Lost(f"{_readable(name)} of sample.ptr or of rows with a waste slot")
                if note is None or type(note) is Shared:
                    self.mark(result, Shared())
                    continue
                self.mark(result, note)
                if met:
                    self.mark_met(result)
                    if type(note) is Rows:  # it depends on per-task weights: its conditions must hold
                        self.use(note)

    def _check_index(self, index: Any) -> None:
        """Raise an UnsupportedOp if per-task weights decide how many rows an index takes."""
        for part in index if isinstance(index, tuple) else (index,):
            if isinstance(part, Tensor) and part.dtype in (torch.bool, torch.uint8) and self.met(part):
                raise UnsupportedOp("a mask that depends on per-task weights", Remedy.WHERE)
            if isinstance(part, slice) and any(self.met(x) for x in tensors_in((part,))):
                raise UnsupportedOp("a slice that depends on per-task weights", Remedy.WHERE)

    def settled(self, out: Tensor) -> Tensor:
        """The result of the whole call, whose rows must be known if it depends on per-task weights.

        Raises:
            UnsupportedOp: a value of which it is not known whose weights are in it.
        """
        note = self.note(out)
        if isinstance(out, TaskValue) or (type(note) is not Rows and self.met(out)):
            raise self.refused("losses or scores that are {}", out, note)
        if type(note) is Rows:
            self.use(note)
        return out

    # notes of a batch -------------------------------------------------------------------------------------------

    def declare(self, batch: HeteroData) -> HeteroData:
        """A copy of the batch whose tensors have notes."""
        own = copy.copy(batch)
        size = batch.rows or {store: batch[store].num_nodes for store in ("item", "event", "sample")}
        self.sizes = tuple(size[store] for store in ("item", "event", "sample"))
        points = {("item", "batch"): "sample", ("event", "item"): "item", ("event", "batch"): "sample"}
        for store in own.stores:
            for key, value in list(store.items()):
                if not isinstance(value, Tensor):
                    continue
                name, value = store._key, value.view_as(value)
                if isinstance(name, tuple):
                    ends = {name[0], name[2]}
                    same = size.get(name[0]) if len({size.get(end) for end in ends}) == 1 else None
                    self.rows(value, 1, points=same) if key == "edge_index" else self.rows(value)
                elif (name, key) == ("sample", "ptr"):
                    self.mark(value, Fence(self))
                elif (name, key) == ("sample", "real"):
                    per_task = size["sample"]
                    self.rows(value, owner=Owner(lambda real=value, per=per_task: real // per), points=per_task)
                elif (name, key) == ("sample", "last"):
                    self.rows(value, points=size["event"])
                else:
                    self.rows(value, points=size.get(points.get((name, key), "")))
                store[key] = value
        return own


def _sized(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether the size of a result depends on the values of the arguments."""
    if name == "one_hot":
        return (args[1] if len(args) > 1 else kwargs.get("num_classes", -1)) < 0
    return name in _SIZED


def _by_position(kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments that are all given by keyword, the first one by its position."""
    first = next((name for name in _FIRST if name in kwargs), None)
    if first is None:
        return (), kwargs
    return (kwargs[first],), {name: value for name, value in kwargs.items() if name != first}


def _root(x: Tensor) -> Tensor:
    """The tensor that ``x`` is a view of."""
    return x if x._base is None else x._base


def _inside_a_function() -> bool:
    """Whether the caller is the forward pass of a custom ``autograd.Function``, which defines its own gradient."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code is _APPLY:
            return True
        frame = frame.f_back
    return False


_APPLY = torch.autograd.Function.apply.__func__.__code__  # pyright: ignore[reportFunctionMemberAccess]


def _readable(name: str) -> str:
    if name in _READ_OUT:
        return _READ_OUT[name]
    return f"a tensor's {name[1:]}" if name.startswith(".") else name


_READ_OUT = {
    "__bool__": "control flow (if, while)",
    **dict.fromkeys(("item", "tolist", "numpy", "__float__", "__int__", "__index__"), "reading a Python number"),
}
_INSTEAD = {"__bool__": Remedy.WHERE} | dict.fromkeys(
    ("item", "tolist", "numpy", "__float__", "__int__", "__index__"), Remedy.TENSOR
)
# Operations whose result has a size that depends on values.
_SIZED = frozenset(
    {"nonzero", "argwhere", "masked_select", "unique", "unique_consecutive", "unique_dim", "bincount", "histc",
     "combinations"}
)  # fmt: skip
_RESHAPES = frozenset(
    {"squeeze_", "unsqueeze_", "transpose_", "t_", "swapaxes_", "swapdims_", "resize_", "resize_as_", "set_",
     "as_strided_"}
)  # fmt: skip
_LATER = frozenset({"where", "polygamma", "searchsorted"})  # their first argument is not the input
_FIRST = ("input", "self", "x1", "x", "tensors")
_OF_THE_FIRST = frozenset({"expand_as", "view_as", "reshape_as", "type_as", "to"})
_ALIKE = frozenset({"clone", "contiguous", "detach", "to", "long", "cpu", "cuda", "index_put", "index_put_"})
