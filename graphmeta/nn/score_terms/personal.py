"""Re-ranker with a user's earlier sessions: adds features of the person to those of the session."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from graphmeta.data.column_types import Categorical
from graphmeta.data.events import EventLog
from graphmeta.nn.catalogue_softmax import Product, ScoreTerm
from graphmeta.nn.score_terms import personal_features as features
from graphmeta.nn.score_terms.cooccurrence import NeighbourPairs
from graphmeta.nn.score_terms.reranker import LAST_CLICKS, Reranker
from graphmeta.sampling.user_histories import DAY

POPULAR = 200  # most frequent items that are candidates of every sample


class PersonalReranker(Reranker):
    """Additive score ``f(x_{s,i})`` of the re-ranker's candidates, the user's own items and the most popular items.

    ``x`` holds the features of :class:`~graphmeta.nn.score_terms.reranker.Reranker` and those of the user's earlier
    sessions (:mod:`~graphmeta.nn.score_terms.personal_features`): counts decayed by sessions and by days, time since
    the last purchase against the user's own and everyone's interval, shares of attribute values, sessions that share
    items with the present one. Without earlier sessions these are constants. Statistics of the log: intervals between
    two purchases of an item, its share of users who bought it again, shares of attribute values.

    Args:
        attributes, neighbours, alpha, hidden: as for Reranker.

    Shapes: one value for each sample and candidate item.
    Source: re-ranking by a network over scores and counts, as in Reranker; the counts of Li et al. 2023 (personal
    frequency) and Hu et al. 2020 (decay in time) are among the features; ours.
    """

    reads_history = True

    def __init__(
        self,
        num_items: int,
        attributes: Sequence[Categorical] = (),
        *,
        neighbours: int = 100,
        alpha: float = 0.75,
        hidden: int = 32,
    ) -> None:
        super().__init__(num_items, attributes, neighbours=neighbours, alpha=alpha, hidden=hidden)
        self.popular: Tensor
        self.personal_statistics: Tensor
        self.value_shares: Tensor
        self.register_buffer("popular", torch.arange(min(POPULAR, num_items)))
        self.register_buffer("personal_statistics", torch.zeros(num_items, 3))
        self.register_buffer("value_shares", torch.zeros(sum(self.values)))
        size = 23 + LAST_CLICKS + 2 * len(self.values) + self._personal_size()
        self.direct = nn.Linear(size, 1)
        self.net = nn.Sequential(
            nn.Linear(size, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, 1)
        )
        for weight in (*self.direct.parameters(), *self.net[-1].parameters()):
            nn.init.zeros_(weight)

    def _personal_size(self) -> int:
        per_attribute = features.PER_ATTRIBUTE * len(self.values)
        return features.PER_ITEM + per_attribute + features.TOGETHER + features.PER_SAMPLE + 2

    def fit_statistics(self, log: EventLog) -> None:
        """Count the training log.

        Raises:
            InputError: a log whose items are not numbered like the system's.
        """
        super().fit_statistics(log)
        self.popular.copy_(torch.from_numpy(np.argsort(-log.support, kind="stable")[: len(self.popular)].copy()))
        self.personal_statistics.copy_(torch.from_numpy(_repurchases(log)))
        begin = 0
        for codes, values in zip(self.categories.numpy(force=True), self.values, strict=True):
            count = np.bincount(codes[log.item], minlength=values)
            self.value_shares[begin : begin + values] = torch.from_numpy(count / max(count.sum(), 1))
            begin += values

    def forward(self, batch: HeteroData, product: Product) -> ScoreTerm:
        """Rows, columns and values of the score term."""
        item, samples, size = batch["item"], batch["sample"].num_nodes, len(self.similar)
        every = torch.arange(samples, device=item.n_id.device)[:, None] * size + self.popular
        past = batch["history"] if "history" in batch.node_types else None
        cells = [every.flatten()] if past is None else [past.batch * size + past.n_id, every.flatten()]
        pairs = self.pairs(batch, own=True, more=torch.cat(cells))
        x = [self.session_columns(batch, pairs, product)]
        if past is None:
            x.append(x[0].new_zeros(len(pairs.sample), self._personal_size()))
        else:
            x.append(self._personal_columns(batch, pairs, pairs.more[: len(past.n_id)]).to(x[0].dtype))
        x = torch.cat(x, 1)
        return pairs.sample, pairs.item, (self.direct(x) + self.net(x)).squeeze(1)

    def _personal_columns(self, batch: HeteroData, pairs: NeighbourPairs, where: Tensor) -> Tensor:
        """Features of the user's earlier sessions: ``[N, personal size]``."""
        past = features.PastEvents.of(batch, where, len(pairs.sample))
        interval, again, buyers = self.personal_statistics.index_select(0, pairs.item).unbind(1)
        columns = [features.item_columns(past, pairs.sample, interval)]
        shares = self.value_shares.split(self.values) if self.values else ()
        for codes, values, share in zip(self.categories, self.values, shares, strict=True):
            columns.append(features.attribute_columns(past, pairs.sample, pairs.item, codes, values, share))
        columns.append(features.together_columns(past, batch, pairs.sample, len(self.similar)))
        columns.append(features.sample_columns(past, batch).index_select(0, pairs.sample))
        return torch.cat([*columns, again[:, None], buyers[:, None]], 1)


def _repurchases(log: EventLog) -> np.ndarray:
    """Per item: mean days between two sessions of a user with it, share of its users who had it again, and the log of
    its users: ``[num_items, 3]``; a session without a user counts for none.
    """
    size = log.num_items
    if log.session_user is None:
        return np.zeros((size, 3))
    user = log.session_user[log.session]
    rows = np.flatnonzero(user >= 0)
    rows = rows[np.lexsort((log.time[rows], log.item[rows], user[rows]))]
    same = (np.diff(user[rows]) == 0) & (np.diff(log.item[rows]) == 0) & (np.diff(log.session[rows]) != 0)
    days = np.diff(log.time[rows]) / DAY if log.has_time else np.ones(max(len(rows) - 1, 0))
    later = log.item[rows][1:][same]
    gaps = np.log(days[same] + 0.5)
    usual = gaps.mean() if len(gaps) else np.log(30.0)
    count = np.bincount(later, minlength=size)
    interval = np.exp((np.bincount(later, gaps, minlength=size) + 5 * usual) / (count + 5))
    pair = np.unique(np.stack([user[rows], log.item[rows]]), axis=1)[1] if len(rows) else rows
    buyers = np.bincount(pair, minlength=size)
    again = np.unique(np.stack([user[rows][1:][same], later]), axis=1)[1] if same.any() else rows[:0]
    return np.stack([interval, (np.bincount(again, minlength=size) + 1) / (buyers + 3), np.log1p(buyers) / 6], 1)
