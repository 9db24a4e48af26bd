"""Scores of all candidates and their cross-entropy as one operation, with memory independent of the batch size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.overrides import handle_torch_function, has_torch_function_unary

from graphmeta.errors import InputError
from graphmeta.nn.function import Function
from graphmeta.nn.sizes import needs_sync

ScoreTerm = tuple[Tensor, Tensor, Tensor]  # rows, columns and the values added to the scores there
Product = Callable[[Tensor, Tensor], Tensor]  # rows, columns -> the scores there before score terms
PRECISION: ContextVar[str] = ContextVar("precision", default="fp32")
_CACHED = 2**19  # bytes of scores that stay in a CPU's cache from one operation to the next


@contextmanager
def precision(name: str) -> Iterator[None]:
    """Within it, :func:`score_cross_entropy` multiplies in ``fp32`` or ``bf16``.

    With ``bf16``, factors and products are rounded to 8 bits of mantissa and accumulated in 32; weights, optimiser and
    all else stay in 32. On a device without bf16 arithmetic the rounding is emulated: same numbers, no speed-up.
    """
    if name not in ("fp32", "bf16"):
        raise InputError(f"precision={name!r} must be fp32 or bf16")
    token = PRECISION.set(name)
    try:
        yield
    finally:
        PRECISION.reset(token)


def score_cross_entropy(
    query: Tensor,
    candidates: Tensor,
    target: Tensor,
    *,
    real: Tensor | None = None,
    extra: ScoreTerm | None = None,
    rows: int = 128,
) -> Tensor:
    """``cross_entropy(query @ candidatesᵀ, target)`` per row, without a second and third matrix of that size.

    The scores become probabilities in place, and their gradient ``p − onehot`` is never materialised: the two products
    of the backward pass use ``p`` and correct single rows. If the candidates are constant (the inner step of a head),
    the gradient is computed in the same pass over them as the scores. Differentiable any number of times; under
    ``create_graph`` the probabilities are recomputed from ``query`` and ``candidates``.

    Args:
        real: the rows to compute; all if not given.
        extra: additive score terms.
        rows: queries per block; the scores of 100 among 43,097 candidates (17 MB) stay in the cache.

    Shapes: query ``[S, D]``, candidates ``[C, D]``, target ``[S]``, real ``[R]`` -> ``[R]``.
    """
    if has_torch_function_unary(candidates):  # a table per task
        return handle_torch_function(
            score_cross_entropy, (candidates,), query, candidates, target, real=real, extra=extra
        )
    with torch.autocast(query.device.type, enabled=False):  # the products are rounded as set by precision()
        return _score_cross_entropy(query.to(candidates.dtype), candidates, target, real, extra, rows)


def _score_cross_entropy(
    query: Tensor, candidates: Tensor, target: Tensor, real: Tensor | None, extra: ScoreTerm | None, rows: int
) -> Tensor:
    if real is not None:
        extra = None if extra is None else of_rows(extra, real, len(query))
        query, target = query.index_select(0, real), target.index_select(0, real)
    losses, every = [], torch.arange(len(query), device=query.device)
    for q, t, part in zip(query.split(rows), target.split(rows), every.split(rows), strict=True):
        own = (None, None, None) if extra is None else of_rows(extra, part, len(query))
        losses.append(_ScoreCrossEntropy.apply(q, candidates, t, *own))
    return losses[0] if len(losses) == 1 else torch.cat(losses)


def products_at(query: Tensor, candidates: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """``query[row] · candidates[column]``: ``[S, D]``, ``[C, D]`` and two of ``[N]`` -> ``[N]``."""
    if has_torch_function_unary(candidates):  # a table per task
        return handle_torch_function(products_at, (candidates,), query, candidates, row, column)
    if 16 * len(row) >= len(query) * len(candidates):  # a product of matrices is faster than so many of rows
        return (query @ candidates.t())[row, column]
    return (query.index_select(0, row) * candidates.index_select(0, column)).sum(1)


def plus(scores: Tensor, extra: ScoreTerm | None) -> Tensor:
    """The scores ``[S, C]`` plus the additive score terms."""
    if extra is None:
        return scores
    row, column, value = extra
    return scores.index_put((row, column), value.to(scores.dtype), accumulate=True)


def of_rows(extra: ScoreTerm, rows: Tensor, size: int) -> ScoreTerm:
    """The part of ``extra`` in these rows, renumbered by their position among them."""
    place = torch.full((size,), -1, device=rows.device)
    place[rows] = torch.arange(len(rows), device=rows.device)
    row, column, value = extra
    if needs_sync(rows):  # terms of other rows add zero to the first of these rows
        place = place[row]
        return place.clamp(min=0), column, torch.where(place >= 0, value, 0)
    kept = (place[row] >= 0).nonzero().squeeze(1)
    return place[row[kept]], column[kept], value.index_select(0, kept)


def exponentials_(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Overwrite scores with ``exp(score − top)`` and return ``top``, each row's maximum (0 if it is infinite), and the
    sums of the rows.

    On a CPU in blocks of rows that stay in the cache, with the same results as in one block.

    Shapes: ``[S, C] -> [S], [S]``.
    """
    rows = len(scores) if needs_sync(scores) else _CACHED // max(scores.shape[1] * scores.element_size(), 1)
    tops, totals = [], []
    for block in scores.split(max(rows, 1)):
        top = block.amax(1)
        top = torch.where(top.isinf(), 0.0, top)
        tops.append(top)
        totals.append(block.sub_(top[:, None]).exp_().sum(1))
    return torch.cat(tops), torch.cat(totals)


class CrossEntropyInPlace(Function):
    """``cross_entropy(scores, target)`` per row, which overwrites ``scores`` with their gradient; they must not be used
    again.

    One matrix ``[S, C]`` instead of three; differentiable once.
    """

    @staticmethod
    def forward(ctx: Any, scores: Tensor, target: Tensor) -> Tensor:
        """The losses ``[S]``."""
        weight = scores.data  # detach() would register the in-place change with autograd, also for views
        own = weight.gather(1, target[:, None]).squeeze(1)
        top, total = exponentials_(weight)
        ctx.weight, ctx.total, ctx.target = weight, total, target
        return total.log() + top - own

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """``(softmax(scores) − onehot(target)) · grad``."""
        if ctx.weight is None:
            raise RuntimeError(
                "CrossEntropyInPlace supports one backward pass: it overwrites its scores with their gradient; "
                "sum the losses before calling backward()"
            )
        weight, ctx.weight = ctx.weight, None
        weight.mul_((grad / ctx.total)[:, None])
        return weight.scatter_add_(1, ctx.target[:, None], -grad[:, None]), None


def has_bf16(device: torch.device) -> bool:
    """Whether the device has native bf16 matrix multiplication."""
    if device.type != "cpu":
        return True
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def product_in(a: Tensor, b: Tensor, low: bool) -> Tensor:
    """``a @ b``; with ``low`` in bf16, returned in 32 bits."""
    if not low:
        return a @ b
    a, b = a.bfloat16(), b.bfloat16()
    return (a @ b).float() if has_bf16(a.device) else (a.float() @ b.float()).bfloat16().float()


def _mix(query: Tensor, candidates: Tensor, block: int = 4096) -> tuple[Tensor, Tensor, Tensor]:
    """``m = max_c s_c``, ``Σ_c exp(s_c − m)`` and ``Σ_c exp(s_c − m) e_c`` of the scores ``s = query · e``.

    In one pass: each block of candidates is used for both products while it is in the cache; scores are not kept.
    """
    top, total = query.new_full((len(query), 1), -torch.inf), query.new_zeros(len(query), 1)
    mix = torch.zeros_like(query)
    for part in candidates.split(block):
        scores = query @ part.t()
        new = torch.maximum(top, scores.amax(1, keepdim=True))
        scores, shrunk = scores.sub_(new).exp_(), (top - new).exp_()
        top, total, mix = new, total * shrunk + scores.sum(1, keepdim=True), mix * shrunk + scores @ part
    return top.squeeze(1), total.squeeze(1), mix


class _ScoreCrossEntropy(Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        candidates: Tensor,
        target: Tensor,
        row: Tensor | None,
        column: Tensor | None,
        value: Tensor | None,
    ) -> Tensor:
        ctx.low, ctx.mixed = PRECISION.get() == "bf16" and query.dtype == torch.float32, False
        if ctx.needs_input_grad[0] and not ctx.needs_input_grad[1] and row is None and not ctx.low:
            ctx.mixed, (top, total, mix) = True, _mix(query, candidates)
            ctx.save_for_backward(query, candidates, target, None, None, None, mix, total)
            return total.log() + top - (query * candidates.index_select(0, target)).sum(1)
        scores = product_in(query, candidates.t(), ctx.low)
        if row is not None and column is not None and value is not None:
            scores.index_put_((row, column), value.to(scores.dtype), accumulate=True)
        own = scores.gather(1, target[:, None]).squeeze(1)
        top, total = exponentials_(scores)
        kept = (scores.bfloat16() if ctx.low else scores, total) if any(ctx.needs_input_grad) else ()
        ctx.save_for_backward(query, candidates, target, row, column, value, *kept)
        return total.log() + top - own

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        with torch.autocast(grad.device.type, enabled=False):
            return _ScoreCrossEntropy._backward(ctx, grad)

    @staticmethod
    def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, candidates, target, row, column, value, scores, total = ctx.saved_tensors
        if torch.is_grad_enabled():
            extra = None if row is None else (row, column, value)
            weight, unit, low = torch.softmax(plus(query @ candidates.t(), extra), 1), grad, False
        else:
            weight, unit, low = scores, grad / total, ctx.low
            if ctx.mixed:
                return unit[:, None] * scores - grad[:, None] * candidates.index_select(0, target), *[None] * 5
        to_query = to_candidates = to_value = None
        if ctx.needs_input_grad[0]:
            hit = grad[:, None] * candidates.index_select(0, target)
            to_query = unit[:, None] * product_in(weight, candidates, low) - hit
        if ctx.needs_input_grad[1]:
            to_candidates = product_in(weight.t(), unit[:, None] * query, low)
            to_candidates = _add_rows(to_candidates, target, -grad[:, None] * query)
        if ctx.needs_input_grad[5]:
            to_value = unit[row] * weight[row, column].to(unit.dtype) - grad[row] * (column == target[row])
        return to_query, to_candidates, None, None, None, to_value


def _add_rows(total: Tensor, index: Tensor, rows: Tensor) -> Tensor:
    return total.index_add(0, index, rows) if torch.is_grad_enabled() else total.index_add_(0, index, rows)
