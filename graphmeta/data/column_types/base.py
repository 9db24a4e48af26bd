"""The protocol of column types, and their registry."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self, TypeVar

import numpy as np
import pandas as pd
from torch_geometric.data import HeteroData

from graphmeta.data.column_types.values import Place


@dataclass(frozen=True)
class Bags:
    """Features of a column as values to embed: row r has the values ``codes[ptr[r]:ptr[r + 1]]``, at least one each.

    Code 0 is "unknown". Shapes: codes ``[N]``, ptr ``[rows + 1]``, both int64; ``size`` values.
    """

    codes: np.ndarray
    ptr: np.ndarray
    size: int

    def padded(self) -> tuple[np.ndarray, np.ndarray]:
        """The values of each row side by side, and each one's share of its row (1 over the number of its values).

        Padding has code 0 and share 0. Shapes: codes ``[rows, V]`` int64 and shares ``[rows, V]`` float64.
        """
        count = np.diff(self.ptr)
        place = np.arange(int(count.max(initial=1)))
        inside = place < count[:, None]
        codes = np.zeros(inside.shape, dtype=np.int64)
        codes[inside] = self.codes
        return codes, inside / np.maximum(count, 1)[:, None]


@dataclass(frozen=True)
class Numbers:
    """Features of a column as numbers to project, NaN where unknown. Shapes: values ``[rows, F]``."""

    values: np.ndarray


class Column(Protocol):
    """A column of an item or user table: one value per row, in the order of the table.

    To add a type, put a class decorated with :func:`column_type` into a new module of this package; nothing else is
    needed to read, select, save, load and add it to the graph and to content features.
    """

    kind: ClassVar[str]

    @classmethod
    def read(cls, values: pd.Series, name: str) -> Self:
        """The column of a table; raises :class:`~graphmeta.errors.InputError` naming the first unreadable row."""
        ...

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Self:
        """The column that :meth:`to_json` wrote."""
        ...

    def to_json(self) -> dict[str, Any]:
        """The column in plain lists."""
        ...

    def cells(self) -> list[Any]:
        """One cell per row, as :meth:`read` takes it; None where unknown."""
        ...

    def take(self, rows: np.ndarray) -> Self:
        """The column of these rows; row -1 is unknown."""
        ...

    def joined(self, other: Self) -> Self:
        """The rows of this column, then those of another of its type; its values keep their codes."""
        ...

    def add_to_hash(self, digest: hashlib._Hash, name: str) -> None:
        """Add the contents of the column to a hash."""
        ...

    def is_consistent(self, rows: int) -> bool:
        """Whether the arrays fit each other and the number of rows; checked after loading."""
        ...

    def features(self) -> Bags | Numbers | None:
        """What content features read of the column; None for a column that gives none."""
        ...

    def add_to(self, graph: HeteroData, owner: str, name: str) -> None:
        """Put the column into the graph, as nodes and edges or as features of the nodes of type ``owner``."""
        ...

    @classmethod
    def from_graph(cls, graph: HeteroData, owner: str, place: Place) -> Self:
        """The column that :meth:`add_to` put there."""
        ...


TYPES: dict[str, type[Column]] = {}
C = TypeVar("C", bound=type[Column])


def column_type(cls: C) -> C:
    """Register a class as the column type of its ``kind``."""
    TYPES[cls.kind] = cls
    return cls
