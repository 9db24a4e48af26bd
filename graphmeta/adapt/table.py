"""The item table in an adaptation's scope, without a table for each task.

After one step on task t the table is ``E_t = E − β ∂L_t/∂E``. That gradient is a sum of few things: for each
scored support sample j an outer product ``δ_j ⊗ h_j`` (δ = ∂L/∂scores, h = its query vector), and for each row
that was looked up the gradient of that row. So nothing but those is kept:

    ``h' E_tᵀ = h' Eᵀ − β Σ_j (h'·h_j) δ_jᵀ − β Σ_r (h'·g_r) onehot(id_r)ᵀ``

Exact for any number of steps (each adds its terms), in first and second order. Source: papers on CBML §4.3 (its
local update covers the embeddings); the low-rank form is ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from graphmeta.adapt.weight import GETTERS, TaskLayout
from graphmeta.errors import UnsupportedOp
from graphmeta.nn.described import sums
from graphmeta.nn.scoring import CrossEntropyInPlace, Extra, plus, score_cross_entropy


@dataclass(frozen=True)
class TableState:
    """A table ``base [V, D]`` that T tasks have changed a little, as the sum of the changes.

    Shapes: each of ``touched``: keys ``[K]`` = task·V + row, sorted, and what is added there ``[K, D]``; each of
    ``outer``: ``[T, S, V]`` and ``[T, S, D]``, whose product over S is added to the task's table. In ``first_order``
    the changes are constants.
    """

    base: Tensor
    touched: tuple[tuple[Tensor, Tensor], ...] = ()
    outer: tuple[tuple[Tensor, Tensor], ...] = ()
    first_order: bool = False

    def rows(self, index: Tensor, tasks: TaskLayout) -> Tensor:
        """Rows ``index`` (task-major ``[T·R]``) of each task's table -> ``[T·R, D]``."""
        found = self.base.index_select(0, index)
        task = torch.arange(len(index), device=index.device) // (len(index) // tasks.num_tasks)
        for keys, change in self.touched:
            wanted = task * len(self.base) + index
            at = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
            found = found + change.index_select(0, at) * (keys[at] == wanted)[:, None]
        for coefficient, vectors in self.outer:
            columns = tasks.blocks(index)[:, None, :].expand(-1, coefficient.shape[1], -1)
            change = torch.bmm(coefficient.gather(2, columns).transpose(1, 2), vectors)
            found = found + change.reshape(found.shape)
        return found

    def scores(self, query: Tensor, tasks: TaskLayout) -> Tensor:
        """Each query vector (task-major ``[T·Q, D]``) against its own task's table -> ``[T·Q, V]``."""
        blocks = tasks.blocks(query)
        scores = torch.matmul(blocks, self.base.t())
        for coefficient, vectors in self.outer:
            scores = scores.baddbmm_(torch.bmm(blocks, vectors.transpose(1, 2)), coefficient)
        scores = scores.flatten(0, 1)
        for keys, change in self.touched:
            scores = _add_columns(scores, blocks, keys, change)
        return scores

    def dense(self, num_tasks: int) -> Tensor:
        """Every task's table in full, ``[T, V, D]``: for tests and small tables only."""
        table = self.base.expand(num_tasks, *self.base.shape)
        for coefficient, vectors in self.outer:
            table = table + coefficient.transpose(1, 2) @ vectors
        for keys, change in self.touched:
            table = table.flatten(0, 1).index_add(0, keys, change).reshape(table.shape)
        return table

    def detach(self) -> TableState:
        """The same state, cut from the autograd graph."""
        return replace(
            self,
            base=self.base.detach(),
            first_order=True,
            touched=tuple((keys, change.detach()) for keys, change in self.touched),
            outer=tuple((a.detach(), b.detach()) for a, b in self.outer),
        )


def _add_columns(scores: Tensor, blocks: Tensor, keys: Tensor, change: Tensor) -> Tensor:
    size, per_task = scores.shape[1], blocks.shape[1]
    task, row = keys // size, keys % size
    values = torch.bmm(blocks.index_select(0, task), change[:, :, None]).squeeze(2)
    place = (task[:, None] * per_task + torch.arange(per_task, device=keys.device)) * size + row[:, None]
    return scores.reshape(-1).index_add(0, place.reshape(-1), values.reshape(-1)).reshape(scores.shape)


class TaskTable(Tensor):
    """A :class:`TableState` in the place of an embedding's weight; it notes what was read, for the next step.

    Knows ``F.embedding(index, table)`` (or ``table[index]``), ``F.linear(query, table)`` and the cross-entropy of that
    (:func:`~graphmeta.nn.scoring.score_cross_entropy`).
    """

    state: TableState
    tasks: TaskLayout
    seen: _Seen

    @staticmethod
    def __new__(cls, state: TableState, layout: TaskLayout) -> TaskTable:
        table = state.base.detach().as_subclass(cls)
        table.state, table.tasks, table.seen = state, layout, _Seen()
        return table

    def __repr__(self) -> str:  # pyright: ignore[reportIncompatibleMethodOverride]
        return f"TaskTable({self.tasks.num_tasks} tasks, shape={tuple(self.state.base.shape)})"

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is F.linear and len(args) == 2 and not kwargs:
            return args[1].scored(args[0])
        if func is score_cross_entropy:
            return args[1].cross_entropy(args[0], args[-1], **(kwargs or {}))
        if func is sums:
            return TaskSums(*args)
        if func is F.embedding and isinstance(args[1], cls):
            return args[1].looked_up(args[0])
        if func in (Tensor.__getitem__, Tensor.index_select) and isinstance(args[-1], Tensor):
            return args[0].looked_up(args[-1])
        if func in GETTERS or func in (Tensor.dim, Tensor.size, Tensor.__len__):
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **(kwargs or {}))
        raise UnsupportedOp(f"{getattr(func, '__name__', func)} on an item table in scope")

    def looked_up(self, index: Tensor) -> Tensor:
        """Rows of each task's own table, ``[T·R] -> [T·R, D]``."""
        self.tasks.blocks(index)
        rows = self.state.rows(index, self.tasks)
        rows = rows if rows.requires_grad else rows.requires_grad_(torch.is_grad_enabled())
        self.seen.lookups.append((index, rows))
        return rows

    def scored(self, query: Tensor) -> Tensor:
        """Scores against each task's own table, ``[T·Q, D] -> [T·Q, V]``."""
        scores = self.state.scores(query, self.tasks)
        scores = scores if scores.requires_grad else scores.requires_grad_(torch.is_grad_enabled())
        self.seen.products.append((query, scores))
        return scores

    def cross_entropy(self, query: Tensor, target: Tensor, *, real: Tensor | None, extra: Extra | None) -> Tensor:
        """Cross-entropy of the real rows' targets under each task's own table, ``[T·Q, D] -> [R]``.

        In first order nothing but the gradient is made of the scores, so it takes their place.
        """
        scores, target = plus(self.scored(query), extra), target.clamp(min=0)
        if self.state.first_order:
            losses = CrossEntropyInPlace.apply(scores, target)
        else:
            losses = F.cross_entropy(scores, target, reduction="none")
        return losses if real is None else losses.index_select(0, real)

    def read(self) -> list[Tensor]:
        """The tensors read from this table so far; their gradients make up the table's gradient."""
        return [rows for _, rows in self.seen.lookups] + [scores for _, scores in self.seen.products]

    def stepped(
        self, state: TableState, rate: float | Tensor, grads: list[Tensor | None], *, keep_graph: bool
    ) -> TableState:
        """``state`` after ``table − rate · gradient``, from the gradients of :meth:`read`, in its order."""
        count = len(self.seen.lookups)
        touched, outer = list(state.touched), list(state.outer)
        for (index, _), grad in zip(self.seen.lookups, grads[:count], strict=True):
            if grad is not None:
                touched.append(self._at_rows(index, -rate * grad))
        for (query, _), grad in zip(self.seen.products, grads[count:], strict=True):
            if grad is not None:
                vectors = query if keep_graph else query.detach()
                own = len(grads) == count + 1 and grad.is_contiguous()  # nobody else's: two products may share one
                constant = own and not keep_graph and not isinstance(rate, Tensor)
                moved = grad.mul_(-rate) if constant else -rate * grad
                outer.append((self.tasks.blocks(moved), self.tasks.blocks(vectors)))
        return replace(state, touched=tuple(touched), outer=tuple(outer), first_order=not keep_graph)

    def _at_rows(self, index: Tensor, change: Tensor) -> tuple[Tensor, Tensor]:
        task = torch.arange(len(index), device=index.device) // (len(index) // self.tasks.num_tasks)
        keys, place = torch.unique(task * len(self.state.base) + index, return_inverse=True)
        return keys, change.new_zeros(len(keys), change.shape[1]).index_add(0, place, change)


class TaskSums(TaskTable):
    """Each task's items where an item is a sum of rows of the task's table (:func:`~graphmeta.nn.described.sums`).

    Its score is the sum of theirs, so the table's change stays low-rank.
    """

    table: TaskTable
    parts: Tensor
    kept: Tensor

    @staticmethod
    def __new__(cls, table: TaskTable, parts: Tensor, kept: Tensor) -> TaskSums:
        own = table.state.base.detach().narrow(0, 0, len(parts)).as_subclass(cls)
        own.table, own.state, own.tasks = table, table.state, table.tasks
        own.parts, own.kept = parts, kept
        return own

    def __init__(self, table: TaskTable, parts: Tensor, kept: Tensor) -> None:
        super().__init__()

    def looked_up(self, index: Tensor) -> Tensor:
        """Not known: features look rows up in the table itself."""
        raise UnsupportedOp("a look-up in sums of an item table in scope")

    def scored(self, query: Tensor) -> Tensor:
        """Scores against each task's own items, ``[T·Q, D] -> [T·Q, I]``."""
        scores = self.table.scored(query)
        parts, kept = self.parts.unbind(1), self.kept.unbind(1)
        return torch.stack([scores.index_select(1, row) * share for row, share in zip(parts, kept, strict=True)]).sum(0)


@dataclass
class _Seen:
    lookups: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    products: list[tuple[Tensor, Tensor]] = field(default_factory=list)
