"""The part of a log's graph around a sample, as further stores of its batch."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch_geometric.data import HeteroData

from graphmeta.errors import check_whole
from graphmeta.sampling.batch_rows import BatchRows
from graphmeta.sampling.graph_parts import Attribute
from graphmeta.sampling.padding import distinct, overwritten, ragged
from graphmeta.sampling.task_layout import TaskLayout

Relation = tuple[str, str, str]


@dataclass(frozen=True)
class Neighbourhood:
    """What an encoder reads of the graph around a session, see :class:`~graphmeta.sampling.subgraph.SubgraphSampler`.

    Args:
        history: the user's latest earlier sessions, with their items.
        follows: the most frequent followers of each clicked item.
        attributes: whether items and users have their attribute nodes, or the names of the item columns that have.
        unknown: whether an item or user without a value has a node of its own, of value 0.

    Raises:
        InputError: a number below 0.
    """

    history: int = 0
    follows: int = 0
    attributes: bool | tuple[str, ...] = False
    unknown: bool = False

    def __post_init__(self) -> None:
        for name in ("history", "follows"):
            check_whole(name, getattr(self, name), 0)

    def __bool__(self) -> bool:
        return bool(self.history or self.follows or self.attributes)

    @property
    def reads_users(self) -> bool:
        """Whether samples have a user node."""
        return self.history > 0 or self.attributes is True

    @property
    def needs_log(self) -> bool:
        """Whether it is in a log alone: followers, attributes of users. Item attributes are in the item table, and
        earlier sessions may come with the samples.
        """
        return bool(self.follows or self.attributes is True)


@dataclass
class Nodes:
    """The rows of a node type: their sample ``[N]`` and columns ``[N]``, sorted by sample."""

    sample: np.ndarray
    columns: dict[str, np.ndarray]


@dataclass
class Edges:
    """Edges between rows ``[N]`` each, sorted by sample, and their columns ``[N]``."""

    source: np.ndarray
    target: np.ndarray
    columns: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass
class Subgraph:
    """The stores around the samples of a batch, whose own rows are ``rows``; see there for shapes."""

    rows: BatchRows
    nodes: dict[str, Nodes] = field(default_factory=dict)
    edges: dict[Relation, Edges] = field(default_factory=dict)

    def add_values(self, attribute: Attribute, owner: Nodes, *, unknown: bool) -> None:
        """Nodes of the values of an attribute, one for each distinct value of a sample, and edges from their owners.

        Args:
            owner: items or users.
            unknown: add a node of value 0 for each of them without a value.
        """
        node, begin = owner.columns["n_id"], attribute.ptr[owner.columns["n_id"]]
        size = np.where(node >= 0, attribute.ptr[node + 1] - begin, 0)
        count = np.maximum(size, 1) if unknown else size
        row, sample, values = np.repeat(np.arange(len(node)), count), owner.sample, attribute.size
        code = attribute.code[ragged(begin, count)[0]]
        if unknown:  # values after those of the attribute, one for each row of the sample
            place = np.arange(len(node)) - np.searchsorted(sample, sample)
            code = np.where(size[row] == 0, values + place[row], code)
            values += int(place.max(initial=0)) + 1
        key, target = distinct(sample[row] * values + code, size=(len(self.rows.ptr) - 1) * values)
        of, code = np.divmod(key, values)
        self.nodes[attribute.node] = Nodes(of, {"n_id": np.where(code < attribute.size, code, 0)})
        self.edges[attribute.owner, "has", attribute.node] = Edges(row, target)

    def add_to(self, batch: HeteroData, layout: TaskLayout | None) -> HeteroData:
        """Put the stores into a batch; with a layout, its tasks have equally many rows of each store.

        The last row of each task is then a dummy, and dummy edges join dummies.
        """
        at = {"item": np.arange(len(self.rows.n_id))} if layout is None else layout.at
        if layout is not None:
            at["user"], layout.size["user"] = at["sample"], layout.size["sample"]
        for kind, nodes in self.nodes.items():
            if layout is None:
                at[kind], sample, columns = np.arange(len(nodes.sample)), nodes.sample, nodes.columns
            else:
                if kind != "user":
                    at[kind] = layout.place(kind, layout.task[nodes.sample])
                sample, columns = _padded_nodes(nodes, at[kind], layout, kind)
            store = batch[kind]
            store.num_nodes, store.batch = len(sample), torch.from_numpy(sample)
            for name, values in columns.items():
                store[name] = torch.from_numpy(values)
        for relation, edges in self.edges.items():
            ends = np.stack([at[relation[0]][edges.source], at[relation[2]][edges.target]])
            columns = edges.columns
            if layout is not None:
                ends, columns = _padded_edges(ends, edges, layout, relation)
            store = batch[relation]
            store.edge_index = torch.from_numpy(ends)
            for name, values in columns.items():
                store[name] = torch.from_numpy(values)
        clicked = torch.zeros(batch["item"].num_nodes or 0, dtype=torch.bool)
        batch["item"].clicked = clicked.index_fill(0, batch["event"].item, True)
        batch.rows = {} if layout is None else layout.size
        return batch


def _padded_nodes(
    nodes: Nodes, at: np.ndarray, layout: TaskLayout, kind: str
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Sample and columns with those of dummy rows, which belong to the last sample of their task."""
    size, samples = layout.size[kind], layout.size["sample"]
    if kind == "user":
        sample = np.arange(layout.num_tasks * samples)
    else:
        last = np.arange(1, layout.num_tasks + 1) * samples - 1
        sample = overwritten(np.repeat(last, size), at, layout.at["sample"][nodes.sample])
    total, dummy = layout.num_tasks * size, {"n_id": -1 if kind == "user" else 0}
    return sample, {
        name: overwritten(np.full(total, dummy.get(name, 0), values.dtype), at, values)
        for name, values in nodes.columns.items()
    }


def _padded_edges(
    ends: np.ndarray, edges: Edges, layout: TaskLayout, relation: Relation
) -> tuple[np.ndarray, dict[str, Any]]:
    """Ends and columns with those of dummy edges, which join the last rows of their task."""
    source, _, target = relation
    at = layout.place(relation, ends[0] // layout.size[source])
    size, task = layout.size[relation], np.arange(1, layout.num_tasks + 1)
    last = np.stack([task * layout.size[source] - 1, task * layout.size[target] - 1])
    padded = last.repeat(size, axis=1)
    padded[:, at] = ends
    total = layout.num_tasks * size
    return padded, {
        name: overwritten(np.full(total, name == "weight", values.dtype), at, values)
        for name, values in edges.columns.items()
    }


def with_further_items(
    rows: BatchRows, sample: np.ndarray, item: np.ndarray, *, num_items: int
) -> tuple[BatchRows, np.ndarray, np.ndarray]:
    """The rows with one for each distinct pair of these samples and items that has none, after those of its sample.

    Keys ``sample · num_items + item`` of the old rows are sorted, so a pair that has a row is found by binary search;
    only the others are sorted. A sample's old rows move by the number of new rows of the samples before it, and new
    ones by the number of old rows of the samples up to it.

    Shapes: sample, item ``[N]`` -> the rows, the new place of each old row, and the row of each pair ``[N]``.
    """
    own, key = rows.item_sample * num_items + rows.n_id, sample * num_items + item
    at = np.minimum(np.searchsorted(own, key), max(len(own) - 1, 0))
    known = own[at] == key if len(own) else np.zeros(len(key), dtype=bool)
    more, number = np.unique(key[~known], return_inverse=True)
    more_sample, samples = more // num_items, len(rows.ptr) - 1
    before = np.searchsorted(more_sample, np.arange(samples))
    until = np.searchsorted(rows.item_sample, np.arange(samples), side="right")
    place = np.arange(len(own)) + before[rows.item_sample]
    more_place = np.arange(len(more)) + until[more_sample]
    end = np.empty(len(key), dtype=np.int64)
    end[known], end[~known] = place[at[known]], more_place[number]
    n_id, item_sample = (np.empty(len(own) + len(more), dtype=np.int64) for _ in range(2))
    n_id[place], n_id[more_place] = rows.n_id, more % num_items
    item_sample[place], item_sample[more_place] = rows.item_sample, more_sample
    changed = {"event_item": place[rows.event_item], "edges": place[rows.edges]}
    return replace(rows, n_id=n_id, item_sample=item_sample, **changed), place, end
