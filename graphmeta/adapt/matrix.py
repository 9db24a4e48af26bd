"""The weight of a linear layer in scope, without a matrix for each task.

After one step on task t the weight is ``W_t = W − β ∂L_t/∂W``, and that gradient is a sum over the rows the layer
worked on: ``Σ_j δ_j ⊗ x_j`` (x = a row, δ = ∂L/∂(W x)). A task has few rows and a layer many numbers, so rows are kept:

    ``W_t x = W x − β Σ_j (x_j·x) δ_j``

The product with W is one for all tasks. Exact, for any number of steps and to any order; where a task's rows come to
more numbers than the matrix has, or where the weight is used in another way than ``F.linear``, it is written out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from graphmeta.adapt.weight import TaskLayout, TaskWeight


@dataclass(frozen=True)
class MatrixState:
    """A matrix ``base [out, in]`` that T tasks have changed by ``slopesᵀ rows`` each.

    Shapes: slopes ``[T, N, out]``, rows ``[T, N, in]``; None before the first step.
    """

    base: Tensor
    slopes: Tensor | None = None
    rows: Tensor | None = None

    def product(self, x: Tensor, tasks: TaskLayout) -> Tensor:
        """Each row (task-major ``[T·R, …, in]``) times its own task's matrix -> ``[T·R, …, out]``."""
        out = F.linear(x, self.base)
        if self.slopes is None or self.rows is None:
            return out
        close = torch.bmm(_rows(x, tasks), self.rows.transpose(1, 2))
        return torch.baddbmm(_rows(out, tasks), close, self.slopes).reshape(out.shape)

    def dense(self, num_tasks: int) -> Tensor:
        """Every task's matrix in full, ``[T, out, in]``."""
        base = self.base.expand(num_tasks, *self.base.shape)
        if self.slopes is None or self.rows is None:
            return base
        return torch.baddbmm(base, self.slopes.transpose(1, 2), self.rows)

    def plus(self, slopes: Tensor, rows: Tensor) -> MatrixState:
        """The same with more changes."""
        if self.slopes is not None and self.rows is not None:
            slopes, rows = torch.cat([self.slopes, slopes], 1), torch.cat([self.rows, rows], 1)
        return replace(self, slopes=slopes, rows=rows)

    @property
    def heavy(self) -> bool:
        """Whether the rows hold more than twice the numbers of the matrix."""
        out, into = self.base.shape
        return self.rows is not None and self.rows.shape[1] * (out + into) > 2 * out * into

    def detach(self) -> MatrixState:
        """The same state, cut from the autograd graph."""
        if self.slopes is None or self.rows is None:
            return replace(self, base=self.base.detach())
        return MatrixState(self.base.detach(), self.slopes.detach(), self.rows.detach())


def _rows(x: Tensor, tasks: TaskLayout) -> Tensor:
    """``[T·R, …, D] -> [T, R·…, D]``."""
    return tasks.blocks(x).flatten(1, -2)


class TaskMatrix(TaskWeight):
    """A :class:`MatrixState` in the place of a linear layer's weight; it notes what was read, for the next step."""

    state: MatrixState
    products: list[tuple[Tensor, Tensor]]
    written: Tensor | None

    @staticmethod
    def __new__(cls, state: MatrixState, layout: TaskLayout) -> TaskMatrix:  # pyright: ignore[reportIncompatibleMethodOverride]
        matrix = state.base.detach().as_subclass(cls)
        matrix.state, matrix.tasks, matrix.used = state, layout, False
        matrix.products, matrix.written = [], None
        return matrix

    def __repr__(self) -> str:  # pyright: ignore[reportIncompatibleMethodOverride]
        return f"TaskMatrix({self.tasks.num_tasks} tasks, shape={tuple(self.state.base.shape)})"

    @property
    def stacked(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The matrices written out, for whatever is not a linear layer."""
        if self.written is None:
            dense = self.state.dense(self.tasks.num_tasks)
            self.written = dense if dense.requires_grad else dense.requires_grad_(torch.is_grad_enabled())
        return self.written

    def linear(self, x: Tensor) -> Tensor:
        """``[T·R, …, in] -> [T·R, …, out]``; not to be written into."""
        self.tasks.blocks(x)
        out = self.state.product(x, self.tasks)
        out = out if out.requires_grad else out.requires_grad_(torch.is_grad_enabled())
        self.products.append((x, out))
        return out

    def read(self) -> list[Tensor]:
        """The tensors made of this matrix so far; their gradients make up the matrix's gradient."""
        return [out for _, out in self.products] + ([] if self.written is None else [self.written])

    def stepped(
        self, state: MatrixState, rate: float | Tensor, grads: list[Tensor | None], *, keep_graph: bool
    ) -> Tensor | MatrixState:
        """``state`` after ``matrix − rate · gradient``, from the gradients of :meth:`read`, in its order."""
        moves = [
            (_rows(-rate * grad, self.tasks), _rows(x if keep_graph else x.detach(), self.tasks))
            for (x, _), grad in zip(self.products, grads, strict=False)
            if grad is not None
        ]
        if moves:
            state = state.plus(*(torch.cat(parts, 1) for parts in zip(*moves, strict=True)))
        slope = None if self.written is None else grads[-1]
        if slope is not None:
            return state.dense(self.tasks.num_tasks) - rate * slope
        return state.dense(self.tasks.num_tasks) if state.heavy else state
