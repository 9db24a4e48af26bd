"""An item table in scope with per-task changes in low rank, without a table per task.

After one step on task t the table is ``E_t = E − β ∂L_t/∂E``. That gradient has few terms: for each
scored support sample j an outer product ``δ_j ⊗ h_j`` (h = its query vector, δ = ∂L/∂(products with h)), for each row
that was looked up the gradient of that row, and, if the norms of rows were read too (cosines), a multiple of the row
itself, ``2 g_i e_i`` with ``g = ∂L/∂‖e‖²``. Only these terms are stored:

    ``e_ti = a_ti e_i + Σ_j c_tji h_j + (changes of the looked-up row i)``
    ``h'·e_ti = a_ti h'·e_i + Σ_j (h'·h_j) c_tji + …``
    ``‖e_ti‖² = a_ti² ‖e_i‖² + Σ_j c_tji (2 a_ti h_j·e_i + Σ_k (h_j·h_k) c_tki)``; of looked-up rows, one by one

Exact for any number of steps (each scales the earlier terms and adds its own), in first and second order. Source:
CBML §4.3 (its local update covers the embeddings); the low-rank form and the norms are ours.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from graphmeta.adapt.stacked.stack import Stack
from graphmeta.nn.function import Function


@dataclass(frozen=True)
class TableState:
    """A table ``base [V, D]`` with low-rank changes of T tasks: scaled row by row, then added to.

    In ``first_order`` a step's gradient is a constant: the base is read as if each task's table were ``base`` plus
    constants, whatever the scaling.

    Shapes: each of ``touched``: keys ``[K]`` = task·V + row, sorted, and the change of each ``[K, D]`` (the key of
    the last row may repeat, with zero changes); each of ``outer``: ``[T, S, V]`` and ``[T, S, D]``, whose product over
    S is added to the task's table; scale ``[T, V]``.
    """

    base: Tensor
    touched: tuple[tuple[Tensor, Tensor], ...] = ()
    outer: tuple[tuple[Tensor, Tensor], ...] = ()
    scale: Tensor | None = None
    first_order: bool = False

    def rows(self, index: Tensor, task: Tensor) -> Tensor:
        """Row ``index [K]`` of the table of ``task [K]`` -> ``[K, D]``."""
        found = self.base.index_select(0, index)
        if self.scale is not None:
            found = found + (self.scale[task, index] - 1)[:, None] * self._fixed(found)
        for keys, change in self.touched:
            wanted = task * len(self.base) + index
            at = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
            found = found + change.index_select(0, at) * (keys[at] == wanted)[:, None]
        for coefficient, vectors in self.outer:
            share = coefficient[task, :, index]
            found = found + torch.bmm(share[:, None], vectors.index_select(0, task)).squeeze(1)
        return found

    def scores(self, query: Tensor, stack: Stack) -> Tensor:
        """Each query vector (task-major ``[T·Q, D]``) against its own task's table -> ``[T·Q, V]``."""
        return self.products(stack.blocks(query))

    def products(self, blocks: Tensor) -> Tensor:
        """The same for query vectors in blocks ``[T, Q, D]`` -> ``[T·Q, V]``."""
        scores = self._scaled(blocks)
        for coefficient, vectors in self.outer:
            scores = scores.baddbmm_(torch.bmm(blocks, vectors.transpose(1, 2)), coefficient)
        scores = scores.flatten(0, 1)
        for keys, change in self.touched:
            scores = _add_columns(scores, blocks, keys, change)
        return scores

    def squares(self, num_tasks: int) -> Tensor:
        """The squared norm of each row of each task's table, ``[T, V]``."""
        found = self.base.square().sum(1).expand(num_tasks, -1)
        if self.scale is not None:
            found = self.scale * (found + (self.scale - 1) * self._fixed(found))
        for coefficient, vectors in self.outer:
            close = self._scaled(vectors).mul_(2)
            for others, other in self.outer:
                close = close.baddbmm_(torch.bmm(vectors, other.transpose(1, 2)), others)
            found = found + (coefficient * close).sum(1)
        if self.touched:
            keys = torch.cat([keys for keys, _ in self.touched]).sort().values
            own = self.rows(keys % len(self.base), keys // len(self.base)).square().sum(1)
            first = F.pad(keys[1:] != keys[:-1], (1, 0), value=True)
            flat = found.flatten()
            more = torch.where(first, own - flat.index_select(0, keys), 0)
            found = flat.index_add(0, keys, more).reshape(found.shape)
        return found

    def shrunk(self, by: Tensor | None, proximal: float | Tensor = 0.0) -> TableState:
        """The state after ``e_ti − by_ti e_ti − proximal (e_ti − e_i)``, for ``by [T, V]`` (zero if None).

        ``e_ti − e_i = (a_ti − 1) e_i + Σ_j c_tji h_j + …``, so all but the scale shrinks by ``by_ti + proximal``.
        """

        def less(x: Tensor, share: Tensor | float) -> Tensor:
            return x - (share + proximal) * self._fixed(x)

        at = [0.0 if by is None else by.flatten().index_select(0, keys)[:, None] for keys, _ in self.touched]
        every, scale = 0.0 if by is None else by[:, None], self.scale
        if scale is not None:
            fixed = self._fixed(scale)
            scale = scale - (0.0 if by is None else by * fixed) - proximal * (fixed - 1)
        elif by is not None:
            scale = 1 - by
        return replace(
            self,
            scale=scale,
            touched=tuple((keys, less(change, share)) for (keys, change), share in zip(self.touched, at, strict=True)),
            outer=tuple((less(coefficient, every), vectors) for coefficient, vectors in self.outer),
        )

    def dense(self, num_tasks: int) -> Tensor:
        """Every task's table in full, ``[T, V, D]``: for tests and small tables only."""
        table = self.base.expand(num_tasks, *self.base.shape)
        if self.scale is not None:
            table = table + (self.scale - 1)[:, :, None] * self._fixed(table)
        for coefficient, vectors in self.outer:
            table = table + coefficient.transpose(1, 2) @ vectors
        for keys, change in self.touched:
            table = table.flatten(0, 1).index_add(0, keys, change).reshape(table.shape)
        return table

    def detach(self) -> TableState:
        """The same state, detached from the autograd graph."""
        return replace(
            self,
            base=self.base.detach(),
            first_order=True,
            touched=tuple((keys, change.detach()) for keys, change in self.touched),
            outer=tuple((a.detach(), b.detach()) for a, b in self.outer),
            scale=None if self.scale is None else self.scale.detach(),
        )

    def _fixed(self, x: Tensor) -> Tensor:
        """A scaled tensor: a constant in first order."""
        return x.detach() if self.first_order else x

    def _scaled(self, vectors: Tensor) -> Tensor:
        """``[T, Q, D]`` against the scaled base -> ``[T, Q, V]``, new memory."""
        if self.scale is None:
            return torch.matmul(vectors, self.base.t())
        if self.first_order:
            return _ScaledByConstant.apply(vectors, self.base, self.scale)
        return torch.matmul(vectors, self.base.t()) * self.scale[:, None]


class _ScaledByConstant(Function):
    """``a_ti h·e_i``, where ``(a_ti − 1) e_i`` is a constant: the gradient of ``e_i`` is that of ``h·e_i``."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, base: Tensor, scale: Tensor) -> Tensor:
        """``[T, Q, D]``, ``[V, D]`` and ``[T, V]`` -> ``[T, Q, V]``."""
        ctx.save_for_backward(vectors, base, scale)
        return torch.matmul(vectors, base.t()).mul_(scale[:, None])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient of each input that needs one."""
        vectors, base, scale = ctx.saved_tensors
        to_vectors = to_base = to_scale = None
        if ctx.needs_input_grad[0]:
            to_vectors = torch.matmul(grad * scale[:, None], base)
        if ctx.needs_input_grad[1]:
            to_base = grad.flatten(0, 1).t() @ vectors.flatten(0, 1)
        if ctx.needs_input_grad[2]:
            to_scale = (grad * torch.matmul(vectors, base.t())).sum(1)
        return to_vectors, to_base, to_scale


def _add_columns(scores: Tensor, blocks: Tensor, keys: Tensor, change: Tensor) -> Tensor:
    size, per_task = scores.shape[1], blocks.shape[1]
    task, row = keys // size, keys % size
    values = torch.bmm(blocks.index_select(0, task), change[:, :, None]).squeeze(2)
    place = (task[:, None] * per_task + torch.arange(per_task, device=keys.device)) * size + row[:, None]
    return scores.reshape(-1).index_add(0, place.reshape(-1), values.reshape(-1)).reshape(scores.shape)


def distinct(keys: Tensor, change: Tensor, *, last: int) -> tuple[Tensor, Tensor]:
    """The sum of changes at each distinct key, padded to the number of keys, so that no size needs a synchronisation.

    The padding has the key ``last`` and zero changes.

    Shapes: keys ``[K]`` and changes ``[K, D]`` -> the same, keys sorted.
    """
    keys, order = keys.sort()
    place = F.pad((keys[1:] != keys[:-1]).cumsum(0), (1, 0)) if len(keys) else keys
    found = torch.full_like(keys, last).index_copy(0, place, keys)
    return found, torch.zeros_like(change).index_add(0, place, change.index_select(0, order))
