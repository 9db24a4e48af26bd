"""How wrong a sample's scores are: ``(head, states, batch, candidates) -> [number of real samples]``."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from graphmeta.batch import real_samples
from graphmeta.nn.head import Dot


class SoftmaxLoss(nn.Module):
    """Cross-entropy of the target against the whole catalogue: ``−log softmax(scores)_target``.

    With a :class:`~graphmeta.nn.head.Dot` head, scoring and cross-entropy are one operation
    (:func:`score_cross_entropy`), ``rows`` samples at a time: 100 rows of 43,097 scores stay near the cache.

    Shapes: returns one loss for each real sample, in order, ``[S]``.
    """

    def __init__(self, *, rows: int = 128) -> None:
        super().__init__()
        self.rows = rows

    def forward(self, head: nn.Module, states: Tensor, batch: HeteroData, candidates: Tensor) -> Tensor:
        """The losses."""
        target = real_samples(batch, batch["sample"].target)
        if (
            not isinstance(head, Dot)
            or type(head).forward is not Dot.forward
            or type(candidates) not in (Tensor, nn.Parameter)
        ):
            scores = real_samples(batch, head(states, batch, candidates))
            return F.cross_entropy(scores, target, reduction="none")
        query = real_samples(batch, head.query(states, batch))
        parts = zip(query.split(self.rows), target.split(self.rows), strict=True)
        losses = [score_cross_entropy(q, candidates, t) for q, t in parts]
        return losses[0] if len(losses) == 1 else torch.cat(losses)


def score_cross_entropy(query: Tensor, candidates: Tensor, target: Tensor) -> Tensor:
    """``cross_entropy(query @ candidatesᵀ, target)`` a row, without a second and third matrix of that size.

    The scores turn into probabilities in place, and their gradient ``p − onehot`` is never written out: the two
    products of the backward pass take ``p`` and correct single rows. Differentiable any number of times; under
    ``create_graph`` the probabilities are computed again from ``query`` and ``candidates``.

    Shapes: query ``[S, D]``, candidates ``[C, D]``, target ``[S]`` -> ``[S]``.
    """
    return _ScoreCrossEntropy.apply(query, candidates, target)


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
