"""Item features with vectors of the items' attributes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from graphmeta.data.column_types import Categorical, Column, Several
from graphmeta.data.tables import EntityTable
from graphmeta.nn.extending import grown, set_weight
from graphmeta.nn.features.tables import ItemFeatures, Table, field_name


class AttributeFeatures(ItemFeatures):
    """An item's row, concatenated with one vector computed from its attributes: ``x = [e_id ; e_attributes]``; of an
    attribute with several values it reads the mean of their vectors.

    Shapes: ``n_id [I] -> (x [I, 2·width], candidates [num_items, width])``.
    Source: IF-SAN, CBML eqs 1–2 (attribute level); scoring uses the id vectors only (eq 8).
    """

    def __init__(self, num_items: int, width: int, attributes: Mapping[str, Categorical | Several]) -> None:
        super().__init__(num_items, width)
        self.fields = nn.ModuleDict({field_name(n): Table(a.size, width) for n, a in attributes.items()})
        padded = [attribute.features().padded() for attribute in attributes.values()]
        self.names = list(attributes)
        self.widths = [codes.shape[1] for codes, _ in padded]  # places for values, by attribute
        codes, shares = (np.concatenate(parts, 1) for parts in zip(*padded, strict=True))
        self.codes: Tensor
        self.shares: Tensor
        self.register_buffer("codes", torch.from_numpy(codes), persistent=False)
        self.register_buffer("shares", torch.from_numpy(shares).to(torch.get_default_dtype()), persistent=False)
        self.fuse = FieldAttention(width) if len(attributes) > 1 else nn.Flatten(1)

    @torch.no_grad()
    def extend_items(self, items: EntityTable) -> None:
        """Add items with their attributes; the vector of a new value is that of "unknown"."""
        columns = [items.categories[name] for name in self.names]
        padded = [column.features().padded() for column in columns]
        self.widths = [codes.shape[1] for codes, _ in padded]
        codes, shares = (torch.from_numpy(np.concatenate(parts, 1)) for parts in zip(*padded, strict=True))
        self.codes, self.shares = codes.to(self.codes), shares.to(self.shares)
        for table, column in zip(self.fields.values(), columns, strict=True):
            weight = table.get_parameter("weight").detach()
            set_weight(table, "weight", grown(weight, column.size, like=weight[:1]))

    def reads_column(self, name: str, column: Column) -> bool:
        """Whether it is a categorical column, with one value per row or several."""
        return column.kind in (Categorical.kind, Several.kind)

    def forward(self, n_id: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors of these items and their attributes, and the table of all items."""
        codes, shares = self.codes.index_select(0, n_id), self.shares.index_select(0, n_id)
        vectors, begin = [], 0
        for table, places in zip(self.fields.values(), self.widths, strict=True):
            # One look-up per place: each has a row for every item of the batch, as an adapted table requires.
            found = [table(codes[:, at]) for at in range(begin, begin + places)]
            if places > 1:
                found = [vector * shares[:, begin + at, None] for at, vector in enumerate(found)]
            vectors.append(sum(found[1:], found[0]))
            begin += places
        fused = self.fuse(torch.stack(vectors, 1))
        return torch.cat([self.item(n_id), fused], 1), self.item.all_rows()


class FieldAttention(nn.Module):
    """Attention over an item's attribute vectors, per dimension: ``α = softmax_f(A W)``, ``e = Σ_f α_f ⊙ A_f``.

    Shapes: ``[I, fields, width] -> [I, width]``.
    Source: CBML eqs 1–2. Differs: the softmax runs over fields, so that fields are weighted against each other; the
    printed bias, equal for all fields, would cancel and is omitted.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = nn.Linear(width, width, bias=False)

    def forward(self, fields: Tensor) -> Tensor:
        """One vector per item."""
        alpha = torch.softmax(self.score(fields), 1)
        return (alpha * fields).sum(1)
