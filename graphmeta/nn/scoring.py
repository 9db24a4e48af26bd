"""Scores of all candidates and their cross-entropy as one operation, whose memory does not grow with the batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def score_cross_entropy(query: Tensor, candidates: Tensor, target: Tensor, *, rows: int = 128) -> Tensor:
    """``cross_entropy(query @ candidatesᵀ, target)`` a row, without a second and third matrix of that size.

    The scores turn into probabilities in place, and their gradient ``p − onehot`` is never written out: the two
    products of the backward pass take ``p`` and correct single rows. Differentiable any number of times; under
    ``create_graph`` the probabilities are computed again from ``query`` and ``candidates``.

    Args:
        rows: queries at a time; the scores of 100 among 43,097 candidates (17 MB) stay near the cache.

    Shapes: query ``[S, D]``, candidates ``[C, D]``, target ``[S]`` -> ``[S]``.
    """
    parts = zip(query.split(rows), target.split(rows), strict=True)
    losses = [_ScoreCrossEntropy.apply(q, candidates, t) for q, t in parts]
    return losses[0] if len(losses) == 1 else torch.cat(losses)


class _ScoreCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, candidates: Tensor, target: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        scores = query @ candidates.t()
        own = scores.gather(1, target[:, None]).squeeze(1)
        top = scores.amax(1)
        scores.sub_(top[:, None]).exp_()
        total = scores.sum(1)
        needed = any(ctx.needs_input_grad)
        ctx.save_for_backward(query, candidates, target, *((scores, total) if needed else ()))
        return total.log() + top - own

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        query, candidates, target, scores, total = ctx.saved_tensors
        if torch.is_grad_enabled():
            weight, unit = torch.softmax(query @ candidates.t(), 1), grad
        else:
            weight, unit = scores, grad / total
        to_query = to_candidates = None
        if ctx.needs_input_grad[0]:
            to_query = unit[:, None] * (weight @ candidates) - grad[:, None] * candidates.index_select(0, target)
        if ctx.needs_input_grad[1]:
            to_candidates = weight.t() @ (unit[:, None] * query)
            to_candidates = _add_rows(to_candidates, target, -grad[:, None] * query)
        return to_query, to_candidates, None


def _add_rows(total: Tensor, index: Tensor, rows: Tensor) -> Tensor:
    return total.index_add(0, index, rows) if torch.is_grad_enabled() else total.index_add_(0, index, rows)
