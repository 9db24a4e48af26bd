"""Histories that come with a request: earlier sessions as lists of item ids, or a log that has them."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from graphmeta.data.events import EventLog
from graphmeta.data.splits import check_log
from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError
from graphmeta.sampling.user_histories import DAY, Earlier, UserHistories

History = EventLog | Sequence[Sequence[Iterable[Any]]]  # a log, or each user's earlier sessions of item ids
_GAP = 7 * DAY  # between sessions whose times are not given, if nothing is known of usual ones


def given_earlier(
    history: History | None,
    users: Sequence[Any] | None,
    *,
    items: EntityTable,
    kept: UserHistories | None,
    times: Sequence[Sequence[float]] | None = None,
) -> Earlier | None:
    """The earlier sessions of the users of requests.

    Sessions given as lists are as many days apart as is usual in ``kept`` (the median), a week without any; unknown
    items in them are left out with a warning.

    Args:
        history: a log that has the users' sessions, or for each request a list of sessions of item ids, oldest first;
            if not given, ``kept`` is looked up.
        users: their original ids.
        kept: the histories that a system holds.
        times: of the clicks of each request, in seconds: only sessions that ended before the first are read. If not
            given, or if the histories have no times, a request is made at their end.

    Raises:
        InputError: a log without ``users``, or a history that is neither a log nor lists of sessions.
    """
    before = None if times is None else np.array([min(each, default=np.inf) for each in times], dtype=np.float64)
    if isinstance(history, EventLog):
        if users is None:
            raise InputError("history= is a log, so the users must be named: user= (users= for several sessions)")
        own = UserHistories.of(history.aligned_to(items, history.users))
        return own.for_users(users, before=before if own.has_time else None)
    if history is not None:
        if isinstance(history, str | bytes) or not isinstance(history, Sequence):
            check_log("history=", history)
        return _of_sessions(items, history, kept)
    if kept is None or users is None:
        return None
    return kept.for_users(users, before=before if kept.has_time else None)


def _of_sessions(items: EntityTable, given: Sequence[Sequence[Iterable[Any]]], kept: UserHistories | None) -> Earlier:
    """Each user's earlier sessions, given as item ids."""
    rows, owner, number, lost = [], [], [], 0
    for user, sessions in enumerate(given):
        if isinstance(sessions, str | bytes) or not isinstance(sessions, Sequence):
            raise InputError(f"history {user} is {sessions!r}, not a list of sessions; pass [[item, …], …]")
        for at, session in enumerate(sessions):
            known = items.rows_of(np.array(_ids(session, user, at), dtype=object))
            lost += int((known < 0).sum())
            if (known >= 0).any():
                rows.append(known[known >= 0])
                owner.append(user)
                number.append(at - len(sessions))
    if lost:
        warnings.warn(f"items of the history that are unknown to this model and left out: {lost}", stacklevel=4)
    gap = _GAP if kept is None else _usual_gap(kept)
    begin = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    now = float(kept.time.max(initial=0.0)) if kept is not None and kept.has_time else 0.0
    times = now + gap * np.array(number, dtype=np.float64)
    item = np.concatenate([*rows, np.zeros(0, np.int64)]).astype(np.int64)
    ptr = np.searchsorted(np.array(owner, dtype=np.int64), np.arange(len(given) + 1))
    table = EntityTable(np.arange(len(given)), {})
    known = UserHistories(
        item, np.repeat(times, np.diff(begin)), begin, times, times, ptr, np.arange(len(rows)), items, table
    )
    return known.for_users(np.arange(len(given)).tolist(), before=np.full(len(given), now))


def _ids(session: Any, user: int, at: int) -> list[Any]:
    """The item ids of a session; whole floats become integers.

    Raises:
        InputError: one id instead of a session.
    """
    if isinstance(session, str | bytes) or not isinstance(session, Iterable):
        raise InputError(
            f"history {user}, session {at}: {session!r} is one id, not a session; pass lists of ids, oldest first: "
            f"history=[[{session!r}], …]"
        )
    return [int(i) if isinstance(i, float | np.floating) and float(i).is_integer() else i for i in session]


def _usual_gap(known: UserHistories) -> float:
    """The median time between the starts of two sessions of a user, in seconds, without those at the same time."""
    same = known.owner[1:] == known.owner[:-1]
    gaps = np.diff(known.starts)[same]
    gaps = gaps[gaps > 0]
    return float(np.median(gaps)) if known.has_time and len(gaps) else _GAP
