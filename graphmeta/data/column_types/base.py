"""What every type of column has, and the registry of types."""

from __future__ import annotations

import hashlib
from typing import Any, ClassVar, Protocol, Self, TypeVar

import numpy as np
import pandas as pd
from torch_geometric.data import HeteroData


class Column(Protocol):
    """What is known of each item (or user) in one respect: a value a row, in the order of the table.

    A type of column is a class in a module of its own in this package, under :func:`column_type`; it needs nothing
    else to be read, cut, saved, loaded and put into the graph.
    """

    kind: ClassVar[str]

    @classmethod
    def read(cls, values: pd.Series, name: str) -> Self:
        """The column of a table; raises :class:`~graphmeta.errors.InputError` with the row of what cannot be read."""
        ...

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Self:
        """The column that :meth:`to_json` wrote."""
        ...

    def to_json(self) -> dict[str, Any]:
        """The column in plain lists."""
        ...

    def take(self, rows: np.ndarray) -> Self:
        """The column of these rows; row -1 is unknown."""
        ...

    def update(self, digest: hashlib._Hash, name: str) -> None:
        """Add what differs where the column does to a digest."""
        ...

    def is_sound(self, rows: int) -> bool:
        """Whether the parts fit each other and so many rows; asked of what was loaded."""
        ...

    def add_to(self, graph: HeteroData, owner: str, name: str) -> None:
        """Put the column into the graph, as nodes and edges or as features of the nodes of type ``owner``."""
        ...


TYPES: dict[str, type[Column]] = {}
C = TypeVar("C", bound=type[Column])


def column_type(cls: C) -> C:
    """Enter a class as the type of column of its ``kind``."""
    TYPES[cls.kind] = cls
    return cls
