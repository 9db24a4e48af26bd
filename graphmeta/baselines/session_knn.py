"""Session-kNN: the neighbour search that :class:`SessionKNN` and STAN share, and the former."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from graphmeta.baselines.incidence import Clicks, Lists, dense, incidence, largest, rank
from graphmeta.baselines.votes import Votes
from graphmeta.data.events import EventLog
from graphmeta.errors import check_whole
from graphmeta.sampling.samples import Samples


@dataclass(frozen=True)
class Candidates:
    """Recent sessions that share items with the samples, sorted by sample, then age: P of them.

    For each k, candidate ``pair[k]`` contains the item of click ``click[k]``; sorted by pair, then item. Shapes:
    sample, age ``[P]``; pair, click ``[K]``.
    """

    sample: np.ndarray
    age: np.ndarray
    pair: np.ndarray
    click: np.ndarray

    @classmethod
    def of(cls, clicks: Clicks, ages_of: Lists, *, num_sessions: int, recent: int) -> Candidates:
        """Each sample's ``recent`` latest sessions with an item of it."""
        # Each item's latest sessions suffice: one of the latest overall is among the latest of each of its items.
        row, at = ages_of.positions(clicks.item, most=recent)
        key = clicks.sample[row] * num_sessions + ages_of.value[at]
        order = np.argsort(key, kind="stable")
        key, pair = np.unique(key[order], return_inverse=True)
        sample, age = np.divmod(key, max(num_sessions, 1))
        late = rank(sample) < recent
        number, kept = np.cumsum(late) - 1, late[pair]
        return cls(sample[late], age[late], number[pair[kept]], row[order][kept])

    def total(self, weight: np.ndarray) -> np.ndarray:
        """Sum of a per-click weight ``[clicks]`` over the shared items, ``[P]``."""
        return np.bincount(self.pair, weight[self.click], minlength=len(self.sample))

    def latest(self, clicks: Clicks) -> np.ndarray:
        """The shared click with the lowest step, ``[P]``."""
        order = np.lexsort((clicks.step[self.click], self.pair))
        return self.click[order][rank(self.pair) == 0]


def rarity(ages_of: Lists, *, num_sessions: int) -> np.ndarray:
    """1 + ln(N / n(i)) for N sessions, n(i) of them with item i: ``[I]``."""
    return 1 + np.log(max(num_sessions, 1) / np.maximum(ages_of.lengths, 1))


def votes_of_sessions(log: EventLog, age: np.ndarray, weight: np.ndarray) -> Votes:
    """The votes of sessions by their age, 0 for the latest."""
    number = log.num_sessions - 1 - age
    return Votes("session", number, weight, [log.item[log.ptr[one] : log.ptr[one + 1]] for one in number])


class SessionVotes:
    """Scores items by the votes of neighbours, training sessions of ``log``; SessionKNN and STAN weight them."""

    log: EventLog
    num_items: int

    def scores(self, samples: Samples) -> Tensor:
        """``[S, num_items]``."""
        sample, _, item, weight = self._votes(samples)
        return dense(sample, item, weight=weight, shape=(len(samples), self.num_items))

    def votes(self, samples: Samples, item: int) -> Votes:
        """The neighbours with an item."""
        _, age, voted, weight = self._votes(samples)
        return votes_of_sessions(self.log, age[voted == item], weight[voted == item])

    def _votes(self, samples: Samples) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The sample, the neighbour's age, the item and the weight of each vote."""
        raise NotImplementedError


class SessionKNN(SessionVotes):
    """Scores items of the most similar recent training sessions (V-SKNN).

    Candidates are the ``recent`` latest training sessions that share an item with s. The ``neighbours`` most
    similar ones (ties: the later) vote for all their items, with a weight that decays with the step of the shared
    items:

        sim(s, n) = Σ_{j ∈ s ∩ n} place(j) / L,
        score(i)  = Σ_{n ∋ i} sim(s, n) / min_{j ∈ s ∩ n} step(j) · (1 + ln(N / n(i))),

    N being the number of training sessions and n(i) of those with item i. Without a neighbour that has i the
    score is 0. A session is as recent as its first click.

    Args:
        log: the training log.
        neighbours: number of voting sessions.
        recent: number of candidate sessions.
        idf: use the last factor, which favours rare items.

    Raises:
        InputError: ``neighbours`` or ``recent`` below 1.

    Source: Ludewig & Jannach 2018, "Evaluation of session-based recommendation algorithms", V-SKNN; the last
    factor is the option ``idf_weighting`` of the authors' code.
    Differs: the last factor is on. On the last sessions of Yoochoose 1/64's training log P@20 / MRR@20 is
    66.3 / 26.6 with and 65.6 / 26.2 without it.
    """

    reads_tasks = False

    def __init__(self, log: EventLog, *, neighbours: int = 100, recent: int = 1000, idf: bool = True) -> None:
        check_whole("neighbours", neighbours, 1)
        check_whole("recent", recent, 1)
        self.log = log
        self.items, self.num_items, self.num_sessions = log.items, log.num_items, log.num_sessions
        self.neighbours, self.recent = neighbours, recent
        self.items_of, self.ages_of = incidence(log)
        self.rarity = rarity(self.ages_of, num_sessions=log.num_sessions) if idf else np.ones(log.num_items)

    def _votes(self, samples: Samples) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        clicks = Clicks.of(samples, num_items=self.num_items)
        found = Candidates.of(clicks, self.ages_of, num_sessions=self.num_sessions, recent=self.recent)
        similarity, latest = found.total(clicks.place), found.latest(clicks)
        near = largest(found.sample, similarity, most=self.neighbours)
        vote = similarity[near] / clicks.length[latest[near]] / clicks.step[latest[near]]
        row, at = self.items_of.positions(found.age[near])
        item = self.items_of.value[at]
        return found.sample[near][row], found.age[near][row], item, vote[row] * self.rarity[item]
