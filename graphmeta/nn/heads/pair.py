"""Pair scores of the items in a query's sub-graph, and two-tower scores of all others."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from graphmeta.nn.heads.scoring import ScoringHead
from graphmeta.sampling.session_batch import rows_like


class UserState(nn.Module):
    """The state of the sample's user from those of all items of the sub-graph: ``ReLU(LayerNorm(ρ + W Σ_i h_i))``.

    Shapes: states of the items ``[I, width] -> [S, width]``; a sample without items has the same state as any other.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.of_items, self.norm = nn.Linear(width, width), nn.LayerNorm(width)  # its bias is ρ

    def forward(self, states: Tensor, batch: HeteroData) -> Tensor:
        """One vector per sample."""
        total = rows_like(states.new_zeros(batch["sample"].num_nodes, states.shape[1]), batch["sample"].last)
        return self.norm(self.of_items(total.index_add(0, batch["item"].batch, states))).relu()


class PairHead(ScoringHead):
    """Scores of two kinds, both offset by the user's state h, with q = P h:

        score_i = h · h_i + w · h_i + a · q + b    for an item i of the sub-graph, with the state h_i,
        score_i = q · e_i + a' · q + b'            for any other item, with the vector e_i of the table.

    Args:
        towers: whether other items have a product; without, all of them have the score ``a' · q + b'``.

    Shapes: states of all items of the sub-graphs ``[I, width]``, candidates ``[C, width]`` -> ``[S, C]``.
    Source: Yuan et al. 2025 (ContextGNN); without towers: You et al. 2021 (ID-GNN), as Robinson et al. 2024 use it.
    """

    no_products = "the scores of the items in the user's sub-graph are of pairs"
    reads_only_readout = False

    def __init__(self, width: int, *, towers: bool = True) -> None:
        super().__init__()
        self.readout, self.towers = UserState(width), towers
        self.project = nn.Linear(width, width)
        self.of_item = nn.Linear(width, 1, bias=False)
        self.offset_pair, self.offset_other = nn.Linear(width, 1), nn.Linear(width, 1)

    def _parts(self, states: Tensor, batch: HeteroData) -> tuple[Tensor, Tensor, Tensor]:
        """The query vectors ``[S, width]``, the scores of pairs ``[I]`` and the offsets of other items ``[S, 1]``."""
        user, owner = self.readout(states, batch), batch["item"].batch
        query = self.project(user)
        pair = ((user.index_select(0, owner) * states).sum(1, keepdim=True) + self.of_item(states)).squeeze(1)
        return query, pair + self.offset_pair(query).squeeze(1).index_select(0, owner), self.offset_other(query)

    def forward(self, states: Tensor, batch: HeteroData, candidates: Tensor) -> Tensor:
        """Scores of all candidates for all samples."""
        query, pair, other = self._parts(states, batch)
        if self.towers:
            scores = F.linear(query, candidates) + other
        else:
            scores = other + rows_like(query.new_zeros(len(query), len(candidates)), batch["sample"].last)
        return scores.index_put((batch["item"].batch, batch["item"].n_id), pair)

    def of_items(self, states: Tensor, batch: HeteroData, candidates: Tensor, items: Tensor) -> Tensor:
        """Scores of given items, ``[S, N] -> [S, N]``."""
        return self(states, batch, candidates).gather(1, items)
