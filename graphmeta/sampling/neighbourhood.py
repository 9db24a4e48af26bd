"""The part of a log's graph around a sample, as further stores of its batch."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch_geometric.data import HeteroData

from graphmeta.errors import check_whole
from graphmeta.sampling.batch_rows import BatchRows
from graphmeta.sampling.padding import overwritten
from graphmeta.sampling.task_layout import TaskLayout

Relation = tuple[str, str, str]


@dataclass(frozen=True)
class Neighbourhood:
    """What an encoder reads of the graph around a session, see :class:`~graphmeta.sampling.subgraph.SubgraphSampler`.

    Args:
        history: the user's latest earlier sessions, with their items; follows: the most frequent followers of each
            clicked item; attributes: whether items and users have their attribute nodes.

    Raises:
        InputError: a number below 0.
    """

    history: int = 0
    follows: int = 0
    attributes: bool = False

    def __post_init__(self) -> None:
        for name in ("history", "follows"):
            check_whole(name, getattr(self, name), 0)

    def __bool__(self) -> bool:
        return bool(self.history or self.follows or self.attributes)


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

    def add_to(self, batch: HeteroData, layout: TaskLayout | None) -> HeteroData:
        """Put the stores into a batch; with a layout, its tasks have equally many rows of each store.

        The last row of each task is then a dummy, and dummy edges join dummies.
        """
        samples, items = len(self.rows.ptr) - 1, len(self.rows.n_id)
        at = {"item": np.arange(items), "sample": np.arange(samples)} if layout is None else layout.at
        at["user"] = at["sample"]
        if layout is not None:
            layout.size["user"] = layout.size["sample"]
        for kind, nodes in self.nodes.items():
            if layout is None:
                at[kind], sample, columns = np.arange(len(nodes.sample)), nodes.sample, nodes.columns
            else:
                if kind != "user":
                    at[kind] = layout.place(kind, layout.task[nodes.sample])
                sample, columns = _padded_nodes(nodes, at[kind], layout, kind)
            batch[kind].num_nodes, batch[kind].batch = len(sample), torch.from_numpy(sample)
            for name, values in columns.items():
                batch[kind][name] = torch.from_numpy(values)
        for relation, edges in self.edges.items():
            ends = np.stack([at[relation[0]][edges.source], at[relation[2]][edges.target]])
            columns = edges.columns
            if layout is not None:
                ends, columns = _padded_edges(ends, edges, layout, relation)
            batch[relation].edge_index = torch.from_numpy(ends)
            for name, values in columns.items():
                batch[relation][name] = torch.from_numpy(values)
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


def with_further_items(rows: BatchRows, sample: np.ndarray, item: np.ndarray, *, num_items: int) -> BatchRows:
    """The rows with one for each distinct pair of these samples and items that has none, after those of its sample."""
    own = rows.item_sample * num_items + rows.n_id
    more = np.setdiff1d(sample * num_items + item, own)
    both = np.concatenate([rows.item_sample, more // num_items])
    order = np.argsort(both, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return replace(
        rows,
        n_id=np.concatenate([rows.n_id, more % num_items])[order],
        item_sample=both[order],
        event_item=place[rows.event_item],
        edges=place[rows.edges],
    )


class ItemRows:
    """The item row of a sample and an item."""

    def __init__(self, rows: BatchRows, num_items: int) -> None:
        key = rows.item_sample * num_items + rows.n_id
        self.order, self.num_items = np.argsort(key), num_items
        self.key = key[self.order]

    def of(self, sample: np.ndarray, item: np.ndarray) -> np.ndarray:
        """``[N], [N] -> [N]``; each pair must have a row."""
        return self.order[np.searchsorted(self.key, sample * self.num_items + item)]
