"""People stay with a category, a brand, a seller: what the items of one get when the session was there."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from graphmeta.data.tables import Attribute
from graphmeta.nn.catalogue_softmax import Product, ScoreTerm
from graphmeta.nn.score_terms.repeat import STEPS, RecencyFrequency


class SameCategory(nn.Module):
    """Added to the scores of all items that have a value of an attribute in common with a clicked one:
    ``u[how long ago the value was clicked last]``.

    A table of item vectors must learn from clicks alone which items are of a kind, which it cannot for items with few.
    The eight numbers begin at zero. An unknown value is no value.

    Args:
        attribute: of the items.

    Shapes: what is added for each sample and item of a clicked kind.
    Source: ours.
    """

    def __init__(self, attribute: Attribute) -> None:
        super().__init__()
        self.recency = nn.Embedding(STEPS, 1)
        nn.init.zeros_(self.recency.weight)
        order = np.argsort(attribute.codes, kind="stable")
        begin = np.searchsorted(attribute.codes[order], np.arange(attribute.size + 1))
        self.codes: Tensor
        self.members: Tensor
        self.begin: Tensor
        for name, known in (("codes", attribute.codes), ("members", order), ("begin", begin)):
            self.register_buffer(name, torch.from_numpy(known), persistent=False)

    def forward(self, batch: HeteroData, product: Product | None = None) -> ScoreTerm:
        """Which scores get how much more."""
        size, ago = len(self.begin) - 1, RecencyFrequency.of(batch).recency
        code, bonus = self.codes.index_select(0, batch["item"].n_id), self.recency(ago).squeeze(1)
        kind = batch["item"].batch * size + code
        # Of the item rows of a kind, the one clicked last speaks for it.
        order = torch.argsort(kind * STEPS + ago)
        kind, rows = torch.unique_consecutive(kind[order], return_counts=True)
        latest = order[rows.cumsum(0) - rows]
        known = code[latest] > 0
        kind, latest = kind[known], latest[known]
        first, count = self.begin[code[latest]], self.begin.diff()[code[latest]]
        owner = torch.repeat_interleave(count)
        place = torch.arange(len(owner), device=owner.device) - (count.cumsum(0) - count)[owner]
        return kind[owner] // size, self.members[first[owner] + place], bonus.index_select(0, latest[owner])
