"""The baselines without training: what is popular, what goes together, what similar sessions looked at.

Each is fitted on a training log by counting, and scores all items as a system does, so that
:func:`~graphmeta.evaluate.evaluate` takes either. On many logs :class:`SessionKNN` is as good as a graph
network: a table of results without it shows little. Everything runs on ragged lists (session to items, item
to sessions) by index arithmetic; no array is sessions × items. A sample's scores do not depend on its batch.

Terms, for the known clicks of a sample s, L of them: the *place* of an item is 1 … L, that of its last click;
its *step* is L + 1 − place, so that the last click has step 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from graphmeta.batch import Samples, ragged
from graphmeta.errors import InputError
from graphmeta.events import EventLog

_PAIRS_AT_ONCE = 2_000_000


class Popularity:
    """Every session is offered what most clicks went to: score(i) = training events of i.

    Args:
        log: the training log.
    """

    def __init__(self, log: EventLog) -> None:
        self.num_items = log.num_items
        self.support = torch.from_numpy(log.support).float()

    def scores(self, samples: Samples) -> Tensor:
        """The same row for each sample, ``[S, num_items]``."""
        return self.support.repeat(len(samples), 1)


class SessionPopularity:
    """What the session itself clicked most and last, then what is popular.

    score(i) = clicks of s on i + place(i) / (L + 1) for the items of the session, at least 1, and
    support(i) / (1 + the largest support) for all others, below 1; support counts training events. So clicks
    decide, then recency, then popularity.

    Args:
        log: the training log.

    >>> import pandas as pd; from graphmeta.batch import open_sessions
    >>> clicks = pd.DataFrame({"session": [1, 1, 1, 2], "item": ["a", "b", "b", "c"]})
    >>> log = EventLog.read(clicks, session="session", item="item")
    >>> SessionPopularity(log).scores(open_sessions([np.array([2, 0, 2])])).tolist()[0]
    [1.5, 0.6666666865348816, 2.75]
    """

    def __init__(self, log: EventLog) -> None:
        self.num_items = log.num_items
        self.base = torch.from_numpy(log.support / (1 + log.support.max(initial=0))).float()

    def scores(self, samples: Samples) -> Tensor:
        """``[S, num_items]``."""
        clicks = _distinct(samples, self.num_items)
        own = clicks.count + clicks.place / (clicks.place + clicks.step)
        scores = self.base.repeat(len(samples), 1)
        scores[torch.from_numpy(clicks.sample), torch.from_numpy(clicks.item)] = torch.from_numpy(own).float()
        return scores


class ItemKNN:
    """Items that share sessions with the clicked ones, the last click counting most.

        score(i) = Σ_{j ∈ s} cos(j, i) / step(j),   cos(j, i) = n(j, i) / √(n(j) n(i)),

    where n counts the training sessions with the item or the pair, and i is among the ``neighbours`` items of
    largest cosine to j (of equals, the lower item number). Without such a j the score is 0.

    Args:
        log: the training log.
        neighbours: how many similar items each item keeps, itself among them.

    Raises:
        InputError: ``neighbours`` below 1.

    Source: Sarwar et al. 2001 for the cosine; "Item-KNN" in the tables of session papers.
    Differs: those score from the last click and leave the item itself out. Here it stays, with cosine 1, for
    people go back to items, and all clicks count. On the last sessions of Diginetica's training log P@20 is
    51.3 so, 44.3 from the last click alone, 40.3 without the item itself, and 35.8 with neither.
    """

    def __init__(self, log: EventLog, *, neighbours: int = 100) -> None:
        _at_least_one(neighbours=neighbours)
        self.num_items = log.num_items
        self.similar, self.cosine = _similar_items(*_incidence(log), most=neighbours)

    def scores(self, samples: Samples) -> Tensor:
        """``[S, num_items]``."""
        clicks = _distinct(samples, self.num_items)
        row, at = self.similar.positions(clicks.item)
        weight = self.cosine[at] / clicks.step[row]
        item, shape = self.similar.value[at], (len(samples), self.num_items)
        return _dense(clicks.sample[row], item, weight=weight, shape=shape)


class SessionKNN:
    """What the most similar of the recent training sessions clicked (V-SKNN).

    Candidates are the ``recent`` latest training sessions that share an item with s. The ``neighbours`` most
    similar ones (of equals, the later) vote for all their items, with less weight when what they share with s
    lies back:

        sim(s, n) = Σ_{j ∈ s ∩ n} place(j) / L,
        score(i)  = Σ_{n ∋ i} sim(s, n) / min_{j ∈ s ∩ n} step(j) · (1 + ln(N / n(i))),

    N being the number of training sessions and n(i) of those with item i. Without a neighbour that has i the
    score is 0. A session is as recent as its first click.

    Args:
        log: the training log.
        neighbours: sessions that vote.
        recent: sessions that are looked at.
        idf: the last factor, for rare items; False drops it.

    Raises:
        InputError: ``neighbours`` or ``recent`` below 1.

    Source: Ludewig & Jannach 2018, "Evaluation of session-based recommendation algorithms", V-SKNN; the last
    factor is the option ``idf_weighting`` of the authors' code.
    Differs: the factor is on. Chosen on the last sessions of the training logs, where P@20 is 51.0 with and
    50.3 without it on Diginetica, 67.1 and 66.4 on Yoochoose 1/64.
    """

    def __init__(self, log: EventLog, *, neighbours: int = 100, recent: int = 1000, idf: bool = True) -> None:
        _at_least_one(neighbours=neighbours, recent=recent)
        self.num_items, self.num_sessions = log.num_items, log.num_sessions
        self.neighbours, self.recent = neighbours, recent
        self.items_of, self.ages_of = _incidence(log)
        sessions = np.maximum(self.ages_of.lengths, 1)
        self.rarity = 1 + np.log(max(log.num_sessions, 1) / sessions) if idf else np.ones(log.num_items)

    def scores(self, samples: Samples) -> Tensor:
        """``[S, num_items]``."""
        sample, age, vote = self._votes(_distinct(samples, self.num_items))
        row, at = self.items_of.positions(age)
        item, shape = self.items_of.value[at], (len(samples), self.num_items)
        return _dense(sample[row], item, weight=vote[row] * self.rarity[item], shape=shape)

    def _votes(self, clicks: _Clicks) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Sample, age and weight of each neighbour, by sample."""
        # An item's latest sessions are enough: what is among the latest of all is so for each item it holds.
        row, at = self.ages_of.positions(clicks.item, most=self.recent)
        pair = clicks.sample[row] * self.num_sessions + self.ages_of.value[at]
        order = np.argsort(pair, kind="stable")
        pair, first = np.unique(pair[order], return_index=True)
        shared = row[order]
        similarity = np.add.reduceat(clicks.place[shared], first) if len(first) else first
        step = np.minimum.reduceat(clicks.step[shared], first) if len(first) else first
        sample, age = np.divmod(pair, max(self.num_sessions, 1))
        latest = np.flatnonzero(_rank(sample) < self.recent)
        near = latest[_largest(sample[latest], similarity[latest], most=self.neighbours)]
        length = clicks.length[shared[first[near]]]
        return sample[near], age[near], similarity[near] / length / step[near]


class NoRepeats:
    """A baseline that never recommends what is in the session already, for logs whose sessions repeat no item.

    A trained model learns that from such a log; a nearest neighbour has to be told. Seen items score −1.
    """

    def __init__(self, model: Popularity | SessionPopularity | ItemKNN | SessionKNN) -> None:
        self.model, self.num_items = model, model.num_items

    def scores(self, samples: Samples) -> Tensor:
        """``[S, num_items]``, as the model's own but for the items seen."""
        scores = self.model.scores(samples).clone()
        click, ptr = samples.flat()
        rows = np.repeat(np.arange(len(samples)), np.diff(ptr))
        scores[torch.from_numpy(rows), torch.from_numpy(click)] = -1.0
        return scores


def repeats(log: EventLog) -> bool:
    """Whether any session of the log has an item twice."""
    pairs = log.session * max(log.num_items, 1) + log.item
    return len(np.unique(pairs)) < len(pairs)


@dataclass(frozen=True)
class _Clicks:
    """The distinct items of each sample, by sample and item: all ``[clicks]`` int64.

    ``count`` is how often the item was clicked; place and step are explained above.
    """

    sample: np.ndarray
    item: np.ndarray
    count: np.ndarray
    place: np.ndarray
    step: np.ndarray

    @property
    def length(self) -> np.ndarray:
        """Clicks of the whole sample, L."""
        return self.place + self.step - 1


@dataclass(frozen=True)
class _Lists:
    """Ragged rows: row r holds ``value[ptr[r]:ptr[r + 1]]``."""

    ptr: np.ndarray
    value: np.ndarray

    @classmethod
    def of_pairs(cls, row: np.ndarray, value: np.ndarray, *, shape: tuple[int, int]) -> _Lists:
        """The distinct pairs, each row's values ascending."""
        pair = np.unique(row * shape[1] + value)
        row, value = np.divmod(pair, max(shape[1], 1))
        return cls(np.searchsorted(row, np.arange(shape[0] + 1)), value)

    @property
    def lengths(self) -> np.ndarray:
        """Values a row."""
        return np.diff(self.ptr)

    def positions(self, rows: np.ndarray, *, most: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The (first ``most``) values of these rows: index into ``rows`` and position in ``value``."""
        lengths = self.lengths[rows]
        lengths = lengths if most is None else np.minimum(lengths, most)
        return np.repeat(np.arange(len(rows)), lengths), ragged(self.ptr[rows], lengths)[0]


def _incidence(log: EventLog) -> tuple[_Lists, _Lists]:
    """The items of each session and the sessions of each item. Sessions go by age, 0 the latest."""
    age = log.num_sessions - 1 - log.session
    sessions, items = log.num_sessions, log.num_items
    return (
        _Lists.of_pairs(age, log.item, shape=(sessions, items)),
        _Lists.of_pairs(log.item, age, shape=(items, sessions)),
    )


def _similar_items(items_of: _Lists, ages_of: _Lists, *, most: int) -> tuple[_Lists, np.ndarray]:
    """The ``most`` items of largest cosine to each item, and the cosines; some million pairs at a time."""
    num_items = len(ages_of.lengths)
    owner, at = ages_of.positions(np.arange(num_items))
    work = np.bincount(owner, items_of.lengths[ages_of.value[at]], minlength=num_items)
    blocks = np.split(np.arange(num_items), np.flatnonzero(np.diff(np.cumsum(work) // _PAIRS_AT_ONCE)) + 1)
    parts = [_similar_block(items_of, ages_of, block=block, most=most) for block in blocks]
    first, second, cosine = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return _Lists(np.searchsorted(first, np.arange(num_items + 1)), second), cosine


def _similar_block(
    items_of: _Lists, ages_of: _Lists, *, block: np.ndarray, most: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    owner, at = ages_of.positions(block)
    row, other = items_of.positions(ages_of.value[at])
    sessions = ages_of.lengths
    pair = block[owner[row]] * len(sessions) + items_of.value[other]
    pair, together = np.unique(pair, return_counts=True)
    first, second = np.divmod(pair, len(sessions))
    cosine = together / np.sqrt(sessions[first] * sessions[second])
    kept = _largest(first, cosine, most=most)
    return first[kept], second[kept], cosine[kept]


def _distinct(samples: Samples, num_items: int) -> _Clicks:
    click, ptr = samples.flat()
    if len(click) and (click.min() < 0 or click.max() >= num_items):
        raise InputError(
            f"the samples have items outside 0 … {num_items - 1}, the training log's; "
            f"number their log like it first: test.aligned_to(train.items)"
        )
    sample = np.repeat(np.arange(len(samples)), np.diff(ptr))
    step = ptr[sample + 1] - np.arange(len(click))
    latest_first = (sample * num_items + click)[::-1]
    pair, last, count = np.unique(latest_first, return_index=True, return_counts=True)
    sample, item = np.divmod(pair, max(num_items, 1))
    step = step[::-1][last]
    return _Clicks(sample, item, count, samples.lengths[sample] + 1 - step, step)


def _rank(group: np.ndarray) -> np.ndarray:
    """0, 1, … within each run of equal numbers of a sorted array."""
    return np.arange(len(group)) - np.searchsorted(group, group)


def _largest(group: np.ndarray, value: np.ndarray, *, most: int) -> np.ndarray:
    """Where the ``most`` largest values of each group are, largest first, the earlier of equals first.

    >>> _largest(np.array([0, 0, 0, 1]), np.array([2, 3, 3, 1]), most=2).tolist()
    [1, 2, 3]
    """
    return np.lexsort((-value, group))[_rank(group) < most]


def _dense(sample: np.ndarray, item: np.ndarray, *, weight: np.ndarray, shape: tuple[int, int]) -> Tensor:
    """Sums of the weights of each sample and item, ``shape`` float32; 0 where there is none.

    Summed in double precision and in the order given, so a row is the same in every batch.
    """
    cell, term = np.unique(sample * shape[1] + item, return_inverse=True)
    scores = torch.zeros(shape)
    scores.view(-1)[torch.from_numpy(cell)] = torch.from_numpy(np.bincount(term, weight)).float()
    return scores


def _at_least_one(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise InputError(f"{name} must be at least 1, not {value}")
