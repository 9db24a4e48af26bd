"""Items and people as what is written about them: no vector of their own, so that new ones have one too."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from graphmeta.data.events import EventLog
from graphmeta.data.tables import Attribute, EntityTable, Several
from graphmeta.nn.features.tables import Table, field_name
from graphmeta.nn.sizes import needs_sync
from graphmeta.sampling.session_batch import rows_like


class Field(nn.Module):
    """The mean of the vectors of a row's values: a bag of genres is their average, a single value its own vector.

    Shapes: ``rows [R]`` (-1: unknown) ``-> [R, width]``.
    Source: MeLU eqs 1–2 (a multi-hot field's embedding is divided by its number of values).
    Differs: a value that training never saw is a vector of zeros rather than a random one.
    """

    def __init__(self, column: Attribute | Several, width: int) -> None:
        super().__init__()
        rows = len(column.codes) if isinstance(column, Attribute) else len(column.ptr) - 1
        known = column.take(np.append(np.arange(rows), -1))  # the last row stands for whoever is unknown
        ptr = np.arange(rows + 2) if isinstance(known, Attribute) else known.ptr
        self.table, self.most = Table(column.size, width), int(np.diff(ptr).max(initial=1))
        self.codes: Tensor
        self.ptr: Tensor
        self.seen: Tensor
        self.register_buffer("codes", torch.from_numpy(known.codes), persistent=False)
        self.register_buffer("ptr", torch.from_numpy(ptr), persistent=False)
        self.register_buffer("seen", torch.ones(column.size, dtype=torch.bool))

    def note(self, rows: np.ndarray) -> None:
        """Training sees these rows, and no value of any other."""
        codes, _ = self._values(torch.from_numpy(np.unique(rows)).to(self.codes.device))
        self.seen.zero_()[codes] = True

    def _values(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The codes of these rows one after the other, and how many each has."""
        begin = self.ptr.index_select(0, rows)
        count = self.ptr.index_select(0, rows + 1) - begin
        first = (begin - count.cumsum(0) + count).repeat_interleave(count)
        return self.codes.index_select(0, first + torch.arange(len(first), device=rows.device)), count

    def forward(self, rows: Tensor) -> Tensor:
        """Vectors of these rows."""
        rows = torch.where(rows < 0, len(self.ptr) - 2, rows)
        if self.most == 1 or needs_sync(rows):
            return self._padded(rows)
        codes, count = self._values(rows)
        vectors = self.table(codes) * self.seen.index_select(0, codes)[:, None]
        if len(codes) == len(rows):
            return vectors
        owner = torch.arange(len(rows), device=rows.device).repeat_interleave(count)
        total = vectors.new_zeros(len(rows), self.table.width).index_add(0, owner, vectors)
        return total / count[:, None]

    def _padded(self, rows: Tensor) -> Tensor:
        """The same with as many places a row as the row with the most values has, so that no size is unknown."""
        begin, place = self.ptr.index_select(0, rows), torch.arange(self.most, device=rows.device)
        count = (self.ptr.index_select(0, rows + 1) - begin)[:, None]
        inside = (place < count).flatten()
        codes = self.codes.index_select(0, torch.where(inside, (begin[:, None] + place).flatten(), 0))
        vectors = self.table(codes) * (inside & self.seen.index_select(0, codes))[:, None]
        return vectors if self.most == 1 else vectors.unflatten(0, (-1, self.most)).sum(1) / count


class Content(nn.Module):
    """The fields of items or people side by side: ``[mean of field 1 ; mean of field 2 ; …]``.

    Args:
        table: whose attributes, those with several values included; width: of each field.

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

    def note(self, rows: np.ndarray) -> None:
        """Training sees these rows."""
        for part in self.fields.values():
            part.note(rows)  # pyright: ignore[reportCallIssue]


class ContentFeatures(nn.Module):
    """An item is its content; the candidates are the contents of all items, new ones included.

    Shapes: ``n_id [I] -> (x [I, D], candidates [num_items, D])``.
    """

    def __init__(self, items: EntityTable, width: int) -> None:
        super().__init__()
        self.content, self.num_items = Content(items, width), len(items)
        self.width = self.content.width

    def fit_statistics(self, log: EventLog) -> None:
        """Note what training sees: the values of items with events."""
        self.content.note(log.item)

    def forward(self, n_id: Tensor) -> tuple[Tensor, Tensor]:
        """Contents of these items, and of all."""
        every = self.content(torch.arange(self.num_items, device=n_id.device))
        return every.index_select(0, n_id), every


class UserContent(nn.Module):
    """A readout that looks at who asks, not at what was clicked: the content of the sample's user.

    Shapes: ``states [E, ·] -> [S, D]``.
    """

    def __init__(self, users: EntityTable, width: int) -> None:
        super().__init__()
        self.content = Content(users, width)
        self.width = self.content.width

    def fit_statistics(self, log: EventLog) -> None:
        """Note what training sees: the values of users with sessions."""
        if log.session_user is not None:
            self.content.note(log.session_user[log.session_user >= 0])

    def forward(self, states: Tensor, batch: HeteroData) -> Tensor:
        """Contents of the samples' users, "unknown" in every field for a user nobody knows."""
        user = batch["sample"].get("user")
        nobody = rows_like(torch.full((batch["sample"].num_nodes,), -1, device=states.device), batch["sample"].last)
        return self.content(nobody if user is None else user)
