"""Who clicked what, in all of training, as a graph: item vectors that know it, and people made of theirs.

The graph holds training's known clicks alone: the last click of each history, which training asks about, is no edge
of it. It says what items are like; a person, new or not, is then added by the edges to the items they are known to
have clicked, so nobody's vector depends on who else is asked.
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


class UserItemGraphFeatures(ItemFeatures):
    """An item is its row in a table and, beside it, what the graph of people and items makes of it: ``x = [e ; g]``.

    ``f_u = mean_{i ∈ N(u)} P e_i``, ``g_i = ReLU(W Σ_{u ∈ N(i)} f_u / √(d_u d_i) + W' P e_i) / √d_i``, the first half
    of a graph convolution from people over items to people; :class:`UserReadout` is the second.

    Args:
        graph: width of g.

    Shapes: ``n_id [I] -> (x [I, width + graph], candidates [num_items, width])``. A pass over the whole graph a call.
    """

    def __init__(self, num_items: int, width: int, *, graph: int = 64) -> None:
        super().__init__(num_items, width)
        self.project = nn.Linear(width, graph, bias=False)
        self.gather, self.spread = SimpleConv(aggr="mean"), GraphConv(graph, graph)
        self.edges: Tensor
        self.register_buffer("edges", torch.zeros(2, 0, dtype=torch.int64))

    def fit_statistics(self, log: EventLog) -> None:
        """Note who clicked what; the last click of each session is left out."""
        known = log.without_last_clicks()
        edges = np.unique(np.stack([known.session, known.item]), axis=1)
        self.edges = torch.from_numpy(edges).to(self.edges.device)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        self.edges = torch.empty_like(state_dict.get(f"{prefix}edges", self.edges))  # training had as many as it had
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def forward(self, n_id: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors of these items, and the table of all."""
        x, candidates = super().forward(n_id)
        return torch.cat([x, self.neighbourhood().index_select(0, n_id)], 1), candidates

    def neighbourhood(self) -> Tensor:
        """g of all items, ``[num_items, graph]``."""
        person, item = self.edges
        own = self.project(self.item.all_rows())
        people = int(person.max()) + 1 if len(person) else 0
        met = self.gather((own, own.new_zeros(people, own.shape[1])), torch.stack([item, person]))
        degree = torch.bincount(item, minlength=len(own)).clamp(min=1).to(own.dtype)
        weight = (degree[item] * torch.bincount(person, minlength=people)[person]).rsqrt()
        return torch.relu(self.spread((met, own), self.edges, weight)) * degree.rsqrt()[:, None]


class UserReadout(nn.Module):
    """A person from the items they clicked: ``H_u = ReLU(W Σ_{i ∈ S_u} g_i / √|S_u| + b)``, zero sum without any.

    Args:
        graph: width of g, the last columns of the states; an item clicked again counts again.

    Shapes: states ``[E, … + graph] -> [S, graph]``.
    """

    def __init__(self, graph: int) -> None:
        super().__init__()
        self.graph, self.linear = graph, nn.Linear(graph, graph)

    def forward(self, states: Tensor, batch: HeteroData) -> Tensor:
        """One vector a sample."""
        met = states[:, -self.graph :]
        total = met.new_zeros(batch["sample"].num_nodes, self.graph).index_add(0, batch["event"].batch, met)
        size = batch["sample"].ptr.diff().clamp(min=1).to(met.dtype)
        return torch.relu(self.linear(total * size.rsqrt()[:, None]))


class ClusterCode(nn.Module):
    """The code of the cluster that a person belongs to, ``[E, … + graph] -> [S, code]``."""

    def __init__(self, user: UserReadout, clusters: Autoencoders) -> None:
        super().__init__()
        self.user, self.clusters = user, clusters

    def forward(self, states: Tensor, batch: HeteroData) -> Tensor:
        """One code a sample."""
        return self.clusters(self.user(states, batch))
