"""Ensemble: several recommenders side by side, whose scores are averaged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from graphmeta.errors import InputError
from graphmeta.nn.heads.dot import Products
from graphmeta.protocols import IgnoresEmptySessions, ProductHead
from graphmeta.recommender import Encoded, Recommender


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
        score_terms: see :class:`~graphmeta.nn.heads.dot.Products`; they may ask for products, which are the means.

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


class _Member(Products):
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


class Ensemble(Recommender):
    """Recommenders that score by products, side by side on the same batch; their scores are averaged.

    Each member is trained by its own loss, with the ensemble's score terms added to its scores, so that its errors
    differ from the others'. Once the head's temperature is learned (re-ranking), the loss is that of the mean.

    Args:
        members: recommenders whose heads score by products (:class:`~graphmeta.protocols.ProductHead`).
        states: size of the states of each member's encoder.
    """

    def __init__(self, members: Sequence[Recommender], states: Sequence[int]) -> None:
        nothing = torch.zeros(0, dtype=torch.int64)
        with torch.no_grad():
            inputs, candidates = zip(*(tuple(t.shape[1] for t in m.features(nothing)) for m in members), strict=True)
        heads = cast(list[ProductHead], [member.head for member in members])
        super().__init__(
            EnsembleFeatures(member.features for member in members),
            EnsembleEncoder((member.encoder for member in members), inputs),
            EnsembleHead(heads, states=states, candidates=candidates),
        )

    @property
    def members(self) -> list[Recommender]:
        """Recommenders that share the members' parts."""
        parts = (cast(Any, part).members for part in (self.features, self.encoder, self.head))
        return [Recommender(*three) for three in zip(*parts, strict=True)]

    @torch.no_grad()
    def load_members(self, others: Sequence[Recommender]) -> None:
        """Copy the weights and statistics of trained recommenders, one for each member.

        The ensemble's score terms get the mean weights of theirs of the same name; for one that is linear in its
        weights, such as :class:`~graphmeta.nn.score_terms.repeat.RepeatBias`, that is the mean of their scores.

        Raises:
            InputError: another number of recommenders, or one with nothing to copy.
        """
        if len(others) != len(self.members):
            raise InputError(f"the ensemble has {len(self.members)} members, not {len(others)}; pass one for each")
        for member, other in zip(self.members, others, strict=True):
            member.load_matching(other)
        head = cast(EnsembleHead, self.head)
        for name, weight in head.score_terms.named_parameters():
            same = [dict(other.named_parameters()).get(f"head.score_terms.{name}") for other in others]
            known = [one for one in same if one is not None]
            if known:
                weight.copy_(torch.stack(known).mean(0))

    def forward(self, batch: HeteroData, loss: nn.Module | None = None, encoded: Encoded | None = None) -> Tensor:
        """Scores of the real samples ``[S, C]``, or with ``loss`` their losses ``[S]``: see
        :attr:`EnsembleHead.trained_jointly`.
        """
        head = self.head
        assert isinstance(head, EnsembleHead)
        if loss is None or head.trained_jointly:
            return super().forward(batch, loss, encoded)
        if encoded is None:  # without the tables in one matrix, whose gradient would be dense
            parts = [member.encode(batch) for member in self.members]
        else:
            states, candidates = encoded
            parts = list(zip(states.split(head.states, 1), candidates.split(head.candidates, 1), strict=True))
        members = (_Member(one, head) for one in head.heads)
        losses = [loss(one, *own) for one, own in zip(members, ((s, batch, c) for s, c in parts), strict=True)]
        return torch.stack(losses).mean(0)
