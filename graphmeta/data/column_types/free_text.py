"""Texts, one per row: a title, a description."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from torch_geometric.data import HeteroData

from graphmeta.data.column_types.base import column_type
from graphmeta.data.column_types.values import Place, text


@column_type
@dataclass(frozen=True, eq=False)
class Text:
    """A column of texts, "" where unknown; a list beside the owner's nodes in the graph, for encoders of text.

    Shapes: values ``[rows]`` text.
    """

    kind: ClassVar[str] = "text"
    values: np.ndarray

    @classmethod
    def read(cls, values: pd.Series, name: str) -> Text:
        """The cells as text; "" for missing ones."""
        return cls(text(values).to_numpy(dtype=object))

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Text:
        """The column that :meth:`to_json` wrote."""
        return cls(np.array(stored["values"], dtype=object))

    def to_json(self) -> dict[str, Any]:
        """The texts."""
        return {"values": self.values.tolist()}

    def cells(self) -> list[str | None]:
        """The texts."""
        return [value or None for value in self.values]

    def take(self, rows: np.ndarray) -> Text:
        """The texts of these rows; row -1 is unknown."""
        return replace(self, values=np.append(self.values, "")[rows])

    def joined(self, other: Text) -> Text:
        """The rows of both."""
        return replace(self, values=np.concatenate([self.values, other.values]))

    def add_to_hash(self, digest: hashlib._Hash, name: str) -> None:
        """Name and texts."""
        digest.update(f"{name} text {self.values.tolist()}".encode())

    def is_consistent(self, rows: int) -> bool:
        """Whether each row has one text."""
        return self.values.shape == (rows,) and all(isinstance(value, str) for value in self.values)

    def features(self) -> None:
        """None: an encoder of text reads it from the graph, or makes a vector column of it."""
        return None

    def add_to(self, graph: HeteroData, owner: str, name: str) -> None:
        """A list of texts under the column's name."""
        graph[owner][f"text_{name}"] = self.values.tolist()

    @classmethod
    def from_graph(cls, graph: HeteroData, owner: str, place: Place) -> Text:
        """The list of texts."""
        return cls(np.array(graph[owner][f"text_{place.name}"], dtype=object))
