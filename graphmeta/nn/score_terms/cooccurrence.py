"""Co-occurrence score term: adds Item-kNN scores to a model's logits, because the errors of the two differ."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from graphmeta.baselines.incidence import rank
from graphmeta.baselines.item_knn import ItemKNN
from graphmeta.data.events import EventLog
from graphmeta.data.scan.log import ScannedLog
from graphmeta.data.tables import EntityTable
from graphmeta.nn.catalogue_softmax import Product, ScoreTerm
from graphmeta.nn.extending import grown
from graphmeta.nn.score_terms.repeat import LENGTHS, STEPS, RecencyFrequency, length_band
from graphmeta.sampling.session_batch import clicked_items


class NeighbourPairs(NamedTuple):
    """Pairs of a sample and a candidate item with co-occurrence counts, and their sources: row ``row`` of the batch's
    items contributes to pair ``where`` through entry ``place`` of its neighbour list.
    """

    sample: Tensor
    item: Tensor
    where: Tensor
    row: Tensor
    place: Tensor

    def shares(self, weighted: Tensor, samples: int) -> Tensor:
        """Sum of the values per pair, as a share of its sample's total: ``[source rows] -> [pairs]``."""
        total = weighted.new_zeros(len(self.item)).index_add(0, self.where[: len(self.row)], weighted)
        every = total.new_zeros(samples).index_add(0, self.sample, total).clamp(min=1e-9)
        return total / every.index_select(0, self.sample)


class NeighbourCounts(nn.Module):
    """Base of modules that read the counts of :class:`~graphmeta.baselines.item_knn.ItemKNN`: stores each item's
    neighbours.

    Args:
        neighbours, alpha: see ItemKNN.
    """

    needs_held_out_statistics = True  # must be trained on sessions that were not counted
    counts_shards = True

    def __init__(self, num_items: int, *, neighbours: int = 100, alpha: float = 0.75) -> None:
        super().__init__()
        self.alpha = alpha
        self.similar: Tensor
        self.similarity: Tensor
        self.register_buffer("similar", torch.arange(num_items, dtype=torch.int32)[:, None].repeat(1, neighbours))
        self.register_buffer("similarity", torch.zeros(num_items, neighbours))

    def fit_statistics(self, log: EventLog | ScannedLog) -> None:
        """Count the training log; an empty slot holds the item itself with similarity 0.

        Raises:
            InputError: a log whose items are not numbered like the system's.
        """
        size, neighbours = self.similar.shape
        log.must_have(size)
        found = ItemKNN(log, neighbours=neighbours, alpha=self.alpha)
        row = found.similar.rows
        place = rank(row)
        similar = torch.arange(size, dtype=torch.int32)[:, None].repeat(1, neighbours)
        similarity = torch.zeros(size, neighbours, dtype=self.similarity.dtype)
        similar[row, place] = torch.from_numpy(found.similar.value).int()
        similarity[row, place] = torch.from_numpy(found.similarity).to(similarity.dtype)
        self.similar.copy_(similar)
        self.similarity.copy_(similarity)

    def extend_items(self, items: EntityTable) -> None:
        """Add items without neighbours."""
        new = torch.arange(len(self.similar), len(items), dtype=self.similar.dtype, device=self.similar.device)
        self.similar = torch.cat([self.similar, new[:, None].expand(-1, self.similar.shape[1])])
        self.similarity = grown(self.similarity, len(items))

    def pairs(self, batch: HeteroData, *, own: bool = False) -> NeighbourPairs:
        """The neighbours of a batch's items; with ``own`` also the items themselves, last in ``where``."""
        n_id, owner, size = batch["item"].n_id, batch["item"].batch, len(self.similar)
        row, place = self.similarity.index_select(0, n_id).nonzero(as_tuple=True)
        cell = owner[row] * size + self.similar[n_id[row], place]
        cell, where = torch.unique(torch.cat([cell, owner * size + n_id]) if own else cell, return_inverse=True)
        return NeighbourPairs(cell // size, cell % size, where, row, place)


class Cooccurrence(NeighbourCounts):
    """Additive score of items that share training sessions with the clicked ones:
    ``w[length] · log(1 + p_i / ε[length])``.

    ``p`` are the scores of :class:`~graphmeta.baselines.item_knn.ItemKNN` for the session, normalised to sum to 1, with
    learned click weights: ``p_i ∝ Σ_{j ∈ s} a[recency] sim(j, i)``. The weights ``w`` start at zero, so that the model
    is unchanged at first; ``a`` starts at 1/step as in ItemKNN, and at 1/8 from the eighth last click on; ``ε`` at
    0.001.

    ``w`` must not be learned on the sessions that were counted: there, the next item always shares a session with the
    click. Count some sessions and train on others, ``TrainOptions(statistics_log=earlier)``; training warns otherwise.

    Args:
        neighbours, alpha: see ItemKNN.

    Shapes: one value for each sample and item with a neighbour in it.
    Source: a log-linear pool of two predictors, one of them the counts; ours.
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
        """Rows, columns and values of the score term."""
        batch = clicked_items(batch)
        pairs = self.pairs(batch)
        similarity = self.similarity[batch["item"].n_id[pairs.row], pairs.place]
        weighted = (
            torch.exp(self.recency(RecencyFrequency.of(batch).recency)).squeeze(1).index_select(0, pairs.row)
            * similarity
        )
        sample, share = pairs.sample, pairs.shares(weighted, batch["sample"].num_nodes)
        # Sample-level parameters are looked up once per sample, in the order of the batch.
        band = length_band(batch)
        weight, unit = self.weight(band).squeeze(1), torch.exp(-self.floor(band)).squeeze(1)
        return sample, pairs.item, weight.index_select(0, sample) * torch.log1p(share * unit.index_select(0, sample))
