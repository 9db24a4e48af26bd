"""Test protocol of a stream: queries, candidates and metrics of a period."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from graphmeta.data.events import EventLog
from graphmeta.errors import InputError, counted
from graphmeta.evaluation.custom import Metric, RankMetrics, check_metrics, rank_names
from graphmeta.evaluation.lists import lists_below
from graphmeta.evaluation.metrics import Ranks, ranks, usable
from graphmeta.retrain.period import Period
from graphmeta.sampling.histories import every_event
from graphmeta.sampling.padding import ragged
from graphmeta.sampling.samples import Samples
from graphmeta.system import System


@dataclass(frozen=True)
class Measures:
    """Number of test clicks, and the metrics among sampled candidates and among all items.

    ``users`` has those of the users with a click before the period (``known``) and of the others (``new``), as far as
    there are any; it is empty without users.
    """

    rows: int
    sampled: dict[str, float]
    full: dict[str, float]
    users: dict[str, Measures] = field(default_factory=dict)


@dataclass(frozen=True)
class StreamEvaluation:
    """Ranks the target of every click of a period, among sampled candidates and among all items.

    All candidates have appeared by the end of the period. Sampled ones are uniform, without replacement, among the
    items that the user (without users: the session) has not clicked by then.

    Args:
        negatives: sampled items per click; fewer, with a warning, if a test period has fewer, see :meth:`fitted`.
        samples: test samples of a log with their contexts, e.g. ``prefixes``, which excludes the first click of a
            session.
        max_length: maximum context length, the last clicks.
        metrics: further metrics of both rankings by name, as in :func:`~graphmeta.evaluation.ranking.evaluate`.
    """

    negatives: int = 999
    ks: tuple[int, ...] = (5, 10, 20)
    samples: Callable[..., Samples] = every_event
    max_length: int = 50
    batch_size: int = 500
    metrics: Mapping[str, Metric] | None = None

    def rows(self, period: Period) -> Samples:
        """The test samples of the period."""
        every = self.samples(period.past, max_length=self.max_length)
        return every.take(period.is_new(every).nonzero()[0])

    def measure(self, system: System, period: Period) -> Measures:
        """The metrics of both rankings, also of known and of new users."""
        rows, seen = self.rows(period), np.flatnonzero(period.past.support)
        sample = UnclickedSampler(period.past, seen, np.random.default_rng(period.seed_for(4)))
        place, columns = np.searchsorted(seen, rows.target), torch.from_numpy(seen)
        among_sampled, among_all = Ranks.empty(len(rows)), Ranks.empty(len(rows))
        for at in range(0, len(rows), self.batch_size):
            part = slice(at, at + self.batch_size)
            candidates = torch.from_numpy(
                np.concatenate([place[part][:, None], sample(rows.take(part), self.negatives)], 1)
            )
            scores = usable(system.scores(rows.take(part)))[:, columns].cpu()
            among_sampled[part] = ranks(scores.gather(1, candidates), torch.zeros(len(scores), dtype=torch.int64))
            among_all[part] = ranks(scores, torch.from_numpy(place[part]))
        found = among_sampled, among_all
        groups = {name: self._of(*found, chosen) for name, chosen in user_groups(period, rows).items()}
        return replace(self._of(*found), users=groups)

    def _of(self, among_sampled: Ranks, among_all: Ranks, chosen: Tensor | slice = slice(None)) -> Measures:
        """The metrics of these ranks, of the chosen rows."""
        sampled, full = (RankMetrics(rank[chosen], self.ks, self.metrics)() for rank in (among_sampled, among_all))
        return Measures(len(among_all[chosen]), sampled, full)

    def fitted(self, log: EventLog, edges: np.ndarray, first: int) -> StreamEvaluation:
        """This evaluation, with as many negatives and as long lists as every test period has items for.

        Args:
            first: the first test period.

        Warns:
            UserWarning: fewer negatives, or shorter lists.

        Raises:
            InputError: a test period with no item to sample, or a metric without a name of its own.
        """
        check_metrics(self.metrics, rank_names(self.ks))
        period = np.searchsorted(edges, log.time, "right") - 1
        owner = owners(log, log.session)
        item_since = np.full(log.num_items, len(edges))
        np.minimum.at(item_since, log.item, period)
        pair, place = np.unique(owner * log.num_items + log.item, return_inverse=True)
        pair_since = np.full(len(pair), len(edges))
        np.minimum.at(pair_since, place, period)
        left = {}
        for number in range(first, len(edges) - 1):
            touched = np.bincount(pair[pair_since <= number] // log.num_items, minlength=int(owner.max()) + 1)
            seen = int((item_since <= number).sum())
            left[number] = seen - int(touched[owner[period == number]].max(initial=0))
        fewest = min(left, key=lambda number: left[number])
        if left[fewest] < 1:
            raise InputError(
                f"in period {fewest + 1} a user or session has clicked every item, so none is left to sample; start "
                f"later (first=, --first)"
            )
        negatives = min(self.negatives, left[fewest])
        ks = lists_below(negatives + 1, self.ks)
        if negatives < self.negatives:
            shorter = "" if ks == self.ks else f", and lists are of {', '.join(map(str, ks))}"
            warnings.warn(
                f"in period {fewest + 1} a user or session has only {counted(negatives, 'item')} left to sample, so "
                f"that number is sampled in every period instead of {self.negatives:,}{shorter}; to sample more, start "
                f"later (first=, --first)",
                stacklevel=3,
            )
        elif ks != self.ks:
            raise InputError(
                f"lists of {max(self.ks)} need at least {max(self.ks)} negatives, not {self.negatives}: sample more "
                f"(negatives=, --negatives)"
            )
        return replace(self, negatives=negatives, ks=ks)


def user_groups(period: Period, rows: Samples) -> dict[str, Tensor]:
    """Masks ``[S]`` of the test clicks of known users, who have a click before the period, and of new ones; only groups
    with clicks, none without users.
    """
    log = period.past
    if log.users is None:
        return {}
    owner = owners(log, log.session)
    known = torch.from_numpy(np.isin(owners(log, rows.session), owner[log.time < period.begin]))
    return {name: chosen for name, chosen in (("known", known), ("new", ~known)) if chosen.any()}


def owners(log: EventLog, session: np.ndarray) -> np.ndarray:
    """Owner of each session: the user's number, or for sessions without a user, a number after those."""
    if log.session_user is None or log.users is None:
        return session
    user = log.session_user[session]
    return np.where(user >= 0, user, len(log.users) + session)


class UnclickedSampler:
    """Samples items that the user never clicked, as positions in ``seen``, the items that have appeared so far."""

    def __init__(self, past: EventLog, seen: np.ndarray, random: np.random.Generator) -> None:
        self.random, self.size, self.past = random, len(seen), past
        pair = np.unique(owners(past, past.session) * self.size + np.searchsorted(seen, past.item))
        self.place, owner = pair % max(self.size, 1), pair // max(self.size, 1)
        self.ptr = np.searchsorted(owner, np.arange(int(owner.max(initial=0)) + 2))

    def __call__(self, samples: Samples, count: int) -> np.ndarray:
        """``[S, count]``.

        All items form one random ring; each sample takes the first unclicked items from a random position on.
        """
        owner = owners(self.past, samples.session)
        ring = self.random.permutation(self.size)
        where = np.empty_like(ring)
        where[ring] = np.arange(self.size)
        begin, touched = self.random.integers(0, self.size, len(samples)), np.diff(self.ptr)[owner]
        width = min(self.size, count + int(touched.max(initial=0)))
        inside, _ = ragged(self.ptr[owner], touched)
        row = np.repeat(np.arange(len(samples)), touched)
        ahead = (where[self.place[inside]] - begin[row]) % self.size
        taken = np.zeros((len(samples), width), dtype=bool)
        taken[row[ahead < width], ahead[ahead < width]] = True
        free = ~taken & ((~taken).cumsum(1) <= count)
        return ring[(begin[:, None] + free.nonzero()[1].reshape(-1, count)) % self.size]
