"""Content features of items and users: no id vectors, so new items and users have features too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from graphmeta.data.column_types import Bags, Column, Numbers
from graphmeta.data.events import EventLog
from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError
from graphmeta.nn.extending import grown, set_weight
from graphmeta.nn.features.tables import Table, field_name
from graphmeta.nn.sizes import needs_sync
from graphmeta.sampling.session_batch import rows_like


class Field(nn.Module):
    """Mean embedding of a row's values: the average of a bag of genres, or the embedding of a single value.

    Shapes: ``rows [R]`` (-1: unknown) ``-> [R, width]``.
    Source: MeLU eqs 1–2 (a multi-hot field's embedding is divided by its number of values).
    Differs: a value that training never saw is a vector of zeros rather than a random one.
    """

    def __init__(self, bags: Bags, width: int) -> None:
        super().__init__()
        # The last row is for unknown items or users.
        codes, ptr = np.append(bags.codes, 0), np.append(bags.ptr, bags.ptr[-1] + 1)
        self.table, self.max_values = Table(bags.size, width), int(np.diff(ptr).max(initial=1))
        self.codes: Tensor
        self.ptr: Tensor
        self.seen: Tensor
        self.register_buffer("codes", torch.from_numpy(codes), persistent=False)
        self.register_buffer("ptr", torch.from_numpy(ptr), persistent=False)
        self.register_buffer("seen", torch.ones(bags.size, dtype=torch.bool))

    @torch.no_grad()
    def extend(self, bags: Bags) -> None:
        """Take over the values of further rows, after those it has; a new value counts as not seen in training."""
        codes, ptr = np.append(bags.codes, 0), np.append(bags.ptr, bags.ptr[-1] + 1)
        device, self.max_values = self.codes.device, int(np.diff(ptr).max(initial=1))
        self.codes, self.ptr = torch.from_numpy(codes).to(device), torch.from_numpy(ptr).to(device)
        self.seen = grown(self.seen, bags.size)
        set_weight(self.table, "weight", grown(self.table.weight.detach(), bags.size))

    def fit_rows(self, rows: np.ndarray) -> None:
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


class NumberField(nn.Module):
    """Linear map of a row's standardised numbers and of whether each is known: ``W [z ; known]``.

    ``z = (v − mean) / std`` over the rows that are known in training, 0 where unknown; so an unknown row is a vector of
    zeros.

    Shapes: ``rows [R]`` (-1: unknown) ``-> [R, width]``.
    """

    def __init__(self, numbers: Numbers, width: int) -> None:
        super().__init__()
        size, dtype = numbers.values.shape[1], torch.get_default_dtype()
        values = np.concatenate([numbers.values, np.full((1, size), np.nan)])  # the last row: unknown items or users
        self.project = nn.Linear(2 * size, width, bias=False)
        self.values: Tensor
        self.known: Tensor
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("values", torch.from_numpy(np.nan_to_num(values)).to(dtype), persistent=False)
        self.register_buffer("known", torch.from_numpy(~np.isnan(values)).to(dtype), persistent=False)
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("std", torch.ones(size))
        self.fit_rows(np.arange(len(numbers.values)))

    def extend(self, numbers: Numbers) -> None:
        """Take over the numbers of further rows, after those it has; mean and std stay those of training."""
        values = np.concatenate([numbers.values, np.full((1, numbers.values.shape[1]), np.nan)])
        known = torch.from_numpy(~np.isnan(values)).to(self.known)
        self.values, self.known = torch.from_numpy(np.nan_to_num(values)).to(self.values), known

    def fit_rows(self, rows: np.ndarray) -> None:
        """Standardise by the known values of these rows."""
        at = torch.from_numpy(np.unique(rows)).to(self.values.device)
        values, known = self.values[at], self.known[at]
        count = known.sum(0).clamp(min=1)
        mean = values.sum(0) / count
        std = ((values - mean).square() * known).sum(0).div(count).sqrt()
        self.mean.copy_(mean)
        self.std.copy_(torch.where(std > 0, std, 1.0))

    def forward(self, rows: Tensor) -> Tensor:
        """Vectors of these rows."""
        rows = torch.where(rows < 0, len(self.values) - 1, rows)
        known = self.known.index_select(0, rows)
        z = (self.values.index_select(0, rows) - self.mean) / self.std * known
        return self.project(torch.cat([z, known], 1))


# The module that embeds each form of features, see graphmeta.data.column_types.base.
FIELDS: dict[type, Callable[[Any, int], nn.Module]] = {Bags: Field, Numbers: NumberField}


class Content(nn.Module):
    """Features of all columns of items or users, concatenated: ``[field 1 ; field 2 ; …]``.

    The form of a column (:meth:`Column.features <graphmeta.data.column_types.base.Column.features>`) selects the mean
    embedding of its values (:class:`Field`) or a projection of its numbers (:class:`NumberField`); texts are not read.

    Args:
        table: whose columns are read.
        width: of each field.

    Shapes: ``rows [R] -> [R, fields · width]``.

    Raises:
        InputError: a table without a column of values or numbers.
    """

    def __init__(self, table: EntityTable, width: int) -> None:
        super().__init__()
        given = {name: column.features() for name, column in table.columns.items()}
        read = {name: features for name, features in given.items() if features is not None}
        if not read:
            there = ", ".join(f"{name} ({column.kind})" for name, column in table.columns.items()) or "none"
            raise InputError(f"content features need a column of values or numbers; the table's columns are: {there}")
        self.names = list(read)
        made = {field_name(name): FIELDS[type(features)](features, width) for name, features in read.items()}
        self.fields = nn.ModuleDict(made)
        self.width = width * len(made)

    def forward(self, rows: Tensor) -> Tensor:
        """Vectors of these rows."""
        return torch.cat([part(rows) for part in self.fields.values()], 1)

    def extend(self, table: EntityTable) -> None:
        """Take over further rows, after those it has."""
        for name in self.names:
            part: Any = self.fields[field_name(name)]
            part.extend(table.columns[name].features())

    def fit_rows(self, rows: np.ndarray) -> None:
        """Compute each field's statistics from these rows: seen values, means of numbers."""
        part: Any
        for part in self.fields.values():
            part.fit_rows(rows)


class ContentFeatures(nn.Module):
    """Items represented by content only; the candidates are the content vectors of all items, new ones included.

    Shapes: ``n_id [I] -> (x [I, D], candidates [num_items, D])``.
    """

    def __init__(self, items: EntityTable, width: int) -> None:
        super().__init__()
        self.content, self.num_items = Content(items, width), len(items)
        self.width = self.content.width

    def reads_column(self, name: str, column: Column) -> bool:
        """Whether the column has values or numbers."""
        return column.features() is not None

    def extend_items(self, items: EntityTable) -> None:
        """Add items, whose vectors are those of their columns."""
        self.content.extend(items)
        self.num_items = len(items)

    def fit_statistics(self, log: EventLog) -> None:
        """Compute the statistics of items with training events."""
        self.content.fit_rows(log.item)

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

    def extend_users(self, users: EntityTable) -> None:
        """Add users, whose vectors are those of their columns."""
        self.content.extend(users)

    def fit_statistics(self, log: EventLog) -> None:
        """Compute the statistics of users with training sessions."""
        if log.session_user is not None:
            self.content.fit_rows(log.session_user[log.session_user >= 0])

    def forward(self, states: Tensor, batch: HeteroData) -> Tensor:
        """Content vectors of the samples' users; all fields "unknown" for unknown users."""
        user = batch["sample"].get("user")
        unknown = rows_like(torch.full((batch["sample"].num_nodes,), -1, device=states.device), batch["sample"].last)
        return self.content(unknown if user is None else user)
