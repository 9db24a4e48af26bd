"""Content features of items and users: no id vectors, so new items and users have features too."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from graphmeta.data.events import EventLog
from graphmeta.data.tables import Categorical, EntityTable, Several
from graphmeta.nn.features.tables import Table, field_name
from graphmeta.nn.sizes import needs_sync
from graphmeta.sampling.session_batch import rows_like


class Field(nn.Module):
    """Mean embedding of a row's values: the average of a bag of genres, or the embedding of a single value.

    Shapes: ``rows [R]`` (-1: unknown) ``-> [R, width]``.
    Source: MeLU eqs 1–2 (a multi-hot field's embedding is divided by its number of values).
    Differs: a value that training never saw is a vector of zeros rather than a random one.
    """

    def __init__(self, column: Categorical | Several, width: int) -> None:
        super().__init__()
        rows = len(column.codes) if isinstance(column, Categorical) else len(column.ptr) - 1
        known = column.take(np.append(np.arange(rows), -1))  # the last row is for unknown items or users
        ptr = np.arange(rows + 2) if isinstance(known, Categorical) else known.ptr
        self.table, self.max_values = Table(column.size, width), int(np.diff(ptr).max(initial=1))
        self.codes: Tensor
        self.ptr: Tensor
        self.seen: Tensor
        self.register_buffer("codes", torch.from_numpy(known.codes), persistent=False)
        self.register_buffer("ptr", torch.from_numpy(ptr), persistent=False)
        self.register_buffer("seen", torch.ones(column.size, dtype=torch.bool))

    def mark_seen(self, rows: np.ndarray) -> None:
        """Mark the values of these rows, and no others, as seen in training."""
        codes, _ = self._values(torch.from_numpy(np.unique(rows)).to(self.codes.device))
        self.seen.zero_()[codes] = True

    def _values(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The concatenated codes of these rows, and the number of codes of each."""
        begin = self.ptr.index_select(0, rows)
        count = self.ptr.index_select(0, rows + 1) - begin
        first = (begin - count.cumsum(0) + count).repeat_interleave(count)
        return self.codes.index_select(0, first + torch.arange(len(first), device=rows.device)), count

    def forward(self, rows: Tensor) -> Tensor:
        """Vectors of these rows."""
        rows = torch.where(rows < 0, len(self.ptr) - 2, rows)
        if self.max_values == 1 or needs_sync(rows):
            return self._padded(rows)
        codes, count = self._values(rows)
        vectors = self.table(codes) * self.seen.index_select(0, codes)[:, None]
        if len(codes) == len(rows):
            return vectors
        owner = torch.arange(len(rows), device=rows.device).repeat_interleave(count)
        total = vectors.new_zeros(len(rows), self.table.width).index_add(0, owner, vectors)
        return total / count[:, None]

    def _padded(self, rows: Tensor) -> Tensor:
        """The same, padded to the maximum number of values, so that all sizes are known."""
        begin, place = self.ptr.index_select(0, rows), torch.arange(self.max_values, device=rows.device)
        count = (self.ptr.index_select(0, rows + 1) - begin)[:, None]
        inside = (place < count).flatten()
        codes = self.codes.index_select(0, torch.where(inside, (begin[:, None] + place).flatten(), 0))
        vectors = self.table(codes) * (inside & self.seen.index_select(0, codes))[:, None]
        return vectors if self.max_values == 1 else vectors.unflatten(0, (-1, self.max_values)).sum(1) / count


class Content(nn.Module):
    """Embeddings of all fields of items or users, concatenated: ``[mean of field 1 ; mean of field 2 ; …]``.

    Args:
        table: whose attributes are used, multi-valued ones included; width: of each field.

    Shapes: ``rows [R] -> [R, fields · width]``.
    """

    def __init__(self, table: EntityTable, width: int) -> None:
        super().__init__()
        columns = {**table.attributes, **table.several}
        self.fields = nn.ModuleDict({field_name(name): Field(column, width) for name, column in columns.items()})
        self.width = width * len(columns)

    def forward(self, rows: Tensor) -> Tensor:
        """Vectors of these rows."""
        return torch.cat([part(rows) for part in self.fields.values()], 1)

    def mark_seen(self, rows: np.ndarray) -> None:
        """Mark the values of these rows as seen in training."""
        part: Any
        for part in self.fields.values():
            part.mark_seen(rows)


class ContentFeatures(nn.Module):
    """Items represented by content only; the candidates are the content vectors of all items, new ones included.

    Shapes: ``n_id [I] -> (x [I, D], candidates [num_items, D])``.
    """

    def __init__(self, items: EntityTable, width: int) -> None:
        super().__init__()
        self.content, self.num_items = Content(items, width), len(items)
        self.width = self.content.width

    def fit_statistics(self, log: EventLog) -> None:
        """Mark the values of items with training events as seen."""
        self.content.mark_seen(log.item)

    def forward(self, n_id: Tensor) -> tuple[Tensor, Tensor]:
        """Content vectors of these items, and of all."""
        every = self.content(torch.arange(self.num_items, device=n_id.device))
        return every.index_select(0, n_id), every


class UserContent(nn.Module):
    """A readout that returns the content vector of the sample's user, whatever was clicked.

    Shapes: ``states [E, ·] -> [S, D]``.
    """

    def __init__(self, users: EntityTable, width: int) -> None:
        super().__init__()
        self.content = Content(users, width)
        self.width = self.content.width

    def fit_statistics(self, log: EventLog) -> None:
        """Mark the values of users with training sessions as seen."""
        if log.session_user is not None:
            self.content.mark_seen(log.session_user[log.session_user >= 0])

    def forward(self, states: Tensor, batch: HeteroData) -> Tensor:
        """Content vectors of the samples' users; all fields "unknown" for unknown users."""
        user = batch["sample"].get("user")
        unknown = rows_like(torch.full((batch["sample"].num_nodes,), -1, device=states.device), batch["sample"].last)
        return self.content(unknown if user is None else user)
