"""Weighted means of the softmax over the catalogue, without storing the probabilities of all samples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from graphmeta.nn.catalogue_softmax import ScoreTerm
from graphmeta.nn.function import Function

KEPT = 64 * 2**20  # bytes of probabilities kept for the backward pass


class Pairs(NamedTuple):
    """Samples of groups: group ``group[n]`` has the sample ``sample[n]``; both ``[N]`` int64, sorted by sample."""

    group: np.ndarray
    sample: np.ndarray


def mean_softmax(
    query: Tensor,
    vectors: Tensor,
    weight: Tensor,
    pairs: Pairs,
    *,
    groups: int,
    bias: Tensor | None = None,
    extra: ScoreTerm | None = None,
    rows: int = 128,
) -> Tensor:
    """``Σ_n weight_n softmax(query_s(n) · vectors + bias + extra)`` of each group: one row ``[C]`` per group.

    The probabilities of a sample are computed once, however many groups have it, in blocks of ``rows`` samples. The
    first blocks, up to 64 MiB, are kept for the backward pass; it computes the others again, one at a time.
    Differentiable once.

    Args:
        pairs: the samples of each group.
        groups: their number, some of which may have none.

    Shapes: query ``[S, D]``, vectors ``[C, D]``, weight ``[N]``, bias ``[C]`` -> ``[groups, C]``.
    """
    with torch.autocast(query.device.type, enabled=False):
        place, value = (None, None) if extra is None else _by_row(extra)
        plan = _Plan(pairs, groups, rows)
        return _MeanSoftmax.apply(query.to(vectors.dtype), vectors, weight, bias, place, value, plan)


class _Plan(NamedTuple):
    pairs: Pairs
    groups: int
    rows: int


def _by_row(extra: ScoreTerm) -> tuple[Tensor, Tensor]:
    """Rows and columns ``[2, M]`` of the score terms, sorted by row, and their values ``[M]``."""
    row, column, value = extra
    order = row.argsort(stable=True)
    return torch.stack([row, column]).index_select(1, order), value.index_select(0, order)


class _Block(NamedTuple):
    """Samples ``begin:end``, the pairs ``own`` with them, the groups of these, and each pair's place among the groups
    and samples of the block; ``terms``: the score terms of the samples.
    """

    samples: slice
    own: slice
    groups: Tensor
    group: Tensor
    sample: Tensor
    terms: slice

    def weights(self, weight: Tensor) -> Tensor:
        """The weights of the block as a matrix, groups by samples."""
        size = len(self.groups), self.samples.stop - self.samples.start
        return weight.new_zeros(size).index_put((self.group, self.sample), weight[self.own], accumulate=True)

    def places(self, place: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of the block and columns of its score terms."""
        row, column = place[:, self.terms]
        return row - self.samples.start, column


class _MeanSoftmax(Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        vectors: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        place: Tensor | None,
        value: Tensor | None,
        plan: _Plan,
    ) -> Tensor:
        ctx.plan, ctx.kept, room = plan, [], KEPT if any(ctx.needs_input_grad) else 0
        ctx.save_for_backward(query, vectors, weight, bias, place, value)
        total = vectors.new_zeros(plan.groups, len(vectors))
        for block in _blocks(plan, query, place):
            p = _probabilities(query, vectors, bias, (place, value), block)
            room -= p.nbytes
            if room >= 0:
                ctx.kept.append(p)
            total.index_add_(0, block.groups, block.weights(weight) @ p)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, vectors, weight, bias, place, value = ctx.saved_tensors
        needs = ctx.needs_input_grad
        to_query = torch.zeros_like(query) if needs[0] else None
        to_vectors = torch.zeros_like(vectors) if needs[1] else None
        to_weight = torch.zeros_like(weight) if needs[2] else None
        to_bias = torch.zeros_like(bias) if needs[3] else None
        to_value = torch.zeros_like(value) if needs[5] else None
        kept = iter(ctx.kept)
        for block in _blocks(ctx.plan, query, place):
            p = next(kept, None)
            if p is None:
                p = _probabilities(query, vectors, bias, (place, value), block)
            of_groups = grad.index_select(0, block.groups)
            if to_weight is not None:
                to_weight[block.own] = (of_groups @ p.t())[block.group, block.sample]
            if not (needs[0] or needs[1] or needs[3] or needs[5]):
                continue
            of_scores = (block.weights(weight).t() @ of_groups).mul_(p)
            of_scores.addcmul_(p, of_scores.sum(1, keepdim=True), value=-1)
            if to_query is not None:
                to_query[block.samples] = of_scores @ vectors
            if to_vectors is not None:
                to_vectors.addmm_(of_scores.t(), query[block.samples])
            if to_bias is not None:
                to_bias += of_scores.sum(0)
            if to_value is not None:
                to_value[block.terms] = of_scores[block.places(place)]
        return to_query, to_vectors, to_weight, to_bias, None, to_value, None


def _probabilities(
    query: Tensor, vectors: Tensor, bias: Tensor | None, terms: tuple[Tensor | None, Tensor | None], block: _Block
) -> Tensor:
    """The probabilities of the block's samples."""
    own, (place, value) = query[block.samples], terms
    scores = own @ vectors.t() if bias is None else torch.addmm(bias, own, vectors.t())
    if place is not None and value is not None:
        scores.index_put_(block.places(place), value[block.terms].to(scores.dtype), accumulate=True)
    scores.sub_(scores.amax(1, keepdim=True)).exp_()
    return scores.div_(scores.sum(1, keepdim=True))


def _blocks(plan: _Plan, query: Tensor, place: Tensor | None) -> Iterator[_Block]:
    """Blocks of up to ``plan.rows`` samples."""
    pairs, samples = plan.pairs, len(query)
    edges = np.append(np.arange(0, samples, plan.rows), samples)
    cuts = np.searchsorted(pairs.sample, edges)
    terms = np.zeros(len(edges), np.int64) if place is None else np.searchsorted(place[0].cpu().numpy(), edges)
    for n in range(len(edges) - 1):
        own = slice(int(cuts[n]), int(cuts[n + 1]))
        groups, group = np.unique(pairs.group[own], return_inverse=True)
        yield _Block(
            slice(int(edges[n]), int(edges[n + 1])),
            own,
            torch.from_numpy(groups).to(query.device),
            torch.from_numpy(group).to(query.device),
            torch.from_numpy(pairs.sample[own] - edges[n]).to(query.device),
            slice(int(terms[n]), int(terms[n + 1])),
        )
