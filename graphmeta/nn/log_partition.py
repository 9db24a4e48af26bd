"""The log of a softmax's denominator over given items as one operation."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from graphmeta.nn.catalogue_softmax import PRECISION, ScoreTerm, exponentials_, plus, product_in
from graphmeta.nn.function import Function


def log_partition(
    query: Tensor,
    vectors: Tensor,
    *,
    bias: Tensor | None = None,
    extra: ScoreTerm | None = None,
    without: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """``logsumexp(query @ vectorsᵀ + bias, 1)``, whose scores are overwritten by their probabilities.

    One matrix ``[S, N]`` instead of four. Differentiable any number of times; under ``create_graph`` the probabilities
    are recomputed. Products are rounded by :func:`~graphmeta.nn.catalogue_softmax.precision`.

    Args:
        bias: a constant added to each column, ``[N]``.
        extra: additive score terms; -inf leaves an entry out.
        without: a column for each row ``[S]``, and whether it is left out ``[S]``.

    Shapes: query ``[S, D]``, vectors ``[N, D]`` -> ``[S]``; -inf for a row without entries.
    """
    if not len(vectors):
        return query.new_full((len(query),), -math.inf)
    row, column, value = (None, None, None) if extra is None else extra
    with torch.autocast(query.device.type, enabled=False):
        return _LogPartition.apply(query.to(vectors.dtype), vectors, bias, row, column, value, without)


class _LogPartition(Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        vectors: Tensor,
        bias: Tensor | None,
        row: Tensor | None,
        column: Tensor | None,
        value: Tensor | None,
        without: tuple[Tensor, Tensor] | None,
    ) -> Tensor:
        ctx.without = without
        ctx.low = PRECISION.get() == "bf16" and query.dtype == torch.float32
        scores = product_in(query, vectors.t(), ctx.low)
        scores = scores if bias is None else scores.add_(bias)
        if row is not None and column is not None and value is not None:
            scores.index_put_((row, column), value.to(scores.dtype), accumulate=True)
        if without is not None:
            scores.scatter_add_(1, without[0][:, None], _hidden(scores, without))
        top, total = exponentials_(scores)
        kept = (scores.bfloat16() if ctx.low else scores, total) if any(ctx.needs_input_grad) else ()
        ctx.save_for_backward(query, vectors, bias, row, column, value, *kept)
        return total.log() + top

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        with torch.autocast(grad.device.type, enabled=False):
            query, vectors, bias, row, column, value, scores, total = ctx.saved_tensors
            if torch.is_grad_enabled():
                found = query @ vectors.t()
                found = found if bias is None else found + bias
                found = plus(found, None if row is None else (row, column, value))
                if ctx.without is not None:
                    found = found.scatter_add(1, ctx.without[0][:, None], _hidden(found, ctx.without))
                weight = torch.softmax(found, 1)
                weight, unit, low = weight.nan_to_num(0.0), grad, False
            else:
                weight, unit, low = scores, torch.where(total > 0, grad / total, 0.0), ctx.low
            to_query = to_vectors = to_value = None
            if ctx.needs_input_grad[0]:
                to_query = unit[:, None] * product_in(weight, vectors, low)
            if ctx.needs_input_grad[1]:
                to_vectors = product_in(weight.t(), unit[:, None] * query, low)
            if ctx.needs_input_grad[5]:
                to_value = unit[row] * weight[row, column].to(unit.dtype)
            return to_query, to_vectors, None, None, None, to_value, None


def _hidden(scores: Tensor, without: tuple[Tensor, Tensor]) -> Tensor:
    """-inf where a row's column is left out, else 0: ``[S, 1]``."""
    return torch.where(without[1], -math.inf, 0.0).to(scores.dtype)[:, None]
