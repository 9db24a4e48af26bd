"""From the states of clicks to scores of candidates: ``(states [E, D], batch, candidates [C, D']) -> [S, C]``."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from graphmeta.nn.catalogue_softmax import ScoreTerm, plus, products_at, score_cross_entropy


class Dot(nn.Module):
    """Score = inner product of the sample's query vector with the candidate: ``σ project(readout(h)) · e_i``.

    With ``bias``, the candidate's last column is a number added to its score: ``[query ; 1] · [e_i ; b_i]``.

    Args:
        scale: σ, a constant, unless :meth:`learn_temperature` makes it a parameter.
        score_terms: modules ``(batch, product) -> (row, column, value)`` by name, of what is added to single scores:
            for a session's own items (:class:`~graphmeta.nn.score_terms.repeat.RepeatBias`), for what shares sessions
            with them (:class:`~graphmeta.nn.score_terms.cooccurrence.Cooccurrence`). ``product(row, column)`` are the
            scores there before.

    Shapes: states ``[E, D]``, candidates ``[C, D']`` -> ``[S, C]``.
    """

    def __init__(
        self,
        readout: nn.Module,
        project: nn.Module | None = None,
        *,
        bias: bool = False,
        scale: float = 1.0,
        score_terms: Mapping[str, nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.readout, self.project = readout, nn.Identity() if project is None else project
        self.bias, self.score_terms = bias, nn.ModuleDict(dict(score_terms or {}))
        self.scale: float | nn.Parameter = scale

    def learn_temperature(self) -> None:
        """Make σ a parameter, if it is none yet: the weight of the products beside what is added to them."""
        if not isinstance(self.scale, nn.Parameter):
            self.scale = nn.Parameter(torch.full((1,), float(self.scale)))

    def query(self, states: Tensor, batch: HeteroData) -> Tensor:
        """The query vectors ``[S, D']``."""
        query = self.directed(self.project(self.readout(states, batch))) * self.scale
        return F.pad(query, (0, 1), value=1.0) if self.bias else query

    def directed(self, query: Tensor) -> Tensor:
        """What σ scales: the query vectors as they are."""
        return query

    def vectors(self, candidates: Tensor) -> Tensor:
        """What the query is multiplied with: the candidates as they are."""
        return candidates

    def extra(self, batch: HeteroData, query: Tensor, vectors: Tensor) -> ScoreTerm | None:
        """What is added to single scores."""

        def product(row: Tensor, column: Tensor) -> Tensor:
            return products_at(query, vectors, row, column)

        added = [extra(batch, product) for extra in self.score_terms.values()]
        if len(added) < 2:
            return added[0] if added else None
        row, column, value = (torch.cat(parts) for parts in zip(*added, strict=True))
        return row, column, value

    def forward(self, states: Tensor, batch: HeteroData, candidates: Tensor) -> Tensor:
        """Scores of all candidates for all samples."""
        query, vectors = self.query(states, batch), self.vectors(candidates)
        extra = self.extra(batch, query, vectors)
        return plus(F.linear(query, vectors), extra)

    def cross_entropy(self, states: Tensor, batch: HeteroData, candidates: Tensor) -> Tensor:
        """``cross_entropy(scores, target)`` of the real samples."""
        sample, query, vectors = batch["sample"], self.query(states, batch), self.vectors(candidates)
        extra = self.extra(batch, query, vectors)
        return score_cross_entropy(query, vectors, sample.target, real=sample.get("real"), extra=extra)


class Cosine(Dot):
    """Score = scaled cosine of the sample's query vector and the candidate: ``σ cos(project(readout(h)), e_i)``.

    No candidate can win by the length of its vector, as popular ones do under an inner product. Scores lie within
    ±σ, so the softmax stays as flat as σ makes it. Candidates are divided by their lengths once a step. With the
    item table in an adaptation's scope each task divides by lengths of its own, all tasks at once; only where items
    are sums of rows (:class:`~graphmeta.nn.features.attribute_sum.AttributeComposed`) do tasks adapt one by one then.

    Args:
        scale: σ; score_terms: as :class:`Dot` has them.

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
        """Unit vectors; their products with the candidates' are cosines."""
        return F.normalize(query)

    def vectors(self, candidates: Tensor) -> Tensor:
        """The candidates, each divided by its length: ``[…, D'] -> […, D']``."""
        return F.normalize(candidates, dim=-1)
