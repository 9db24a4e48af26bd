"""Recency and frequency of a session's own items, and the repeat-consumption bias that uses them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from graphmeta.nn.catalogue_softmax import Product, ScoreTerm
from graphmeta.sampling.session_batch import clicked_items

STEPS, LENGTHS, COUNTS = 8, 6, 3


def length_band(batch: HeteroData) -> Tensor:
    """Length bin of each sample (1, 2, 3–4, 5–8, 9–16 and more clicks), as an index from 0: ``[S]``."""
    length = batch["sample"].ptr.diff().clamp(min=1)
    return torch.ceil(torch.log2(length.float())).long().clamp(max=LENGTHS - 1)


class RecencyFrequency(NamedTuple):
    """Recency and frequency of a session's items, as indices of small tables.

    ``recency``: clicks since the item's last one (1 … 8 and more); ``frequency``: clicks of the item (1, 2, 3 and
    more); both from 0. Shapes: ``[I]``, one per item row of the batch.
    """

    recency: Tensor
    frequency: Tensor

    @classmethod
    def of(cls, batch: HeteroData) -> RecencyFrequency:
        """Those of a batch's item rows."""
        item, event, size = batch["item"].batch, batch["event"].item, len(batch["item"].batch)
        latest = torch.zeros_like(item).scatter_reduce(0, event, batch["event"].order, "amax", include_self=False)
        count = torch.zeros(size, dtype=torch.int64, device=item.device).scatter_add(0, event, torch.ones_like(event))
        length = batch["sample"].ptr.diff().index_select(0, item)
        return cls((length - latest).clamp(1, STEPS) - 1, count.clamp(1, COUNTS) - 1)


class RepeatBias(nn.Module):
    """Additive score of a session's own items: ``a = u[recency, length of the session] + v[frequency]``.

    To recommend a session's own items again, a model of item vectors must move its query vector towards them, and so
    towards similar items; this term needs :math:`8 · 6 + 3` parameters instead, initialised to zero.

    Shapes: a number for each item row of the batch, ``[I]``.
    Source: the repeat-or-explore split of RepeatNet (Ren et al. 2019) in its smallest form: no second decoder, but a
    bonus inside the one softmax; ours.
    """

    def __init__(self) -> None:
        super().__init__()
        self.recency, self.frequency = nn.Embedding(STEPS * LENGTHS, 1), nn.Embedding(COUNTS, 1)
        for table in (self.recency, self.frequency):
            nn.init.zeros_(table.weight)

    def forward(self, batch: HeteroData, product: Product | None = None) -> ScoreTerm:
        """Rows, columns and values of the score term."""
        batch = clicked_items(batch)
        sample, own = batch["item"].batch, RecencyFrequency.of(batch)
        bonus = self.recency(own.recency * LENGTHS + length_band(batch).index_select(0, sample)) + self.frequency(
            own.frequency
        )
        return sample, batch["item"].n_id, bonus.squeeze(1)
