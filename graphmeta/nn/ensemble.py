"""Parts of an ensemble: several features, encoders and heads side by side, whose scores are averaged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from graphmeta.nn.heads.dot import Products
from graphmeta.protocols import IgnoresEmptySessions, ProductHead


class EnsembleFeatures(nn.Module):
    """The members' features, one beside the other: ``n_id [I] -> (x [I, ΣF_k], candidates [C, ΣD_k])``."""

    def __init__(self, members: Iterable[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, n_id: Tensor) -> tuple[Tensor, Tensor]:
        """The encoders' inputs, and the candidates of all heads."""
        x, candidates = zip(*(member(n_id) for member in self.members), strict=True)
        return torch.cat(x, 1), torch.cat(candidates, 1)


class EnsembleEncoder(nn.Module):
    """The members' encoders, each on its own columns: ``x [I, ΣF_k] -> states [E, ΣH_k]``.

    Args:
        sizes: F_k.
    """

    def __init__(self, members: Iterable[nn.Module], sizes: Sequence[int]) -> None:
        super().__init__()
        self.members, self.sizes = nn.ModuleList(members), tuple(sizes)

    def forward(self, x: Tensor, batch: HeteroData) -> Tensor:
        """States of the clicks."""
        parts = zip(self.members, x.split(self.sizes, 1), strict=True)
        return torch.cat([member(part, batch) for member, part in parts], 1)


class EnsembleHead(Products):
    """Score = mean of the members' products: ``σ/K Σ_k q_k · e_ki``, plus additive score terms.

    It is one product, of the concatenated query vectors with the concatenated candidates. The members' own score terms
    are not read.

    Args:
        members: heads that score by products.
        states, candidates: sizes H_k and D_k of their inputs.
        score_terms: see :class:`~graphmeta.nn.heads.dot.Products`; products that they read are the means.

    Shapes: states ``[E, ΣH_k]``, candidates ``[C, ΣD_k]`` -> ``[S, C]``.
    """

    def __init__(
        self,
        members: Iterable[ProductHead],
        *,
        states: Sequence[int],
        candidates: Sequence[int],
        score_terms: Mapping[str, nn.Module] | None = None,
    ) -> None:
        super().__init__(scale=1.0, score_terms=score_terms)
        self.members = nn.ModuleList(cast(Iterable[Any], members))
        self.states, self.candidates = tuple(states), tuple(candidates)

    @property
    def heads(self) -> list[ProductHead]:
        """The members."""
        return cast(list[ProductHead], list(self.members))

    @property
    def trained_jointly(self) -> bool:
        """Whether training minimises the loss of the mean scores, as it does with a trained temperature
        (:meth:`learn_temperature`), or the mean of the members' losses.
        """
        return isinstance(self.scale, nn.Parameter)

    def ignore_empty_sessions(self) -> None:
        """See :meth:`graphmeta.nn.heads.dot.Dot.ignore_empty_sessions`."""
        for head in self.heads:
            if isinstance(head, IgnoresEmptySessions):
                head.ignore_empty_sessions()

    def query(self, states: Tensor, batch: HeteroData) -> Tensor:
        """The query vectors ``[S, ΣD_k]``."""
        parts = zip(self.heads, states.split(self.states, 1), strict=True)
        return torch.cat([head.query(part, batch) for head, part in parts], 1) * (self.scale / len(self.members))

    def vectors(self, candidates: Tensor) -> Tensor:
        """The candidate vectors ``[…, ΣD_k]``."""
        parts = zip(self.heads, candidates.split(self.candidates, -1), strict=True)
        return torch.cat([head.vectors(part) for head, part in parts], -1)


class MemberScores(Products):
    """A member's products with the score terms and the item bias of the ensemble."""

    def __init__(self, head: ProductHead, whole: EnsembleHead) -> None:
        super().__init__()
        self.head, self.score_terms, self.item_bias = head, whole.score_terms, whole.item_bias

    def query(self, states: Tensor, batch: HeteroData) -> Tensor:
        """The query vectors of the member."""
        return self.head.query(states, batch)

    def vectors(self, candidates: Tensor) -> Tensor:
        """The candidate vectors of the member."""
        return self.head.vectors(candidates)
