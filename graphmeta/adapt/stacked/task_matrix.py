"""The weight of a linear layer in scope with per-task changes in low rank, without a matrix per task.

After one step on task t the weight is ``W_t = W − β ∂L_t/∂W``, and that gradient is a sum over the layer's
input rows: ``Σ_j δ_j ⊗ x_j`` (x = a row, δ = ∂L/∂(W x)). A task has few rows and a layer many weights, so rows are
stored:

    ``W_t x = W x − β Σ_j (x_j·x) δ_j``

All tasks share one product with W. Exact, for any number of steps and to any order. If a task's rows have more numbers
than the matrix, or if the weight is used by another operation than ``F.linear``, the matrix becomes dense.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from graphmeta.adapt.stacked.stack import Stack
from graphmeta.adapt.stacked.task_weight import TaskWeight, without_memory

Change = tuple[
    float | Tensor, Tensor, Tensor
]  # a rate, output gradients (deltas) [T, N, out] and input rows [T, N, in]


@dataclass(frozen=True)
class MatrixState:
    """A matrix ``base [out, in]`` with a change ``− rate · deltasᵀ rows`` per task, for each step."""

    base: Tensor
    changes: tuple[Change, ...] = ()

    def product(self, x: Tensor, stack: Stack) -> Tensor:
        """Each row (task-major ``[T·R, …, in]``) times its own task's matrix -> ``[T·R, …, out]``."""
        out, own = F.linear(x, self.base), _rows(x, stack)
        for rate, deltas, rows in self.changes:
            close = torch.bmm(own, rows.transpose(1, 2))
            blocks = out.reshape(stack.num_tasks, -1, out.shape[-1])
            out = torch.baddbmm(blocks, close * -rate, deltas).reshape(out.shape)
        return out

    def dense(self, num_tasks: int) -> Tensor:
        """Every task's matrix in full, ``[T, out, in]``."""
        dense = self.base.expand(num_tasks, *self.base.shape)
        with torch.autocast(self.base.device.type, enabled=False):  # a weight is rounded where it is used, not here
            for rate, deltas, rows in self.changes:
                dense = torch.baddbmm(dense, deltas.transpose(1, 2), rows * -rate)
        return dense

    @property
    def heavy(self) -> bool:
        """Whether the changes hold more than twice the numbers of the matrix."""
        return sum(part.shape[1] for _, part, _ in self.changes) * sum(self.base.shape) > 2 * self.base.numel()

    def reverted(self, by: float | Tensor, *, constant: bool) -> MatrixState:
        """The state after ``W_t − by (W_t − W)``, a share of all changes, which has no gradient if ``constant``."""

        def less(rate: float | Tensor) -> float | Tensor:
            return rate - by * (_constant(rate) if constant else rate)

        return replace(self, changes=tuple((less(rate), deltas, rows) for rate, deltas, rows in self.changes))

    def detach(self) -> MatrixState:
        """The same state, detached from the autograd graph."""
        return MatrixState(
            self.base.detach(),
            tuple((_constant(rate), deltas.detach(), rows.detach()) for rate, deltas, rows in self.changes),
        )


def _constant(rate: float | Tensor) -> float | Tensor:
    return rate.detach() if isinstance(rate, Tensor) else rate


def _rows(x: Tensor, stack: Stack) -> Tensor:
    """``[T·R, …, D] -> [T, R·…, D]``."""
    return x.reshape(stack.num_tasks, -1, x.shape[-1])


class TaskMatrix(TaskWeight):
    """A :class:`MatrixState` that replaces a linear layer's weight and records its products, for the next step."""

    state: MatrixState
    products: list[tuple[Tensor, Tensor]]
    written: Tensor | None

    @staticmethod
    def __new__(cls, state: MatrixState, stack: Stack) -> TaskMatrix:  # pyright: ignore[reportIncompatibleMethodOverride]
        matrix = without_memory(cls, state.base.shape, state.base)
        matrix.state, matrix.stack = state, stack
        matrix.products, matrix.written = [], None
        return matrix

    def __init__(self, state: MatrixState, stack: Stack) -> None:
        Tensor.__init__(self)

    @property
    def needs_gradient(self) -> bool:
        """``requires_grad`` of each task's version: its step, or the training, differentiates with respect to it."""
        return self.stack.grad

    @property
    def stacked(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The dense matrices, for other operations than ``F.linear``."""
        if self.written is None:
            with torch.enable_grad():  # a later use may need a gradient, even if this one does not
                dense = self.state.dense(self.stack.num_tasks)
            self.written = dense if dense.requires_grad else dense.requires_grad_()
        return self.written

    def linear(self, x: Tensor) -> Tensor:
        """Rows in T blocks, ``[T·R, …, in] -> [T·R, …, out]``; not to be written into."""
        out = self.state.product(x, self.stack)
        out = out if out.requires_grad else out.requires_grad_(torch.is_grad_enabled())
        if out.requires_grad:
            self.products.append((x, out))
            self.stack.guard.read(x)
        return out

    def read(self) -> list[Tensor]:
        """The tensors made of this matrix so far; their gradients make up the matrix's gradient.

        Raises:
            UnsupportedOp: an input or result of its products was written into.
        """
        self.stack.guard.unchanged()
        return [out for _, out in self.products] + ([] if self.written is None else [self.written])

    def stepped(
        self,
        state: MatrixState,
        rate: float | Tensor,
        grads: Sequence[Tensor | None],
        *,
        keep_graph: bool,
        proximal: float | Tensor | None = None,
    ) -> Tensor | MatrixState:
        """``state`` after ``matrix − rate · gradient``, from the gradients of :meth:`read`, in its order.

        ``proximal`` is the share of the change since the start that the proximal term reverts.
        """
        state = state if proximal is None else state.reverted(proximal, constant=not keep_graph)
        low, full_grad = self._parts(grads, keep_graph)
        if low is not None:  # one change per step, for any number of calls of the layer
            state = replace(state, changes=(*state.changes, (rate, *low)))
        if full_grad is not None:
            return state.dense(self.stack.num_tasks) - rate * full_grad
        return state.dense(self.stack.num_tasks) if state.heavy else state

    def norm_of_step(self, grads: Sequence[Tensor | None], *, keep_graph: bool) -> Tensor:
        """The squared norm of each task's gradient ``[T]``, from the gradients of :meth:`read`, some not None.

        ``‖Σ_j δ_j ⊗ x_j‖² = Σ_ij (δ_i·δ_j)(x_i·x_j)``, or from the dense gradient if that is smaller.
        """
        low, full_grad = self._parts(grads, keep_graph)
        if low is None:
            assert full_grad is not None
            return full_grad.square().sum((1, 2))
        deltas, rows = low
        if full_grad is None and deltas.shape[1] ** 2 <= self.state.base.numel():
            close = torch.bmm(deltas, deltas.transpose(1, 2)) * torch.bmm(rows, rows.transpose(1, 2))
            return close.sum((1, 2)).clamp(min=0)
        full = torch.bmm(deltas.transpose(1, 2), rows)
        return (full if full_grad is None else full + full_grad).square().sum((1, 2))

    def scaled(self, grads: Sequence[Tensor | None], factor: Tensor) -> list[Tensor | None]:
        """The gradients of :meth:`read` times the factor ``[T]`` of their task."""

        def one(grad: Tensor) -> Tensor:
            return (_rows(grad, self.stack) * factor[:, None, None]).reshape(grad.shape).to(grad.dtype)

        return [None if grad is None else one(grad) for grad in grads]

    def _parts(
        self, grads: Sequence[Tensor | None], keep_graph: bool
    ) -> tuple[tuple[Tensor, Tensor] | None, Tensor | None]:
        """The gradient as deltas ``[T, N, out]`` and rows ``[T, N, in]``, and as matrices ``[T, out, in]``."""
        moved = [(x, grad) for (x, _), grad in zip(self.products, grads, strict=False) if grad is not None]
        full_grad = None if self.written is None else grads[-1]
        if not moved:
            return None, full_grad
        deltas = torch.cat([self._kept(grad) for _, grad in moved], 1)
        rows = torch.cat([self._kept(x if keep_graph else x.detach()) for x, _ in moved], 1)
        return (deltas, rows), full_grad

    def _kept(self, x: Tensor) -> Tensor:
        """The rows of each task in the matrix's dtype; under autocast a layer's rows may have less precision."""
        return _rows(x, self.stack).to(self.state.base.dtype)
