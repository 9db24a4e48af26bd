"""Re-ranker over a session and its user's earlier sessions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.data import HeteroData

from graphmeta.baselines.incidence import rank
from graphmeta.baselines.item_knn import ItemKNN
from graphmeta.data.column_types import Categorical, Column
from graphmeta.data.events import EventLog
from graphmeta.nn.catalogue_softmax import Product, ScoreTerm
from graphmeta.nn.score_terms import personal_features as features
from graphmeta.nn.score_terms import session_features
from graphmeta.nn.score_terms.past_neighbours import SIMILAR, PastItems, shared_users, similar_columns
from graphmeta.nn.score_terms.personal_statistics import lift_of_values, popularity, repurchases
from graphmeta.nn.score_terms.repeat import RecencyFrequency
from graphmeta.nn.score_terms.short_histories import with_short_histories

PAIRS = 2**15  # scored at once; the features of so many stay in the cache
EVERY_ITEM = 4096  # up to this many items, all are candidates of every session
POPULAR, LIKELY, RANDOM = 100, 20, 100  # popular items, neighbours per item and random items among the candidates
PAST_NEIGHBOURS = 30  # stored for each item of earlier sessions
PAST_ITEMS, PAST_LIKELY = 20, 5  # items of earlier sessions whose neighbours are candidates, and neighbours per item
COARSE = 20  # an attribute of at most this many values, with a hundred items each, is not read
PAIRS_OF_VALUES = 1024  # an attribute of at most this many values has a table of how often two share a session


class PersonalReranker(nn.Module):
    """Additive score ``f(x_{s,i})`` of candidate items; f is an MLP with one output, beside a linear layer.

    ``x`` holds the product of query and candidate, how often the item shares sessions with the clicked ones,
    popularity, shares of attribute values in the session, and features of the user's earlier sessions
    (:mod:`~graphmeta.nn.score_terms.personal_features`): counts decayed by sessions and by days, time since the last
    purchase against the user's own and everyone's interval, shares of attribute values, counts in sessions like the
    present one, and how many users have the item beside those of the user's earlier sessions
    (:mod:`~graphmeta.nn.score_terms.past_neighbours`). Without earlier sessions the latter are constants. So that users
    of whom little is known are in the training, a share of its histories is shortened to the last sessions
    (:mod:`~graphmeta.nn.score_terms.short_histories`). Features are standardised by the first batch of the training.

    Candidates are all items, or, in a catalogue of more than ``EVERY_ITEM``, those of the user's earlier sessions, the
    session's own items, the nearest neighbours of either and the most popular ones; f of all others is 0. In training
    the others are sampled, see :meth:`proposed`.

    The last layers are initialised to zero, so that the model is unchanged at first. It must not be trained on the
    sessions that were counted: ``TrainOptions(statistics_log=earlier)``. It is not adapted.

    Args:
        attributes: single-valued attributes of the items, of which those are read that have more than ``COARSE``
            values, or fewer than a hundred items per value. On validation baskets of the bundled log the others add
            .0 to MRR@20 and .5 points to Hit@20 (one seed, a trial), and take a seventh more time.
        neighbours: stored for each item.
        hidden: width of the two layers.
        short: the share of the training's histories that is shortened.

    Shapes: one value for each sample and candidate item.
    Source: re-ranking by a network over scores and counts (stacking, Wolpert 1992); counts of personal frequency (Li et
    al. 2023) with decay (Hu et al. 2020) are among the features; ours.
    """

    needs_held_out_statistics, reads_history = True, True
    not_adapted = ("",)  # the rows that its MLP reads are not grouped by task

    def __init__(
        self,
        num_items: int,
        attributes: Sequence[Categorical] = (),
        *,
        neighbours: int = 200,
        hidden: int = 32,
        short: float = 0.3,
    ) -> None:
        super().__init__()
        self.short = short
        attributes = [attribute for attribute in attributes if attribute.size > _least_values(num_items)]
        self.values = [attribute.size for attribute in attributes]
        codes = np.stack([attribute.codes for attribute in attributes]) if attributes else np.empty((0, num_items))
        self.categories: Tensor
        self.similar: Tensor
        self.cosine: Tensor
        self.past_similar: Tensor
        self.past_similarity: Tensor
        self.popular: Tensor
        self.item_statistics: Tensor
        self.sessions: Tensor
        self.value_shares: Tensor
        self.lifts: Tensor
        self.mean: Tensor
        self.deviation: Tensor
        neighbours = min(neighbours, num_items)
        lifts = sum(n * n for n in self.values if n <= PAIRS_OF_VALUES)
        size = self._size()
        self.register_buffer("categories", torch.from_numpy(codes.astype(np.int64)), persistent=False)
        self.register_buffer("similar", torch.zeros(num_items, neighbours, dtype=torch.int32))
        self.register_buffer("cosine", torch.zeros(num_items, neighbours))
        self.register_buffer("past_similar", torch.zeros(num_items, PAST_NEIGHBOURS, dtype=torch.int32))
        self.register_buffer("past_similarity", torch.zeros(num_items, PAST_NEIGHBOURS))
        self.register_buffer("popular", torch.arange(min(POPULAR, num_items)))
        self.register_buffer("item_statistics", torch.zeros(num_items, 8))
        self.register_buffer("sessions", torch.ones(()))
        self.register_buffer("value_shares", torch.zeros(sum(self.values)))
        self.register_buffer("lifts", torch.zeros(lifts))
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("deviation", torch.zeros(size))
        self.direct = nn.Linear(size, 1)
        self.net = nn.Sequential(
            nn.Linear(size, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, 1)
        )
        for weight in (*self.direct.parameters(), *self.net[-1].parameters()):
            nn.init.zeros_(weight)

    def _size(self) -> int:
        """Number of features."""
        per_attribute = features.PER_ATTRIBUTE + session_features.SHARED + 1
        known = features.PER_ITEM + features.TOGETHER + features.ALIKE + SIMILAR + features.PER_SAMPLE
        return 1 + 3 + session_features.CONTEXT + 7 + known + per_attribute * len(self.values)

    @property
    def samples_at_once(self) -> int:
        """Samples that are scored at once; a large catalogue is expected to have a thousand candidates."""
        return max(PAIRS // (len(self.similar) if len(self.similar) <= EVERY_ITEM else 1000), 1)

    def reads_column(self, name: str, column: Column) -> bool:
        """Whether it is a categorical column with one value per row that separates items."""
        return isinstance(column, Categorical) and column.size > _least_values(len(self.similar))

    def fit_statistics(self, log: EventLog) -> None:
        """Count the training log.

        Raises:
            InputError: a log whose items are not numbered like the system's.
        """
        size, neighbours = self.similar.shape
        log.must_have(size)
        found = ItemKNN(log, neighbours=neighbours, alpha=0.5)
        row = found.similar.rows
        place = rank(row)
        self.similar.zero_()
        self.cosine.zero_()
        self.similar[row, place] = torch.from_numpy(found.similar.value).int()
        self.cosine[row, place] = torch.from_numpy(found.similarity).to(self.cosine.dtype)
        past = shared_users(log, neighbours=PAST_NEIGHBOURS)
        for buffer, values in zip((self.past_similar, self.past_similarity), past, strict=True):
            buffer.copy_(torch.from_numpy(values))
        codes = self.categories.numpy(force=True)
        self.popular.copy_(torch.from_numpy(np.argsort(-log.support, kind="stable")[: len(self.popular)].copy()))
        self.item_statistics.copy_(torch.from_numpy(np.concatenate([popularity(log), repurchases(log)], 1)))
        self.sessions.fill_(max(log.num_sessions, 1))
        shares = [
            np.bincount(own[log.item], minlength=n) / max(log.num_events, 1)
            for own, n in zip(codes, self.values, strict=True)
        ]
        lifts = [
            lift_of_values(log, own, n).ravel()
            for own, n in zip(codes, self.values, strict=True)
            if n <= PAIRS_OF_VALUES
        ]
        for buffer, parts in ((self.value_shares, shares), (self.lifts, lifts)):
            buffer.copy_(torch.from_numpy(np.concatenate([*parts, np.zeros(0)])))

    def forward(self, batch: HeteroData, product: Product) -> ScoreTerm:
        """Rows, columns and values of the score term."""
        batch = self._read(batch)
        size, samples = len(self.similar), batch["sample"].num_nodes
        if size <= EVERY_ITEM:
            key = torch.arange(samples * size, device=self.similar.device)
        else:
            key = torch.unique(torch.cat(self._likely(batch, LIKELY)))
        return key // size, key % size, self._values(batch, key, product)

    def proposed(self, batch: HeteroData, target: Tensor) -> tuple[Tensor, Tensor]:
        """Candidates to train on as sorted numbers ``sample · C + item`` ``[N]``, and the logarithms of their weights;
        in eval mode all items of a catalogue of up to ``EVERY_ITEM``.

        Random items stand for all others: those kept of ``RANDOM`` of n others have the weight ``n / kept``. The target
        has weight 1.

        Args:
            target: of each sample, ``[S]``.
        """
        batch = self._read(batch)
        size, samples = len(self.similar), len(target)
        if not self.training and size <= EVERY_ITEM:
            key = torch.arange(samples * size, device=target.device)
            return key, torch.zeros(len(key), device=target.device)
        every = torch.arange(samples, device=target.device)
        likely = torch.unique(torch.cat([*self._likely(batch, LIKELY), every * size + target]))
        random = torch.randint(size, (samples, RANDOM), device=target.device) + every[:, None] * size
        key, number = torch.unique(torch.cat([likely, random.flatten()]), return_inverse=True)
        is_likely = torch.zeros(len(key), dtype=torch.bool, device=key.device).index_fill(
            0, number[: len(likely)], True
        )
        sample = key // size
        kept = torch.zeros(samples, device=key.device).index_add(0, sample, (~is_likely).float())
        rest = size - torch.zeros(samples, device=key.device).index_add(0, sample, is_likely.float())
        return key, torch.where(is_likely, 0.0, (rest / kept.clamp(min=1)).log()[sample])

    def _read(self, batch: HeteroData) -> HeteroData:
        """The batch with the histories that are read: in training some are shortened."""
        return with_short_histories(batch, self.short) if self.training else batch

    def _likely(self, batch: HeteroData, neighbours: int) -> list[Tensor]:
        """The user's and the session's items, neighbours of either and the most popular items, as numbers."""
        item, size, samples = batch["item"], len(self.similar), batch["sample"].num_nodes
        near = self.similar[item.n_id, :neighbours].long() + (item.batch * size)[:, None]
        popular = torch.arange(samples, device=item.n_id.device)[:, None] * size + self.popular
        found = [item.batch * size + item.n_id, near.flatten(), popular.flatten()]
        if "history" in batch.node_types:
            found.append(batch["history"].batch * size + batch["history"].n_id)
            past = features.PastEvents.of(batch, batch["history"].n_id, 0)
            found.append(PastItems(past, size).likely(self.past_similar, items=PAST_ITEMS, neighbours=PAST_LIKELY))
        return found

    def values_of(self, batch: HeteroData, key: Tensor, product: Product) -> Tensor:
        """The values of these pairs (sorted numbers ``sample · C + item``), ``[N]``; 0 where they are no candidates."""
        batch = self._read(batch)
        if len(self.similar) <= EVERY_ITEM:
            return self._values(batch, key, product)
        likely = torch.unique(torch.cat(self._likely(batch, LIKELY)))
        at = torch.searchsorted(likely, key).clamp(max=len(likely) - 1)
        found = (likely[at] == key).nonzero().squeeze(1)
        values = self._values(batch, likely, product)
        return values.new_zeros(len(key)).index_copy(0, found, values[at[found]])

    def _values(self, batch: HeteroData, key: Tensor, product: Product) -> Tensor:
        """f of these pairs, ``[N]``."""
        with torch.no_grad():
            x = self.columns(batch, key, product)
        if self.training and not self.deviation.any():
            self.mean.copy_(x.mean(0))
            self.deviation.copy_(x.std(0).clamp(min=0.05))
        # Standardised by the weights of both first layers, which is one product with the features instead of four.
        layer, rest = cast(nn.Linear, self.net[0]), cast(nn.Sequential, self.net[1:])
        deviation = torch.where(self.deviation > 0, self.deviation, 1.0)
        weight = torch.cat([self.direct.weight, layer.weight]) / deviation
        first = F.linear(x, weight, torch.cat([self.direct.bias, layer.bias]) - weight @ self.mean)
        return (first[:, :1] + rest(first[:, 1:])).squeeze(1)

    def columns(self, batch: HeteroData, key: Tensor, product: Product) -> Tensor:
        """All features of the pairs, ``[N, F]``."""
        size = len(self.similar)
        sample, item = key // size, key % size
        present, statistics = batch["item"], self.item_statistics.index_select(0, item)
        samples = batch["sample"].num_nodes
        length = torch.zeros(samples, device=key.device).index_add(
            0, present.batch, torch.ones(len(present.batch), device=key.device)
        )
        near = self._neighbours(batch, key, size)
        x = [
            product(sample, item)[:, None] / 4,
            self._clicked(batch, key, size),
            session_features.context_columns(near, sample, length, self.sessions),
            statistics[:, :4],
            statistics[:, 5:],
        ]
        offset, table = 0, 0
        codes_and_values = list(zip(self.categories, self.values, strict=True))
        past = self._past(batch, key, size)
        for codes, values in codes_and_values:
            lift = None
            if values <= PAIRS_OF_VALUES:
                lift, table = self.lifts[table : table + values * values].view(values, values), table + values * values
            share = self.value_shares[offset : offset + values]
            offset += values
            x += [
                session_features.shared_columns(batch, sample, item, codes, values, lift),
                features.attribute_columns(past, sample, item, codes, values, share),
                features.log_share(statistics[:, 3].expm1() / share.clamp(min=1e-9)[codes[item]] / self.sessions, 0.01)[
                    :, None
                ]
                / 4,
            ]
        codes, values = codes_and_values[0] if codes_and_values else (None, 0)
        x += [
            features.item_columns(past, sample, statistics[:, 4]),
            features.together_columns(past, batch, sample, size),
            features.alike_columns(past, batch, sample, codes, values),
            similar_columns(PastItems(past, size), key, self.past_similar, self.past_similarity),
            features.sample_columns(past, batch).index_select(0, sample),
        ]
        return torch.cat([column.to(self.direct.weight.dtype) for column in x], 1)

    def _past(self, batch: HeteroData, key: Tensor, size: int) -> features.PastEvents:
        """The events of the users' earlier sessions."""
        if "history" not in batch.node_types:
            return features.PastEvents.none(batch, key)
        past = batch["history"]
        return features.PastEvents.of(batch, torch.searchsorted(key, past.batch * size + past.n_id), len(key))

    def _clicked(self, batch: HeteroData, key: Tensor, size: int) -> Tensor:
        """Whether, how often and how recently the session has the item: ``[N, 3]``."""
        own, present = RecencyFrequency.of(batch), batch["item"]
        values = torch.stack([torch.ones_like(own.recency), own.frequency, own.recency + 1], 1).to(self.cosine.dtype)
        at = torch.searchsorted(key, present.batch * size + present.n_id)
        found = self.cosine.new_zeros(len(key), 3)
        return found.index_copy(0, at, torch.cat([values[:, :2], values[:, 2:].log1p()], 1))

    def _neighbours(self, batch: HeteroData, key: Tensor, size: int) -> session_features.Neighbours:
        """The clicked items' neighbours among the pairs."""
        present, own = batch["item"], RecencyFrequency.of(batch)
        row, place = self.cosine.index_select(0, present.n_id).nonzero(as_tuple=True)
        clicked = present.n_id[row]
        other = self.similar[clicked, place].long()
        cell = present.batch[row] * size + other
        at = torch.searchsorted(key, cell).clamp(max=len(key) - 1)
        kept = ((key[at] == cell) & (clicked != other)).nonzero().squeeze(1)
        clicked, other, row, place = (column[kept] for column in (clicked, other, row, place))
        sessions = self.item_statistics[:, 3].expm1()
        cosine, one, two = self.cosine[clicked, place], sessions[clicked], sessions[other]
        return session_features.Neighbours(
            at[kept], present.batch[row], own.recency[row], cosine, cosine * (one * two).sqrt(), one, two
        )


def _least_values(num_items: int) -> float:
    """An attribute is read if it has more values than this."""
    return min(COARSE, num_items / 100)
