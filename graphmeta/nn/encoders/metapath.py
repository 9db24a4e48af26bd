"""Meta-paths: an item's neighbours in the graph of the training log, and a session's contexts computed from them.

A path leads from a session's items to others: along no edge (S-I: the items themselves), through sessions that contain
the item (S-I-S-I), through an attribute (S-I-C-I for the category C, and so on). :meth:`MetaPaths.fit_statistics` finds
neighbours once, from the training log only; a new session reaches them through its items.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.transforms import AddMetaPaths
from torch_geometric.utils import coalesce

from graphmeta.data.column_types import Column
from graphmeta.data.events import EventLog
from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError
from graphmeta.nn.features.content import ContentFeatures
from graphmeta.nn.features.transitions import strongest
from graphmeta.nn.readout import Mean

THROUGH_SESSIONS = [("item", "in", "session"), ("session", "holds", "item")]


class MetaPaths(nn.Module):
    """For each path, the mean vector of an item's neighbours along it: ``[e_i ; mean_{j ∈ N_S(i)} e_j ; …]``.

    Along S-I-S-I, neighbours share most sessions with the item (itself included); along an attribute, they are the most
    clicked items with the same value. An item without neighbours is its own neighbour.

    With a training session in the graph, its target would be a neighbour of its other items, which leaks the target. So
    the graph holds the support of the training log's tasks, without their queries. A session's support samples are
    predicted from each other's items as well; ``discount`` is subtracted from the number of sessions that two items
    share: at 1, items are neighbours only through a second session, so a support target is never one through its own
    session alone. (Excluding a task's session from all its paths would require statistics for each task.)

    Args:
        attributes: the item attributes that are paths, single- or multi-valued.
        most: maximum number of neighbours per item and path.
        discount: number of sessions subtracted from those that two items share.
        known: from the training log to the support of its tasks; all but the last click of each session if not given.

    Shapes: ``n_id [I]``, table ``[I] -> [I, D]``, -> ``[I, P·D]`` for the P = attributes + 2 paths.
    """

    def __init__(
        self,
        num_items: int,
        attributes: Sequence[str],
        *,
        most: int = 20,
        discount: int = 0,
        known: Callable[[EventLog], EventLog] = EventLog.without_last_clicks,
    ) -> None:
        super().__init__()
        self.attributes, self.most, self.discount, self.known = list(attributes), most, discount, known
        own = torch.arange(num_items)[:, None].expand(len(attributes) + 1, num_items, most)
        self.neighbour: Tensor
        self.number: Tensor
        self.register_buffer("neighbour", own.clone())
        self.register_buffer("number", torch.ones(len(own), num_items, dtype=torch.int64))

    def reads_column(self, name: str, column: Column) -> bool:
        """Whether the column is a path."""
        return name in self.attributes

    def fit_statistics(self, log: EventLog) -> None:
        """Find the neighbours in the training log without the queries of its tasks."""
        log = self.known(replace(log, items=_with_only(log.items, self.attributes)))
        clicks = np.bincount(log.item, minlength=log.num_items)
        for path, (pairs, weight) in enumerate(item_paths(log.graph, clicks, most=self.most)):
            weight = np.maximum(weight - self.discount, 0) if path == 0 else clicks[pairs[1]]
            neighbours, share = strongest(pairs, weight, num_items=log.num_items, max_neighbours=self.most)
            self.neighbour[path] = torch.from_numpy(neighbours)
            self.number[path] = torch.from_numpy((share > 0).sum(1).clip(1))

    def forward(self, n_id: Tensor, table: Callable[[Tensor], Tensor]) -> Tensor:
        """Mean vectors of these items' neighbours, path after path."""
        means = [table(n_id)]
        for neighbour, number in zip(self.neighbour, self.number, strict=True):
            count = number.index_select(0, n_id)[:, None]
            share = (torch.arange(self.most, device=n_id.device) < count) / count
            neighbours = table(neighbour.index_select(0, n_id).flatten()).unflatten(0, share.shape)
            means.append((neighbours * share.to(neighbours.dtype)[:, :, None]).sum(1))
        return torch.cat(means, 1)

    def among(self, n_id: Tensor, vectors: Tensor) -> Tensor:
        """The same from the vectors of all items ``[num_items, D]``, in one pass; differentiable once."""
        place, means = torch.arange(self.most, device=n_id.device), [vectors.index_select(0, n_id)]
        for neighbour, number in zip(self.neighbour, self.number, strict=True):
            count = number.index_select(0, n_id)[:, None]
            share = ((place < count) / count).to(vectors.dtype)
            neighbours = neighbour.index_select(0, n_id)
            means.append(F.embedding_bag(neighbours, vectors, mode="sum", per_sample_weights=share))
        return torch.cat(means, 1)


def _with_only(items: EntityTable, attributes: Sequence[str]) -> EntityTable:
    """The items with these attributes only."""
    unknown = [name for name in attributes if name not in items.attributes and name not in items.several]
    if unknown:
        there = ", ".join([*items.attributes, *items.several]) or "none"
        raise InputError(f"items have no attribute {unknown[0]!r} to make a path of; there are: {there}")
    return replace(items, columns={name: one for name, one in items.columns.items() if name in attributes})


class PathFeatures(nn.Module):
    """Content features of an item, concatenated with its neighbours' along each path; candidates are content features.

    Shapes: ``n_id [I] -> (x [I, P·D], candidates [num_items, D])``, the x of :class:`MetaPaths`.
    """

    def __init__(self, contents: ContentFeatures, context: MetaPaths) -> None:
        super().__init__()
        self.contents, self.context, self.width = contents, context, contents.width

    def forward(self, n_id: Tensor) -> tuple[Tensor, Tensor]:
        """Path features of these items, and the content of all."""
        distinct, at = n_id.unique(return_inverse=True)  # an item occurs in many samples and is computed once
        _, every = self.contents(distinct)
        return self.context.among(distinct, every).index_select(0, at), every


def item_paths(graph: HeteroData, clicks: np.ndarray, *, most: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs of items joined by a path, with the number of paths: through sessions first, then through each attribute.

    Args:
        graph: of :func:`~graphmeta.data.graph.build_graph`.
        clicks: of each item; only the ``most`` clicked items of an attribute value are reached, which bounds the number
            of pairs for values that thousands of items share.

    Shapes: pairs ``[2, N]``, their number of sessions (or attribute values) ``[N]``.
    """
    slim, paths = HeteroData(), [THROUGH_SESSIONS]
    slim["item"].num_nodes, slim["session"].num_nodes = graph["item"].num_nodes, graph["session"].num_nodes
    size = max(graph["item"].num_nodes or 0, graph["session"].num_nodes or 0)
    holds = coalesce(graph["session", "contains", "item"].edge_index, num_nodes=size)
    slim["session", "holds", "item"].edge_index = holds
    slim["item", "in", "session"].edge_index = holds.flip(0).contiguous()
    for owner, relation, kind in graph.edge_types:
        if (owner, relation) == ("item", "has"):
            slim[kind].num_nodes, has = graph[kind].num_nodes, graph[owner, relation, kind].edge_index
            slim[owner, relation, kind].edge_index = has
            slim[kind, "of", "item"].edge_index = _most_clicked(has, clicks, most)
            paths.append([(owner, relation, kind), (kind, "of", "item")])
    with warnings.catch_warnings(), torch.sparse.check_sparse_tensor_invariants(False):
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        joined = AddMetaPaths(paths, weighted=True)(slim)
    found = [joined["item", f"metapath_{number}", "item"] for number in range(len(paths))]
    return [(edges.edge_index.numpy(), edges.edge_weight.numpy()) for edges in found]


def _most_clicked(has: Tensor, clicks: np.ndarray, most: int) -> Tensor:
    """Edges from each value to its most clicked items."""
    item, value = has.numpy()
    order = np.lexsort((item, -clicks[item], value))
    item, value = item[order], value[order]
    kept = np.arange(len(value)) - np.searchsorted(value, value) < most
    return torch.from_numpy(np.stack([value[kept], item[kept]]))


class PathContexts(nn.Module):
    """A readout S concatenated with a mixture of path contexts: ``[S ; Σ_p m_p c^p]``,
    ``c^p = LeakyReLU(n_p W_p + b_p)``.

    ``n_p`` is the mean of :class:`MetaPaths`' neighbours along path p over the sample's clicks; these are the last
    columns of each click's state. ``mix`` holds the m_p, uniform unless an adaptation sets it.

    Args:
        readout: of the leading state columns.
        paths: P.
        width: D, of an item vector.
        size: of a context.
        mean: from states to n; the mean over clicks if not given.

    Shapes: ``[E, H + P·D] -> [S, H' + size]``. Source: MetaHIN (Lu et al. 2020), its aggregator with a mean.
    """

    def __init__(
        self, readout: nn.Module, *, paths: int, width: int, size: int = 32, mean: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.readout, self.mean = readout, mean or Mean()
        self.paths = nn.ModuleList(nn.Linear(width, size) for _ in range(paths))
        self.path_width = paths * width
        self.mix: Tensor
        self.register_buffer("mix", torch.full((paths,), 1 / paths))

    def forward(self, states: Tensor, batch: HeteroData) -> Tensor:
        """One vector per sample."""
        neighbours = self.mean(states[:, -self.path_width :], batch).chunk(len(self.paths), 1)
        contexts = [F.leaky_relu(path(mean)) for path, mean in zip(self.paths, neighbours, strict=True)]
        mixed = torch.matmul(torch.stack(contexts, 2), self.mix)
        return torch.cat([self.readout(states[:, : -self.path_width], batch), mixed], 1)
