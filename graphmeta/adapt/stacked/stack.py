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

The result of the whole call must be Rows too, if it depends on per-task weights (:meth:`Stack.settled`). Numbers,
branches, sizes and places that such a tensor would decide are refused. So is a buffer that is set to a tensor of the
tasks, data or not: the next call would read it for all of them.

Of a per-task value only what shape, kind and device say can be read (and ``requires_grad``): strides, memory and
autograd nodes are not those of one task's. Values are written by assignment, not by ``out=``.

Not detected are writes without a new version (the memory behind ``.numpy()``), a Python number that counts calls (a
stacked step is one call, in the loop one per task), and an encoder that mixes samples on purpose, which violates the
contract; :func:`graphmeta.testing.check_encoder` finds it.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch._C import _functorch as functorch  # pyright: ignore[reportAttributeAccessIssue]
from torch._C._autograd import (
    _top_saved_tensors_default_hooks as _saved_tensor_hooks,  # pyright: ignore[reportMissingImports]
)
from torch.overrides import TorchFunctionMode
from torch_geometric.data import HeteroData

from graphmeta.adapt.stacked.arguments import by_position
from graphmeta.adapt.stacked.guard import LOOK_UPS, Guard
from graphmeta.adapt.stacked.notes import (
    ALWAYS,
    DATA,
    HANDLERS,
    METADATA,
    NOTE,
    NUMBERS,
    PASSED,
    RULES,
    Fence,
    Lost,
    Note,
    Owner,
    Rows,
    Shared,
    address,
    name_of,
    readable,
    tensors_in,
    written_by,
)
from graphmeta.adapt.stacked.ownership import Ownership, root_of
from graphmeta.adapt.stacked.task_value import TaskValue
from graphmeta.errors import Remedy, UnsupportedOp


class Stack(Ownership, TorchFunctionMode):
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
        TorchFunctionMode.__init__(self)
        Ownership.__init__(self, num_tasks, shared)
        self.exact = exact
        self.guard = Guard() if guard is None else guard
        self.grad = torch.is_grad_enabled()
        self.real: tuple[Tensor, Owner] | None = None  # the rows of the real samples, and their tasks
        # Hooks and modes that enclose the whole call are allowed.
        self.hooks = _saved_tensor_hooks(True)
        self.dispatch, self.inference = torch._C._len_torch_dispatch_stack(), torch.is_inference_mode_enabled()

    def release(self) -> None:
        """Drop all tensors; the call is over."""
        super().release()
        self.guard.release()
        self.real = None

    # propagation of notes --------------------------------------------------------------------------------------

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = name_of(func)
        if name in PASSED:
            if name in _SEEN and isinstance(args[0], Tensor) and self._hides(name, args[0]):
                what = "a tensor that depends on per-task weights"
                what += "" if name in _MEMORY else ", and not row by row"
                raise UnsupportedOp(f"{readable(name)} of {what}", Remedy.BATCH)
            if types and any(issubclass(kind, TaskValue) for kind in types):
                return self.handle(func, args, kwargs)
            return func(*args, **kwargs)
        if kwargs:
            args, kwargs = by_position(func, args, kwargs)
        self._check_modes()
        self.guard.reach(args, kwargs)
        if name in LOOK_UPS:
            self.guard.renormalised(name, args, kwargs)
        if kwargs and kwargs.get("out") is not None:
            self._check_out(name, args, kwargs)
            if isinstance(kwargs["out"], Tensor):
                return self.write(func, name, args, kwargs, kwargs["out"])
        if any(issubclass(kind, TaskValue) for kind in types):
            return self.handle(func, args, kwargs)
        if name == "register_hook" and type(self.note(args[0])) is not Shared:
            raise UnsupportedOp("a gradient hook, which sees the rows of all tasks,", Remedy.DERIVATIVE)
        if name in ALWAYS:
            return ALWAYS[name](self, func, args, kwargs)
        places = written_by(func)
        if not places:
            out = func(*args, **kwargs)
            self.follow(name, args, kwargs, out)
            return out
        into = [args[place] for place in places if place < len(args)]
        self._check_written(name, args, kwargs, into)
        return self.write(func, name, args, kwargs, into[0] if into else None)

    def write(
        self, func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any], into: Any
    ) -> Any:
        """Run an operation that writes into a tensor."""
        if not isinstance(into, Tensor):
            return func(*args, **kwargs)
        before, root, kept, was_met = self.note(into), root_of(into), into.__dict__.get(NOTE), self.met(into)
        if type(before) is Rows and before.points is not None:
            before = replace(before, points=None)  # other values now
        data_so_far = into._version in (root.__dict__.get(DATA), None if kept is None else kept[1])
        weighty = self.depends(args, kwargs)
        out = func(*args, **kwargs)
        setattr(root, DATA, into._version if data_so_far and not weighty else None)
        if into is not kwargs.get("out"):
            self.mark(into, before)
        if was_met and type(before) is not Shared:
            self.mark_met(into)
        self.follow(name, args, kwargs, into if out is None else out)
        return out

    def handle(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an operation with a per-task value among its arguments."""
        name = name_of(func)
        if name == ".requires_grad":
            return args[0].needs_gradient
        if name in METADATA:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        if name == "register_hook":
            raise UnsupportedOp("a gradient hook on a per-task weight", Remedy.DERIVATIVE)
        if kwargs:
            args, kwargs = by_position(func, args, kwargs)
            self._check_out(name, args, kwargs)
        own = next(
            (x.operations for x in tensors_in((args, kwargs)) if isinstance(x, TaskValue) and x.operations), None
        )
        handler = own or HANDLERS.get(name)
        if handler is None:
            raise UnsupportedOp(f"{readable(name)} on a per-task weight", _INSTEAD.get(name, Remedy.LISTED))
        if not args:
            raise UnsupportedOp(f"{readable(name)} on a per-task weight, all by keyword")
        if self._in_a_function():
            where = "inside a custom autograd.Function (or reentrant checkpointing)"
            raise UnsupportedOp(f"{readable(name)} on a per-task weight {where}", Remedy.PLAIN)
        if functorch.maybe_current_level() is not None:
            where = "inside a torch.func transform"
            raise UnsupportedOp(f"{readable(name)} on a per-task weight {where}", Remedy.DERIVATIVE)
        if self.grad and _saved_tensor_hooks(True) != self.hooks:
            where = "under checkpointing or saved-tensor hooks"
            raise UnsupportedOp(f"{readable(name)} on a per-task weight {where}", Remedy.KEEP)
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
            reason = f"{readable(name)} of a tensor that depends on per-task weights"
            raise UnsupportedOp(reason, _INSTEAD.get(name, Remedy.LISTED))
        if met and name in ("getitem", "setitem"):
            self._check_index(args[1])
        if met and self._in_a_function():
            raise UnsupportedOp(f"{readable(name)} inside a custom autograd.Function", Remedy.PLAIN)
        lost = next((note for _, note in met if type(note) is Lost), None)
        found: Note | tuple[Note, ...] | None
        if name in _RESHAPES:  # in place: the rule would read the shape after it
            found = Lost(f"the result of {readable(name)}", Remedy.COPY)
        elif all(type(note) is Shared for _, note in notes):
            found = None
        elif lost is not None:  # the tasks of the weights in it are unknown
            found = lost
        elif name in _CUT and any(x is not args[0] for x, _ in met):
            found = Lost(f"{readable(name)} at places that per-task weights decide")
        else:
            rule = RULES.get(name) or (RULES.get(name[:-1]) if name.endswith("_") else None)
            found = Lost(f"the result of {readable(name)}")
            if rule is not None and args:
                found = rule(self, name, args, kwargs, out)
        for number, result in enumerate(results):
            if isinstance(result, Tensor):
                note = found[number] if isinstance(found, tuple) else found
                if type(note) is Fence and name not in _ALIKE and name != "setitem":
                    note = Lost(f"{readable(name)} of sample.ptr")
                if note is None or type(note) is Shared:
                    self.mark(result, Shared())
                    continue
                self.mark(result, note)
                if met:
                    self.mark_met(result)
                    if type(note) is Rows:  # it depends on per-task weights: its conditions must hold
                        self.use(note)

    def _check_modes(self) -> None:
        """Raise an UnsupportedOp within a mode that changes what operations do."""
        if torch._C._len_torch_dispatch_stack() != self.dispatch:
            raise UnsupportedOp("an operation inside a TorchDispatchMode", Remedy.PLAIN)
        if torch.is_inference_mode_enabled() != self.inference:
            raise UnsupportedOp("torch.inference_mode inside of the recommender", Remedy.NO_GRAD)

    def _check_written(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], into: list[Any]) -> None:
        """Check that an operation may write into these arguments."""
        for x in tensors_in(into):
            self.guard.write(readable(name), x)
        if any(address(x) in self.shared for x in tensors_in(into)) and (of := self.differing(args, kwargs)):
            raise UnsupportedOp(f"{readable(name)} of what {of}, into a buffer", Remedy.COPY)

    def _check_out(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Check that an operation may write into its ``out``, if it has one."""
        out = kwargs.get("out")
        if out is None:
            return
        for into in tensors_in((out,)):
            self.guard.write(name, into)
        if self.depends(args, kwargs):
            raise UnsupportedOp(f"{readable(name)} with out= of what depends on per-task weights", Remedy.ASSIGN)

    def depends(self, *values: Any) -> bool:
        """Whether one of the tensors among these is a per-task value or was computed from one."""
        found = tensors_in(values)
        return any(isinstance(x, TaskValue) or (type(self.note(x)) is not Shared and self.met(x)) for x in found)

    def differing(self, *values: Any) -> str | None:
        """How these tensors differ by task, in words; None if they are the same for all tasks."""
        if self.depends(*values):
            return "depends on per-task weights"
        return "is read from the tasks" if any(type(self.note(x)) is not Shared for x in tensors_in(values)) else None

    def _in_a_function(self) -> bool:
        """Whether the caller is the forward pass of a custom ``autograd.Function``, whose gradient is not known."""
        return self.grad and not torch.is_grad_enabled() and _inside_a_function()

    def _hides(self, name: str, x: Tensor) -> bool:
        """Whether reading this of ``x`` may reveal what per-task weights have decided."""
        if isinstance(x, TaskValue) or not self.met(x):
            return False
        return name in _MEMORY or type(self.note(x)) is Lost

    def _check_index(self, index: Any) -> None:
        """Raise an UnsupportedOp if per-task weights decide how many rows an index takes."""
        for part in index if isinstance(index, (tuple, list)) else (index,):
            if isinstance(part, list):
                self._check_index(part)
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
            self._check_order(out, note)
        return out

    def _check_order(self, out: Tensor, note: Rows) -> None:
        """Check that the rows of the result are those of the real samples, in order."""
        if self.real is None or note.owner is self.real[1] or not self.met(out):
            return
        if note.dim or len(out) != len(self.real[0]):
            return
        self.check(self.task_of(out, note) == self.real[1].task, "losses of one task stand in another's place")

    # notes of a batch -------------------------------------------------------------------------------------------

    def declare(self, batch: HeteroData) -> HeteroData:
        """A copy of the batch whose tensors have notes."""
        own = copy.copy(batch)
        size = batch.rows or {store: batch[store].num_nodes for store in batch.node_types}
        self.sizes = tuple(size[store] for store in batch.node_types)
        points = {("event", "item"): "item"} | {(store, "batch"): "sample" for store in batch.node_types}
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
                    per_task, real = size["sample"], value.detach()  # without the note, which has this owner
                    self.real = real, Owner(lambda real=real, per=per_task: real // per)
                    self.rows(value, owner=self.real[1], points=per_task)
                elif (name, key) == ("sample", "last"):
                    first = torch.arange(len(value), device=value.device) // max(size["sample"], 1) * size["event"]
                    value = torch.maximum(value, first)  # an empty sample's points before the rows of its task
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


def _inside_a_function() -> bool:
    """Whether ``autograd.Function.apply`` is among the callers."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code is _APPLY:
            return True
        frame = frame.f_back
    return False


_APPLY = torch.autograd.Function.apply.__func__.__code__  # pyright: ignore[reportFunctionMemberAccess]


_INSTEAD = {"__bool__": Remedy.WHERE, **dict.fromkeys(NUMBERS, Remedy.TENSOR)}
# Operations whose result has a size that depends on values.
_SIZED = frozenset(
    {"nonzero", "argwhere", "masked_select", "unique", "unique_consecutive", "unique_dim", "bincount", "histc"}
)  # fmt: skip
_RESHAPES = frozenset(
    {"squeeze_", "unsqueeze_", "transpose_", "t_", "swapaxes_", "swapdims_", "resize_", "resize_as_", "set_",
     "as_strided_"}
)  # fmt: skip
_CUT = frozenset({"repeat_interleave", "tensor_split", "split", "split_with_sizes", "narrow", "topk", "expand"})
_MEMORY = PASSED - METADATA
_SEEN = _MEMORY | {".shape", "size", "len", "numel", "nelement"}
_OF_THE_FIRST = frozenset({"expand_as", "view_as", "reshape_as", "type_as", "to"})
_ALIKE = frozenset({"clone", "contiguous", "detach", "to", "long", "cpu", "cuda", "index_put", "index_put_"})
