"""Item-kNN: items that share sessions with the clicked ones."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from torch import Tensor

from graphmeta.baselines.incidence import Clicks, Lists, dense, incidence, largest
from graphmeta.baselines.votes import Votes
from graphmeta.data.events import EventLog
from graphmeta.data.scan.log import ScannedLog
from graphmeta.data.scan.pairs import PairCounts
from graphmeta.errors import InputError, check_whole
from graphmeta.sampling.samples import Samples

_PAIRS_AT_ONCE = 2_000_000


class ItemKNN:
    """Scores items by the sessions they share with the clicked items, with the highest weight on the last click.

        score(i) = Σ_{j ∈ s} sim(j, i) / step(j),   sim(j, i) = n(j, i) / (n(j)^α n(i)^(1 − α)),

    where n counts the training sessions with the item or the pair, and i is among the ``neighbours`` items most similar
    to j (ties: the lower item number). Without such a j the score is 0.

    Args:
        log: the training log.
        neighbours: similar items stored per item, itself included.
        alpha: α in [0, 1]. At 1 the similarity is the share of j's sessions that have i, which favours popular
            items; at 0 the share of i's sessions that have j, which favours rare ones; at 0.5 the cosine.

    Raises:
        InputError: ``neighbours`` below 1, ``alpha`` outside [0, 1].

    Source: Sarwar et al. 2001 for the cosine, Aiolli 2013 for α (asymmetric cosine); "Item-KNN" in the
    tables of session papers.
    Differs: those score from the last click, exclude the item itself and have α = 0.5. Here it is included, with
    similarity 1, because users return to items; all clicks are used. On the last sessions of Yoochoose 1/64's training
    log P@20 is 68.7 so, 66.6 from the last click alone (MRR@20 28.5 against 27.6), 57.1 without the item itself, and
    52.5 with neither. α was chosen on those of two logs: P@20 / MRR@20 is 68.7 / 27.6 at 0.75, 67.3 / 27.1 at 0.5, 67.2
    / 27.4 at 1; on Diginetica 54.2 / 19.4, 52.6 / 19.1, 53.2 / 18.9.
    """

    reads_tasks = False

    def __init__(self, log: EventLog | ScannedLog, *, neighbours: int = 100, alpha: float = 0.75) -> None:
        check_whole("neighbours", neighbours, 1)
        if not 0 <= alpha <= 1:
            raise InputError(f"alpha must be between 0 and 1, not {alpha!r}")
        self.items, self.num_items = log.items, log.num_items
        found = _on_disk(log) if isinstance(log, ScannedLog) else _in_memory(log)
        self.similar, self.similarity = _similar_items(*found, most=neighbours, alpha=alpha)

    def scores(self, samples: Samples) -> Tensor:
        """``[S, num_items]``."""
        clicks = Clicks.of(samples, num_items=self.num_items)
        row, item, weight = self._votes(clicks)
        return dense(clicks.sample[row], item, weight=weight, shape=(len(samples), self.num_items))

    def votes(self, samples: Samples, item: int) -> Votes:
        """The clicked items to which an item is similar."""
        clicks = Clicks.of(samples, num_items=self.num_items)
        row, voted, weight = self._votes(clicks)
        own = voted == item
        number = clicks.item[row[own]]
        return Votes("item", number, weight[own], [np.array([one]) for one in number])

    def _votes(self, clicks: Clicks) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The click, item and weight of each vote."""
        row, at = self.similar.positions(clicks.item)
        return row, self.similar.value[at], self.similarity[at] / clicks.step[row]


Pairs = Iterable[tuple[np.ndarray, np.ndarray]]  # sorted first · items + second, and the sessions with both


def _similar_items(sessions: np.ndarray, pairs: Pairs, *, most: int, alpha: float) -> tuple[Lists, np.ndarray]:
    """The ``most`` items most similar to each item, and the similarities.

    Args:
        sessions: of each item.
        pairs: in blocks of first items, ascending.
    """
    parts = [_similar_block(sessions, *block, most=most, alpha=alpha) for block in pairs]
    first, second, similarity = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return Lists(np.searchsorted(first, np.arange(len(sessions) + 1)), second), similarity


def _similar_block(
    sessions: np.ndarray, pair: np.ndarray, together: np.ndarray, *, most: int, alpha: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    first, second = np.divmod(pair, max(len(sessions), 1))
    similarity = (together / sessions[first]) ** alpha * (together / sessions[second]) ** (1 - alpha)
    # Rounding turns values that are equal in exact arithmetic into ties.
    kept = largest(first, similarity.round(12), most=most)
    return first[kept], second[kept], similarity[kept]


def _in_memory(log: EventLog) -> tuple[np.ndarray, Pairs]:
    """The sessions of each item, and the pairs of a log in blocks of some million."""
    items_of, ages_of = incidence(log)
    return ages_of.lengths, _pairs(items_of, ages_of)


def _pairs(items_of: Lists, ages_of: Lists) -> Pairs:
    num_items = len(ages_of.lengths)
    owner, at = ages_of.positions(np.arange(num_items))
    work = np.bincount(owner, items_of.lengths[ages_of.value[at]], minlength=num_items)
    for block in np.split(np.arange(num_items), np.flatnonzero(np.diff(np.cumsum(work) // _PAIRS_AT_ONCE)) + 1):
        owner, at = ages_of.positions(block)
        row, other = items_of.positions(ages_of.value[at])
        yield np.unique(block[owner[row]] * num_items + items_of.value[other], return_counts=True)


def _on_disk(log: ScannedLog) -> tuple[np.ndarray, Pairs]:
    """The same of a log on disk: sessions are in one shard each, so that the counts of shards add up."""
    sessions, counts = np.zeros(log.num_items, dtype=np.int64), PairCounts(log)
    for part in log.shards():
        own, pairs = _in_memory(part)
        sessions += own
        for pair, together in pairs:
            counts.add(pair, together)
    return sessions, ((pair, together) for _, pair, together in counts.blocks())
