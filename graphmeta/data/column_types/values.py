"""Functions shared by several column types."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from graphmeta.data.columns import spelled

RESERVED = ("session", "item", "user", "event", "sample", "history")  # node types of graphs and batches


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


def merged_codes(values: np.ndarray, codes: np.ndarray, more: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes of another column in terms of ``values``, and these with its new ones at the end.

    Shapes: values ``[V]``, codes ``[N]`` that point into ``more`` -> ``[N]``, ``[V + new]``.
    """
    known = {value: code for code, value in enumerate(values.tolist())}
    number = np.array([known.setdefault(value, len(known)) for value in more.tolist()], dtype=np.int64)
    return number[codes], np.array(list(known), dtype=object)


class Place(NamedTuple):
    """Where the graph has a column: its node type, or the columns ``begin:end`` of its owner's ``x``."""

    name: str
    node: str | None = None
    begin: int = 0
    end: int = 0


def add_edges(
    graph: HeteroData, owner: str, name: str, *, row: np.ndarray, codes: np.ndarray, values: np.ndarray
) -> None:
    """Nodes of a new type, one for each value, and an edge ``has`` from each row to its value, unless unknown (0)."""
    node, known = free_name(graph, owner, name), codes > 0
    graph[node].num_nodes, graph[node].names = len(values), values
    edges = np.stack([row[known], codes[known]]).astype(np.int64)
    graph[owner, "has", node].edge_index = torch.from_numpy(edges)


def read_edges(graph: HeteroData, owner: str, node: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The edges ``has`` of a node type: owner's row and value of each, sorted by row, and the names of all values.

    Values without names are called by their number; value 0 is "unknown" and may have no edge. If the graph has other
    names, each value gets the next number, and 0 is free for it.
    """
    row, code = graph[owner, "has", node].edge_index.numpy()
    names = np.asarray(graph[node].get("names", np.arange(graph[node].num_nodes)), dtype=object)
    if not len(names) or names[0] != "" or (code == 0).any():
        code, names = code + 1, np.concatenate([[""], [spelled(name) for name in names]]).astype(object)
    order = np.arange(len(row)) if (row[1:] >= row[:-1]).all() else np.argsort(row, kind="stable")
    return row[order], code[order], names


def free_name(graph: HeteroData, owner: str, name: str) -> str:
    """An unused node type for a column; PyG reserves double underscores, and batches have stores of their own."""
    name = re.sub("__+", "_", name)
    while name in graph.node_types or name in RESERVED:
        name = f"{owner}_{name}"
    return name


def node_names(owner: str, names: Iterable[str]) -> dict[str, str]:
    """The node types of the categorical columns of a table, in its order."""
    graph, found = HeteroData(), {}
    for name in names:
        found[name] = free_name(graph, owner, name)
        graph[found[name]].num_nodes = 0
    return found


def add_features(graph: HeteroData, owner: str, names: Sequence[str], features: Tensor) -> None:
    """Append features ``[N, F]`` to ``x`` of the nodes of type ``owner``, and their names to ``x_names``."""
    store = graph[owner]
    store.x = torch.cat([store.x, features], 1) if "x" in store else features
    store.x_names = [*store.get("x_names", []), *names]
