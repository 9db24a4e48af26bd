"""Histories that come with a request: earlier sessions as lists of item ids, or a log that has them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from graphmeta.data.events import EventLog
from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError
from graphmeta.sampling.user_histories import Earlier, UserHistories

History = EventLog | Sequence[Sequence[Iterable[Any]]]  # a log, or each user's earlier sessions of item ids


def given_earlier(
    history: History | None, users: Sequence[Any] | None, *, items: EntityTable, kept: UserHistories | None
) -> Earlier | None:
    """The earlier sessions of the users of sessions without a time: all that are known.

    Args:
        history: a log that has the users' sessions, or for each session a list of sessions of item ids, oldest first;
            if not given, ``kept`` is looked up.
        users: their original ids; kept: the histories that a system holds.

    Raises:
        InputError: a log without ``users``.
    """
    if isinstance(history, EventLog):
        if users is None:
            raise InputError("history= is a log, so the users must be named: user= (users= for several sessions)")
        return UserHistories.of(history.aligned_to(items, history.users)).for_users(users)
    if history is not None:
        return _of_sessions(items, history)
    return None if kept is None or users is None else kept.for_users(users)


def _of_sessions(items: EntityTable, given: Sequence[Sequence[Iterable[Any]]]) -> Earlier:
    """Each user's earlier sessions, given as item ids; unknown items are left out. Session r has time r."""
    rows, owner = [], []
    for number, sessions in enumerate(given):
        known = [items.rows_of(np.array(list(session), dtype=object)) for session in sessions]
        known = [row[row >= 0] for row in known]
        rows += [row for row in known if len(row)]
        owner += [number] * sum(len(row) > 0 for row in known)
    begin = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    times = np.arange(len(rows), dtype=np.float64)
    item = np.concatenate([*rows, np.zeros(0, np.int64)]).astype(np.int64)
    ptr = np.searchsorted(np.array(owner, dtype=np.int64), np.arange(len(given) + 1))
    table = EntityTable(np.arange(len(given)), {})
    known = UserHistories(
        item, np.repeat(times, np.diff(begin)), begin, times, times, ptr, np.arange(len(rows)), items, table, False
    )
    return known.for_users(np.arange(len(given)).tolist())
