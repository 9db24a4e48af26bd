"""Same-category bias: adds a learned bonus, by recency, to every item that shares an attribute value with a clicked
item.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from graphmeta.data.column_types import Categorical, Column, Several
from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError
from graphmeta.nn.catalogue_softmax import Product, ScoreTerm
from graphmeta.nn.score_terms.repeat import STEPS, RecencyFrequency
from graphmeta.sampling.session_batch import clicked_items


class SameCategory(nn.Module):
    """Additive score of all items that share an attribute value with a clicked item:
    ``u[recency of the value's last click]``; with several values, the mean of it over the values of the item that is
    scored, 0 for those that were not clicked.

    Item vectors learned from clicks do not identify the category of items with few clicks. The eight parameters are
    initialised to zero. "Unknown" is not a shared value.

    Args:
        attribute: of the items.
        name: of its column, for :meth:`extend_items`.

    Shapes: one value for each sample and item of a clicked category.
    Source: ours.
    """

    def __init__(self, attribute: Categorical | Several, *, name: str = "") -> None:
        super().__init__()
        self.recency, self.name = nn.Embedding(STEPS, 1), name
        nn.init.zeros_(self.recency.weight)
        self._list(attribute)

    def extend_items(self, items: EntityTable) -> None:
        """Add items, which share their values with the old ones.

        Raises:
            InputError: a term that was made without the name of its column.
        """
        if self.name not in items.categories:
            raise InputError("SameCategory has no column name; make it with name=, or fit again with all items")
        device = self.codes.device
        self._list(items.categories[self.name])
        self.to(device)

    def _list(self, attribute: Categorical | Several) -> None:
        """The values of each item, and the items of each value."""
        codes, shares = attribute.features().padded()
        member, place = np.nonzero(shares)
        order = np.argsort(codes[member, place], kind="stable")
        member, place = member[order], place[order]
        begin = np.searchsorted(codes[member, place], np.arange(attribute.size + 1))
        self.codes: Tensor
        self.members: Tensor
        self.shares: Tensor
        self.begin: Tensor
        known = {"codes": codes, "members": member, "begin": begin, "shares": shares[member, place].astype(np.float32)}
        for name, values in known.items():
            self.register_buffer(name, torch.from_numpy(values), persistent=False)

    def reads_column(self, name: str, column: Column) -> bool:
        """Whether it is a categorical column, with one value per row or several."""
        return column.kind in (Categorical.kind, Several.kind)

    def forward(self, batch: HeteroData, product: Product | None = None) -> ScoreTerm:
        """Rows, columns and values of the score term."""
        batch = clicked_items(batch)
        size, recency = len(self.begin) - 1, RecencyFrequency.of(batch).recency
        code, bonus = self.codes.index_select(0, batch["item"].n_id), self.recency(recency).squeeze(1)
        row = torch.arange(len(code), device=code.device).repeat_interleave(code.shape[1])
        code, recency = code.flatten(), recency.index_select(0, row)
        category = batch["item"].batch.index_select(0, row) * size + code
        # The item row clicked last determines the recency of its category.
        order = torch.argsort(category * STEPS + recency)
        category, rows = torch.unique_consecutive(category[order], return_counts=True)
        latest = order[rows.cumsum(0) - rows]
        known = code[latest] > 0
        category, latest = category[known], latest[known]
        first, count = self.begin[code[latest]], self.begin.diff()[code[latest]]
        owner = torch.repeat_interleave(count)
        place = torch.arange(len(owner), device=owner.device) - (count.cumsum(0) - count)[owner]
        at, value = first[owner] + place, bonus.index_select(0, row[latest[owner]])
        value = value if self.codes.shape[1] == 1 else value * self.shares[at].to(value.dtype)
        return category[owner] // size, self.members[at], value
