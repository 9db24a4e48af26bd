"""Categories, any number per row."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from torch_geometric.data import HeteroData

from graphmeta.data.column_types.base import Bags, column_type
from graphmeta.data.column_types.categorical import Categorical
from graphmeta.data.column_types.values import Place, add_edges, are_valid_codes, merged_codes, read_edges
from graphmeta.data.columns import spelled


@column_type
@dataclass(frozen=True, eq=False)
class Several:
    """A categorical column with any number of values per row: row r has ``codes[ptr[r]:ptr[r + 1]]``.

    A row without values has the single code 0, "unknown", so that every row has at least one code.

    Shapes: codes ``[N]`` int64; ptr ``[rows + 1]`` int64; values ``[distinct + 1]`` text, ``values[0] == ""``.
    """

    kind: ClassVar[str] = "several"
    codes: np.ndarray
    ptr: np.ndarray
    values: np.ndarray

    @classmethod
    def read(cls, values: pd.Series, name: str, *, separator: str = "|") -> Several:
        """Cells that are lists or arrays, or text with ``separator`` between the values."""
        parts = [_split(cell if known else None, separator) for cell, known in zip(values, values.notna(), strict=True)]
        count = np.array([len(part) for part in parts], dtype=np.int64)
        found = Categorical.read(pd.Series([value for part in parts for value in part], dtype=object), name)
        return cls(found.codes, np.concatenate([[0], np.cumsum(count)]).astype(np.int64), found.values)

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Several:
        """The column that :meth:`to_json` wrote."""
        codes, ptr = (np.array(stored[key], dtype=np.int64) for key in ("codes", "ptr"))
        return cls(codes, ptr, np.array(stored["values"], dtype=object))

    @property
    def size(self) -> int:
        """Number of values, including "unknown"."""
        return len(self.values)

    def to_json(self) -> dict[str, Any]:
        """Codes, row pointer and values."""
        return {"codes": self.codes.tolist(), "ptr": self.ptr.tolist(), "values": self.values.tolist()}

    def cells(self) -> list[list[str] | None]:
        """The values of each row."""
        rows = (self.codes[begin:end] for begin, end in pairwise(self.ptr))
        return [self.values[codes[codes > 0]].tolist() or None for codes in rows]

    def take(self, rows: np.ndarray) -> Several:
        """The column of these rows; row -1 is unknown. All values are kept, so codes keep their meaning."""
        codes, begin = np.append(self.codes, 0), np.append(self.ptr[:-1], len(self.codes))
        count = np.append(np.diff(self.ptr), 1)[rows]
        ptr = np.concatenate([[0], np.cumsum(count)]).astype(np.int64)
        where = np.arange(ptr[-1]) + np.repeat(begin[rows] - ptr[:-1], count)
        return replace(self, codes=codes[where], ptr=ptr)

    def joined(self, other: Several) -> Several:
        """The rows of both; new values get the next codes."""
        codes, values = merged_codes(self.values, other.codes, other.values)
        ptr = np.concatenate([self.ptr, self.ptr[-1] + other.ptr[1:]])
        return replace(self, codes=np.concatenate([self.codes, codes]), ptr=ptr, values=values)

    def add_to_hash(self, digest: hashlib._Hash, name: str) -> None:
        """Name, values, codes and row pointer."""
        digest.update(f"{name} {self.values.tolist()}".encode() + self.codes.tobytes() + self.ptr.tobytes())

    def is_consistent(self, rows: int) -> bool:
        """Whether each row has at least one code, and each code a value."""
        fits = self.ptr.shape == (rows + 1,) and self.ptr[0] == 0 and self.ptr[-1] == len(self.codes)
        return bool(fits and (np.diff(self.ptr) > 0).all()) and are_valid_codes(self.codes, self.values)

    def features(self) -> Bags:
        """The values of each row."""
        return Bags(self.codes, self.ptr, self.size)

    def add_to(self, graph: HeteroData, owner: str, name: str) -> None:
        """A node for each value, and an edge from each row to each of its values."""
        row = np.repeat(np.arange(len(self.ptr) - 1), np.diff(self.ptr))
        add_edges(graph, owner, name, row=row, codes=self.codes, values=self.values)

    @classmethod
    def from_graph(cls, graph: HeteroData, owner: str, place: Place) -> Several:
        """The values at the ends of each row's edges; unknown without one."""
        row, code, values = read_edges(graph, owner, place.node or place.name)
        size = graph[owner].num_nodes or 0
        alone = np.setdiff1d(np.arange(size), row)
        order = np.argsort(np.concatenate([row, alone]), kind="stable")
        codes = np.concatenate([code, np.zeros_like(alone)])[order]
        count = np.maximum(np.bincount(row, minlength=size), 1)
        return cls(codes, np.concatenate([[0], np.cumsum(count)]).astype(np.int64), values)


def _split(cell: object, separator: str) -> list[object]:
    """The distinct values of a cell, in their order; one missing value where there is none."""
    if isinstance(cell, list | tuple | set | np.ndarray):
        values = [value.item() if isinstance(value, np.generic) else value for value in cell]
    else:
        values = [] if cell is None else [part.strip() for part in spelled(cell).split(separator)]
    return list(dict.fromkeys(value for value in values if value not in ("", None))) or [None]
