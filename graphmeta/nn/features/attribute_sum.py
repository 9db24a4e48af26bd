"""Attribute-composed item vectors: an id vector for items clicked in training, plus the vectors of the attributes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from graphmeta.data.column_types import Categorical, Column, Several
from graphmeta.data.events import EventLog
from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError
from graphmeta.nn.extending import grown, set_weight
from graphmeta.nn.features.tables import Table


class AttributeComposed(Table):
    """An item table that replaces a plain one: ``e_i = m_i o_i + Σ_a v_a(i)``, v the vector of i's value of attribute
    a, or the mean of the vectors of its values.

    An item without training clicks has no id vector (m = 0), nor does an attribute value that no clicked item has; such
    an item is ranked by its attributes alone, and two with the same attributes tie. In training, id vectors are dropped
    at random, so that attribute vectors learn to represent an item alone. Dropout is independent for encoder input and
    scoring, because a new item is scored after clicks on known ones. Items without clicks are zero in training: they
    were not available, so they are not negatives for their attributes.

    Id vectors start at zero, attribute vectors with the range of the replaced table. A bias column is summed likewise.

    Args:
        table: the table that this replaces.
        attributes: of the items, with one value or several; "unknown" is a value.
        drop: dropout rate of id vectors.

    Shapes: ``index [I] -> [I, width]``; weight ``[items + values, width]``, items first.
    Source: DropoutNet (Volkovs et al. 2017): input dropout, on item vectors.
    Differs: vectors are learned with the model and added, where the paper feeds pretrained factors and content, both,
    to a network that reconstructs the factors.
    """

    composes_items = True

    def __init__(self, table: Table, attributes: Mapping[str, Categorical | Several], *, drop: float) -> None:
        if not attributes:
            raise InputError(
                "attribute-composed items need an attribute (category, brand); name one, or leave this wrapper out"
            )
        items, width = table.weight.shape
        sizes = [attribute.size for attribute in attributes.values()]
        super().__init__(items + sum(sizes), table.width, bias=width > table.width)
        with torch.no_grad():
            bound = 0.0 if table.weight.is_meta else float(table.weight.detach().abs().max())
            self.weight[:items].zero_()
            self.weight[items:, : table.width].uniform_(-bound, bound)
        self.drop, self.names = drop, list(attributes)
        self._place(items, attributes)
        self.register_buffer("seen", torch.ones(len(self.weight), dtype=torch.bool))

    def _place(self, items: int, attributes: Mapping[str, Categorical | Several]) -> None:
        """Compute the rows of the weight that each item's vector is made of."""
        self.sizes = [attribute.size for attribute in attributes.values()]
        first = items + np.cumsum([0, *self.sizes[:-1]])
        padded = [attribute.features().padded() for attribute in attributes.values()]
        rows = [begin + codes for begin, (codes, _) in zip(first, padded, strict=True)]
        shares = np.concatenate([np.ones((items, 1)), *(share for _, share in padded)], 1)
        self.items, self.widths = items, [codes.shape[1] for codes, _ in padded]
        self.parts: Tensor
        self.seen: Tensor
        parts = np.concatenate([np.arange(items)[:, None], *rows], 1)
        self.shares: Tensor
        device, dtype = (self.parts.device if hasattr(self, "parts") else None), self.weight.dtype
        self.register_buffer("parts", torch.from_numpy(parts).to(device), persistent=False)
        self.register_buffer("shares", torch.from_numpy(shares).to(device, dtype), persistent=False)

    @torch.no_grad()
    def extend_items(self, items: EntityTable) -> None:
        """Add items, whose vectors are those of their attributes; values that no clicked item has count zero."""
        attributes = {name: items.categories[name] for name in self.names}
        before, sizes = [self.items, *self.sizes], [len(items), *(a.size for a in attributes.values())]
        for name, values in (("weight", self.weight.detach()), ("seen", self.seen)):
            blocks = [grown(block, size) for block, size in zip(values.split(before), sizes, strict=True)]
            if name == "weight":
                set_weight(self, name, torch.cat(blocks))
            else:
                self.seen = torch.cat(blocks)
        self._place(len(items), attributes)

    def reads_column(self, name: str, column: Column) -> bool:
        """Whether it is a categorical column, with one value per row or several."""
        return column.kind in (Categorical.kind, Several.kind)

    def fit_statistics(self, log: EventLog) -> None:
        """Mark the items with training events, and the attribute values of such items."""
        log.must_have(self.items)
        clicked = torch.from_numpy(np.unique(log.item)).to(self.seen.device)
        parts, shares = self.parts.index_select(0, clicked), self.shares.index_select(0, clicked)
        self.seen.zero_()[parts[shares > 0]] = True

    def forward(self, index: Tensor) -> Tensor:
        """Vectors of these items."""
        parts = self.parts.index_select(0, index)
        # One look-up per part: each has a row for every item of the batch, as an adapted table requires.
        found = torch.stack([Table.forward(self, rows) for rows in parts.unbind(1)], 1)
        kept = self.seen[parts].to(found.dtype) * self.shares.index_select(0, index)
        kept = torch.cat([self._own(kept[:, :1]), kept[:, 1:]], 1)
        return (found * kept[:, :, None]).sum(1)

    def all_rows(self) -> Tensor:
        """Vectors of all items, ``[items, width]``, with the bias if there is one."""
        kept = self.seen.to(self.weight.dtype)[self.parts] * self.shares
        if self.training:
            kept = torch.cat([self._own(kept[:, :1]), kept[:, 1:] * kept[:, :1]], 1)
        return sums(self.weight, self.parts, kept)

    def summands(self, item: int) -> dict[str, Tensor]:
        """The vectors whose sum is an item's vector: its own as ``item``, and one for each attribute."""
        rows, shares = self.parts[item], self.shares[item]
        vectors = self.weight[rows] * (self.seen[rows].to(shares.dtype) * shares)[:, None]
        widths = [1, *self.widths]
        return {name: part.sum(0) for name, part in zip(["item", *self.names], vectors.split(widths), strict=True)}

    def _own(self, known: Tensor) -> Tensor:
        """m, with dropout in training."""
        return known * (torch.rand_like(known) >= self.drop) if self.training else known


def sums(weight: Tensor, parts: Tensor, kept: Tensor) -> Tensor:
    """``e_i = Σ_p kept_ip weight[parts_ip]``, where the first part of row i is row i.

    Shapes: weight ``[rows, D]``, parts ``[I, P]``, kept ``[I, P]`` -> ``[I, D]``.
    """
    if has_torch_function_unary(weight):  # a table per task
        return handle_torch_function(sums, (weight,), weight, parts, kept)
    total = weight.narrow(0, 0, len(parts)) * kept[:, :1]
    for column, share in zip(parts.unbind(1)[1:], kept.unbind(1)[1:], strict=True):
        total = torch.addcmul(total, weight.index_select(0, column), share[:, None])
    return total
