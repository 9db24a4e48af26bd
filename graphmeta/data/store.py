"""The log as a graph in the same memory: nodes, edges and names of a ``HeteroData``, see :attr:`EventLog.graph`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch_geometric.data import HeteroData

from graphmeta.data.tables import EntityTable

if TYPE_CHECKING:
    from graphmeta.data.events import EventLog


def side_by_side(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Two int64 columns as the rows of one array ``[2, N]``, without a copy if they already are."""
    base = first.base
    if (
        isinstance(base, np.ndarray)
        and base is second.base
        and first.dtype == second.dtype == np.int64
        and first.strides == second.strides == (8,)
        and second.ctypes.data == first.ctypes.data + first.nbytes
    ):
        return np.lib.stride_tricks.as_strided(first, (2, len(first)), (first.nbytes, 8))
    return np.stack([first, second]).astype(np.int64)


def to_graph(log: EventLog) -> HeteroData:
    """The graph of a log, see :attr:`EventLog.graph <graphmeta.data.events.EventLog.graph>`."""
    graph = HeteroData()
    graph.has_time = log.has_time
    graph["session"].num_nodes, graph["item"].num_nodes = log.num_sessions, log.num_items
    graph["session"].names = log.sessions
    contains = graph["session", "contains", "item"]
    contains.edge_index = shared(side_by_side(log.session, log.item))
    contains.position = torch.from_numpy(np.arange(log.num_events) - log.ptr[log.session])
    contains.time = shared(log.time)
    if log.value is not None:
        contains.value = shared(log.value)
    follows = graph["item", "follows", "item"]
    follows.edge_index, follows.weight = _follows(log)
    if log.users is not None and log.session_user is not None:
        graph["user"].num_nodes, graph["session"].user = len(log.users), shared(log.session_user)
        owned = np.flatnonzero(log.session_user >= 0)
        graph["user", "owns", "session"].edge_index = edges(log.session_user[owned], owned)
    for owner, table in (("item", log.items), ("user", log.users)):
        if table is not None and owner in graph.node_types:
            _add_table(graph, owner, table)
    graph.validate()
    return graph


def _add_table(graph: HeteroData, owner: str, table: EntityTable) -> None:
    """Ids, labels and columns of items or users; ``columns`` lists each column's name, type and place."""
    graph[owner].names, graph[owner].complete, places = table.ids, table.complete, []
    if table.labels is not None:
        graph[owner].labels = table.labels
    for name, column in table.columns.items():
        kinds, begin = set(graph.node_types), _width(graph, owner)
        column.add_to(graph, owner, name)
        node = next((kind for kind in graph.node_types if kind not in kinds), None)
        places.append({"name": name, "kind": column.kind, "node": node, "x": [begin, _width(graph, owner)]})
    graph[owner].columns = places


def _width(graph: HeteroData, owner: str) -> int:
    return graph[owner].x.shape[1] if "x" in graph[owner] else 0


def shared(values: np.ndarray) -> torch.Tensor:
    """The array as a tensor in the same memory; a copy if it may not be written or is not contiguous."""
    return torch.from_numpy(values if values.flags.writeable and values.flags.c_contiguous else values.copy())


def edges(source: np.ndarray, target: np.ndarray) -> torch.Tensor:
    """Edges ``[2, N]`` from two columns."""
    return torch.from_numpy(side_by_side(source, target))


def _follows(log: EventLog) -> tuple[torch.Tensor, torch.Tensor]:
    step = np.flatnonzero(log.session[1:] == log.session[:-1])
    size = max(log.num_items, 1)
    key, count = np.unique(log.item[step] * size + log.item[step + 1], return_counts=True)
    return edges(key // size, key % size), torch.from_numpy(count.astype(np.float32))
