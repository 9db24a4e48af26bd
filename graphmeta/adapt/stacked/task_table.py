"""An item table in scope, as a tensor that modules use like any other weight, with one version per task.

It computes look-ups, products and norms from a :class:`~graphmeta.adapt.stacked.table_state.TableState`, and records
the results: their gradients determine the table's gradient, which is never dense.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from graphmeta.adapt.stacked.notes import Rows, name_of
from graphmeta.adapt.stacked.rules.losses import loss_note, score_note
from graphmeta.adapt.stacked.stack import Stack
from graphmeta.adapt.stacked.table_gradient import TableGradient
from graphmeta.adapt.stacked.table_state import TableState, distinct
from graphmeta.adapt.stacked.task_value import TaskValue
from graphmeta.adapt.stacked.task_weight import without_memory
from graphmeta.errors import UnsupportedOp
from graphmeta.nn.catalogue_softmax import CrossEntropyInPlace, ScoreTerm, plus
from graphmeta.nn.function import Function


class TaskTable(TaskValue):
    """A :class:`TableState` that replaces an embedding's weight and records what was read, for the next step.

    Supports ``F.embedding(index, table)`` (or ``table[index]``), ``F.linear(query, table)``, their cross-entropy
    (:func:`~graphmeta.nn.catalogue_softmax.score_cross_entropy`), single scores
    (:func:`~graphmeta.nn.catalogue_softmax.products_at`), and ``F.normalize(table, dim=-1)``, which supports the same.
    """

    state: TableState
    seen: _Seen

    @staticmethod
    def __new__(cls, state: TableState, stack: Stack) -> TaskTable:
        table = without_memory(cls, state.base.shape, state.base)
        table.state, table.stack, table.seen = state, stack, _Seen()
        return table

    def __init__(self, state: TableState, stack: Stack) -> None:
        super().__init__()

    @staticmethod
    def operations(stack: Stack, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The operations of a table in scope; results have notes."""
        name = name_of(func)
        if name == "linear" and len(args) == 2 and not kwargs and isinstance(args[1], TaskTable):
            return stack.rows(args[1].scored(args[0]))
        if name == "score_cross_entropy":
            losses = args[1].cross_entropy(args[0], args[-1], **kwargs)
            return stack.mark(losses, loss_note(stack, args[0], kwargs.get("real"), kwargs.get("extra")))
        if name == "products_at":
            found = args[1].scored_at(args[0], *args[2:])
            return stack.mark(found, score_note(stack, args[0], *args[2:], strict=True))
        if name == "sums":
            return TaskSums(*args)
        if name == "normalize":
            return _units(*args, **kwargs)
        if name == "embedding" and isinstance(args[1], TaskTable) and _plain(args[2:], kwargs):
            return args[1].looked_up(args[0])
        by_rows = name == "getitem" or (name == "index_select" and len(args) == 3 and args[1] == 0)
        if by_rows and isinstance(args[-1], Tensor) and isinstance(args[0], TaskTable):
            return args[0].looked_up(args[-1])
        raise UnsupportedOp(f"{name} on an item table in scope")

    def looked_up(self, index: Tensor) -> Tensor:
        """Rows of each task's own table, ``[N] -> [N, D]``, for an index that holds rows of tasks."""
        note = self.stack.note(index)
        if type(note) is not Rows or index.dim() != 1:
            raise self.stack.refused("a look-up in an item table in scope by {}", index, note)
        self.stack.use(note)
        task = self.stack.task_of(index, note)
        rows = _own(self.state.rows(index, task))
        if rows.requires_grad:
            self.seen.lookups.append((index, task, rows))
            self.stack.guard.read(index, rows)
        return self.stack.rows(rows, owner=note.owner)

    def scored(self, query: Tensor) -> Tensor:
        """Scores against each task's own table, ``[T·Q, D] -> [T·Q, V]``."""
        kept, self.seen.kept = self.seen.kept, None
        if kept is not None and kept[0] is query:
            return kept[1]
        scores = _own(self.state.scores(query, self.stack))
        if scores.requires_grad:
            self.seen.products.append((query, scores))
            self.stack.guard.read(query, scores)
        return scores

    def scored_at(self, query: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """Scores at these rows and columns, ``[N]``."""
        scores = self.scored(query)
        self.seen.kept = query, scores  # rows are materialised on first access: every caller reads all of them
        return scores[row, column]

    def squares(self) -> Tensor:
        """The squared norm of every row, ``[T, V]``."""
        if self.seen.squares is None:
            squares = _own(self.state.squares(self.stack.num_tasks))
            if not squares.requires_grad:
                return squares
            self.seen.squares = squares
        return self.seen.squares

    def cross_entropy(self, query: Tensor, target: Tensor, *, real: Tensor | None, extra: ScoreTerm | None) -> Tensor:
        """Cross-entropy of the real rows' targets under each task's own table, ``[T·Q, D] -> [R]``.

        In first order the scores are used for their gradient only, so the gradient overwrites them.
        """
        scores, target = plus(self._scored_once(query), extra), target.clamp(min=0)
        if self.state.first_order:
            losses = CrossEntropyInPlace.apply(scores, target)
        else:
            losses = F.cross_entropy(scores, target, reduction="none")
        return losses if real is None else losses.index_select(0, real)

    def _scored_once(self, query: Tensor) -> Tensor:
        """The scores for a single consumer; in first order their gradient may be overwritten."""
        return self.scored(query)

    def read(self) -> list[Tensor]:
        """The tensors read from this table so far; their gradients make up the table's gradient.

        Raises:
            UnsupportedOp: a result, or an index or query that it was computed from, was written into.
        """
        self.stack.guard.unchanged()
        squares = [] if self.seen.squares is None else [self.seen.squares]
        return [rows for _, _, rows in self.seen.lookups] + [scores for _, scores in self.seen.products] + squares

    def stepped(
        self,
        state: TableState,
        rate: float | Tensor,
        grads: Sequence[Tensor | None],
        *,
        keep_graph: bool,
        proximal: float | Tensor | None = None,
    ) -> TableState:
        """``state`` after ``table − rate · gradient``, from the gradients of :meth:`read`, in its order.

        ``proximal`` is the share of the change since the start that the proximal term reverts.
        """
        lookups, products = self.seen.lookups, self.seen.products
        state = replace(state, first_order=not keep_graph)
        stretch = grads[len(lookups) + len(products)] if self.seen.squares is not None else None
        if stretch is not None:  # the gradient of ‖e‖² is 2 e
            stretch = 2 * rate * stretch
        if stretch is not None or proximal is not None:
            state = state.shrunk(stretch, 0.0 if proximal is None else proximal)
        touched, outer = list(state.touched), list(state.outer)
        for (index, task, _), grad in zip(lookups, grads, strict=False):
            if grad is not None:
                touched.append(self._at_rows(index, task, -rate * grad))
        for (query, _), grad in zip(products, grads[len(lookups) :], strict=False):
            if grad is not None:
                vectors = query if keep_graph else query.detach()
                own = len(products) == 1 and grad.is_contiguous()  # not shared: two products may have one gradient
                constant = own and not keep_graph and not isinstance(rate, Tensor)
                moved = grad.mul_(-rate) if constant else -rate * grad
                outer.append((self._blocks(moved), self._blocks(vectors)))
        return replace(state, touched=tuple(touched), outer=tuple(outer))

    def norm_of_step(self, grads: Sequence[Tensor | None], *, keep_graph: bool) -> Tensor:
        """The squared norm of each task's gradient ``[T]``, from the gradients of :meth:`read`, in its order."""

        def fixed(x: Tensor) -> Tensor:
            return x if keep_graph else x.detach()

        seen, kind = self.seen, self.state.base.dtype
        looked, scored = len(seen.lookups), len(seen.lookups) + len(seen.products)
        rows = [
            (i, t, fixed(r), g.to(kind)) for (i, t, r), g in zip(seen.lookups, grads, strict=False) if g is not None
        ]
        blocks = [
            (self._blocks(grad.to(kind)), self._blocks(fixed(query).to(kind)))
            for (query, _), grad in zip(seen.products, grads[looked:scored], strict=True)
            if grad is not None
        ]
        stretch = None if seen.squares is None else grads[scored]
        lengths = None if stretch is None or seen.squares is None else (stretch, fixed(seen.squares))
        return TableGradient(rows, blocks, lengths).square(self.state, self.stack.num_tasks)

    def scaled(self, grads: Sequence[Tensor | None], factor: Tensor) -> list[Tensor | None]:
        """The gradients of :meth:`read` times the factor ``[T]`` of their task."""

        def one(grad: Tensor, number: int) -> Tensor:
            if number < len(self.seen.lookups):
                _, task, _ = self.seen.lookups[number]
                scaled = grad * factor.index_select(0, task)[:, None]
            else:  # of products [T·Q, V], or of squared norms [T, V]
                scaled = (self._blocks(grad) * factor[:, None, None]).reshape(grad.shape)
            return scaled.to(grad.dtype)

        return [None if grad is None else one(grad, number) for number, grad in enumerate(grads)]

    def _at_rows(self, index: Tensor, task: Tensor, change: Tensor) -> tuple[Tensor, Tensor]:
        """The change of each distinct row of each task's table."""
        size = len(self.state.base)
        return distinct(task * size + index, change, last=self.stack.num_tasks * size - 1)

    def _blocks(self, x: Tensor) -> Tensor:
        """``[T·Q, …]`` as ``[T, Q, …]``."""
        return x.reshape(self.stack.num_tasks, -1, *x.shape[1:])


def _plain(options: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a look-up has no options (padding, a maximum norm, …) that change its result."""
    padding_norm, rest = options[:2], (*options[3:], *(kwargs.get(name) for name in ("scale_grad_by_freq", "sparse")))
    given = (*padding_norm, kwargs.get("padding_idx"), kwargs.get("max_norm"))
    return all(option is None for option in given) and not any(rest)


def _own(read: Tensor) -> Tensor:
    """The values read, as a tensor to differentiate with respect to."""
    return read if read.requires_grad else read.requires_grad_(torch.is_grad_enabled())


class TaskSums(TaskTable):
    """Each task's items where an item is a sum of rows of the task's table.

    See :func:`~graphmeta.nn.features.attribute_sum.sums`. An item's score is the sum of the rows' scores, so the
    table's change stays low-rank. Norms of items are not supported: they are not functions of the rows' norms.
    """

    table: TaskTable
    parts: Tensor
    kept: Tensor

    @staticmethod
    def __new__(cls, table: TaskTable, parts: Tensor, kept: Tensor) -> TaskSums:
        own = without_memory(cls, torch.Size((len(parts), table.shape[1])), table.state.base)
        own.table, own.state, own.stack = table, table.state, table.stack
        own.parts, own.kept = parts, kept
        return own

    def __init__(self, table: TaskTable, parts: Tensor, kept: Tensor) -> None:
        Tensor.__init__(self)

    def looked_up(self, index: Tensor) -> Tensor:
        """Not supported: features look rows up in the table itself."""
        raise UnsupportedOp("a look-up in sums of an item table in scope")

    def scored(self, query: Tensor) -> Tensor:
        """Scores against each task's own items, ``[T·Q, D] -> [T·Q, I]``."""
        scores = self.table.scored(query)
        parts, kept = self.parts.unbind(1), self.kept.unbind(1)
        return torch.stack([scores.index_select(1, row) * share for row, share in zip(parts, kept, strict=True)]).sum(0)

    def scored_at(self, query: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """Scores at these rows and columns, ``[N]``."""
        return self.scored(query)[row, column]


class TaskUnits(TaskTable):
    """Each task's table with every row divided by its norm, for cosines.

    Its scores are the table's scores divided by the norms; scores and squared norms are recorded by the table.
    """

    table: TaskTable
    inverses: Tensor
    eps: float

    @staticmethod
    def __new__(cls, table: TaskTable, eps: float) -> TaskUnits:
        own = without_memory(cls, table.shape, table.state.base)
        own.table, own.state, own.stack, own.eps = table, table.state, table.stack, eps
        own.inverses = table.squares().clamp(min=eps**2).rsqrt()
        return own

    def __init__(self, table: TaskTable, eps: float) -> None:
        Tensor.__init__(self)

    def looked_up(self, index: Tensor) -> Tensor:
        """Rows of each task's own table, divided by their norms: ``[T·R] -> [T·R, D]``."""
        return self.stack.mark(F.normalize(found := self.table.looked_up(index), eps=self.eps), self.stack.note(found))

    def scored(self, query: Tensor) -> Tensor:
        """Products with each task's own unit vectors, ``[T·Q, D] -> [T·Q, V]``."""
        return (self._blocks(self.table.scored(query)) * self.inverses[:, None]).flatten(0, 1)

    def scored_at(self, query: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """Scores at these rows and columns, ``[N]``."""
        task = row // (len(query) // self.stack.num_tasks)
        return self.table.scored_at(query, row, column) * self.inverses[task, column]

    def _scored_once(self, query: Tensor) -> Tensor:
        if not self.state.first_order:
            return self.scored(query)
        return _Shortened.apply(self._blocks(self.table.scored(query)), self.inverses).flatten(0, 1)


def _units(table: TaskTable, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: Tensor | None = None) -> TaskUnits:
    if type(table) is not TaskTable or p != 2 or dim not in (1, -1) or out is not None:
        raise UnsupportedOp("normalize of sums of rows of an item table in scope, or by other lengths")
    return TaskUnits(table, eps)


class _Shortened(Function):
    """Products times inverse norms, ``[T, Q, V]`` and ``[T, V]``; backward overwrites the gradient in place."""

    @staticmethod
    def forward(ctx: Any, products: Tensor, inverse: Tensor) -> Tensor:
        """``[T, Q, V]``."""
        ctx.save_for_backward(products, inverse)
        return products * inverse[:, None]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        """The gradients of the products, in the memory of ``grad``, and of the inverse norms."""
        products, inverse = ctx.saved_tensors
        to_inverse = torch.zeros_like(inverse)
        for own, product in zip(grad.unbind(1), products.unbind(1), strict=True):
            to_inverse.addcmul_(own, product)
        return grad.mul_(inverse[:, None]), to_inverse


@dataclass
class _Seen:
    lookups: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list)
    products: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    squares: Tensor | None = None
    kept: tuple[Tensor, Tensor] | None = None
