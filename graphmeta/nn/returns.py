"""People go back to items: a number that an item of the session gets on top of its score."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData

STEPS, LENGTHS, COUNTS = 8, 6, 3


class Returns(nn.Module):
    """Added to the scores of a session's own items: ``a = u[how long ago, length of the session] + v[how often]``.

    A model of item vectors must make a session's own items near to its query vector to recommend them again, and with
    them whatever is near to them; this says it in :math:`8 · 6 + 3` numbers, which begin at zero. All that is known
    of a click counts: clicks since the item's last (1 … 8 and more), clicks of the session (1, 2, 3–4, 5–8, 9–16 and
    more), and clicks of the item (1, 2, 3 and more).

    Shapes: a number for each item row of the batch, ``[I]``.
    Source: the repeat-or-explore split of RepeatNet (Ren et al. 2019) in its smallest form: no second decoder, but a
    bonus inside the one softmax; ours.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ago, self.often = nn.Embedding(STEPS * LENGTHS, 1), nn.Embedding(COUNTS, 1)
        for table in (self.ago, self.often):
            nn.init.zeros_(table.weight)

    def forward(self, batch: HeteroData) -> Tensor:
        """The numbers."""
        item, event, size = batch["item"].batch, batch["event"].item, len(batch["item"].batch)
        latest = torch.zeros_like(item).scatter_reduce(0, event, batch["event"].order, "amax", include_self=False)
        count = torch.zeros_like(item).scatter_add(0, event, torch.ones_like(event))
        length = batch["sample"].ptr.diff().index_select(0, item)
        ago = (length - latest).clamp(1, STEPS) - 1
        band = torch.ceil(torch.log2(length.clamp(min=1).float())).long().clamp(max=LENGTHS - 1)
        own = self.ago(ago * LENGTHS + band) + self.often(count.clamp(1, COUNTS) - 1)
        return own.reshape(size)
