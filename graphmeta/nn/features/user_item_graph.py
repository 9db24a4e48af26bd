"""Convolution over the user-item graph of the training log: item vectors, and user vectors computed from them.

The graph excludes the last click of each history, which is the query in training. It determines item vectors; a user,
known or new, is then added by edges to their known items, so a user's vector is independent of the other users in the
batch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.nn import GraphConv, SimpleConv

from graphmeta.data.events import EventLog
from graphmeta.nn.conditioning.cluster import Autoencoders
from graphmeta.nn.features.tables import ItemFeatures
from graphmeta.sampling.histories import sessions_by_user


class UserItemGraphFeatures(ItemFeatures):
    """An item's row in a table, concatenated with its graph convolution: ``x = [e ; g]``.

    ``f_u = mean_{i ∈ N(u)} P e_i``, ``g_i = ReLU(W Σ_{u ∈ N(i)} f_u / √(d_u d_i) + W' P e_i) / √d_i``, the first half
    of a graph convolution from users over items to users; :class:`UserReadout` is the second.

    Args:
        graph: width of g.

    Shapes: ``n_id [I] -> (x [I, width + graph], candidates [num_items, width])``. Each call covers the whole graph.
    """

    def __init__(self, num_items: int, width: int, *, graph: int = 64) -> None:
        super().__init__(num_items, width)
        self.project = nn.Linear(width, graph, bias=False)
        self.gather, self.spread = SimpleConv(aggr="mean"), GraphConv(graph, graph)
        self.edges: Tensor
        self.register_buffer("edges", torch.zeros(2, 0, dtype=torch.int64))

    def fit_statistics(self, log: EventLog) -> None:
        """Store the user-item edges, without the last click of each user (of each session, without users)."""
        known = (log if log.session_user is None else sessions_by_user(log)).without_last_clicks()
        edges = np.unique(known.graph["session", "contains", "item"].edge_index.numpy(), axis=1)
        self.edges = torch.from_numpy(edges).to(self.edges.device)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        self.edges = torch.empty_like(
            state_dict.get(f"{prefix}edges", self.edges)
        )  # their number depends on the training log
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def forward(self, n_id: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors of these items, and the table of all items."""
        x, candidates = super().forward(n_id)
        return torch.cat([x, self.neighbourhood().index_select(0, n_id)], 1), candidates

    def neighbourhood(self) -> Tensor:
        """g of all items, ``[num_items, graph]``."""
        user, item = self.edges
        own = self.project(self.item.all_rows())
        num_users = int(user.max()) + 1 if len(user) else 0
        user_mean = self.gather((own, own.new_zeros(num_users, own.shape[1])), torch.stack([item, user]))
        degree = torch.bincount(item, minlength=len(own)).clamp(min=1).to(own.dtype)
        weight = (degree[item] * torch.bincount(user, minlength=num_users)[user]).rsqrt()
        return torch.relu(self.spread((user_mean, own), self.edges, weight)) * degree.rsqrt()[:, None]


class UserReadout(nn.Module):
    """A user vector from the clicked items: ``H_u = ReLU(W Σ_{i ∈ S_u} g_i / √|S_u| + b)``, zero sum without clicks.

    Args:
        graph: width of g, the last columns of the states; repeated clicks count each time.

    Shapes: states ``[E, … + graph] -> [S, graph]``.
    """

    def __init__(self, graph: int) -> None:
        super().__init__()
        self.graph, self.linear = graph, nn.Linear(graph, graph)

    def forward(self, states: Tensor, batch: HeteroData) -> Tensor:
        """One vector per sample."""
        user_mean = states[:, -self.graph :]
        total = user_mean.new_zeros(batch["sample"].num_nodes, self.graph).index_add(0, batch["event"].batch, user_mean)
        size = batch["sample"].ptr.diff().clamp(min=1).to(user_mean.dtype)
        return torch.relu(self.linear(total * size.rsqrt()[:, None]))


class ClusterCode(nn.Module):
    """The code of the user's cluster, ``[E, … + graph] -> [S, code]``."""

    def __init__(self, user: UserReadout, clusters: Autoencoders) -> None:
        super().__init__()
        self.user, self.clusters = user, clusters

    def forward(self, states: Tensor, batch: HeteroData) -> Tensor:
        """One code per sample."""
        return self.clusters(self.user(states, batch))
