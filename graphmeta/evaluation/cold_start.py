"""Four cold-start scenarios from one log of ratings: users and items in training (warm) or not (cold).

Training data are the ratings by warm users of warm items, without the held-out ones. Scenarios use the other ratings
only, so no rating of a cold user or item and no query rating is trained on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from graphmeta.data.events import EventLog
from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError, counted
from graphmeta.sampling.few_shot import RandomQueries, random_queries
from graphmeta.sampling.tasks import Tasks, tasks_of


@dataclass(frozen=True)
class Scenario:
    """Test tasks, and the rule by which their users and items are warm or cold.

    ``trained``: the queries were trained on, so the metrics are training errors.
    """

    name: str
    tasks: Tasks
    rule: str
    trained: bool = False

    def __str__(self) -> str:
        users, query = counted(len(self.tasks), "user"), counted(len(self.tasks.query), "query rating")
        return f"{self.name}: {users}, {len(self.tasks.support):,} support and {query} ({self.rule})"


@dataclass(frozen=True)
class Cold:
    """Which users or items are new, ``rows [n]`` bool, and by which rule.

    Raises:
        InputError: rows that are not a boolean mask.
    """

    rows: np.ndarray
    rule: str

    def __post_init__(self) -> None:
        if self.rows.dtype != bool or self.rows.ndim != 1:
            shape = f"{self.rows.dtype} {self.rows.shape}"
            raise InputError(f"rows of {shape} are not a mask; pass one bool per user or item")

    def check(self, number: int, things: str) -> None:
        """Raise an InputError unless the mask has ``number`` entries."""
        if len(self.rows) != number:
            raise InputError(f"a mask of {len(self.rows)} for {number} {things}; pass one bool for each")


@dataclass(frozen=True, eq=False)
class ColdStart:
    """A log of ratings with one session per user, split into training and scenarios.

    Args:
        log: all ratings; a session is a user.
        users: which sessions are new users.
        items: which items are new.
        held_out: ratings by warm users of warm items that are not in training, ``[N]`` bool.
        queries: how the ratings of a user are split into support and query.

    Raises:
        InputError: a log without ratings, masks of another size, or held-out ratings that are not by warm users of
            warm items.
    """

    log: EventLog
    users: Cold
    items: Cold
    held_out: np.ndarray
    queries: RandomQueries

    def __post_init__(self) -> None:
        if self.log.value is None:
            raise InputError("scenarios need ratings; name the log's column of ratings (value=)")
        _check_masks(self.log, self.users, self.items)
        if len(self.held_out) != self.log.num_events or (self.held_out & ~self._cell(False, False)).any():
            raise InputError("held_out must select ratings by warm users of warm items; pass one bool per rating")

    def _cell(self, cold_user: bool, cold_item: bool) -> np.ndarray:
        """The events by cold (warm) users of cold (warm) items, ``[N]`` bool."""
        user, item = self.users.rows[self.log.session], self.items.rows[self.log.item]
        return (user == cold_user) & (item == cold_item)

    @property
    def seen(self) -> np.ndarray:
        """The training events, ``[N]`` bool."""
        return self._cell(False, False) & ~self.held_out

    @cached_property
    def training(self) -> EventLog:
        """The training log: warm users and items, with the indices of the whole log."""
        return self.log.select(self.seen).aligned_to(self.log.items, self.log.users)

    def scenarios(self) -> Iterator[Scenario]:
        """Warm users and items (held-out ratings), cold users, cold items, both cold, and warm as in training.

        In the first, training ratings are the support and held-out ratings the query. In the others, support and
        query are both ratings of the scenario, as in MeLU.
        """
        rule = f"new users: {self.users.rule}; new items: {self.items.rule}"
        if self.held_out.any():
            yield Scenario("warm", self._held_out(), f"{rule}; held-out ratings")
        for name, cell in {"user cold": (True, False), "item cold": (False, True), "both cold": (True, True)}.items():
            if self._cell(*cell).any():
                yield Scenario(name, self.queries.of(self.log, self._cell(*cell)), rule)
        yield Scenario("warm, as trained", self.queries(self.training, max_length=0), rule, trained=True)

    def _held_out(self) -> Tasks:
        """Tasks of users with held-out ratings and an allowed number of support ratings."""
        count = np.bincount(self.log.session[self.seen], minlength=self.log.num_sessions)
        enough = ((count >= self.queries.min_events - self.queries.queries) & (count <= self.queries.max_events))[
            self.log.session
        ]
        if not (self.held_out & enough).any():
            raise InputError(
                f"no user with held-out ratings has {self.queries.min_events - self.queries.queries} to "
                f"{self.queries.max_events} others; use a log with more ratings, or pass other queries=RandomQueries(…)"
            )
        return tasks_of(self.log, self.seen & enough, self.held_out & enough)


def cold_start(
    log: EventLog, users: Cold, items: Cold, *, share: float = 0.2, queries: RandomQueries | None = None
) -> ColdStart:
    """Split a log into training and scenarios, with held-out ratings of some warm users for the warm-warm scenario.

    Args:
        users: which sessions are new users.
        items: which items are new.
        share: the share of warm users with held-out ratings, as many as a task has queries; only users with enough
            other ratings for a training task are chosen.
        queries: how the ratings of a user are split into support and query.

    Raises:
        InputError: as :class:`ColdStart`, or a share outside [0, 1].
    """
    _check_share(share)
    _check_masks(log, users, items)
    queries = queries or RandomQueries()
    warm = ~users.rows[log.session] & ~items.rows[log.item]
    count = np.bincount(log.session[warm], minlength=log.num_sessions)
    rich = (count >= queries.min_events + queries.queries) & (count <= queries.max_events + queries.queries)
    sample = np.random.default_rng([queries.seed, 1]).random(log.num_sessions)
    chosen = rich & (sample < share)
    options = {"queries": queries.queries, "min_events": 0, "max_events": log.num_events, "seed": queries.seed + 1}
    _, held_out = random_queries(log, warm & chosen[log.session], **options)
    return ColdStart(log, users, items, held_out, queries)


def _check_masks(log: EventLog, users: Cold, items: Cold) -> None:
    users.check(log.num_sessions, "sessions")
    items.check(log.num_items, "items")


def _check_share(share: float) -> None:
    if not 0 <= share <= 1:
        raise InputError(f"share={share!r} must lie between 0 and 1")


def random_users(log: EventLog, share: float, *, seed: int = 0) -> Cold:
    """A random share of the sessions (users)."""
    _check_share(share)
    rows = np.zeros(log.num_sessions, dtype=bool)
    rows[np.random.default_rng(seed).permutation(log.num_sessions)[: round(log.num_sessions * share)]] = True
    return Cold(rows, f"{share:.0%} at random")


def late_users(log: EventLog, share: float) -> Cold:
    """The sessions (users) that begin within the last ``share`` of all events. Source: MAMO, section 5.1 (0.2)."""
    _check_share(share)
    point = np.quantile(log.time, 1 - share)
    return Cold(log.starts > point, f"first rating in the last {share:.0%} of all")


def released_from(items: EntityTable, year: int, *, attribute: str = "year") -> Cold:
    """Items of that year or later; an item without a year is not new. Source: MeLU, section 4.1 (1998).

    Raises:
        InputError: items without that single-valued attribute.
    """
    if attribute not in items.attributes:
        raise InputError(f"items have no attribute {attribute!r}; there are: {', '.join(items.attributes) or 'none'}")
    column = items.attributes[attribute]
    years = np.array([int(value) if str(value).isdigit() else -1 for value in column.values])
    return Cold(years[column.codes] >= year, f"{attribute} {year} or later")


def rare_items(log: EventLog, most: int) -> Cold:
    """Items with at most ``most`` events. Source: MAMO, section 5.1 (10)."""
    return Cold(log.support <= most, f"at most {most} ratings")
