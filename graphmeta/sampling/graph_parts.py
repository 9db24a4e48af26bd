"""What a sub-graph has of a log: the users' earlier sessions, and the attributes of items and users."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch_geometric.data import HeteroData

from graphmeta.errors import InputError
from graphmeta.sampling.padding import ragged
from graphmeta.sampling.user_histories import Earlier


@dataclass(frozen=True)
class Sessions:
    """Earlier sessions of samples, sorted by sample, then by their first event.

    Shapes: owner ``[H]``, the sample; columns ``[H]``; of_click ``[N]``, the session of each click; item ``[N]``;
    click_columns ``[N]``.
    """

    owner: np.ndarray
    columns: dict[str, np.ndarray]
    of_click: np.ndarray
    item: np.ndarray
    click_columns: dict[str, np.ndarray]

    @classmethod
    def none(cls) -> Sessions:
        """No session."""
        nothing = np.zeros(0, dtype=np.int64)
        return cls(nothing, {}, nothing, nothing, {})

    @classmethod
    def of(cls, earlier: Earlier, number: np.ndarray) -> Sessions:
        """These sessions.

        Args:
            number: ``n_id`` of each session of the histories.
        """
        known = earlier.histories
        session, ptr = ragged(earlier.since, earlier.sessions)
        owner = np.repeat(np.arange(len(ptr) - 1), np.diff(ptr))
        begin, until = known.begin[session], known.begin[session + 1]
        click, click_ptr = ragged(begin, until - begin)
        of_click = np.repeat(np.arange(len(session)), np.diff(click_ptr))
        age = earlier.query_time[owner] - known.time[until - 1]
        columns = {"n_id": number[session], "order": np.arange(len(session)) - ptr[owner], "age": age}
        click_columns = {"position": click - begin[of_click], "time": known.time[click]}
        return cls(owner, columns, of_click, known.item[click], click_columns)


@dataclass(frozen=True)
class Attribute:
    """The edges from items or users to the values of an attribute: row r has ``code[ptr[r]:ptr[r + 1]]``.

    ``node`` is the node type of the values, ``size`` their number. Both arrays have one entry more, for row -1.
    """

    owner: str
    node: str
    ptr: np.ndarray
    code: np.ndarray
    size: int


def attributes_of(graph: HeteroData, wanted: bool | tuple[str, ...]) -> list[Attribute]:
    """The attributes of items and users in a log's graph, or those of items with these names.

    Raises:
        InputError: a name that no attribute of items has.
    """
    nodes = {place["node"]: place["name"] for place in graph["item"].get("columns", []) if place["node"] is not None}
    if wanted is not True and (lacking := sorted({*(wanted or ())} - set(nodes.values()))):
        there = ", ".join(nodes.values()) or "none"
        raise InputError(f"the graph's items have no attribute {lacking[0]!r}, which the encoder reads; it has {there}")
    found = []
    for owner, relation, node in graph.edge_types:
        if relation == "has" and (wanted is True or (owner == "item" and nodes[node] in (wanted or ()))):
            row, code = graph[owner, relation, node].edge_index.numpy()
            ptr = np.searchsorted(row, np.arange((graph[owner].num_nodes or 0) + 2))
            found.append(Attribute(owner, node, ptr, np.append(code, 0), int(graph[node].num_nodes or 0)))
    return found
