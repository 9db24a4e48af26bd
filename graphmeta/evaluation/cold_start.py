"""Four cold-start scenarios from one log of ratings: people and items that training knows (warm) or does not (cold).

What training may see is cut out first: ratings by warm people of warm items, less those held out. Every scenario is
made of the rest, so that no rating of a cold person or of a cold item, and none that is asked about, trains anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from graphmeta.data.events import EventLog
from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError
from graphmeta.sampling.few_shot import RandomQueries, random_queries
from graphmeta.sampling.tasks import Tasks, tasks_of


@dataclass(frozen=True)
class Scenario:
    """What is asked of a model after training, and the rule by which its people and items are warm or cold.

    ``trained`` says that its very queries were trained on: such figures tell how well training fits, no more.
    """

    name: str
    tasks: Tasks
    rule: str
    trained: bool = False

    def __str__(self) -> str:
        known, asked = len(self.tasks.support), len(self.tasks.query)
        return f"{self.name}: {len(self.tasks):,} people, {known:,} ratings known, {asked:,} asked ({self.rule})"


@dataclass(frozen=True)
class Cold:
    """Which people or items count as new, ``rows [n]`` bool, and why.

    Raises:
        InputError: rows that are no mask.
    """

    rows: np.ndarray
    rule: str

    def __post_init__(self) -> None:
        if self.rows.dtype != bool or self.rows.ndim != 1:
            raise InputError(
                f"rows of {self.rows.dtype} {self.rows.shape}: a mask says of each whether it is new, bool"
            )

    def check(self, number: int, things: str) -> None:
        """Refuse a mask that is not one of so many things."""
        if len(self.rows) != number:
            raise InputError(f"a mask of {len(self.rows)} for {number} {things}; say of each whether it is new")


@dataclass(frozen=True, eq=False)
class ColdStart:
    """A log of ratings whose sessions are people, cut for training and for the scenarios.

    Args:
        log: of all ratings; a session is a person.
        users: which sessions are new people; items: which items are new.
        held_out: ratings by warm people of warm items that training does not see either, ``[N]`` bool.
        queries: how the ratings of a person become known and asked.

    Raises:
        InputError: a log without ratings, masks of another size, or held-out ratings that are not by warm people of
            warm items.
    """

    log: EventLog
    users: Cold
    items: Cold
    held_out: np.ndarray
    queries: RandomQueries

    def __post_init__(self) -> None:
        if self.log.value is None:
            raise InputError("scenarios are made of ratings; name the log's column of ratings (value=)")
        _check_masks(self.log, self.users, self.items)
        if len(self.held_out) != self.log.num_events or (self.held_out & ~self._cell(False, False)).any():
            raise InputError(
                "a held-out rating is one by a warm person of a warm item; say of each rating whether it is"
            )

    def _cell(self, cold_user: bool, cold_item: bool) -> np.ndarray:
        """The events by such people of such items, ``[N]``."""
        user, item = self.users.rows[self.log.session], self.items.rows[self.log.item]
        return (user == cold_user) & (item == cold_item)

    @property
    def seen(self) -> np.ndarray:
        """The events that training may see, ``[N]`` bool."""
        return self._cell(False, False) & ~self.held_out

    @cached_property
    def training(self) -> EventLog:
        """The training log: warm people and items, numbered as all are."""
        return self.log.select(self.seen).aligned_to(self.log.items, self.log.users)

    def scenarios(self) -> Iterator[Scenario]:
        """Warm-warm on held-out ratings; one cold side, the other, both; and warm-warm on what was trained on.

        In the first, a person's training ratings are known and the held-out ones are asked. In the others, ratings
        of the scenario alone are known and asked, as in MeLU.
        """
        rule = f"new people: {self.users.rule}; new items: {self.items.rule}"
        if self.held_out.any():
            yield Scenario("warm", self._held_out(), f"{rule}; held-out ratings")
        for name, cell in {"user cold": (True, False), "item cold": (False, True), "both cold": (True, True)}.items():
            if self._cell(*cell).any():
                yield Scenario(name, self.queries.of(self.log, self._cell(*cell)), rule)
        yield Scenario("warm, as trained", self.queries(self.training, max_length=0), rule, trained=True)

    def _held_out(self) -> Tasks:
        """Persons with held-out ratings, and as many known ones as a task may have."""
        count = np.bincount(self.log.session[self.seen], minlength=self.log.num_sessions)
        enough = ((count >= self.queries.least - self.queries.queries) & (count <= self.queries.most))[self.log.session]
        return tasks_of(self.log, self.seen & enough, self.held_out & enough)


def cold_start(
    log: EventLog, users: Cold, items: Cold, *, share: float = 0.2, queries: RandomQueries | None = None
) -> ColdStart:
    """Cut a log for training and scenarios, and hold out some ratings of warm people for a warm-warm scenario.

    Args:
        users: which sessions are new people; items: which items are new.
        share: of the warm people with enough ratings, those of whom as many ratings as a task has queries are held
            out; with what is left they still make a task to train on.
        queries: how the ratings of a person become known and asked.

    Raises:
        InputError: as :class:`ColdStart` does; a share that is none.
    """
    _check_share(share)
    _check_masks(log, users, items)
    queries = queries or RandomQueries()
    warm = ~users.rows[log.session] & ~items.rows[log.item]
    count = np.bincount(log.session[warm], minlength=log.num_sessions)
    rich = (count >= queries.least + queries.queries) & (count <= queries.most + queries.queries)
    lot = np.random.default_rng([queries.seed, 1]).random(log.num_sessions)
    chosen = rich & (lot < share)
    asked = {"queries": queries.queries, "least": 0, "most": log.num_events, "seed": queries.seed + 1}
    _, held_out = random_queries(log, warm & chosen[log.session], **asked)
    return ColdStart(log, users, items, held_out, queries)


def _check_masks(log: EventLog, users: Cold, items: Cold) -> None:
    users.check(log.num_sessions, "sessions")
    items.check(log.num_items, "items")


def _check_share(share: float) -> None:
    if not 0 <= share <= 1:
        raise InputError(f"share={share} must lie between 0 and 1")


def random_users(log: EventLog, share: float, *, seed: int = 0) -> Cold:
    """This share of the sessions, at random."""
    _check_share(share)
    rows = np.zeros(log.num_sessions, dtype=bool)
    rows[np.random.default_rng(seed).permutation(log.num_sessions)[: round(log.num_sessions * share)]] = True
    return Cold(rows, f"{share:.0%} at random")


def late_users(log: EventLog, share: float) -> Cold:
    """The sessions that begin in the last ``share`` of all events. Source: MAMO, section 5.1 (0.2)."""
    _check_share(share)
    point = np.quantile(log.time, 1 - share)
    return Cold(log.starts > point, f"first rating in the last {share:.0%} of all")


def released_from(items: EntityTable, year: int, *, attribute: str = "year") -> Cold:
    """Items of that year or later; one without a year is not new. Source: MeLU, section 4.1 (1998).

    Raises:
        InputError: items without that attribute (one value an item).
    """
    if attribute not in items.attributes:
        raise InputError(f"items have no attribute {attribute!r}; there are: {', '.join(items.attributes) or 'none'}")
    column = items.attributes[attribute]
    years = np.array([int(value) if str(value).isdigit() else -1 for value in column.values])
    return Cold(years[column.codes] >= year, f"{attribute} {year} or later")


def rare_items(log: EventLog, most: int) -> Cold:
    """Items of at most so many events. Source: MAMO, section 5.1 (10)."""
    return Cold(log.support <= most, f"at most {most} ratings")
