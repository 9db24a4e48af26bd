"""What is known of a session's own items, and the bonus that they get because people go back to them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from graphmeta.nn.catalogue_softmax import Product, ScoreTerm

STEPS, LENGTHS, COUNTS = 8, 6, 3


def length_band(batch: HeteroData) -> Tensor:
    """Clicks of each sample (1, 2, 3–4, 5–8, 9–16 and more) as a row of a small table, from 0: ``[S]``."""
    length = batch["sample"].ptr.diff().clamp(min=1)
    return torch.ceil(torch.log2(length.float())).long().clamp(max=LENGTHS - 1)


class RecencyFrequency(NamedTuple):
    """What was clicked when, as rows of small tables.

    ``ago``: clicks since the item's last one (1 … 8 and more); ``count``: clicks of the item (1, 2, 3 and more); both
    from 0. Shapes: ``[I]``, one an item row of the batch.
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
    """Added to the scores of a session's own items: ``a = u[how long ago, length of the session] + v[how often]``.

    A model of item vectors must make a session's own items near to its query vector to recommend them again, and with
    them whatever is near to them; this says it in :math:`8 · 6 + 3` numbers, which begin at zero.

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
        """Which scores get how much more."""
        sample, own = batch["item"].batch, RecencyFrequency.of(batch)
        bonus = self.recency(own.recency * LENGTHS + length_band(batch).index_select(0, sample)) + self.frequency(
            own.frequency
        )
        return sample, batch["item"].n_id, bonus.squeeze(1)
