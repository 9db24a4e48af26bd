"""Losses per sample: ``(head, states, batch, candidates) -> [number of real samples]``."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from graphmeta.errors import InputError
from graphmeta.nn.heads.scoring import named, with_item_bias
from graphmeta.nn.readout import readout_of
from graphmeta.nn.sharing import with_shared_weights
from graphmeta.protocols import CatalogueLoss, ProductHead, ReadsLastClick, ScoresCatalogue
from graphmeta.sampling.samples import Samples
from graphmeta.sampling.session_batch import real_samples, session_batch


class SoftmaxLoss(nn.Module):
    """Cross-entropy of the target against the whole catalogue: ``−log softmax(scores)_target``.

    Uses the head's own ``cross_entropy`` if it has one (:class:`~graphmeta.nn.heads.dot.Dot`,
    :class:`~graphmeta.nn.heads.target_attention.TargetAttention`), which need not store all scores.

    Shapes: returns one loss for each real sample, in order, ``[S]``.
    """

    scores_catalogue = True

    def forward(self, head: nn.Module, states: Tensor, batch: HeteroData, candidates: Tensor) -> Tensor:
        """The losses."""
        if isinstance(head, CatalogueLoss):
            return head.cross_entropy(states, batch, candidates)
        scores = real_samples(batch, head(states, batch, candidates))
        return F.cross_entropy(scores, real_samples(batch, batch["sample"].target), reduction="none")


class RankingLoss(nn.Module):
    """Compare the target's score with those of sampled negatives, both with their score terms.

    Args:
        comparison: ``(target's score [S], others' [S, N], valid negatives [S, N]) -> [S]``, see
            :mod:`graphmeta.nn.losses.pairwise`.
        negatives: the sampler, see :mod:`graphmeta.nn.losses.negatives`.

    Shapes: returns one loss for each real sample, ``[S]``. The head must be a
    :class:`~graphmeta.protocols.ProductHead`.
    """

    def __init__(self, comparison: Callable[[Tensor, Tensor, Tensor], Tensor], negatives: nn.Module) -> None:
        super().__init__()
        self.comparison, self.negatives = comparison, negatives

    def extra_repr(self) -> str:
        """The comparison."""
        return f"comparison={self.comparison}"

    def forward(self, head: nn.Module, states: Tensor, batch: HeteroData, candidates: Tensor) -> Tensor:
        """The losses."""
        if not isinstance(head, ProductHead):
            raise InputError(
                f"a loss on sampled items needs a head that scores by products, not {named(head)}; use SoftmaxLoss()"
            )
        every = head.query(states, batch)
        query = real_samples(batch, every)
        target = real_samples(batch, batch["sample"].target)
        user = batch["sample"].get("user")
        items, counts = self.negatives(target, None if user is None else real_samples(batch, user), len(candidates))
        other, own = (head.vectors(F.embedding(rows, candidates)) for rows in (items, target))
        query, other, own = with_item_bias(head, query, (other, items), (own, target))
        scores = query @ other.t() if items.dim() == 1 else torch.matmul(other, query[:, :, None]).squeeze(2)
        own = (query * own).sum(1)
        if len(head.score_terms) and (extra := head.extra(batch, every, head.vectors(candidates))) is not None:
            chosen = torch.cat([target[:, None], items.expand(len(target), -1)], 1)
            terms = terms_at(extra, real_samples(batch, torch.arange(len(every), device=target.device)), chosen)
            own, scores = own + terms[:, 0], scores + terms[:, 1:]
        return self.comparison(own, scores, counts)


def terms_at(extra: tuple[Tensor, Tensor, Tensor], row: Tensor, item: Tensor) -> Tensor:
    """Sums of sparse score terms (rows, columns, values) for chosen items: ``[S]``, ``[S, N]`` -> ``[S, N]``.

    A pair (row, item) is one number ``row · C + item``; the terms of equal numbers are added, then looked up.
    """
    rows, columns, values = extra
    if len(values) == 0:
        return values.new_zeros(item.shape)
    size = torch.maximum(columns.max(), item.max()) + 1
    pairs, place = torch.unique(rows * size + columns, return_inverse=True)
    total = values.new_zeros(len(pairs)).index_add(0, place, values)
    wanted = row[:, None] * size + item
    at = torch.searchsorted(pairs, wanted).clamp(max=len(pairs) - 1)
    return torch.where(pairs[at] == wanted, total[at], 0.0)


class AllPositions(nn.Module):
    """Apply ``loss`` at all positions of a session (autoregressive training), so that one pass trains all its prefixes.

    For causal encoders only (recurrent, causal convolution): the state of a click is then the state of the prefix that
    ends there. The head's readout must be :class:`~graphmeta.nn.readout.Last`.

    Args:
        ahead: number of following clicks that are targets of a click.

    Shapes: returns one loss for each click and known target.
    """

    def __init__(self, loss: nn.Module, *, ahead: int = 1) -> None:
        super().__init__()
        self.loss, self.ahead = loss, ahead

    def with_loss(self, loss: nn.Module) -> AllPositions:
        """``loss`` at the same positions."""
        return AllPositions(loss, ahead=self.ahead)

    @property
    def scores_catalogue(self) -> bool:
        """Whether the loss at each position is over the whole catalogue."""
        return isinstance(self.loss, ScoresCatalogue) and self.loss.scores_catalogue

    def forward(self, head: nn.Module, states: Tensor, batch: HeteroData, candidates: Tensor) -> Tensor:
        """The losses."""
        if isinstance(head, ProductHead) and head.score_terms:
            raise InputError("score terms need one target per session; train on prefixes instead of all positions")
        readout = readout_of(head, "AllPositions")
        if not isinstance(readout, ReadsLastClick):
            raise InputError(
                f"AllPositions needs a head that reads the last click, not {type(readout).__name__}; use Last()"
            )
        views = [following(batch, step) for step in range(1, self.ahead + 1)]
        return torch.cat([self.loss(head, states, view, candidates) for view in views])

    @torch.no_grad()
    def check(self, recommender: nn.Module, samples: Samples, *, num_items: int) -> None:
        """Check that the encoder is causal: a click's state must not depend on later clicks.

        Raises:
            InputError: an encoder that looks ahead; its targets would leak into its states.
        """
        long = np.flatnonzero(samples.lengths >= 2)[:8]
        if len(long) == 0:
            return
        item, ptr = samples.take(long).flat()
        changed = item.copy()
        changed[ptr[1:] - 1] = (changed[ptr[1:] - 1] + 1) % num_items
        before = np.delete(np.arange(len(item)), ptr[1:] - 1)
        still = with_shared_weights(recommender).eval()
        states = [self._states(still, clicks, ptr, num_items) for clicks in (item, changed)]
        one, other = (part[torch.from_numpy(before)] for part in states)
        if not torch.allclose(one, other, rtol=1e-4, atol=1e-5):
            raise InputError(
                "AllPositions needs a causal encoder, and this one looks ahead: train on prefixes, without "
                "AllPositions and whole_sessions"
            )

    @staticmethod
    def _states(recommender: Any, item: np.ndarray, ptr: np.ndarray, num_items: int) -> Tensor:
        rows = np.arange(len(ptr) - 1)
        batch = session_batch(Samples(item, ptr[:-1], ptr[1:], np.full(len(rows), -1), rows), num_items=num_items)
        return recommender.encode(batch.to(next(recommender.parameters()).device))[0].cpu()


def following(batch: HeteroData, ahead: int = 1) -> HeteroData:
    """The batch with one sample per click whose ``ahead``-th successor is known; that successor is the target."""
    sample, event = batch["sample"], batch["event"]
    at = torch.arange(event.num_nodes, device=event.item.device) + ahead
    end = sample.ptr[1:].index_select(0, event.batch)
    clicked = batch["item"].n_id.index_select(0, event.item)
    inside = clicked.index_select(0, at.clamp(max=len(at) - 1))
    target = torch.where(at < end, inside, sample.target.index_select(0, event.batch))
    known = (at <= end) & (target >= 0)
    if "real" in sample:
        known &= torch.isin(event.batch, sample.real)
    rows = known.nonzero().squeeze(1)
    view = copy.copy(batch)
    for name in ("ptr", "real", "next_time"):
        if name in view["sample"]:
            del view["sample"][name]
    view["sample"].last, view["sample"].target = rows, target.index_select(0, rows)
    if "user" in sample:
        view["sample"].user = sample.user.index_select(0, event.batch.index_select(0, rows))
    view["sample"].num_nodes = len(rows)
    return view
