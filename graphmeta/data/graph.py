"""The log as one heterogeneous graph, for encoders that read beyond the session and for inspection."""

from __future__ import annotations

import copy

import networkx as nx
import torch
from torch_geometric.data import HeteroData
from torch_geometric.transforms import ToUndirected

from graphmeta.data.events import EventLog
from graphmeta.data.hetero import to_log
from graphmeta.errors import InputError


def build_graph(log: EventLog, *, reverse: bool = False) -> HeteroData:
    """The log as a PyG ``HeteroData``: a copy of the stores of :attr:`EventLog.graph` over the log's memory.

    Pass the training log, so that the graph has no later events.

    Args:
        reverse: add ``rev_`` twins of all edges, for message passing both ways.
    """
    graph = copy.copy(log.graph)
    return ToUndirected(merge=False)(graph) if reverse else graph


def from_hetero(data: HeteroData) -> EventLog:
    """The log of a graph: of :attr:`EventLog.graph`, or of your own ``HeteroData``.

    It needs edges ``(session, contains, item)``, with ``time`` (seconds) or ``position`` if they are not in the order
    of the clicks, and may have ``value``, edges ``(user, owns, session)``, edges ``has`` from items and users to
    attribute nodes, their ``x`` (a vector column), and ids as ``names`` of any node type. Edges in a log's order
    (sessions by their first click, clicks by time) are not copied; others are sorted, and sessions without a click
    left out.

    Raises:
        InputError: no such edges, an end that is not in the graph, a column of another length, a session of two users,
            or names that are not different; names the place.

    >>> data = HeteroData()
    >>> data["session"].num_nodes, data["item"].num_nodes = 2, 3
    >>> data["session", "contains", "item"].edge_index = torch.tensor([[1, 0, 1], [2, 0, 1]])
    >>> data["session", "contains", "item"].time = torch.tensor([5.0, 9.0, 6.0])
    >>> log = from_hetero(data)
    >>> log.sessions.tolist(), log.session.tolist(), log.item.tolist()
    ([1, 0], [0, 0, 1], [2, 1, 0])
    """
    return to_log(data)


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
