"""Item-kNN: items that share sessions with the clicked ones."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from graphmeta.baselines.incidence import Clicks, Lists, dense, incidence, largest
from graphmeta.data.events import EventLog
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

    def __init__(self, log: EventLog, *, neighbours: int = 100, alpha: float = 0.75) -> None:
        check_whole("neighbours", neighbours, 1)
        if not 0 <= alpha <= 1:
            raise InputError(f"alpha must be between 0 and 1, not {alpha!r}")
        self.items, self.num_items = log.items, log.num_items
        self.similar, self.similarity = _similar_items(*incidence(log), most=neighbours, alpha=alpha)

    def scores(self, samples: Samples) -> Tensor:
        """``[S, num_items]``."""
        clicks = Clicks.of(samples, num_items=self.num_items)
        row, at = self.similar.positions(clicks.item)
        weight = self.similarity[at] / clicks.step[row]
        item, shape = self.similar.value[at], (len(samples), self.num_items)
        return dense(clicks.sample[row], item, weight=weight, shape=shape)


def _similar_items(items_of: Lists, ages_of: Lists, *, most: int, alpha: float) -> tuple[Lists, np.ndarray]:
    """The ``most`` items most similar to each item, and the similarities; computed in blocks of some million pairs."""
    num_items = len(ages_of.lengths)
    owner, at = ages_of.positions(np.arange(num_items))
    work = np.bincount(owner, items_of.lengths[ages_of.value[at]], minlength=num_items)
    blocks = np.split(np.arange(num_items), np.flatnonzero(np.diff(np.cumsum(work) // _PAIRS_AT_ONCE)) + 1)
    parts = [_similar_block(items_of, ages_of, block=block, most=most, alpha=alpha) for block in blocks]
    first, second, similarity = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return Lists(np.searchsorted(first, np.arange(num_items + 1)), second), similarity


def _similar_block(
    items_of: Lists, ages_of: Lists, *, block: np.ndarray, most: int, alpha: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    owner, at = ages_of.positions(block)
    row, other = items_of.positions(ages_of.value[at])
    sessions = ages_of.lengths
    pair = block[owner[row]] * len(sessions) + items_of.value[other]
    pair, together = np.unique(pair, return_counts=True)
    first, second = np.divmod(pair, len(sessions))
    similarity = (together / sessions[first]) ** alpha * (together / sessions[second]) ** (1 - alpha)
    # Rounding turns values that are equal in exact arithmetic into ties.
    kept = largest(first, similarity.round(12), most=most)
    return first[kept], second[kept], similarity[kept]
