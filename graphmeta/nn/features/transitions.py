"""Global item transitions, counted over all training sessions, and item vectors that aggregate them.

The graph is counted once from the training log, truncated to a few neighbours per item and stored as two fixed-shape
tables beside the weights. Only the items of a batch are read, so the cost of a step does not depend on the graph size.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from graphmeta.data.events import EventLog
from graphmeta.nn.features.tables import ItemFeatures


def count_transitions(log: EventLog, *, window: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Number of sessions in which two different items were clicked at most ``window`` clicks apart, in either order.

    Shapes: returns pairs ``[2, N]`` (each in both directions, sorted) and the number of sessions ``[N]``, int64.
    """
    pairs, sessions = [], []
    for lag in range(1, window + 1):
        one, other = log.item[:-lag], log.item[lag:]
        together = (log.session[:-lag] == log.session[lag:]) & (one != other)
        pairs.append(one[together] * log.num_items + other[together])
        sessions.append(log.session[lag:][together])
    forth, session = np.concatenate(pairs), np.concatenate(sessions)
    back = forth % log.num_items * log.num_items + forth // log.num_items
    pair, number = np.unique(np.concatenate([forth, back]), return_inverse=True)
    once = np.unique(number * log.num_sessions + np.tile(session, 2))
    count = np.bincount(once // max(log.num_sessions, 1), minlength=len(pair))
    return np.stack([pair // log.num_items, pair % log.num_items]), count


def strongest(
    pairs: np.ndarray, weight: np.ndarray, *, num_items: int, max_neighbours: int
) -> tuple[np.ndarray, np.ndarray]:
    """The ``max_neighbours`` heaviest neighbours of each item, by weight, then by item number; weights sum to 1.

    Shapes: pairs ``[2, N]``, weight ``[N]`` -> neighbours and weights ``[num_items, max_neighbours]``. An empty slot
    holds the item itself with weight 0.
    """
    item, other = pairs
    order = np.lexsort((other, -weight, item))
    item, other, weight = item[order], other[order], weight[order]
    place = np.arange(len(item)) - np.searchsorted(item, item)
    kept = (place < max_neighbours) & (weight > 0)
    neighbour, share = np.arange(num_items)[:, None].repeat(max_neighbours, 1), np.zeros((num_items, max_neighbours))
    neighbour[item[kept], place[kept]], share[item[kept], place[kept]] = other[kept], weight[kept]
    return neighbour, share / np.maximum(share.sum(1, keepdims=True), 1e-12)


class TransitionFeatures(ItemFeatures):
    """An item's row in a table plus an aggregate of its co-clicked neighbours in all training sessions.

    ``x_i = e_i + W Σ_j π_ij e_j`` over the neighbours j of i, with ``π_ij = softmax_j((Q e_i · e_j)/√D + a log w_ij)``:
    with Q = 0 and a = 1, π is the share w of i's transitions that lead to j. Candidates are the table's rows only.

    The counts include the transition that a training sample must predict: its target is a neighbour of its last click
    even if no other session has that transition, unlike in a new session. Transitions seen once in training would
    therefore get too much weight. ``discount`` is subtracted from every count: at 1, an edge needs a second session, so
    a sample's own transition alone never makes one, and an edge to its target counts the other sessions. (Excluding a
    sample's session from all its edges would require features to read the sample.) 0 is the published graph.

    Args:
        neighbours: k, the number of most frequent neighbours per item.
        window: maximum distance of two items, in clicks.
        discount: number of sessions subtracted from each count.
        dropout: on the aggregate of neighbours.

    Shapes: ``n_id [I] -> (x [I, width], candidates [num_items, width])``; time and memory ``I · k · D``.
    Source: GCE-GNN (Wang et al. 2020), its global graph (window 3, 12 neighbours) and global level.
    Differs: the attention query is the item itself, where the paper uses the session's mean vector, which features do
    not read; so an item's vector is the same in every session. A sum with one matrix instead of ``ReLU(W [e_i ;
    e_N])``; counts are of sessions, not of clicks, and discounted.
    """

    def __init__(
        self,
        num_items: int,
        width: int,
        *,
        neighbours: int = 12,
        window: int = 3,
        discount: int = 1,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(num_items, width)
        self.window, self.discount = window, discount
        self.query, self.mix = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.sharpness = nn.Parameter(torch.ones(1))
        self.dropout = nn.Dropout(dropout)
        self.neighbour: Tensor
        self.weight: Tensor
        self.register_buffer("neighbour", torch.arange(num_items)[:, None].repeat(1, neighbours))
        self.register_buffer("weight", torch.zeros(num_items, neighbours))

    def fit_statistics(self, log: EventLog) -> None:
        """Count the transitions of the training log.

        Raises:
            InputError: a log whose items are not numbered like the table.
        """
        size, max_neighbours = self.neighbour.shape
        log.must_have(size)
        pairs, count = count_transitions(log, window=self.window)
        neighbour, weight = strongest(
            pairs, np.maximum(count - self.discount, 0), num_items=size, max_neighbours=max_neighbours
        )
        self.neighbour.copy_(torch.from_numpy(neighbour))
        self.weight.copy_(torch.from_numpy(weight))

    def forward(self, n_id: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors of these items, and the table of all items."""
        own = self.item(n_id)
        # One look-up per neighbour slot: each has a row for every item of the batch, as an adapted table requires.
        neighbours = torch.stack([self.item(place) for place in self.neighbour.index_select(0, n_id).unbind(1)], 1)
        weight = self.attention(own, neighbours, self.weight.index_select(0, n_id))
        context = torch.matmul(weight[:, None, :], neighbours).squeeze(1)
        return own + self.dropout(self.mix(context)), self.item.all_rows()

    def attention(self, own: Tensor, neighbours: Tensor, weight: Tensor) -> Tensor:
        """π of each slot, zero for empty slots: ``[I, D], [I, k, D], [I, k] -> [I, k]``."""
        valid = weight > 0
        similarity = torch.matmul(neighbours, self.query(own)[:, :, None]).squeeze(2) / math.sqrt(self.width)
        score = similarity + self.sharpness * torch.where(valid, weight, 1.0).log()
        score = score.masked_fill(~valid & valid.any(1, keepdim=True), -torch.inf)
        return torch.softmax(score, 1) * valid
