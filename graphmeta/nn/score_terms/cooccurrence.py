"""What neighbours say, inside a model's softmax: a trained model and a count of sessions err differently."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from graphmeta.baselines.incidence import rank
from graphmeta.baselines.item_knn import ItemKNN
from graphmeta.data.events import EventLog
from graphmeta.nn.catalogue_softmax import Product, ScoreTerm
from graphmeta.nn.score_terms.repeat import LENGTHS, STEPS, RecencyFrequency, length_band


class NeighbourPairs(NamedTuple):
    """Pairs of a sample and an item that some count speaks for, and who speaks: row ``row`` of the batch's items, for
    cell ``where``, from place ``place`` of its list of neighbours."""

    sample: Tensor
    item: Tensor
    where: Tensor
    row: Tensor
    place: Tensor

    def shares(self, given: Tensor, samples: int) -> Tensor:
        """What each cell is given in all, as a share of its sample's: ``[rows that speak] -> [pairs]``."""
        total = given.new_zeros(len(self.item)).index_add(0, self.where[: len(self.row)], given)
        every = total.new_zeros(samples).index_add(0, self.sample, total).clamp(min=1e-9)
        return total / every.index_select(0, self.sample)


class NeighbourCounts(nn.Module):
    """What modules hold that read the counts of :class:`~graphmeta.baselines.item_knn.ItemKNN`: each item's neighbours.

    Args:
        neighbours, alpha: see ItemKNN.
    """

    needs_held_out_statistics = True  # training asks for sessions that were not counted

    def __init__(self, num_items: int, *, neighbours: int = 100, alpha: float = 0.75) -> None:
        super().__init__()
        self.alpha = alpha
        self.similar: Tensor
        self.similarity: Tensor
        self.register_buffer("similar", torch.arange(num_items, dtype=torch.int32)[:, None].repeat(1, neighbours))
        self.register_buffer("similarity", torch.zeros(num_items, neighbours))

    def fit_statistics(self, log: EventLog) -> None:
        """Count the training log; an empty place holds the item itself with similarity 0.

        Raises:
            InputError: a log whose items are not numbered like the system's.
        """
        size, most = self.similar.shape
        log.must_have(size)
        found = ItemKNN(log, neighbours=most, alpha=self.alpha)
        row = found.similar.rows
        place = rank(row)
        similar = torch.arange(size, dtype=torch.int32)[:, None].repeat(1, most)
        similarity = torch.zeros(size, most, dtype=self.similarity.dtype)
        similar[row, place] = torch.from_numpy(found.similar.value).int()
        similarity[row, place] = torch.from_numpy(found.similarity).to(similarity.dtype)
        self.similar.copy_(similar)
        self.similarity.copy_(similarity)

    def pairs(self, batch: HeteroData, *, own: bool = False) -> NeighbourPairs:
        """What the neighbours of a batch's items are; with ``own`` the items themselves too, last in ``where``."""
        n_id, owner, size = batch["item"].n_id, batch["item"].batch, len(self.similar)
        row, place = self.similarity.index_select(0, n_id).nonzero(as_tuple=True)
        cell = owner[row] * size + self.similar[n_id[row], place]
        cell, where = torch.unique(torch.cat([cell, owner * size + n_id]) if own else cell, return_inverse=True)
        return NeighbourPairs(cell // size, cell % size, where, row, place)


class Cooccurrence(NeighbourCounts):
    """Added to the scores of items that share training sessions with the clicked ones:
    ``w[length] · log(1 + p_i / ε[length])``.

    ``p`` is what :class:`~graphmeta.baselines.item_knn.ItemKNN` says of the session, as shares that add up to 1, the
    weight of a click being learned: ``p_i ∝ Σ_{j ∈ s} a[how long ago] sim(j, i)``. The weights ``w`` begin at zero, so
    that a model begins as it is without; ``a`` begins at 1/step, as ItemKNN has it, from the eighth click back at 1/8;
    ``ε`` at 0.001.

    A model of a log must not learn ``w`` on the sessions that were counted: there, what follows a click always shares
    a session with it. Count some sessions and learn on others, ``train(…, statistics_log=earlier)``; training warns
    otherwise.

    Args:
        neighbours, alpha: see ItemKNN.

    Shapes: what is added for each sample and item that has a neighbour in it.
    Source: a log-linear pool of two forecasts, with the counts in the place of one; ours.
    """

    def __init__(self, num_items: int, *, neighbours: int = 100, alpha: float = 0.75) -> None:
        super().__init__(num_items, neighbours=neighbours, alpha=alpha)
        self.weight, self.floor = nn.Embedding(LENGTHS, 1), nn.Embedding(LENGTHS, 1)
        self.recency = nn.Embedding(STEPS, 1)
        with torch.no_grad():
            self.weight.weight.zero_()
            self.floor.weight.fill_(0.001).log_()
            self.recency.weight.copy_(-torch.arange(1.0, STEPS + 1).log()[:, None])

    def forward(self, batch: HeteroData, product: Product | None = None) -> ScoreTerm:
        """Which scores get how much more."""
        pairs = self.pairs(batch)
        said = self.similarity[batch["item"].n_id[pairs.row], pairs.place]
        given = torch.exp(self.recency(RecencyFrequency.of(batch).recency)).squeeze(1).index_select(0, pairs.row) * said
        sample, share = pairs.sample, pairs.shares(given, batch["sample"].num_nodes)
        # What a sample has of its own is looked up once each, in the order of the batch.
        band = length_band(batch)
        weight, unit = self.weight(band).squeeze(1), torch.exp(-self.floor(band)).squeeze(1)
        return sample, pairs.item, weight.index_select(0, sample) * torch.log1p(share * unit.index_select(0, sample))
