"""Target attention (TAGNN) for all candidates at once, without a vector per session and candidate.

The score of candidate v for a sample with query a, keys k_l and values p_l is

    a·v + Σ_l softmax_l(k_l·v) (p_l·v),

which needs two numbers per click and candidate; a ``[S, C, D]`` block is never built. A softmax does not change when
the same logit is subtracted from all, so the last click needs no column of its own:

    (a + p_L)·v + Σ_{l<L} softmax_l([(k_l − k_L)·v …, 0]) ((p_l − p_L)·v),

and a session of one click needs one inner product.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function_unary
from torch_geometric.data import HeteroData

from graphmeta.errors import InputError
from graphmeta.nn.function import Function
from graphmeta.nn.heads.scoring import ScoringHead
from graphmeta.nn.readout import softmax_of
from graphmeta.nn.sizes import needs_sync
from graphmeta.protocols.members import ReadsMembers
from graphmeta.sampling.session_batch import clicked_items, real_samples

_COLUMNS = 2048  # candidates per block, so that a block of logits stays in the cache


@runtime_checkable
class Combination(Protocol, metaclass=ReadsMembers):
    """How the candidate's vector ``s_target`` joins the session vector s.

    ``normalised``: whether s is read with a softmax, and its projection has a bias.
    """

    normalised: ClassVar[bool]

    def mix(self, width: int) -> nn.Module:
        """What is applied to the attended states before they are added, ``[E, width] -> [E, width]``."""
        ...


@dataclass(frozen=True)
class Added:
    """``s + s_target``, with a softmax in s, as in the public code."""

    normalised: ClassVar[bool] = True

    def mix(self, width: int) -> nn.Module:
        """Nothing."""
        return nn.Identity()


@dataclass(frozen=True)
class Concatenated:
    """One matrix over ``[s_target ; s]``, as in the paper, with s as in SR-GNN."""

    normalised: ClassVar[bool] = False

    def mix(self, width: int) -> nn.Module:
        """The block of the matrix for ``s_target``."""
        return nn.Linear(width, width, bias=False)


COMBINATIONS: dict[str, Combination] = {"add": Added(), "concat": Concatenated()}  # their names in build specs


class TargetAttention(ScoringHead):
    """The session vector depends on the candidate: ``score_v = (s + Σ_l β_l h_l) · v``, ``β = softmax_l(v · W h_l)``.

    Args:
        combine: ``Added()`` or ``Concatenated()``.

    Shapes: states ``[E, D]``, candidates ``[C, D]`` -> ``[S, C]``.
    Source: TAGNN (Yu et al. 2020) eqs 6–10. Differs: β excludes padding (the public code includes it, so that scores
    depend on the batch).
    """

    bias = False
    reads_only_readout = False  # the candidates attend to the states of the clicks
    no_products = "its session vector differs by candidate, so there is no one query to multiply"

    def __init__(self, readout: nn.Module, project: nn.Module, *, width: int, combine: Combination = Added()) -> None:
        super().__init__()
        if not isinstance(combine, Combination):
            raise InputError(f"combine={combine!r} must be Added() or Concatenated()")
        self.readout, self.project = readout, project
        self.attend = nn.Linear(width, width, bias=False)  # a bias would cancel in the softmax
        self.mix = combine.mix(width)

    def read(self, states: Tensor, batch: HeteroData) -> AttentionInputs:
        """Query, keys and values of the samples."""
        query = self.project(self.readout(states, batch))
        states, ptr, count = distinct_states(states, batch)
        return AttentionInputs(query, self.attend(states), self.mix(states), ptr, count)

    def forward(self, states: Tensor, batch: HeteroData, candidates: Tensor) -> Tensor:
        """Scores of all candidates for all samples."""
        inputs = self.read(states, batch)
        if torch.is_grad_enabled() or _plain(batch, candidates):
            return attended_scores(inputs, candidates)
        return attended_scores_in_blocks(inputs, candidates)

    def cross_entropy(self, states: Tensor, batch: HeteroData, candidates: Tensor) -> Tensor:
        """``cross_entropy(scores, target)`` of the real samples, computed in blocks of candidates."""
        return self.cross_entropy_over(states, batch, candidates, batch["sample"].target.clamp(min=0))

    def cross_entropy_over(
        self, states: Tensor, batch: HeteroData, candidates: Tensor, target: Tensor, bias: Tensor | None = None
    ) -> Tensor:
        """See :class:`~graphmeta.protocols.CandidateLoss`."""
        inputs = self.read(states, batch)
        # within an adaptation, samples are not sorted by length
        if _plain(batch, candidates) or (batch.rows and needs_sync(target)):
            scores = _with_bias(attended_scores(inputs, candidates), target, bias)
            losses = F.cross_entropy(scores, target, reduction="none")
        else:
            losses = attended_cross_entropy(inputs, candidates, target, bias)
        return real_samples(batch, losses)


def _plain(batch: HeteroData, candidates: Tensor) -> bool:
    """Whether blocks of candidates do not apply: each task has a table of its own, or some sample has no click."""
    return type(candidates) not in (Tensor, nn.Parameter) or "has_events" in batch["sample"]


class AttentionInputs(NamedTuple):
    """Query, keys and values of samples: row l of sample s is attended ``count[l]`` times.

    Shapes: query ``[S, D]``; keys, values ``[E, D]``, by sample, at least one each for the functions in blocks;
    ptr ``[S + 1]``; count ``[E]``.
    """

    query: Tensor
    keys: Tensor
    values: Tensor
    ptr: Tensor
    count: Tensor


def distinct_states(states: Tensor, batch: HeteroData) -> tuple[Tensor, Tensor, Tensor]:
    """Merge clicks of a sample on the same item into one row, if their states are equal, as from graph encoders.

    Returns states ``[E', D]``, ptr ``[S + 1]`` and clicks per row ``[E']``. Each click of a row gets its share of the
    gradient, so the result is the same with less work: a sixth of Diginetica's clicks are repeats.
    """
    batch = clicked_items(batch)
    item, rows = batch["event"].item, batch["item"].num_nodes
    if rows < len(item) and "real" not in batch["sample"]:
        some = torch.zeros(rows, dtype=torch.long, device=item.device).scatter(
            0, item, torch.arange(len(item), device=item.device)
        )
        if torch.equal(states[some][item], states):
            count = item.bincount(minlength=rows)
            total = states.new_zeros(rows, states.shape[1]).index_add(0, item, states)
            sizes = batch["item"].batch.bincount(minlength=batch["sample"].num_nodes)
            return total / count[:, None], F.pad(sizes.cumsum(0), (1, 0)), count
    return states, batch["sample"].ptr, torch.ones_like(item)


def attended_scores(inputs: AttentionInputs, candidates: Tensor) -> Tensor:
    """The formula as written, ``[S, C]``; differentiable any number of times, for any type of candidates."""
    base, logit, value = (F.linear(part, candidates) for part in inputs[:3])
    owner = torch.repeat_interleave(inputs.ptr.diff(), output_size=len(inputs.keys))
    share = inputs.count.to(logit.dtype).log()[:, None]
    weight = softmax_of(logit + share, owner, len(base))
    return base + torch.zeros_like(base).index_add(0, owner, weight * value)


def attended_scores_in_blocks(inputs: AttentionInputs, candidates: Tensor) -> Tensor:
    """:func:`attended_scores` in blocks of candidates, not differentiable."""
    if has_torch_function_unary(candidates):  # one operation for a mode that follows operations
        return handle_torch_function(attended_scores_in_blocks, (candidates,), inputs, candidates)
    with torch.autocast(candidates.device.type, enabled=False):
        return _Columns(_as_precise(inputs, candidates)).scores(candidates)


def attended_cross_entropy(
    inputs: AttentionInputs, candidates: Tensor, target: Tensor, bias: Tensor | None = None
) -> Tensor:
    """``cross_entropy(attended_scores(…), target)`` per sample, ``[S]``, exact and differentiable any number of times.

    Memory is two numbers per click and candidate; under ``create_graph`` the gradient is computed by the plain formula.

    Args:
        bias: a constant added to each candidate's scores except where it is the target, ``[C]``.
    """
    if has_torch_function_unary(candidates):
        return handle_torch_function(attended_cross_entropy, (candidates,), inputs, candidates, target, bias)
    with torch.autocast(candidates.device.type, enabled=False):
        query, keys, values, *rows = _as_precise(inputs, candidates)
        return _AttendedCrossEntropy.apply(query, keys, values, rows, candidates, target, bias)


def _with_bias(scores: Tensor, target: Tensor, bias: Tensor | None) -> Tensor:
    """The scores plus the candidates' biases, except where the candidate is the target."""
    if bias is None:
        return scores
    own = scores.gather(1, target[:, None])
    return (scores + bias.to(scores.dtype)).scatter(1, target[:, None], own)


def _as_precise(inputs: AttentionInputs, candidates: Tensor) -> AttentionInputs:
    """Cast the inputs to the candidates' dtype, which layers under autocast do not keep."""
    query, keys, values = (part.to(candidates.dtype) for part in inputs[:3])
    return AttentionInputs(query, keys, values, inputs.ptr, inputs.count)


class _Columns:
    """Samples sorted by length, and the rows multiplied with the candidates: one per query, two per earlier click."""

    def __init__(self, inputs: AttentionInputs) -> None:
        query, keys, values, ptr, count = inputs
        lengths = ptr.diff()
        self.order = torch.argsort(lengths, stable=True)
        sizes, counts = torch.unique_consecutive(lengths[self.order], return_counts=True)
        self.groups = list(zip(sizes.tolist(), counts.tolist(), strict=True))
        lengths, first = lengths[self.order], ptr[:-1][self.order]
        begin = torch.repeat_interleave(first - lengths.cumsum(0) + lengths, lengths)
        self.click = begin + torch.arange(len(begin), device=begin.device)
        self.last = (first + lengths - 1).clamp(max=len(keys) - 1)
        own = torch.repeat_interleave(self.last, lengths)
        early = self.click != own
        self.early, self.its_last = self.click[early], own[early]
        base = query.index_select(0, self.order) + values.index_select(0, self.last)
        logit, value = (k.index_select(0, self.early) - k.index_select(0, self.its_last) for k in (keys, values))
        self.rows = torch.cat([base, logit, value])
        self.samples, self.clicks = len(base), len(logit)
        self.bias = None
        if bool((count > 1).any()):
            share = count.to(query.dtype).log()
            self.bias = (share[self.early] - share[self.its_last])[:, None]

    def split(self, block: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scores, logits and values of a block ``[samples + 2 clicks, …]``."""
        base, logit, value = block.split([self.samples, self.clicks, self.clicks])
        return base, logit, value

    def runs(self, block: Tensor) -> list[tuple[slice, Tensor, Tensor]]:
        """For each length above 1: its samples, and their logits and values as ``[n, length − 1, c]``."""
        _, logit, value = self.split(block)
        sample, click, out = 0, 0, []
        for length, count in self.groups:
            size = count * (length - 1)
            if size > 0:
                views = (part[click : click + size].unflatten(0, (count, length - 1)) for part in (logit, value))
                out.append((slice(sample, sample + count), *views))
            sample, click = sample + count, click + max(size, 0)
        return out

    def attend(self, block: Tensor) -> None:
        """Turn products with candidates into scores, attention weights and values, in place."""
        base, logits, _ = self.split(block)
        if self.bias is not None:
            logits.add_(self.bias)
        for rows, logit, value in self.runs(block):
            if logit.shape[1] == 1:
                logit.sigmoid_()
            else:
                top = logit.amax(1, keepdim=True).clamp_(min=0)
                logit.sub_(top).exp_()
                logit.div_(logit.sum(1, keepdim=True).add_(top.neg_().exp_()))
            base[rows].add_((logit * value).sum(1) if logit.shape[1] > 1 else (logit * value)[:, 0])

    def blocks(self, candidates: Tensor, targets: Tensor, bias: Tensor | None) -> tuple[list[Tensor], Tensor]:
        """Scores (with bias, except the targets'), attention weights and values per block of candidates, and the
        scores of the targets, ``[S]``.
        """
        blocks, own = [], self.rows.new_empty(self.samples)
        for number, (some, at) in enumerate(_tiles(candidates)):
            blocks.append(block := self.rows @ some.t())
            self.attend(block)
            hit, column = _targets_in(targets, number)
            scores = block[: self.samples]
            own[hit] = scores[hit, column]
            if bias is not None:
                scores.add_(bias[at])
                scores[hit, column] = own[hit]
        return blocks, own

    def scores(self, candidates: Tensor) -> Tensor:
        """``[S, C]`` in the original order of the samples."""
        out = self.rows.new_empty(self.samples, len(candidates))
        for some, at in _tiles(candidates):
            block = self.rows @ some.t()
            self.attend(block)
            out[:, at] = block[: self.samples]
        return out.index_select(0, torch.argsort(self.order))


def _targets_in(targets: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """The samples whose target is in a block, and its column there."""
    hit = torch.nonzero(targets // _COLUMNS == number).squeeze(1)
    return hit, targets[hit] % _COLUMNS


def _tiles(candidates: Tensor) -> list[tuple[Tensor, slice]]:
    cuts = [slice(at, at + _COLUMNS) for at in range(0, len(candidates), _COLUMNS)]
    return [(candidates[cut], cut) for cut in cuts]


class _AttendedCrossEntropy(Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        rows: list[Tensor],
        candidates: Tensor,
        target: Tensor,
        bias: Tensor | None,
    ) -> Tensor:
        """The losses; ``rows`` are ptr and count of the :class:`AttentionInputs`."""
        inputs = AttentionInputs(query, keys, values, *rows)
        columns = _Columns(inputs)
        targets = target.index_select(0, columns.order)
        bias = None if bias is None else bias.to(query.dtype)
        blocks, own = columns.blocks(candidates, targets, bias)
        scores = [block[: columns.samples] for block in blocks]
        top = torch.stack([part.amax(1) for part in scores]).amax(0)
        total = torch.stack([(part - top[:, None]).exp_().sum(1) for part in scores]).sum(0)
        ctx.columns, ctx.blocks, ctx.targets, ctx.normaliser = columns, blocks, targets, top + total.log()
        ctx.save_for_backward(*inputs, candidates, target, bias)
        return (ctx.normaliser - own).index_select(0, torch.argsort(columns.order))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        with torch.autocast(grad.device.type, enabled=False):
            return _AttendedCrossEntropy._backward(ctx, grad)

    @staticmethod
    def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        *parts, candidates, target, bias = ctx.saved_tensors
        inputs = AttentionInputs(*parts)
        if torch.is_grad_enabled():
            # Aliases cut the graph: the query depends on states and these on items, and no gradient may flow further
            # here.
            query, keys, values, items = aliases = [part.view_as(part) for part in (*inputs[:3], candidates)]
            scores = attended_scores(AttentionInputs(query, keys, values, inputs.ptr, inputs.count), items)
            scores = _with_bias(scores, target, bias)
            losses = F.cross_entropy(scores, target, reduction="none")
            *to_reading, to_candidates = torch.autograd.grad(losses, aliases, grad, create_graph=True)
            return (*to_reading, None, to_candidates, None, None)
        to_rows, to_candidates = _products(ctx, candidates, bias, grad.index_select(0, ctx.columns.order))
        return (*_to_parts(ctx.columns, to_rows, inputs), None, to_candidates, None, None)


def _products(ctx: Any, candidates: Tensor, bias: Tensor | None, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of ``columns.rows`` and of the candidates; consumes the saved blocks."""
    columns, blocks = ctx.columns, ctx.blocks or ctx.columns.blocks(candidates, ctx.targets, bias)[0]
    ctx.blocks = None  # a second backward pass recomputes them
    to_rows, to_candidates = torch.zeros_like(columns.rows), torch.empty_like(candidates)
    scale = grad[:, None]
    for number, (some, at) in enumerate(_tiles(candidates)):
        block = blocks.pop(0)
        base = block[: columns.samples]
        attended = [(logit, value, rows, (logit * value).sum(1)) for rows, logit, value in columns.runs(block)]
        base.sub_(ctx.normaliser[:, None]).exp_().mul_(scale)
        hit, column = _targets_in(ctx.targets, number)
        base[hit, column] -= grad[hit]
        for weight, value, rows, mean in attended:
            gradient = base[rows][:, None, :]
            value.sub_(mean[:, None, :])  # value := d logit, weight := d value, for now
            weight.mul_(gradient)
            value.mul_(weight)
        _swap(columns, to_rows, block @ some)
        base_rows, logit_rows, value_rows = columns.split(columns.rows)
        torch.mm(block.t(), torch.cat([base_rows, value_rows, logit_rows]), out=to_candidates[at])
    return to_rows, to_candidates


def _swap(columns: _Columns, total: Tensor, found: Tensor) -> None:
    """Add products whose logit and value rows are swapped."""
    base, value, logit = columns.split(found)
    for own, new in zip(columns.split(total), (base, logit, value), strict=True):
        own.add_(new)


def _to_parts(columns: _Columns, to_rows: Tensor, inputs: AttentionInputs) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, keys and values from those of the rows built from them."""
    base, logit, value = columns.split(to_rows)
    to_query = torch.empty_like(inputs.query).index_copy_(0, columns.order, base)
    to_keys = torch.zeros_like(inputs.keys).index_copy_(0, columns.early, logit).index_add_(0, columns.its_last, -logit)
    to_values = (
        torch.zeros_like(inputs.keys).index_copy_(0, columns.early, value).index_add_(0, columns.its_last, -value)
    )
    return to_query, to_keys, to_values.index_add_(0, columns.last, base)
