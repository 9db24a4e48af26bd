"""Few-shot tasks: support and query sampled from the clicks of one user or session."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import numpy as np

from graphmeta.data.events import EventLog
from graphmeta.errors import InputError
from graphmeta.sampling.padding import ragged
from graphmeta.sampling.samples import Samples, last_clicks
from graphmeta.sampling.tasks import Tasks, tasks_of


def support_from_clicks(query: Samples, *, max_support: int | None = None) -> Tasks:
    """One task per sample; every observed click is a support target, predicted from the clicks before it.

    For systems that read the support as a set (MetaCF): the first click, with an empty context, is a target too, so
    that one observed click is enough for a support. With ``max_support``, only that many last clicks are targets.
    """
    count = query.lengths if max_support is None else np.minimum(query.lengths, max_support)
    at, ptr = ragged(query.end - count, count)
    task = np.repeat(np.arange(len(query)), count)
    support = replace(query.take(task), end=at, target=query.item[at], value=None)
    return Tasks(support, query, ptr, np.arange(len(query) + 1))


def next_click(log: EventLog, context_length: int) -> Samples:
    """Few-shot queries: the first clicks of each longer session as context, the next click as target."""
    longer = last_clicks(log, min_length=context_length + 1, max_length=int(log.lengths.max(initial=1)))
    end = longer.begin + context_length
    return replace(longer, end=end, target=longer.item[end])


def sampled_tasks(
    log: EventLog, *, min_events: int = 2, max_events: int = 10, seed: int = 0, max_length: int = 50
) -> Tasks:
    """Sample n events of each session; half of them, rounded down, are the support, the others the query.

    ``n`` is uniform from ``min_events`` to ``max_events`` (or the number of distinct items, if smaller); sessions with
    fewer than ``min_events`` distinct items are left out. Each item counts once, at its first event.

    Args:
        log: a "session" is the whole history of a user.
        max_length: only the last ``max_length`` support events are read.

    Raises:
        InputError: no session with two distinct items, or ``min_events`` and ``max_events`` that allow no task.

    Source: MetaCF (Peng et al. 2021), section on data.
    """
    if not 2 <= min_events <= max_events:
        raise InputError(f"min_events={min_events} and max_events={max_events}: choose 2 <= min_events <= max_events")
    random = np.random.default_rng(seed)
    _, first = np.unique(log.session * log.num_items + log.item, return_index=True)
    rows = np.sort(first)
    count = np.bincount(log.session[rows], minlength=log.num_sessions)
    wanted = random.integers(min_events, np.maximum(np.minimum(max_events, count), min_events), endpoint=True)
    wanted[count < min_events] = 0
    shuffled_rows = rows[np.lexsort((random.random(len(rows)), log.session[rows]))]
    session = log.session[shuffled_rows]
    place = np.arange(len(rows)) - (np.cumsum(count) - count)[session]
    support, query = np.zeros((2, log.num_events), dtype=bool)
    support[shuffled_rows[place < wanted[session] // 2]] = True
    query[shuffled_rows[(place >= wanted[session] // 2) & (place < wanted[session])]] = True
    if not query.any():
        raise InputError(
            f"no user or session has clicked {min_events} different items, which a task needs; use a log with more "
            f"items per user or session{', or a lower min_events' if min_events > 2 else ''}"
        )
    return tasks_of(log, support, query).latest(max_length)


def random_queries(
    log: EventLog, among: np.ndarray, *, queries: int = 10, min_events: int = 13, max_events: int = 100, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """``(support, query)``, two masks ``[N]``: ``queries`` random events of each session are queries, the rest support.

    Only sessions with ``min_events`` to ``max_events`` candidate events are used.

    Args:
        among: the candidate events, ``[N]`` bool.

    Source: MeLU, section 4.1 (ten of 13 to 100 ratings). Differs: the sample has a seed.
    """
    count = np.bincount(log.session[among], minlength=log.num_sessions)
    among = among & ((count >= min_events) & (count <= max_events))[log.session]
    key = np.where(among, np.random.default_rng(seed).random(log.num_events), 2.0)
    order = np.lexsort((key, log.session))
    place = np.empty(log.num_events, dtype=np.int64)
    place[order] = np.arange(log.num_events) - log.ptr[log.session]
    query = among & (place < queries)
    return among & ~query, query


@dataclass(frozen=True)
class RandomQueries:
    """The tasks of a log by :func:`random_queries`; ``System(samples=RandomQueries())`` trains on them."""

    queries: int = 10
    min_events: int = 13
    max_events: int = 100
    seed: int = 0

    def __call__(self, log: EventLog, *, max_length: int = 50) -> Tasks:
        """One task for each session with enough events; the context of a sample has at most ``max_length`` clicks."""
        if log.value is None:
            raise InputError("the log has no ratings; name their column when reading it (value=)")
        return self.of(log, np.ones(log.num_events, dtype=bool)).latest(max_length)

    def without_queries(self, log: EventLog) -> EventLog:
        """The log without the query events of its tasks; indices stay the same."""
        _, query = random_queries(log, np.ones(log.num_events, dtype=bool), **asdict(self))
        return log.without(query)

    def of(self, log: EventLog, among: np.ndarray) -> Tasks:
        """The tasks of these events only (a mask ``[N]``).

        Raises:
            InputError: no user with so many events.
        """
        support, query = random_queries(log, among, **asdict(self))
        if not query.any():
            raise InputError(
                f"no user has {self.min_events} to {self.max_events} ratings, of which a task is sampled; use a log "
                f"with more ratings per user, or other limits: RandomQueries(min_events=…, max_events=…)"
            )
        return tasks_of(log, support, query)
