"""Functions shared by several column types."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from graphmeta.data.columns import spelled


def text(values: pd.Series) -> pd.Series:
    """Values as text, "" for missing; whole floats without ".0" (pandas reads ints with gaps as floats)."""
    known = values.notna().to_numpy(dtype=bool)
    if pd.api.types.is_float_dtype(values) and (np.mod(values[known], 1) == 0).all():
        values = values.astype(object).where(known, 0).map(int)
    return pd.Series([spelled(v) if k else "" for v, k in zip(values, known, strict=True)], dtype=object)


def are_valid_codes(codes: np.ndarray, values: np.ndarray) -> bool:
    """Whether each code points to a value."""
    if values.ndim != 1 or len(values) == 0 or codes.ndim != 1 or codes.dtype.kind != "i":
        return False
    return not len(codes) or 0 <= int(codes.min()) <= int(codes.max()) < len(values)


def add_edges(graph: HeteroData, owner: str, name: str, row: np.ndarray, codes: np.ndarray, size: int) -> None:
    """Nodes of a new type for ``size`` values, and an edge ``has`` from each row to its value, unless unknown (0)."""
    node, known = free_name(graph, owner, name), codes > 0
    graph[node].num_nodes = size
    edges = np.stack([row[known], codes[known]]).astype(np.int64)
    graph[owner, "has", node].edge_index = torch.from_numpy(edges)


def free_name(graph: HeteroData, owner: str, name: str) -> str:
    """An unused node type for a column; PyG reserves double underscores."""
    name = re.sub("__+", "_", name)
    while name in graph.node_types or name in ("session", "item", "user"):
        name = f"{owner}_{name}"
    return name


def add_features(graph: HeteroData, owner: str, names: Sequence[str], features: Tensor) -> None:
    """Append features ``[N, F]`` to ``x`` of the nodes of type ``owner``, and their names to ``x_names``."""
    store = graph[owner]
    store.x = torch.cat([store.x, features], 1) if "x" in store else features
    store.x_names = [*store.get("x_names", []), *names]
