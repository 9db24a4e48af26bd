"""The log as one heterogeneous graph, for encoders that read beyond the session and for inspection."""

from __future__ import annotations

import networkx as nx
import numpy as np
import torch
from torch_geometric.data import HeteroData
from torch_geometric.transforms import ToUndirected

from graphmeta.data.events import EventLog
from graphmeta.errors import InputError


def build_graph(log: EventLog, *, reverse: bool = False) -> HeteroData:
    """The graph of a log; pass the training log, so that it has no later events.

    Node types: ``session``, ``item``, ``user`` (if known) and one for each item and user attribute. Edge types:

    * ``(session, contains, item)``: one per click, with ``position`` in the session and ``time`` in seconds;
    * ``(item, follows, item)``: transitions between consecutive clicks of a session, with their count as ``weight``;
    * ``(user, owns, session)``; ``(item, has, <attribute>)`` and ``(user, has, <attribute>)``: one edge per value, none
      for an unknown one.

    An attribute name that is already in use is prefixed with its owner: ``user_category`` if items have a ``category``.
    Numeric and vector columns are columns of ``x``.

    Args:
        reverse: add ``rev_`` twins of all edges, for message passing both ways.
    """
    graph = HeteroData()
    graph["session"].num_nodes, graph["item"].num_nodes = log.num_sessions, log.num_items
    position = np.arange(log.num_events) - log.ptr[log.session]
    contains = graph["session", "contains", "item"]
    contains.edge_index = _edges(log.session, log.item)
    contains.position, contains.time = torch.from_numpy(position), torch.from_numpy(log.time)
    follows = graph["item", "follows", "item"]
    follows.edge_index, follows.weight = _follows(log)
    if log.users is not None and log.session_user is not None:
        graph["user"].num_nodes = len(log.users)
        owned = np.flatnonzero(log.session_user >= 0)
        graph["user", "owns", "session"].edge_index = _edges(log.session_user[owned], owned)
    for owner, table in (("item", log.items), ("user", log.users)):
        for name, column in table.columns.items() if table is not None else ():
            column.add_to(graph, owner, name)
    graph.validate()
    return ToUndirected(merge=False)(graph) if reverse else graph


def _edges(source: np.ndarray, target: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack([source, target]).astype(np.int64))


def _follows(log: EventLog) -> tuple[torch.Tensor, torch.Tensor]:
    step = np.flatnonzero(log.session[1:] == log.session[:-1])
    key, count = np.unique(log.item[step] * max(log.num_items, 1) + log.item[step + 1], return_counts=True)
    size = max(log.num_items, 1)
    return _edges(key // size, key % size), torch.from_numpy(count.astype(np.float32))


def to_networkx(graph: HeteroData, *, around: tuple[str, int] | None = None, hops: int = 1) -> nx.MultiDiGraph:
    """The graph, or the neighbourhood of one node, as networkx; nodes are ``(type, number)``, edges carry ``kind``.

    Args:
        around: the centre node, e.g. ``("session", 3)``; the whole graph if not given.
        hops: the radius, along edges of either direction.

    Raises:
        InputError: no such centre node.

    >>> import pandas as pd
    >>> log = EventLog.read(pd.DataFrame({"s": [1, 1], "i": ["a", "b"]}), session="s", item="i")
    >>> sorted(to_networkx(build_graph(log)).edges(data="kind"))[0]
    (('item', 0), ('item', 1), 'follows')
    """
    near = _all(graph) if around is None else _near(graph, around, hops)
    picture = nx.MultiDiGraph()
    for kind, inside in near.items():
        picture.add_nodes_from(((kind, n) for n in inside.nonzero().flatten().tolist()), kind=kind)
    for source, kind, target in graph.edge_types:
        edges = graph[source, kind, target].edge_index
        edges = edges[:, near[source][edges[0]] & near[target][edges[1]]]
        picture.add_edges_from(((source, s), (target, t), {"kind": kind}) for s, t in edges.t().tolist())
    return picture


def _all(graph: HeteroData) -> dict[str, torch.Tensor]:
    return {kind: torch.ones(graph[kind].num_nodes, dtype=torch.bool) for kind in graph.node_types}


def _near(graph: HeteroData, around: tuple[str, int], hops: int) -> dict[str, torch.Tensor]:
    """Masks of the nodes of each type within ``hops`` of the centre."""
    kind, number = around
    if kind not in graph.node_types or not 0 <= number < (graph[kind].num_nodes or 0):
        sizes = ", ".join(f"{k} ({graph[k].num_nodes})" for k in graph.node_types)
        raise InputError(f"no node {kind} {number} in the graph; it has {sizes}, numbered from 0")
    near = {name: ~everything for name, everything in _all(graph).items()}
    near[kind][number] = True
    for _ in range(hops):
        before = {name: inside.clone() for name, inside in near.items()}
        for source, relation, target in graph.edge_types:
            s, t = graph[source, relation, target].edge_index
            near[target][t[before[source][s]]] = True
            near[source][s[before[target][t]]] = True
    return near
