"""A re-ranker at what counts speak for: a small network weighs all that is known of an item and a session."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from graphmeta.data.events import EventLog
from graphmeta.data.tables import Attribute
from graphmeta.nn.catalogue_softmax import Product, ScoreTerm
from graphmeta.nn.score_terms.cooccurrence import NeighbourCounts, NeighbourPairs
from graphmeta.nn.score_terms.repeat import RecencyFrequency

NEAR = 3  # so many last clicks say each for itself what they are near to


class Reranker(NeighbourCounts):
    """Added to the scores of a session's own items, and of those that share training sessions with them:
    ``f(x_{s,i})``, a network of one number from what is known of session s and item i.

    ``x`` holds the product of query and candidate, as it is and beside the largest of the session's; the share that
    :class:`~graphmeta.baselines.item_knn.ItemKNN` gives the item, and its similarity with each of the last three
    clicks; how often it was the very next click after the last two, and the last click after it; whether it is of a
    clicked kind; how popular it is, in all sessions and in the latest tenth, and how often people go back to it;
    whether, when and how often it was clicked; how long the session is, and how much of it are returns. So the trust in
    a count can depend on all the others, which a weighted sum
    (:class:`~graphmeta.nn.score_terms.cooccurrence.Cooccurrence`) cannot say.

    The last layer begins at zero, so that a model begins as it is without. As with Cooccurrence, a model must not learn
    it
    on the sessions that were counted: ``train(…, statistics_log=earlier)``. In an adaptation's scope its layers are
    asked about as many rows as a session has neighbours, so tasks adapt one by one; leave it out of the scope. All else
    may be in it, the item table too.

    Args:
        attributes: of the items, one value an item, which is its kind.
        neighbours, alpha: see ItemKNN; hidden: width of the two layers.

    Shapes: what is added for each sample and item that has a neighbour in it, or was clicked.
    Source: re-ranking by a network over scores and counts (stacking, Wolpert 1992), inside the one softmax; ours.
    """

    def __init__(
        self,
        num_items: int,
        attributes: Sequence[Attribute] = (),
        *,
        neighbours: int = 100,
        alpha: float = 0.75,
        hidden: int = 32,
    ) -> None:
        super().__init__(num_items, neighbours=neighbours, alpha=alpha)
        self.categories: Tensor
        self.next_share: Tensor
        self.previous_share: Tensor
        self.item_statistics: Tensor
        self.values = [attribute.size for attribute in attributes]
        codes = np.stack([attribute.codes for attribute in attributes]) if attributes else np.empty((0, num_items))
        self.register_buffer("categories", torch.from_numpy(codes.astype(np.int64)), persistent=False)
        self.register_buffer("next_share", torch.zeros(num_items, neighbours))
        self.register_buffer("previous_share", torch.zeros(num_items, neighbours))
        self.register_buffer("item_statistics", torch.zeros(num_items, 4))
        size = 23 + NEAR + 2 * len(codes)
        self.direct = nn.Linear(size, 1)
        self.net = nn.Sequential(
            nn.Linear(size, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, 1)
        )
        for weight in (*self.direct.parameters(), *self.net[-1].parameters()):
            nn.init.zeros_(weight)

    def fit_statistics(self, log: EventLog) -> None:
        """Count the training log.

        Raises:
            InputError: a log whose items are not numbered like the system's.
        """
        super().fit_statistics(log)
        similar = self.similar.numpy(force=True)
        for table, share in zip((self.next_share, self.previous_share), _next_share(log, similar), strict=True):
            table.copy_(torch.from_numpy(share))
        self.item_statistics.copy_(torch.from_numpy(_of_items(log)))

    def forward(self, batch: HeteroData, product: Product) -> ScoreTerm:
        """Which scores get how much more."""
        if len(nothing := batch["item"].n_id) == 0:
            return nothing, nothing, self.item_statistics.new_zeros(0)
        pairs, own, samples = self.pairs(batch, own=True), RecencyFrequency.of(batch), batch["sample"].num_nodes
        said, counted = self._scored(pairs, product, samples), self._counted(pairs, batch, own)
        x = torch.cat([said, counted, self._own(pairs, batch, own)], 1)
        return pairs.sample, pairs.item, (self.direct(x) + self.net(x)).squeeze(1)

    def _scored(self, pairs: NeighbourPairs, product: Product, samples: int) -> Tensor:
        """What the model says: ``[N, 3]``."""
        said = product(pairs.sample, pairs.item) / 4
        top = said.new_full((samples,), -torch.inf)
        top = top.scatter_reduce(0, pairs.sample, said, "amax").index_select(0, pairs.sample)
        return torch.stack([said, said - top, top], 1)

    def _counted(self, pairs: NeighbourPairs, batch: HeteroData, own: RecencyFrequency) -> Tensor:
        """What the clicks' neighbours say: ``[N, 8 + NEAR]``, constants."""
        n_id, spoken, ago = batch["item"].n_id, pairs.where[: len(pairs.row)], own.recency[pairs.row]
        similarity, forth, back = (
            table[n_id[pairs.row], pairs.place] for table in (self.similarity, self.next_share, self.previous_share)
        )
        size, samples = len(pairs.sample), batch["sample"].num_nodes
        share = pairs.shares(similarity / (ago + 1), samples)
        most = share.new_zeros(samples).scatter_reduce(0, pairs.sample, share, "amax").index_select(0, pairs.sample)

        def of_click(told: Tensor, number: int) -> Tensor:
            mine = ago == number
            return told.new_zeros(size).index_put((spoken[mine],), told[mine], accumulate=True)

        first, second, last = of_click(forth, 0), of_click(forth, 1), of_click(back, 0)
        columns = [10 * share, (share + 1e-4).log() / 4, 10 * most, 5 * first, (first + 1e-3).log() / 4]
        columns += [5 * second, 5 * last, (last + 1e-3).log() / 4, *(of_click(similarity, n) for n in range(NEAR))]
        return torch.stack(columns, 1)

    def _own(self, pairs: NeighbourPairs, batch: HeteroData, own: RecencyFrequency) -> Tensor:
        """What is known of item and session: ``[N, 12 + 2 · attributes]``, constants."""
        n_id, owner, sample = batch["item"].n_id, batch["item"].batch, batch["sample"]
        place = pairs.where[len(pairs.row) :]
        clicked = self.item_statistics.new_zeros(len(pairs.item), 3)
        clicked[place] = torch.stack([torch.ones_like(own.recency), own.frequency + 1, own.recency], 1).to(
            clicked.dtype
        )
        length = sample.ptr.diff().clamp(min=1)
        distinct = torch.zeros_like(length).index_add(0, owner, torch.ones_like(owner)).clamp(min=1)
        last = n_id[batch["event"].item[sample.last]]
        each = zip(self.categories, self.values, strict=True)
        kinds = [self._kin(codes, values, pairs, (owner, n_id), (last, distinct)) for codes, values in each]
        length, distinct, support = (
            column.to(clicked.dtype) for column in (length, distinct, self.item_statistics[last, 3])
        )
        of_session = torch.stack([length.log(), distinct.log(), (length - distinct) / length, support], 1)
        columns = [
            clicked[:, :2],
            clicked[:, 2:].log1p(),
            self.item_statistics[pairs.item],
            of_session[pairs.sample],
            *kinds,
        ]
        return torch.cat([*columns, ((pairs.item == last[pairs.sample]).to(clicked.dtype))[:, None]], 1)

    @staticmethod
    def _kin(
        codes: Tensor, values: int, pairs: NeighbourPairs, rows: tuple[Tensor, Tensor], of: tuple[Tensor, Tensor]
    ) -> Tensor:
        """The share of a session's items that are of an item's kind, and whether the last one is: ``[N, 2]``."""
        (owner, n_id), (last, distinct) = rows, of
        kind, mine = codes[pairs.item], codes[n_id]
        of_session = torch.bincount(owner * values + mine, minlength=len(last) * values)
        share = of_session[pairs.sample * values + kind] / distinct[pairs.sample]
        same = kind == codes[last][pairs.sample]
        return torch.stack([share, same.to(share.dtype)], 1) * (kind > 0)[:, None]


def _next_share(log: EventLog, similar: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each item and place of its list: how often the item there was the next click after it, as a share of all
    next clicks, and the other way round: two of ``[num_items, neighbours]``."""
    size = log.num_items
    together = log.session[1:] == log.session[:-1]
    pair, count = np.unique(log.item[:-1][together] * size + log.item[1:][together], return_counts=True)
    left = np.maximum(np.bincount(pair // size, count, minlength=size), 1)

    def share(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        wanted = one * size + other
        at = np.minimum(np.searchsorted(pair, wanted), max(len(pair) - 1, 0))
        return np.where(pair[at] == wanted, count[at], 0) / left[one] if len(pair) else np.zeros(wanted.shape)

    item, near = np.arange(size)[:, None] + np.zeros_like(similar, dtype=np.int64), similar.astype(np.int64)
    return share(item, near), share(near, item)


def _of_items(log: EventLog) -> np.ndarray:
    """Of each item: clicks, clicks in the latest tenth of sessions, how often it was gone back to, and sessions:
    ``[num_items, 4]``, in logarithms but the third."""
    size = log.num_items
    recent = log.item[log.session >= log.num_sessions - max(log.num_sessions // 10, 1)]
    pair, clicks = np.unique(log.session * size + log.item, return_counts=True)
    sessions = np.bincount(pair % size, minlength=size)
    returned = (np.bincount(pair % size, clicks > 1, minlength=size) + 0.5) / (sessions + 5)
    columns = [np.bincount(log.item, minlength=size), np.bincount(recent, minlength=size)]
    return np.stack([np.log1p(columns[0]) / 8, np.log1p(columns[1]) / 6, returned, np.log1p(sessions) / 6], 1)
