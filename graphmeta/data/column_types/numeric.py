"""Numbers, one per row."""

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
from graphmeta.data.columns import MISSING_WORDS, BadRows, missing, place


@column_type
@dataclass(frozen=True, eq=False)
class Numeric:
    """A column of numbers (a price, a weight), NaN where unknown.

    In the graph it is two columns of the owner's ``x``: the number, 0 where unknown, and whether it is known.

    Shapes: values ``[rows]`` float64.
    """

    kind: ClassVar[str] = "numeric"
    values: np.ndarray

    @classmethod
    def read(cls, values: pd.Series, name: str) -> Numeric:
        """Numbers, or text that reads as numbers; missing values (also NA, null and such) are unknown.

        Raises:
            InputError: a value that is not a finite number; names its row.
        """
        found = pd.Series(pd.to_numeric(values, errors="coerce")).to_numpy(dtype=np.float64, na_value=np.nan)
        bad = ~missing(values) & ~np.isfinite(found) & ~values.isin(MISSING_WORDS).to_numpy(dtype=bool)
        if bad.any():
            shown = values.iloc[int(np.argmax(bad))]
            message = f"{place(values, bad)}: {shown!r} is not a finite number; correct it or leave the cell empty"
            raise BadRows(message, bad, f"{name} is not a number")
        return cls(found)

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Numeric:
        """The column that :meth:`to_json` wrote."""
        return cls(np.array([np.nan if v is None else v for v in stored["values"]], dtype=np.float64))

    def to_json(self) -> dict[str, Any]:
        """The numbers, null where unknown."""
        return {"values": [None if np.isnan(v) else float(v) for v in self.values]}

    def cells(self) -> list[float | None]:
        """The numbers."""
        return self.to_json()["values"]

    def take(self, rows: np.ndarray) -> Numeric:
        """The numbers of these rows; row -1 is unknown."""
        return replace(self, values=np.append(self.values, np.nan)[rows])

    def joined(self, other: Numeric) -> Numeric:
        """The rows of both."""
        return replace(self, values=np.concatenate([self.values, other.values]))

    def add_to_hash(self, digest: hashlib._Hash, name: str) -> None:
        """Name and numbers."""
        digest.update(f"{name} numeric".encode() + self.values.tobytes())

    def is_consistent(self, rows: int) -> bool:
        """Whether each row has one number, none infinite."""
        return self.values.shape == (rows,) and not np.isinf(self.values).any()

    def features(self) -> Numbers:
        """One number per row."""
        return Numbers(self.values[:, None])

    def add_to(self, graph: HeteroData, owner: str, name: str) -> None:
        """Two columns of ``x``: ``price`` and ``price is known`` in ``x_names``; the float64 numbers beside it."""
        known = ~np.isnan(self.values)
        both = np.stack([np.where(known, self.values, 0.0), known], 1).astype(np.float32)
        add_features(graph, owner, [name, f"{name} is known"], torch.from_numpy(both))
        graph[owner][f"number_{name}"] = torch.from_numpy(self.values)

    @classmethod
    def from_graph(cls, graph: HeteroData, owner: str, place: Place) -> Numeric:
        """The float64 numbers, or without them the columns of ``x``."""
        own = graph[owner].get(f"number_{place.name}")
        if own is not None:
            return cls(own.numpy())
        number, *known = graph[owner].x[:, place.begin : place.end].double().unbind(1)
        return cls(np.where(known[0].numpy() > 0, number.numpy(), np.nan) if known else number.numpy())
