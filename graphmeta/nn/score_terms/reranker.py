"""Re-ranker: an MLP over scores, co-occurrence, recency, frequency and popularity features."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from graphmeta.data.column_types import Categorical, Column, Several
from graphmeta.data.events import EventLog
from graphmeta.data.scan.log import ScannedLog
from graphmeta.nn.catalogue_softmax import Product, ScoreTerm
from graphmeta.nn.score_terms.cooccurrence import NeighbourCounts, NeighbourPairs
from graphmeta.nn.score_terms.item_statistics import item_statistics, next_share
from graphmeta.nn.score_terms.repeat import RecencyFrequency
from graphmeta.sampling.session_batch import clicked_items

LAST_CLICKS = 3  # number of last clicks whose similarity to the item is a feature of its own


class Reranker(NeighbourCounts):
    """Additive score ``f(x_{s,i})`` of a session's own items and of those that share training sessions with them; f is
    an MLP with one output.

    ``x`` holds the product of query and candidate, raw and relative to the session's maximum; the item's normalised
    :class:`~graphmeta.baselines.item_knn.ItemKNN` score, and its similarity to each of the last three clicks; how often
    it directly followed the last two clicks, and preceded the last; whether it shares a category with a clicked item;
    its popularity, in all sessions and in the latest tenth, and its repeat rate; whether, when and how often it was
    clicked; session length, and its share of repeats. So the weight of a count can depend on all other features, which
    a weighted sum (:class:`~graphmeta.nn.score_terms.cooccurrence.Cooccurrence`) cannot express.

    The last layer is initialised to zero, so that the model is unchanged at first. As with Cooccurrence, it must not be
    trained on the sessions that were counted: ``TrainOptions(statistics_log=earlier)``. It is not adapted: its
    layers read a different number of rows per task.

    Args:
        attributes: of the items, used as categories; with several values, features are means over the values of the
            item that is scored.
        neighbours, alpha: see ItemKNN.
        hidden: width of the two layers.

    Shapes: one value for each sample and item that has a neighbour in it, or was clicked.
    Source: re-ranking by a network over scores and counts (stacking, Wolpert 1992), inside the one softmax; ours.
    """

    not_adapted = ("",)  # the rows that its MLP reads are not grouped by task

    def __init__(
        self,
        num_items: int,
        attributes: Sequence[Categorical | Several] = (),
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
        padded = [attribute.features().padded() for attribute in attributes]
        self.widths = [codes.shape[1] for codes, _ in padded]  # places for values, by attribute
        nothing = np.zeros((num_items, 0), dtype=np.int64)
        codes = np.concatenate([nothing, *(codes for codes, _ in padded)], 1)
        shares = np.concatenate([nothing, *(shares * (codes > 0) for codes, shares in padded)], 1)
        self.shares: Tensor
        self.register_buffer("categories", torch.from_numpy(codes), persistent=False)
        self.register_buffer("shares", torch.from_numpy(shares).to(torch.get_default_dtype()), persistent=False)
        self.register_buffer("next_share", torch.zeros(num_items, neighbours))
        self.register_buffer("previous_share", torch.zeros(num_items, neighbours))
        self.register_buffer("item_statistics", torch.zeros(num_items, 4))
        size = 23 + LAST_CLICKS + 2 * len(padded)
        self.direct = nn.Linear(size, 1)
        self.net = nn.Sequential(
            nn.Linear(size, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, 1)
        )
        for weight in (*self.direct.parameters(), *self.net[-1].parameters()):
            nn.init.zeros_(weight)

    def reads_column(self, name: str, column: Column) -> bool:
        """Whether it is a categorical column, with one value per row or several."""
        return column.kind in (Categorical.kind, Several.kind)

    extend_items = None  # pyright: ignore[reportAssignmentType] - its statistics of new items are not those of old ones without clicks: fit again

    def fit_statistics(self, log: EventLog | ScannedLog) -> None:
        """Count the training log.

        Raises:
            InputError: a log whose items are not numbered like the system's.
        """
        super().fit_statistics(log)
        similar = self.similar.numpy(force=True)
        for table, share in zip((self.next_share, self.previous_share), next_share(log, similar), strict=True):
            table.copy_(torch.from_numpy(share))
        self.item_statistics.copy_(torch.from_numpy(item_statistics(log)))

    def forward(self, batch: HeteroData, product: Product) -> ScoreTerm:
        """Rows, columns and values of the score term."""
        batch = clicked_items(batch)
        if len(nothing := batch["item"].n_id) == 0:
            return nothing, nothing, self.item_statistics.new_zeros(0)
        pairs = self.pairs(batch, own=True)
        x = self.session_columns(batch, pairs, product)
        return pairs.sample, pairs.item, (self.direct(x) + self.net(x)).squeeze(1)

    def session_columns(self, batch: HeteroData, pairs: NeighbourPairs, product: Product) -> Tensor:
        """All features of the pairs: ``[N, 23 + LAST_CLICKS + 2 · attributes]``."""
        own, samples = RecencyFrequency.of(batch), batch["sample"].num_nodes
        score = self._score_features(pairs, product, samples)
        cooccurrence = self._cooccurrence_features(pairs, batch, own)
        return torch.cat([score, cooccurrence, self._session_features(pairs, batch, own)], 1)

    def _score_features(self, pairs: NeighbourPairs, product: Product, samples: int) -> Tensor:
        """Features of the model's scores: ``[N, 3]``."""
        score = product(pairs.sample, pairs.item) / 4
        top = score.new_full((samples,), -torch.inf)
        top = top.scatter_reduce(0, pairs.sample, score, "amax").index_select(0, pairs.sample)
        return torch.stack([score, score - top, top], 1)

    def _cooccurrence_features(self, pairs: NeighbourPairs, batch: HeteroData, own: RecencyFrequency) -> Tensor:
        """Features of the clicks' neighbours: ``[N, 8 + LAST_CLICKS]``, constants."""
        n_id, source_pair, ago = batch["item"].n_id, pairs.where[: len(pairs.row)], own.recency[pairs.row]
        similarity, forth, back = (
            table[n_id[pairs.row], pairs.place] for table in (self.similarity, self.next_share, self.previous_share)
        )
        size, samples = len(pairs.sample), batch["sample"].num_nodes
        share = pairs.shares(similarity / (ago + 1), samples)
        most = share.new_zeros(samples).scatter_reduce(0, pairs.sample, share, "amax").index_select(0, pairs.sample)

        def of_click(values: Tensor, number: int) -> Tensor:
            own_code = ago == number
            return values.new_zeros(size).index_put((source_pair[own_code],), values[own_code], accumulate=True)

        first, second, last = of_click(forth, 0), of_click(forth, 1), of_click(back, 0)
        columns = [10 * share, (share + 1e-4).log() / 4, 10 * most, 5 * first, (first + 1e-3).log() / 4]
        columns += [
            5 * second,
            5 * last,
            (last + 1e-3).log() / 4,
            *(of_click(similarity, n) for n in range(LAST_CLICKS)),
        ]
        return torch.stack(columns, 1)

    def _session_features(self, pairs: NeighbourPairs, batch: HeteroData, own: RecencyFrequency) -> Tensor:
        """Features of item and session: ``[N, 12 + 2 · attributes]``, constants."""
        n_id, owner, sample = batch["item"].n_id, batch["item"].batch, batch["sample"]
        place = pairs.where[len(pairs.row) :]
        clicked = self.item_statistics.new_zeros(len(pairs.item), 3)
        clicked[place] = torch.stack([torch.ones_like(own.recency), own.frequency + 1, own.recency], 1).to(
            clicked.dtype
        )
        length = sample.ptr.diff().clamp(min=1)
        distinct = torch.zeros_like(length).index_add(0, owner, torch.ones_like(owner)).clamp(min=1)
        known = sample.get("has_events")
        last = n_id[batch["event"].item[sample.last]] if len(n_id) else torch.zeros_like(sample.last)
        is_last = pairs.item == last[pairs.sample]
        if known is not None:  # a sample without clicks has no last one
            is_last, last = is_last & known[pairs.sample], torch.where(known, last, 0)
        each = zip(self.categories.split(self.widths, 1), self.shares.split(self.widths, 1), self.values, strict=True)
        same_category = [
            self._same_category((codes, shares), values, pairs, (owner, n_id), (last, distinct, known))
            for codes, shares, values in each
        ]
        length, distinct, support = (
            column.to(clicked.dtype) for column in (length, distinct, self.item_statistics[last, 3])
        )
        of_session = torch.stack([length.log(), distinct.log(), (length - distinct) / length, support], 1)
        columns = [
            clicked[:, :2],
            clicked[:, 2:].log1p(),
            self.item_statistics[pairs.item],
            of_session[pairs.sample],
            *same_category,
        ]
        return torch.cat([*columns, is_last.to(clicked.dtype)[:, None]], 1)

    @staticmethod
    def _same_category(
        known: tuple[Tensor, Tensor],
        values: int,
        pairs: NeighbourPairs,
        rows: tuple[Tensor, Tensor],
        of: tuple[Tensor, Tensor, Tensor | None],
    ) -> Tensor:
        """Share of the session's items with the item's category, and whether the last one has it, both as means over
        the item's categories: ``[N, 2]``."""
        (codes, shares), (owner, n_id), (last, distinct, has_last) = known, rows, of
        category, weight = codes[pairs.item], shares[pairs.item]
        own_code = (owner[:, None] * values + codes[n_id])[shares[n_id] > 0]
        of_session = torch.bincount(own_code, minlength=len(last) * values)
        share = of_session[pairs.sample[:, None] * values + category] / distinct[pairs.sample, None]
        same = (category[:, :, None] == codes[last][pairs.sample][:, None]).any(2)
        same = same if has_last is None else same & has_last[pairs.sample, None]
        return torch.stack([(share * weight).sum(1), (same * weight).sum(1)], 1)
