"""The log of a graph: checks and sorts a ``HeteroData``, see :func:`graphmeta.data.graph.from_hetero`."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch_geometric.data import HeteroData

from graphmeta.data.column_types import TYPES, Categorical, Column, Several
from graphmeta.data.column_types.values import Place
from graphmeta.data.events import EventLog
from graphmeta.data.tables import EntityTable, ids_of
from graphmeta.errors import InputError

CONTAINS, OWNS = ("session", "contains", "item"), ("user", "owns", "session")


def to_log(data: HeteroData) -> EventLog:
    """The log of a graph."""
    if CONTAINS not in data.edge_types:
        raise InputError(
            f"the graph has no edges (session, contains, item); its edge types are {data.edge_types or 'none'}"
        )
    contains = data[CONTAINS]
    session, item = contains.edge_index.numpy()
    for name, ends in (("session", session), ("item", item)):
        _check_ends(data, name, ends)
    given = {name: _column(contains, name, len(item)) for name in ("time", "position", "value")}
    has_time = bool(data["has_time"]) if "has_time" in data else given["time"] is not None
    order, sessions = _order(session, given["time"], given["position"], size=data["session"].num_nodes or 0)
    user = _users(data)
    if order is not None:
        number = np.full(data["session"].num_nodes or 0, -1)
        number[sessions] = np.arange(len(sessions))
        session, item = number[session[order]], item[order]
        given = {name: None if column is None else column[order] for name, column in given.items()}
    time = np.arange(len(item)) if given["time"] is None else given["time"]
    return EventLog(
        session=session,
        item=item,
        time=time.astype(np.float64, copy=False),
        sessions=_names(data, "session") if order is None else _names(data, "session")[sessions],
        items=_table(data, "item"),
        users=None if user is None else _table(data, "user"),
        session_user=user if user is None or order is None else user[sessions],
        value=given["value"],
        has_time=has_time,
    )


def _check_ends(data: HeteroData, name: str, ends: np.ndarray) -> None:
    size = data[name].num_nodes or 0
    if len(ends) and not 0 <= ends.min() <= ends.max() < size:
        raise InputError(f"an edge (session, contains, item) has {name} {ends.max()}, but the graph has {size} of them")


def _column(store: Any, name: str, size: int) -> np.ndarray | None:
    """A column of the edges as an array of finite numbers; None if there is none."""
    values = store.get(name)
    if values is None:
        return None
    values = values.numpy()
    if values.shape != (size,) or not np.isfinite(values).all():
        raise InputError(
            f"{name} of (session, contains, item) must be {size} finite numbers, one per edge; it has the shape "
            f"{values.shape}{'' if np.isfinite(values).all() else ' and a number that is not finite'}"
        )
    return values


def _order(
    session: np.ndarray, time: np.ndarray | None, position: np.ndarray | None, *, size: int
) -> tuple[np.ndarray | None, np.ndarray]:
    """The edges in a log's order, and the sessions in theirs; None for the edges if they are in that order."""
    keys = [column for column in (position, time, session) if column is not None]
    within = np.lexsort(keys)
    first = within[np.searchsorted(session[within], np.unique(session))]
    found = session[first]
    starts = np.arange(len(found)) if time is None else time[first]
    by_start = np.argsort(starts, kind="stable")
    if (within == np.arange(len(within))).all() and (by_start == np.arange(len(by_start))).all():
        return None, np.arange(size)
    number = np.empty(size, dtype=np.int64)
    number[found[by_start]] = np.arange(len(found))
    return within[np.argsort(number[session[within]], kind="stable")], found[by_start]


def _users(data: HeteroData) -> np.ndarray | None:
    """The user of each session, -1 if unknown; None for a graph without users."""
    if "user" not in data.node_types:
        return None
    if (own := data["session"].get("user")) is not None:
        return own.numpy()
    user = np.full(data["session"].num_nodes or 0, -1, dtype=np.int64)
    if OWNS in data.edge_types:
        owner, session = data[OWNS].edge_index.numpy()
        user[session] = owner
        if (strange := user[session] != owner).any():
            raise InputError(
                f"session {session[np.argmax(strange)]} belongs to two users; (user, owns, session) is one"
            )
    return user


def _names(data: HeteroData, kind: str) -> np.ndarray:
    """The ids of a node type; 0, 1, … if it has none."""
    size = data[kind].num_nodes or 0
    given = data[kind].get("names")
    if given is None:
        return np.arange(size)
    names = given if isinstance(given, np.ndarray) else ids_of(list(given))
    if len(names) != size or len(set(names.tolist())) != size:
        raise InputError(f"names of the {size} nodes of type {kind!r} must be {size} different ids")
    return names


def _objects(values: Any) -> np.ndarray:
    return values if isinstance(values, np.ndarray) else np.array(list(values), dtype=object)


def _table(data: HeteroData, owner: str) -> EntityTable:
    """The items or users with their columns."""
    store = data[owner]
    found = _found_columns(data, owner) if (listed := store.get("columns")) is None else listed
    columns: dict[str, Column] = {}
    for one in found:
        place = Place(one["name"], one["node"], *one["x"])
        columns[place.name] = TYPES[one["kind"]].from_graph(data, owner, place)
    labels = store.get("labels")
    return EntityTable(
        _names(data, owner), columns, None if labels is None else _objects(labels), store.get("complete")
    )


def _found_columns(data: HeteroData, owner: str) -> list[dict[str, Any]]:
    """The columns of a graph that does not list them: each edge type ``has``, and ``x`` as a vector."""
    found = []
    for source, relation, node in data.edge_types:
        if (source, relation) == (owner, "has"):
            row = data[source, relation, node].edge_index[0]
            kind = Several.kind if len(row.unique()) < len(row) else Categorical.kind
            found.append({"name": node, "kind": kind, "node": node, "x": [0, 0]})
    if "x" in data[owner]:
        found.append({"name": "x", "kind": "vector", "node": None, "x": [0, data[owner].x.shape[1]]})
    return found
