"""Heads that score by inner products: ``(states [E, D], batch, candidates [C, D']) -> [S, C]``."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from graphmeta.nn.catalogue_softmax import ScoreTerm, plus, products_at, score_cross_entropy
from graphmeta.nn.heads.scoring import ScoringHead, with_item_bias
from graphmeta.protocols import ReadsOnlyUsers
from graphmeta.sampling.session_batch import real_samples


class Products(ScoringHead):
    """Scores by inner products of query and candidate vectors, plus additive score terms and an item bias.

    A subclass computes the query vectors.

    Args:
        scale: σ, a constant, unless :meth:`learn_temperature` makes it a parameter.
        score_terms: additive score terms by name, modules ``(batch, product) -> (row, column, value)``, e.g. for a
            session's own items (:class:`~graphmeta.nn.score_terms.repeat.RepeatBias`) or for co-occurring items
            (:class:`~graphmeta.nn.score_terms.cooccurrence.Cooccurrence`). ``product(row, column)`` returns the scores
            before any term is added.

    Shapes: states ``[E, D]``, candidates ``[C, D']`` -> ``[S, C]``.
    """

    def __init__(self, *, scale: float = 1.0, score_terms: Mapping[str, nn.Module] | None = None) -> None:
        super().__init__()
        self.score_terms = nn.ModuleDict(dict(score_terms or {}))
        self.scale: float | nn.Parameter = scale
        self.item_bias: nn.Parameter | None = None

    def add_item_bias(self, num_items: int) -> None:
        """Add a parameter ``item_bias [C]``, zero at first, to the scores; a task may adapt it alone."""
        self.item_bias = nn.Parameter(torch.zeros(num_items))

    def learn_temperature(self) -> None:
        """Make σ (the inverse softmax temperature) a trained parameter: the products' weight beside the score terms."""
        if isinstance(self.scale, nn.Parameter):
            self.scale.requires_grad_(True)
        else:
            self.scale = nn.Parameter(torch.full((1,), float(self.scale)))

    def query(self, states: Tensor, batch: HeteroData) -> Tensor:
        """The query vectors ``[S, D']``, times σ."""
        raise NotImplementedError

    def vectors(self, candidates: Tensor) -> Tensor:
        """The candidate vectors that the query is multiplied with; here unchanged."""
        return candidates

    def extra(self, batch: HeteroData, query: Tensor, vectors: Tensor) -> ScoreTerm | None:
        """The sum of all additive score terms, in sparse form; None without terms."""

        def product(row: Tensor, column: Tensor) -> Tensor:
            return products_at(query, vectors, row, column)

        terms = [extra(batch, product) for extra in self.score_terms.values()]
        if len(terms) < 2:
            return terms[0] if terms else None
        row, column, value = (torch.cat(parts) for parts in zip(*terms, strict=True))
        return row, column, value

    def of_items(self, states: Tensor, batch: HeteroData, candidates: Tensor, items: Tensor) -> Tensor:
        """Products with chosen candidates, with item biases and without score terms: items ``[S, N]`` -> ``[S, N]``."""
        chosen = self.vectors(F.embedding(items, candidates))
        query, chosen = with_item_bias(self, self.query(states, batch), (chosen, items))
        return torch.matmul(chosen, query[:, :, None])[..., 0]

    def product_form(
        self, states: Tensor, batch: HeteroData, candidates: Tensor
    ) -> tuple[Tensor, Tensor, ScoreTerm | None]:
        """Query vectors ``[S, D']``, candidate vectors ``[C, D']`` and score terms, whose sum with the item bias are
        the scores.
        """
        query, vectors = self.query(states, batch), self.vectors(candidates)
        return query, vectors, self.extra(batch, query, vectors)

    def forward(self, states: Tensor, batch: HeteroData, candidates: Tensor) -> Tensor:
        """Scores of all candidates for all samples."""
        query, vectors, extra = self.product_form(states, batch, candidates)
        scores = plus(F.linear(query, vectors), extra)
        return scores if self.item_bias is None else scores + self.item_bias

    def cross_entropy(self, states: Tensor, batch: HeteroData, candidates: Tensor) -> Tensor:
        """``cross_entropy(scores, target)`` of the real samples."""
        if self.item_bias is not None:
            scores = real_samples(batch, self(states, batch, candidates))
            return F.cross_entropy(scores, real_samples(batch, batch["sample"].target), reduction="none")
        sample, (query, vectors, extra) = batch["sample"], self.product_form(states, batch, candidates)
        return score_cross_entropy(query, vectors, sample.target, real=sample.get("real"), extra=extra)


class Dot(Products):
    """Score = inner product of the sample's query vector with the candidate: ``σ project(readout(h)) · e_i``.

    With ``bias``, the candidate's last column is an additive item bias: ``[query ; 1] · [e_i ; b_i]``. After
    :meth:`add_item_bias`, the head has a bias of its own, ``+ item_bias_i``.

    Args:
        scale, score_terms: see :class:`Products`.

    Shapes: states ``[E, D]``, candidates ``[C, D']`` -> ``[S, C]``.
    """

    reads_only_readout = True

    def __init__(
        self,
        readout: nn.Module,
        project: nn.Module | None = None,
        *,
        bias: bool = False,
        scale: float = 1.0,
        score_terms: Mapping[str, nn.Module] | None = None,
    ) -> None:
        super().__init__(scale=scale, score_terms=score_terms)
        self.readout, self.project = readout, nn.Identity() if project is None else project
        self.bias = bias
        self.zero_without_clicks = False

    def ignore_empty_sessions(self) -> None:
        """From now on the query of a sample without clicks is 0, and so are its products, for a model that was trained
        on sessions with clicks only: its readout of nothing is arbitrary. Score terms and biases remain. A readout of
        users alone reads no clicks, and remains too.
        """
        self.zero_without_clicks = not isinstance(self.readout, ReadsOnlyUsers)

    def query(self, states: Tensor, batch: HeteroData) -> Tensor:
        """The query vectors ``[S, D']``."""
        query = self.of_clicks(self.directed(self.project(self.readout(states, batch))) * self.scale, batch)
        return F.pad(query, (0, 1), value=1.0) if self.bias else query

    def of_clicks(self, vectors: Tensor, batch: HeteroData) -> Tensor:
        """What is computed from the clicks ``[S, …]``, zero for samples without any, if these are ignored."""
        known = batch["sample"].get("has_events") if self.zero_without_clicks else None
        return vectors if known is None else torch.where(known[:, None], vectors, 0.0)

    def directed(self, query: Tensor) -> Tensor:
        """The query vectors before scaling by σ; here unchanged."""
        return query

    def column_parts(self) -> dict[str, slice]:
        """What the columns of query and candidate vectors stand for: ``product``, ``item bias``."""
        return {"product": slice(0, -1), "item bias": slice(-1, None)} if self.bias else {"product": slice(None)}


class Cosine(Dot):
    """Score = scaled cosine of the sample's query vector and the candidate: ``σ cos(project(readout(h)), e_i)``.

    Candidate norms do not affect the ranking, whereas inner products favour popular items, whose norms are large.
    Scores lie within ±σ, which bounds the sharpness of the softmax. Candidates are normalised once per step. With the
    item table in an adaptation's scope, each task normalises its own table, for all tasks at once; only if items are
    sums of rows (:class:`~graphmeta.nn.features.attribute_sum.AttributeComposed`) do tasks adapt one by one.

    Args:
        scale: σ.
        score_terms: as in :class:`Dot`.

    Shapes: states ``[E, D]``, candidates ``[C, D']`` -> ``[S, C]``.
    Source: NISER (Gupta et al. 2019).
    """

    def __init__(
        self,
        readout: nn.Module,
        project: nn.Module | None = None,
        *,
        scale: float = 12.0,
        score_terms: Mapping[str, nn.Module] | None = None,
    ) -> None:
        super().__init__(readout, project, scale=scale, score_terms=score_terms)

    def directed(self, query: Tensor) -> Tensor:
        """The normalised query vectors; their products with normalised candidates are cosines."""
        return F.normalize(query)

    def vectors(self, candidates: Tensor) -> Tensor:
        """The normalised candidates: ``[…, D'] -> […, D']``."""
        return F.normalize(candidates, dim=-1)
