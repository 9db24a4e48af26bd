"""Categories, one per row."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from torch_geometric.data import HeteroData

from graphmeta.data.column_types.base import Bags, column_type
from graphmeta.data.column_types.values import Place, add_edges, are_valid_codes, merged_codes, read_edges, text
from graphmeta.errors import InputError


@column_type
@dataclass(frozen=True, eq=False)
class Categorical:
    """A categorical column: ``codes[row]`` points into ``values``; code 0 is "unknown".

    Shapes: codes ``[rows]`` int64; values ``[distinct + 1]`` text, ``values[0] == ""``.
    """

    kind: ClassVar[str] = "categorical"
    codes: np.ndarray
    values: np.ndarray

    @classmethod
    def read(cls, values: pd.Series, name: str) -> Categorical:
        """Distinct values by first appearance; numbers are taken as categories."""
        plain = text(values)
        codes, distinct = pd.factorize(plain.where(plain != "", None))
        return cls(codes.astype(np.int64) + 1, np.concatenate([[""], np.asarray(distinct, dtype=object)]))

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Categorical:
        """The column that :meth:`to_json` wrote."""
        return cls(np.array(stored["codes"], dtype=np.int64), np.array(stored["values"], dtype=object))

    @property
    def size(self) -> int:
        """Number of values, including "unknown"."""
        return len(self.values)

    def to_json(self) -> dict[str, Any]:
        """Codes and values."""
        return {"codes": self.codes.tolist(), "values": self.values.tolist()}

    def cells(self) -> list[str | None]:
        """The values."""
        return [value or None for value in self.values[self.codes]]

    def take(self, rows: np.ndarray) -> Categorical:
        """The attribute of these rows; row -1 is unknown. All values are kept, so codes keep their meaning."""
        known = len(self.codes) > 0
        return replace(self, codes=np.where(rows >= 0, self.codes[rows], 0) if known else np.zeros(len(rows), np.int64))

    def joined(self, other: Categorical) -> Categorical:
        """The rows of both; new values get the next codes."""
        codes, values = merged_codes(self.values, other.codes, other.values)
        return replace(self, codes=np.concatenate([self.codes, codes]), values=values)

    def add_to_hash(self, digest: hashlib._Hash, name: str) -> None:
        """Name, values and codes."""
        digest.update(f"{name} {self.values.tolist()}".encode() + self.codes.tobytes())

    def is_consistent(self, rows: int) -> bool:
        """Whether each row has one code, and each code a value."""
        return self.codes.shape == (rows,) and are_valid_codes(self.codes, self.values)

    def features(self) -> Bags:
        """One value per row."""
        return Bags(self.codes, np.arange(len(self.codes) + 1), self.size)

    def add_to(self, graph: HeteroData, owner: str, name: str) -> None:
        """A node for each value, and an edge from each row whose value is known."""
        add_edges(graph, owner, name, row=np.arange(len(self.codes)), codes=self.codes, values=self.values)

    @classmethod
    def from_graph(cls, graph: HeteroData, owner: str, place: Place) -> Categorical:
        """The value at the end of each row's edge; unknown without one.

        Raises:
            InputError: a row with two edges.
        """
        row, code, values = read_edges(graph, owner, place.node or place.name)
        if len(twice := np.flatnonzero(row[1:] == row[:-1])):
            raise InputError(
                f"{owner} {row[twice[0]]} has two values of {place.name!r}; list it as a column of kind 'several'"
            )
        codes = np.zeros(graph[owner].num_nodes or 0, dtype=np.int64)
        codes[row] = code
        return cls(codes, values)
