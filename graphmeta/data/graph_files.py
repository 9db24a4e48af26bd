"""Save and load graphs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch_geometric.data import HeteroData

from graphmeta.data.events import EventLog
from graphmeta.data.tables import ids_of, locate
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


def node_names(log: EventLog) -> dict[str, np.ndarray]:
    """The name of each node: ids of sessions and users, labels of items, values of attributes."""
    names = {kind: np.asarray(log.graph[kind].names, dtype=object) for kind in log.graph.node_types}
    return names | {"item": np.array([log.items.describe(row) for row in range(log.num_items)])}


def save_graph(folder: Path, graph: HeteroData) -> None:
    """Write a graph with its names as ``graph.json`` and safetensors.

    Raises:
        InputError: a folder that cannot be written, or an attribute that JSON cannot hold; names it.
    """
    tensors, others = {}, []
    for store in graph.stores:
        kind = list(store._key) if isinstance(store._key, tuple) else store._key
        for key, value in store.items():
            if isinstance(value, Tensor):
                tensors[json.dumps([kind, key])] = value
            else:
                value = value.tolist() if isinstance(value, np.ndarray) else value
                others.append([kind, key, _plain(value, f"{key!r} of {kind or 'the graph'}")])
    kinds = [*graph.node_types, *map(list, graph.edge_types)]
    save_state(folder, "graph", tensors, {"kinds": kinds, "attributes": others})


def _plain(value: Any, name: str) -> Any:
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} cannot be written as JSON ({error}); remove it or make it a tensor") from None


def load_graph(folder: Path) -> HeteroData:
    """The graph that :func:`save_graph` wrote, memory-mapped: tensors are read from disk when they are used.

    ``names`` are arrays again. ``from_hetero(load_graph(folder))`` is the log, whose events are not copied either.

    Raises:
        InputError: a missing, truncated or changed file; names it.
    """
    tensors, document = load_state(folder, "graph", mapped=True)
    if "kinds" not in document:
        raise InputError(f"{folder}/graph.json: written by a version before 0.3; write the graph again from its log")
    graph = HeteroData()
    for kind in document["kinds"]:
        _store(graph, kind)
    for path, value in tensors.items():
        kind, key = json.loads(path)
        _store(graph, kind)[key] = value
    for kind, key, value in document["attributes"]:
        _store(graph, kind)[key] = ids_of(value) if key in ("names", "labels") else value
    return graph


def _store(graph: HeteroData, kind: str | list[str] | None) -> Any:
    if kind is None:
        return graph._global_store
    if isinstance(kind, str):
        return graph[kind]
    source, relation, target = kind
    return graph[source, relation, target]
