"""Norm of the gradient of an item table in scope, for each task, without a dense gradient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from graphmeta.adapt.stacked.table_state import TableState, distinct


@dataclass(frozen=True)
class TableGradient:
    """``G = Σ_q δ_q ⊗ h_q + Σ_k 1_row(k) ⊗ r_k + diag(2 g) E``, of each task: products, look-ups and norms.

    Args:
        lookups: row indices ``[K]``, their tasks ``[K]``, the rows e ``[K, D]`` and their gradients r ``[K, D]``.
        products: gradients δ ``[T, Q, V]`` and query vectors h ``[T, Q, D]``.
        lengths: gradients g with respect to the squared norms, and the squared norms, both ``[T, V]``.
    """

    lookups: Sequence[tuple[Tensor, Tensor, Tensor, Tensor]]
    products: Sequence[tuple[Tensor, Tensor]]
    lengths: tuple[Tensor, Tensor] | None

    def square(self, state: TableState, num_tasks: int) -> Tensor:
        """``‖G‖²`` of each task ``[T]``, for a table in this state.

        ``Σ_pq (δ_p·δ_q)(h_p·h_q) + Σ_i ‖Σ_{k: row(k) = i} r_k‖² + 4 Σ_i g_i² ‖e_i‖²``
        ``+ 2 Σ_k r_k · Σ_q δ_q,row(k) h_q + 4 Σ_k g_row(k) (r_k·e_row(k)) + 4 Σ_qi δ_qi g_i (h_q·e_i)``
        """
        found = state.base.new_zeros(num_tasks)
        joined = [torch.cat(part, 1) for part in zip(*self.products, strict=True)]
        if joined:
            deltas, queries = joined
            close = torch.bmm(deltas, deltas.transpose(1, 2)) * torch.bmm(queries, queries.transpose(1, 2))
            found = found + close.sum((1, 2))
        if self.lookups:
            index, task, rows, slope = (torch.cat(part) for part in zip(*self.lookups, strict=True))
            keys, change = distinct(task * len(state.base) + index, slope, last=num_tasks * len(state.base) - 1)
            found = found.index_add(0, keys // len(state.base), change.square().sum(1))
            if joined:
                along = torch.bmm(joined[0][task, :, index][:, None], joined[1].index_select(0, task)).squeeze(1)
                found = found.index_add(0, task, 2 * (along * slope).sum(1))
            if self.lengths is not None:
                found = found.index_add(0, task, 4 * self.lengths[0][task, index] * (rows * slope).sum(1))
        if self.lengths is not None:
            each, squares = self.lengths
            found = found + 4 * (each.square() * squares).sum(1)
            if joined:
                # Recomputed, because in first order the loss overwrites the scores with their gradient.
                scores = state.products(joined[1]).reshape(joined[0].shape)
                found = found + 4 * (joined[0] * scores * each[:, None]).sum((1, 2))
        return found.clamp(min=0)
