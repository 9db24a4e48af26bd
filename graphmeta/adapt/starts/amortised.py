"""An amortised start: a set encoder reads the user's earlier events and emits the task's weights, without a step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from graphmeta.errors import InputError
from graphmeta.nn.readout import softmax_of
from graphmeta.protocols import HasLastLayer, LearnsItemBias

if TYPE_CHECKING:
    from graphmeta.adapt.stacked.engine import Weights
    from graphmeta.recommender import Encoded, Recommender

ITEM_BIAS, LAST_LAYER = "head.item_bias", "head.project.weight"


class Amortised(nn.Module):
    """A task's item bias and last layer are functions of the user's earlier events.

    Each event j of item e_j, ``age_j`` sessions and ``days_j`` days ago gives ``h_j = φ([e_j ; log(1 + age_j) ;
    log(1 + days_j)])``. With ``a = softmax_j(v · h_j)`` and ``z = Σ_j a_j h_j``, zero without events,

    ``b_i = b⁰_i + s log(1 + Σ_{j: e_j = i} c_j) + (V z) · e_i``, ``c_j = softplus(w · [1 ; log(1 + age_j) ;
    log(1 + days_j)])``, and ``W_t = (1 + U z) ⊙ W`` scales the rows of the last layer, where it is linear (FiLM).

    The last layers start at zero, so that at first only the counts c add to the scores.

    Args:
        items: width of an item vector.
        hidden: of h.

    Source: Lin et al. 2021, TaNP (set encoder of the support, FiLM on the decoder); the counts are a pointer to the
    user's own items. Differs: deterministic, without the latent Gaussian and its KL term, and without the clusters.
    """

    reads_history = True

    def __init__(self, items: int, *, hidden: int = 64) -> None:
        super().__init__()
        self.event = nn.Sequential(nn.Linear(items + 2, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU())
        self.attention = nn.Linear(hidden, 1, bias=False)
        self.count, self.scale = nn.Linear(2, 1), nn.Parameter(torch.ones(()))
        self.taste, self.film = nn.Linear(hidden, items, bias=False), None
        with torch.no_grad():
            self.count.weight.fill_(-0.5)
            self.count.bias.fill_(1.0)
            self.taste.weight.zero_()

    def bind(self, recommender: Recommender) -> None:
        """Create the FiLM layer for the head's last layer.

        Raises:
            InputError: a head without an item bias.
        """
        head = recommender.head
        if not isinstance(head, LearnsItemBias) or head.item_bias is None:
            raise InputError(
                f"{type(head).__name__} has no item bias to emit; call head.add_item_bias(num_items) first"
            )
        if isinstance(head, HasLastLayer) and isinstance(head.project, nn.Linear):
            self.film = nn.Linear(self.attention.in_features, head.project.out_features, bias=False)
            nn.init.zeros_(self.film.weight)

    def initialised_names(self) -> list[str]:
        """The item bias, and the last layer where it is linear."""
        return [ITEM_BIAS] if self.film is None else [ITEM_BIAS, LAST_LAYER]

    def on_adapted(self, recommender: Recommender, weights: Weights) -> None:
        """No update."""

    def forward(self, recommender: Recommender, observed: HeteroData, encoded: Encoded | None) -> dict[str, Tensor]:
        """The weights ``[T, *shape]``; none for samples without their users' earlier sessions."""
        if "history" not in observed.node_types:
            return {}
        history, tasks = observed["history"], observed.num_tasks
        task = history.batch // (observed.rows["sample"] if observed.rows else observed["sample"].num_nodes)
        real = self._real(observed, history.batch)
        items, candidates = recommender.features(history.n_id)
        ago = torch.stack([history.age.to(items.dtype), history.days.to(items.dtype)], 1).log1p()
        state = self.event(torch.cat([items, ago], 1))
        logit = self.attention(state).masked_fill(~real[:, None], -1e9)
        z = state.new_zeros(tasks, state.shape[1]).index_add(0, task, softmax_of(logit, task, tasks) * state)
        known = torch.zeros(tasks, device=z.device, dtype=z.dtype).index_add(0, task, real.to(z.dtype)) > 0
        z = z * known[:, None]
        count = nn.functional.softplus(self.count(ago)).squeeze(1) * real
        size = len(candidates)
        counts = z.new_zeros(tasks * size).index_add(0, task * size + history.n_id, count).reshape(tasks, size)
        width = self.taste.out_features  # a further column of the candidates is a bias
        bias = self.scale * counts.log1p() + self.taste(z) @ candidates[:, :width].t()
        made = {ITEM_BIAS: recommender.get_parameter(ITEM_BIAS) + bias}
        if self.film is not None:
            made[LAST_LAYER] = (1 + self.film(z))[:, :, None] * recommender.get_parameter(LAST_LAYER)
        return made

    @staticmethod
    def _real(observed: HeteroData, sample: Tensor) -> Tensor:
        """Which rows belong to real samples."""
        real = observed["sample"].get("real")
        if real is None:
            return torch.ones_like(sample, dtype=torch.bool)
        mask = torch.zeros(observed["sample"].num_nodes, dtype=torch.bool, device=sample.device)
        return mask.index_fill(0, real, True).index_select(0, sample)
