"""Save and load graphs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torch import Tensor
from torch_geometric.data import HeteroData

from graphmeta.data.events import EventLog
from graphmeta.data.tables import locate
from graphmeta.errors import InputError
from graphmeta.storage import load_state, save_state


def session_number(log: EventLog, around: str | None) -> int:
    """The index of the session with this id; without an id, of a session of typical length.

    Raises:
        InputError: no such session.
    """
    if around is None:
        usual = np.clip(np.median(log.lengths), 3, 8)
        return int(np.abs(log.lengths - usual).argmin())
    at = int(locate(log.sessions, np.array([around], dtype=object))[0])
    if at < 0:
        raise InputError(f"no session {around!r} in the log; its first is {log.sessions[0]!r}")
    return at


def node_names(log: EventLog, graph: HeteroData) -> dict[str, np.ndarray]:
    """The name of each node: ids of sessions and users, labels of items, values of attributes."""
    names = {
        "session": log.sessions,
        "item": np.array([log.items.describe(row) for row in range(log.num_items)]),
    }
    tables = [log.items] if log.users is None else [log.items, log.users]
    if log.users is not None:
        names["user"] = log.users.ids
    values = [one.values for table in tables for one in {**table.attributes, **table.several}.values()]
    return names | dict(zip([kind for kind in graph.node_types if kind not in names], values, strict=True))


def save_graph(folder: Path, graph: HeteroData, names: Mapping[str, np.ndarray]) -> None:
    """Write a graph as ``graph.json`` and safetensors; ``names`` holds the original ids of the types that have some."""
    tensors = {"/".join((*edge, key)): value for edge in graph.edge_types for key, value in graph[edge].items()}
    own = {kind: dict(graph[kind].items()) for kind in graph.node_types}
    tensors |= {f"{kind}/{key}": one for kind in own for key, one in own[kind].items() if isinstance(one, Tensor)}
    document = {
        "nodes": {kind: graph[kind].num_nodes for kind in own},
        "names": {kind: ids.tolist() for kind, ids in names.items()},
        "lists": {kind: {key: one for key, one in own[kind].items() if isinstance(one, list)} for kind in own},
    }
    save_state(folder, "graph", tensors, document)


def load_graph(folder: Path) -> HeteroData:
    """The graph that :func:`save_graph` wrote; each node type's original ids as ``graph[kind].names``."""
    tensors, document = load_state(folder, "graph")
    graph = HeteroData()
    for kind, size in document["nodes"].items():
        graph[kind].num_nodes = size
        if kind in document["names"]:
            graph[kind].names = document["names"][kind]
        for key, values in document.get("lists", {}).get(kind, {}).items():
            graph[kind][key] = values
    for path, value in tensors.items():
        match path.split("/"):
            case [kind, key]:
                graph[kind][key] = value
            case [source, relation, target, key]:
                graph[source, relation, target][key] = value
    return graph
