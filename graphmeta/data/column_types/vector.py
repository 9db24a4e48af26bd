"""Vectors, one per row: of an image, a text, another model."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from torch_geometric.data import HeteroData

from graphmeta.data.column_types.base import Numbers, column_type
from graphmeta.data.column_types.values import Place, add_features
from graphmeta.data.columns import MISSING_WORDS, BadRows, place, spelled
from graphmeta.errors import InputError


@column_type
@dataclass(frozen=True, eq=False)
class Vector:
    """A column of vectors of one length, zeros where unknown; columns of the owner's ``x`` in the graph.

    Shapes: values ``[rows, D]`` float32.
    """

    kind: ClassVar[str] = "vector"
    values: np.ndarray

    @classmethod
    def read(cls, values: pd.Series, name: str, *, separator: str = " ") -> Vector:
        """Cells that are lists or arrays, or text with ``separator`` between the numbers; missing ones are unknown.

        Raises:
            InputError: a cell that is not a vector of finite numbers, or has another length; names its row.
        """
        rows = [_vector(cell, separator) if _is_known(cell) else None for cell in values]
        bad = np.array([row is not None and not (len(row) and np.isfinite(row).all()) for row in rows], dtype=bool)
        if bad.any():
            shown = str(values.iloc[int(np.argmax(bad))])[:40]
            message = f"{place(values, bad)}: {shown!r} is not a vector of finite numbers"
            raise BadRows(message, bad, f"{name} is not a vector")
        size = next((len(row) for row in rows if row is not None), 0)
        bad = np.array([row is not None and len(row) != size for row in rows], dtype=bool)
        if bad.any():
            other = rows[int(np.argmax(bad))]
            length = 0 if other is None else len(other)
            message = f"{place(values, bad)}: a vector of {length} numbers, not of {size}"
            raise BadRows(message, bad, f"{name} has another length")
        return cls(np.stack([np.zeros(size, np.float32) if row is None else row for row in rows]))

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Vector:
        """The column that :meth:`to_json` wrote."""
        return cls(np.array(stored["values"], dtype=np.float32).reshape(len(stored["values"]), int(stored["size"])))

    def to_json(self) -> dict[str, Any]:
        """The numbers, and the length D."""
        return {"values": self.values.tolist(), "size": self.values.shape[1]}

    def cells(self) -> list[list[float] | None]:
        """The vectors."""
        return [row.tolist() if row.any() else None for row in self.values]

    def take(self, rows: np.ndarray) -> Vector:
        """The vectors of these rows; row -1 is unknown."""
        nothing = np.zeros((1, self.values.shape[1]), self.values.dtype)
        return replace(self, values=np.concatenate([self.values, nothing])[rows])

    def joined(self, other: Vector) -> Vector:
        """The rows of both."""
        if self.values.shape[1] != other.values.shape[1]:
            raise InputError(f"vectors of {other.values.shape[1]} numbers beside vectors of {self.values.shape[1]}")
        return replace(self, values=np.concatenate([self.values, other.values]))

    def add_to_hash(self, digest: hashlib._Hash, name: str) -> None:
        """Name and numbers."""
        digest.update(f"{name} vector".encode() + self.values.tobytes())

    def is_consistent(self, rows: int) -> bool:
        """Whether each row has one vector of finite numbers."""
        return self.values.ndim == 2 and len(self.values) == rows and bool(np.isfinite(self.values).all())

    def features(self) -> Numbers:
        """The vectors; one of zeros is unknown."""
        return Numbers(np.where(self.values.any(1, keepdims=True), self.values, np.nan))

    def add_to(self, graph: HeteroData, owner: str, name: str) -> None:
        """Columns of ``x``: ``image[0]``, ``image[1]`` … in ``x_names``."""
        names = [f"{name}[{at}]" for at in range(self.values.shape[1])]
        add_features(graph, owner, names, torch.from_numpy(self.values))

    @classmethod
    def from_graph(cls, graph: HeteroData, owner: str, place: Place) -> Vector:
        """Columns of ``x``."""
        return cls(np.ascontiguousarray(graph[owner].x[:, place.begin : place.end].float().numpy()))


def _is_known(cell: object) -> bool:
    return isinstance(cell, list | tuple | np.ndarray) or str(cell).strip() not in {"", *MISSING_WORDS}


def _vector(cell: object, separator: str) -> np.ndarray:
    """The numbers of a cell; NaN for one without numbers."""
    parts = cell if isinstance(cell, list | tuple | np.ndarray) else spelled(cell).split(separator)
    try:
        return np.array([float(part) for part in parts if str(part).strip()], dtype=np.float32)
    except (TypeError, ValueError):
        return np.array([np.nan])
