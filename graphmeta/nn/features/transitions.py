"""Global item transitions, counted over all training sessions, and item vectors with those of their neighbours.

The graph is counted once from the training log, truncated to a few neighbours per item and stored as two fixed-shape
tables beside the weights. Only the items of a batch are read, so the cost of a step does not depend on the graph size.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphmeta.data.events import EventLog
from graphmeta.data.scan.log import ScannedLog
from graphmeta.data.scan.pairs import PairCounts
from graphmeta.nn.features.tables import ItemFeatures


def count_transitions(log: EventLog, *, window: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Number of sessions in which two different items were clicked at most ``window`` clicks apart, in either order.

    Shapes: returns pairs ``[2, N]`` (each in both directions, sorted) and the number of sessions ``[N]``, int64.
    """
    pairs, sessions = [], []
    of, item = log.graph["session", "contains", "item"].edge_index.numpy()
    for lag in range(1, window + 1):
        one, other = item[:-lag], item[lag:]
        together = (of[:-lag] == of[lag:]) & (one != other)
        pairs.append(one[together] * log.num_items + other[together])
        sessions.append(of[lag:][together])
    forth, session = np.concatenate(pairs), np.concatenate(sessions)
    back = forth % log.num_items * log.num_items + forth // log.num_items
    pair, number = np.unique(np.concatenate([forth, back]), return_inverse=True)
    once = np.unique(number * log.num_sessions + np.tile(session, 2))
    count = np.bincount(once // max(log.num_sessions, 1), minlength=len(pair))
    return np.stack([pair // log.num_items, pair % log.num_items]), count


def _transitions(log: EventLog | ScannedLog, window: int) -> Iterator[tuple[range, np.ndarray, np.ndarray]]:
    """:func:`count_transitions` in blocks of first items; of a log on disk from its shards, whose sessions differ."""
    size = log.num_items
    if not isinstance(log, ScannedLog):
        yield range(size), *count_transitions(log, window=window)
        return
    counts = PairCounts(log)
    for part in log.shards():
        pairs, count = count_transitions(part, window=window)
        counts.add(pairs[0] * size + pairs[1], count)
    for first, pair, count in counts.blocks():
        yield first, np.stack([pair // size, pair % size]), count


def strongest(
    pairs: np.ndarray, weight: np.ndarray, *, num_items: int, max_neighbours: int, items: range | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The ``max_neighbours`` heaviest neighbours of each item, by weight, then by item number; weights sum to 1.

    Args:
        items: those that have a row, which are all first items of the pairs; all if not given.

    Shapes: pairs ``[2, N]``, weight ``[N]`` -> neighbours and weights ``[num_items, max_neighbours]``. An empty slot
    holds the item itself with weight 0.
    """
    rows = range(num_items) if items is None else items
    item, other = pairs
    order = np.lexsort((other, -weight, item))
    item, other, weight = item[order], other[order], weight[order]
    place = np.arange(len(item)) - np.searchsorted(item, item)
    kept = (place < max_neighbours) & (weight > 0)
    neighbour, share = np.array(rows)[:, None].repeat(max_neighbours, 1), np.zeros((len(rows), max_neighbours))
    row = item[kept] - rows.start
    neighbour[row, place[kept]], share[row, place[kept]] = other[kept], weight[kept]
    return neighbour, share / np.maximum(share.sum(1, keepdims=True), 1e-12)


class TransitionFeatures(ItemFeatures):
    """An item's vector, those of its co-clicked neighbours in all training sessions, and the neighbours' weights:
    ``x_i = [e_i ; e_j1 … e_jk ; w_ij1 … w_ijk]``.

    :class:`~graphmeta.nn.encoders.global_context.GlobalContext` reads them. An empty slot holds the item itself with
    weight 0. Candidates are the table's rows.

    The counts include the transition that a training sample must predict: its target is a neighbour of its last click
    even if no other session has that transition, unlike in a new session. Transitions seen once in training would
    therefore get too much weight. ``discount`` is subtracted from every count: at 1, an edge needs a second session, so
    a sample's own transition alone never makes one, and an edge to its target counts the other sessions. (Excluding a
    sample's session from all its edges would require features to read the sample.) 0 is the published graph.

    Args:
        neighbours: k, the number of most frequent neighbours per item.
        window: maximum distance of two items, in clicks.
        discount: number of sessions subtracted from each count.
        normalised: vectors of unit length (the candidates are the head's to normalise).
        dropout: of vector entries.

    Shapes: ``n_id [I] -> (x [I, (1 + k) · width + k], candidates [num_items, width])``.
    Source: GCE-GNN (Wang et al. 2020), definition 2: its global graph (window 3, 12 neighbours).
    Differs: counts are of sessions, not of clicks, and discounted; weights are shares that sum to 1 for each item.
    """

    counts_shards = True

    def __init__(
        self,
        num_items: int,
        width: int,
        *,
        neighbours: int = 12,
        window: int = 3,
        discount: int = 1,
        normalised: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(num_items, width)
        self.window, self.discount, self.normalised = window, discount, normalised
        self.dropout = nn.Dropout(dropout)
        self.neighbour: Tensor
        self.weight: Tensor
        self.register_buffer("neighbour", torch.arange(num_items)[:, None].repeat(1, neighbours))
        self.register_buffer("weight", torch.zeros(num_items, neighbours))

    def fit_statistics(self, log: EventLog | ScannedLog) -> None:
        """Count the transitions of the training log.

        Raises:
            InputError: a log whose items are not numbered like the table.
        """
        size, max_neighbours = self.neighbour.shape
        log.must_have(size)
        for first, pairs, count in _transitions(log, self.window):
            neighbour, weight = strongest(
                pairs, np.maximum(count - self.discount, 0), num_items=size, max_neighbours=max_neighbours, items=first
            )
            self.neighbour[first.start : first.stop].copy_(torch.from_numpy(neighbour))
            self.weight[first.start : first.stop].copy_(torch.from_numpy(weight))

    def forward(self, n_id: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors of these items and their neighbours, the neighbours' weights, and the table of all items."""
        # One look-up per slot: each has a row for every item of the batch, as an adapted table requires.
        places = [n_id, *self.neighbour.index_select(0, n_id).unbind(1)]
        vectors = [self.dropout(self.item(place)) for place in places]
        if self.normalised:
            vectors = [F.normalize(vector) for vector in vectors]
        return torch.cat([*vectors, self.weight.index_select(0, n_id)], 1), self.item.all_rows()
