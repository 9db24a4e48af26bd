"""Softmax over candidates that a score term proposes for each sample."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from graphmeta.errors import InputError
from graphmeta.nn.catalogue_softmax import products_at
from graphmeta.nn.heads.scoring import named, with_item_bias
from graphmeta.protocols import ProductHead, ProposesCandidates
from graphmeta.sampling.session_batch import real_samples


class ProposedSoftmaxLoss(nn.Module):
    """``−s_t + log Σ_{j ∈ K} w_j exp(s_j)``, K and the weights w: proposed by one of the head's score terms.

    Scores include all score terms, so the loss is that of the full softmax if K is the whole catalogue; otherwise w of
    sampled candidates makes the sum an estimate of the catalogue's.

    Shapes: returns one loss for each real sample, ``[S]``. The head must be a
    :class:`~graphmeta.protocols.ProductHead` with one term that is a :class:`~graphmeta.protocols.ProposesCandidates`.
    Source: sampled softmax (Bengio & Senécal 2008; Jean et al. 2015) with candidates of each sample.
    """

    def forward(self, head: nn.Module, states: Tensor, batch: HeteroData, candidates: Tensor) -> Tensor:
        """The losses."""
        term = None
        if isinstance(head, ProductHead):
            term = next((one for one in head.score_terms.values() if isinstance(one, ProposesCandidates)), None)
        if term is None or not isinstance(head, ProductHead):
            raise InputError(
                f"a softmax over proposed candidates needs a score term that proposes some, not {named(head)}"
            )
        query, vectors, size = head.query(states, batch), head.vectors(candidates), len(candidates)
        target = batch["sample"].target.clamp(min=0)
        key, log_weight = term.proposed(batch, target)
        sample, item = key // size, key % size

        def product(row: Tensor, column: Tensor) -> Tensor:
            return products_at(query, vectors, row, column)

        biased, of_items = with_item_bias(head, query, (vectors, torch.arange(size, device=key.device)))
        score = products_at(biased, of_items, sample, item) + term.values_of(batch, key, product)
        for other in head.score_terms.values():
            if other is not term:
                row, column, value = other(batch, product)
                cell = row * size + column
                at = torch.searchsorted(key, cell).clamp(max=len(key) - 1)
                score = score.index_add(0, at, torch.where(key[at] == cell, value, 0.0).to(score.dtype))
        own = score.index_select(
            0, torch.searchsorted(key, torch.arange(len(target), device=key.device) * size + target)
        )
        logit = score + log_weight
        top = logit.detach().new_full((len(target),), -torch.inf).scatter_reduce(0, sample, logit.detach(), "amax")
        total = logit.new_zeros(len(target)).index_add(0, sample, (logit - top[sample]).exp())
        return real_samples(batch, total.log() + top - own)
