"""Notes on tensors and the tasks of their rows; see :mod:`graphmeta.adapt.stacked.stack`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from graphmeta.adapt.stacked.notes import (
    DATA,
    FOREIGN,
    MET,
    NOTE,
    Fence,
    Lost,
    Note,
    Owner,
    Rows,
    Shared,
    Term,
    address,
)
from graphmeta.adapt.stacked.task_value import TaskValue
from graphmeta.errors import MixedRows, Remedy, UnsupportedOp


class Ownership:
    """The notes of tensors in one call, and the conditions that they rest on.

    Args:
        num_tasks: T.
        shared: addresses of the recommender's parameters, buffers and constants, see :func:`address`.
    """

    def __init__(self, num_tasks: int, shared: frozenset[int]) -> None:
        self.num_tasks, self.shared = num_tasks, shared
        self.checks: list[tuple[Tensor, str]] = []
        self.sizes: tuple[int, ...] = ()  # rows per task of each store
        self._owners: dict[tuple[Any, ...], tuple[Tensor, Rows, Owner]] = {}
        self._merged: dict[tuple[int, int], tuple[Owner, Owner | None, Owner | None]] = {}

    # notes of tensors ------------------------------------------------------------------------------------------

    def __deepcopy__(self, memo: Any) -> Ownership:
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
        if type(note) in (Rows, Fence) and note.stack is not self:
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
        return MET in x.__dict__ or kept[1] != x._version != root_of(x).__dict__.get(DATA)

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
        return self.tasks_of(x, note)()

    def tasks_of(self, x: Tensor, note: Rows) -> Callable[[], Tensor]:
        """A function that returns :meth:`task_of` later and does not keep ``x`` alive."""
        owner, size, device = note.owner, x.shape[note.dim], x.device
        if owner is not None and not owner.blocks:
            return lambda: owner.task
        per_task = max(size // self.num_tasks, 1)
        return lambda: torch.arange(size, device=device) // per_task

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
        """Rows combined pairwise, as those of the tensor that depends on per-task weights, if one does."""
        owner = self.merged(x, one, y, other)
        if self.met(y) and not self.met(x):
            return y, Rows(self, other.dim, owner)
        return x, Rows(self, one.dim, owner)

    def merged(self, x: Tensor, one: Rows, y: Tensor, other: Rows, *, strict: bool = False) -> Owner | None:
        """The owner of rows that are combined pairwise with others; both rows of a pair must belong to one task."""
        if not strict and self.met(x) != self.met(y):  # data go with the rows they are paired with
            return one.owner if self.met(x) else other.owner
        if one.owner is other.owner or other.owner is None and one.in_blocks:
            return one.owner
        if one.owner is None and other.in_blocks:
            return other.owner
        key = id(one.owner), id(other.owner)  # the same check, strict or not
        if key not in self._merged:
            terms = (*one.terms, *(term for term in other.terms if term not in one.terms))
            if not (one.in_blocks and other.in_blocks):
                reason = "rows of one task are paired with another's"
                first, second = self.tasks_of(x, one), self.tasks_of(y, other)
                terms = (*terms, Term(lambda: self.check(first() == second(), reason)))
            make = None if one.in_blocks or other.in_blocks else self.tasks_of(x, one)
            self._merged[key] = Owner(make, terms), one.owner, other.owner  # kept alive, so that ids are not reused
        return self._merged[key][0]

    def trusts(self, x: Tensor, note: Rows, of_index: Rows) -> bool:
        """Whether an index of this note points at rows of ``x`` within the block of its own task."""
        per_task = x.shape[note.dim] // self.num_tasks if note.in_blocks else None
        return of_index.points is not None and of_index.points == per_task

    def pointed(
        self, x: Tensor, note: Rows, index: Tensor, rows: Tensor, of: Rows, *, strict: bool = False
    ) -> Owner | None:
        """The owner of ``x[index]`` if its rows are those of ``rows``; each must be taken from a row of its own task.

        Data may be taken from any row (unless ``strict``): an encoder does not mix samples, so it masks what it read
        from others.
        """
        if not (strict or self.met(x)) or (rows is index and self.trusts(x, note, of)):
            return of.owner
        now, source, target = self.as_now(index), self.tasks_of(x, note), self.tasks_of(rows, of)
        shape = -1, *(1,) * (rows.dim() - of.dim - 1)

        def same() -> None:
            self.check(source()[now()] == target().reshape(shape), "rows of one task are taken from another's")

        return Owner(None if of.in_blocks else target, (*note.terms, *of.terms, Term(same)))

    def derived(self, note: Rows, make: Callable[[], Tensor]) -> Owner:
        """The owner of rows made from others, under the same conditions."""
        return Owner(make, note.terms)

    def owner_by_value(self, index: Tensor, x: Tensor, note: Rows) -> Owner:
        """The owner of the rows ``x[index]``, for an index without a note of its own."""
        per_task = x.shape[note.dim] // self.num_tasks if note.in_blocks else 0
        key = (index.data_ptr(), index.shape, index.stride(), index._version, id(note.owner), per_task)
        if key not in self._owners:
            now, size, tasks = self.as_now(index), x.shape[note.dim], self.tasks_of(x, note)

            def make() -> Tensor:
                at = torch.where(now() < 0, now() + size, now())
                return at // max(per_task, 1) if note.in_blocks else tasks()[at]

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

    def run_checks(self) -> None:
        """Read the checks of the call, all at once.

        Raises:
            MixedRows: one does not hold for this batch.
        """
        checks, self.checks = self.checks, []
        if checks and not bool(torch.stack([holds for holds, _ in checks]).all()):
            raise MixedRows(next(reason for holds, reason in checks if not bool(holds)))

    def release(self) -> None:
        """Drop all tensors, whose notes refer to this object: the cycle would keep their autograd graph alive."""
        self.checks.clear()
        self._owners.clear()
        self._merged.clear()


def root_of(x: Tensor) -> Tensor:
    """The tensor that ``x`` is a view of."""
    return x if x._base is None else x._base
