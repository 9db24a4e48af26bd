"""Recommender: features, an encoder and a head; maps session graphs to scores of all items."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from graphmeta.errors import InputError
from graphmeta.nn.ensemble import EnsembleEncoder, EnsembleFeatures, EnsembleHead, MemberScores
from graphmeta.nn.features.tables import item_table
from graphmeta.nn.readout import readout_of
from graphmeta.nn.sizes import counts
from graphmeta.protocols import AugmentedLayer, EncodesItems, ProductHead, ProjectedHead, ReadoutHead, ReadsOnlyUsers
from graphmeta.sampling.session_batch import real_samples

Encoded = tuple[Tensor, Tensor]


class Recommender(nn.Module):
    """A model of three parts, whose names are public API: scopes select parameters by ``features.``, ``encoder.`` and
    ``head.``.

    Args:
        features: ``n_id [I] -> (x [I, F], candidates [C, D])``.
        encoder: any module ``(x [I, F], batch) -> states [E, D]``, one state for each click.
        head: ``(states [E, D], batch, candidates [C, D]) -> scores [S, C]``.
    """

    def __init__(self, features: nn.Module, encoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.features, self.encoder, self.head = features, encoder, head

    def encode(self, batch: HeteroData) -> Encoded:
        """States of the clicks ``[E, D]`` and the candidates ``[C, D]``, the inputs of the head."""
        x, candidates = self.features(batch["item"].n_id)
        return self.encoder(x, batch), candidates

    def reads_only(self) -> ReadsOnlyUsers | None:
        """The part with the users' vectors, if scores depend only on the sample's user; None otherwise."""
        head = self.head
        if not isinstance(head, ReadoutHead) or (isinstance(head, ProductHead) and len(head.score_terms)):
            return None
        parts = (head.readout, self.encoder) if head.reads_only_readout else ()
        return next((part for part in parts if isinstance(part, ReadsOnlyUsers)), None)

    def head_names(self) -> set[str]:
        """Names of the parameters and buffers that :meth:`encode` does not read: those of the head alone."""
        inside = {id(t) for t in (*self.head.parameters(), *self.head.buffers())}
        outside = {id(t) for part in self.children() if part is not self.head for t in part.parameters()}
        named = (*self.named_parameters(), *self.named_buffers())
        return {name for name, tensor in named if id(tensor) in inside - outside}

    def forward(self, batch: HeteroData, loss: nn.Module | None = None, encoded: Encoded | None = None) -> Tensor:
        """Scores of the real samples ``[S, C]``, or with ``loss`` their losses ``[S]``.

        Args:
            encoded: the result of :meth:`encode` for this batch, if available.
        """
        states, candidates = self.encode(batch) if encoded is None else encoded
        if loss is not None:
            return loss(self.head, states, batch, candidates)
        return real_samples(batch, self.head(states, batch, candidates))

    @torch.no_grad()
    def load_matching(self, other: Recommender, *, frozen_only: bool = False) -> list[str]:
        """Copy weights, see :meth:`graphmeta.system.System.load_matching`, and statistics of the same shape.

        Raises:
            InputError: a weight that is larger in ``other``, or nothing to copy.
        """
        ours, theirs = self.state_dict(), other.state_dict()
        weights = dict(self.named_parameters())
        names = [n for n in ours if n in theirs and not (frozen_only and n in weights and weights[n].requires_grad)]
        names = [n for n in names if _fits(ours[n], theirs[n], n in weights)]
        larger = [n for n in names if any(a < b for a, b in zip(ours[n].shape, theirs[n].shape, strict=True))]
        if larger:
            own, there = (tuple(state[larger[0]].shape) for state in (ours, theirs))
            raise InputError(
                f"{larger[0]} is {there} in the other system and {own} here; build this one at least as wide"
            )
        if not names:
            kind = "the same name that are frozen here" if frozen_only else "the same name"
            raise InputError(f"the other system has no weights of {kind}, so there is nothing to copy")
        for name in names:
            block = tuple(slice(0, size) for size in theirs[name].shape)
            ours[name].zero_()[block] = theirs[name]  # block is () for a single number
        return names

    def summary(self, batch: HeteroData, encoded: Encoded | None = None) -> Tensor:
        """Mean input of the head's last layer per task, ``[T, D']``; see :class:`Summary`."""
        return self(batch, Summary(), encoded)


def _fits(own: Tensor, other: Tensor, learned: bool) -> bool:
    """Whether a tensor can be copied: a weight with the same number of dimensions, or a buffer of the same shape."""
    return own.dim() == other.dim() if learned else own.shape == other.shape


class ContextAugmented(Recommender):
    """A recommender whose head also reads each click's neighbours in the training graph: states ``[h ; n]``.

    Args:
        context: ``(n_id [I], table) -> n [I, N]``, see :class:`~graphmeta.nn.encoders.metapath.MetaPaths`; the table is
            that of the features' items.
    """

    def __init__(self, features: nn.Module, encoder: nn.Module, head: nn.Module, context: nn.Module) -> None:
        super().__init__(features, encoder, head)
        self.context = context

    def reads_only(self) -> None:
        """The head reads the neighbours too."""

    def encode(self, batch: HeteroData) -> Encoded:
        """States of the clicks ``[E, D + N]`` and the candidates."""
        states, candidates = super().encode(batch)
        neighbours = self.context(batch["item"].n_id, item_table(self.features))
        return torch.cat([states, neighbours.index_select(0, batch["event"].item)], 1), candidates


class SubgraphRecommender(Recommender):
    """A recommender whose head reads the states of all items of the sub-graph around a sample, not only of its clicks.

    Args:
        encoder: also ``of_items(x [I, F], batch) -> states [I, D]``, see :class:`~graphmeta.protocols.EncodesItems`.
        head: ``(states [I, D], batch, candidates [C, D']) -> scores [S, C]``.
    """

    def encode(self, batch: HeteroData) -> Encoded:
        """States of all items of the sub-graphs ``[I, D]`` and the candidates."""
        x, candidates = self.features(batch["item"].n_id)
        assert isinstance(self.encoder, EncodesItems)
        return self.encoder.of_items(x, batch), candidates


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
        members = self.members
        if len(others) != len(members):
            raise InputError(f"the ensemble has {len(members)} members, not {len(others)}; pass one for each")
        for member, other in zip(members, others, strict=True):
            member.load_matching(other)
        head = cast(EnsembleHead, self.head)
        for name, weight in head.score_terms.named_parameters():
            same = [dict(other.named_parameters()).get(f"head.score_terms.{name}") for other in others]
            known: list[Tensor] = [one for one in same if one is not None]
            if known:
                weight.copy_(torch.stack(known).mean(0))

    def forward(self, batch: HeteroData, loss: nn.Module | None = None, encoded: Encoded | None = None) -> Tensor:
        """Scores of the real samples ``[S, C]``, or with ``loss`` their losses ``[S]``: see
        :attr:`~graphmeta.nn.ensemble.EnsembleHead.trained_jointly`.
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
        heads = zip(head.heads, parts, strict=True)
        losses = [loss(MemberScores(one, head), states, batch, candidates) for one, (states, candidates) in heads]
        return torch.stack(losses).mean(0)


class Summary(nn.Module):
    """Replaces a loss and returns the input of the head's last layer, averaged over each task's real samples,
    ``[T, D']``.

    That is the head's readout, or what its ``project`` computes from it before its product (``project.reads``).
    """

    def forward(self, head: nn.Module, states: Tensor, batch: HeteroData, candidates: Tensor) -> Tensor:
        """The summaries."""
        seen = readout_of(head, "a start that reads the task's summary (a gate, a cluster or a memory)")(states, batch)
        if isinstance(head, ProjectedHead) and isinstance(head.project, AugmentedLayer):
            seen = head.project.reads(seen)
        return task_mean(batch, real_samples(batch, seen))


def task_mean(batch: HeteroData, values: Tensor) -> Tensor:
    """Mean of the real samples' values for each task, ``[S, …] -> [T, …]``; zero for a task without samples."""
    real = batch["sample"].get("real")
    if real is None:
        return values.mean(0, keepdim=True)
    task = real // batch.rows["sample"]
    count = counts(task, batch.num_tasks).clamp(min=1).to(values.dtype)
    total = values.new_zeros(batch.num_tasks, *values.shape[1:]).index_add(0, task, values)
    return total / count.reshape(-1, *(1,) * (values.dim() - 1))
