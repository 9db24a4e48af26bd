"""Few-shot tasks: support and query drawn from the clicks of one user or session."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import numpy as np

from graphmeta.data.events import EventLog
from graphmeta.errors import InputError
from graphmeta.sampling.padding import ragged
from graphmeta.sampling.samples import Samples, last_clicks
from graphmeta.sampling.tasks import Tasks, tasks_of


def support_from_clicks(query: Samples, *, max_support: int | None = None) -> Tasks:
    """One task a sample, whose support is all its known clicks: the first is predicted from none, then as above.

    For systems that see a set where others see a session, so that a single known click is something to learn from.
    With ``max_support``, only the last so many are targets.
    """
    count = query.lengths if max_support is None else np.minimum(query.lengths, max_support)
    at, ptr = ragged(query.end - count, count)
    task = np.repeat(np.arange(len(query)), count)
    support = replace(query.take(task), end=at, target=query.item[at], value=None)
    return Tasks(support, query, ptr, np.arange(len(query) + 1))


def click_after(log: EventLog, known: int) -> Samples:
    """The first ``known`` clicks of each session that has more, the next one the target: few-shot questions."""
    longer = last_clicks(log, min_length=known + 1, max_length=int(log.lengths.max(initial=1)))
    end = longer.begin + known
    return replace(longer, end=end, target=longer.item[end])


def sampled_tasks(log: EventLog, *, least: int = 2, most: int = 10, seed: int = 0, max_length: int = 50) -> Tasks:
    """A few records of each session drawn at random; half of them, rounded down, are known, the others are asked.

    ``n`` is drawn evenly from ``least`` to ``most`` (or what there is); a session of fewer different items is left
    out. Each item counts once, at its first event.

    Args:
        log: a "session" is a person's history, drawn from as a whole.
        max_length: of what is known, the last so many are looked at.

    Raises:
        InputError: no session of two different items, or limits that make no task.

    Source: MetaCF (Wei et al. 2020), section on data.
    """
    if not 2 <= least <= most:
        raise InputError(f"least={least} and most={most} records of a person: 2 at least, and no more least than most")
    random = np.random.default_rng(seed)
    _, first = np.unique(log.session * log.num_items + log.item, return_index=True)
    rows = np.sort(first)
    count = np.bincount(log.session[rows], minlength=log.num_sessions)
    wanted = random.integers(least, np.maximum(np.minimum(most, count), least), endpoint=True)
    wanted[count < least] = 0
    shuffled_rows = rows[np.lexsort((random.random(len(rows)), log.session[rows]))]
    session = log.session[shuffled_rows]
    place = np.arange(len(rows)) - (np.cumsum(count) - count)[session]
    known, asked = np.zeros((2, log.num_events), dtype=bool)
    known[shuffled_rows[place < wanted[session] // 2]] = True
    asked[shuffled_rows[(place >= wanted[session] // 2) & (place < wanted[session])]] = True
    return tasks_of(log, known, asked).latest(max_length)


def random_queries(
    log: EventLog, among: np.ndarray, *, queries: int = 10, least: int = 13, most: int = 100, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Which events are known and which are asked about: of each session, ``queries`` events at random are asked.

    Only sessions with ``least`` to ``most`` events among those allowed take part.

    Args:
        among: the events that may be either, ``[N]`` bool.

    Source: MeLU, section 4.1 (ten of 13 to 100 ratings). Differs: the draw has a seed.
    """
    count = np.bincount(log.session[among], minlength=log.num_sessions)
    among = among & ((count >= least) & (count <= most))[log.session]
    lot = np.where(among, np.random.default_rng(seed).random(log.num_events), 2.0)
    order = np.lexsort((lot, log.session))
    place = np.empty(log.num_events, dtype=np.int64)
    place[order] = np.arange(log.num_events) - log.ptr[log.session]
    query = among & (place < queries)
    return among & ~query, query


@dataclass(frozen=True)
class RandomQueries:
    """The tasks of a log by :func:`random_queries`; ``System(samples=RandomQueries())`` trains on them."""

    queries: int = 10
    least: int = 13
    most: int = 100
    seed: int = 0

    def __call__(self, log: EventLog, *, max_length: int = 50) -> Tasks:
        """One task for each session with enough events; a sample knows the ``max_length`` clicks before it."""
        if log.value is None:
            raise InputError("the log has no ratings; name their column when reading it (value=)")
        return self.of(log, np.ones(log.num_events, dtype=bool)).latest(max_length)

    def known(self, log: EventLog) -> EventLog:
        """The log without what the tasks of it ask about; ids keep their numbers."""
        _, asked = random_queries(log, np.ones(log.num_events, dtype=bool), **asdict(self))
        return log.without(asked)

    def of(self, log: EventLog, among: np.ndarray) -> Tasks:
        """The tasks of these events (a mask ``[N]``) alone."""
        return tasks_of(log, *random_queries(log, among, **asdict(self)))
