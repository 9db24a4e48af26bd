"""User histories: all sessions of a user as one sequence, for models that read beyond the current session."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from graphmeta.data.events import EventLog
from graphmeta.errors import InputError
from graphmeta.sampling.padding import ragged
from graphmeta.sampling.samples import Samples, last_clicks, prefixes, whole_sessions


def user_histories(log: EventLog, *, max_length: int = 50) -> Samples:
    """All clicks of each user as one session, split into consecutive runs of at most
    ``max_length`` clicks (:func:`~graphmeta.sampling.samples.whole_sessions`).

    Sessions without a user stay separate. For encoders whose state continues across a user's sessions.

    Raises:
        InputError: a log without users.
    """
    return whole_sessions(_by_user(log)[0], max_length=max_length)


def sessions_by_user(log: EventLog) -> EventLog:
    """The log with all clicks of each user as one session, by time; sessions without a user stay separate.

    Raises:
        InputError: a log without users.
    """
    return _by_user(log)[0]


def every_event(log: EventLog, *, max_length: int = 50) -> Samples:
    """Every click as a target, in the log's order; the first click of a session has an empty context.

    For models without a context (matrix factorisation), and for streaming tests.
    """
    at = np.arange(log.num_events)
    begin = np.maximum(log.ptr[:-1][log.session], at - max_length)
    user = None if log.session_user is None else log.session_user[log.session]
    time = log.time if log.has_time else None
    return Samples(log.item, begin, at, log.item, log.session, time, user, items=log.items, users=log.users)


def with_history(samples: Samples, log: EventLog, *, max_length: int = 50) -> Samples:
    """The same samples with the clicks of the user's earlier sessions prepended, at most ``max_length`` clicks in all.

    Args:
        samples: samples of this log, e.g. ``last_clicks(log)`` or some of its rows.

    Raises:
        InputError: a log without users.
    """
    rows, order = _by_user(log)
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    end = place[samples.end - 1] + 1
    begin = np.maximum(rows.ptr[rows.session[end - 1]], end - max_length)
    return replace(samples, item=rows.item, time=rows.time if log.has_time else None, begin=begin, end=end)


def users_last_clicks(log: EventLog, *, min_length: int = 3, max_length: int = 50) -> Samples:
    """The last click of each user as target, all clicks of the user before it as context; without users, of each
    session.

    Args:
        min_length: clicks of a user.
        max_length: only the last ``max_length`` clicks are read.
    """
    whole = log if log.session_user is None else sessions_by_user(log)
    return last_clicks(whole, min_length=min_length, max_length=max_length)


def users_clicks(log: EventLog, *, max_length: int = 50) -> Samples:
    """Every click but the first of each user as target, the clicks of the user before it as context; without users, of
    each session.

    Args:
        max_length: only the last ``max_length`` clicks are read.
    """
    return prefixes(log if log.session_user is None else sessions_by_user(log), max_length=max_length)


def prepended(samples: Samples, *, max_length: int = 50) -> Samples:
    """The samples with the clicks of their users' earlier sessions (``Samples.earlier``) before their own, at most
    ``max_length`` in all. Samples without earlier sessions stay as they are.
    """
    if samples.earlier is None:
        return samples
    known, own = samples.earlier.histories, samples.latest(max_length)
    rows, ptr = samples.earlier.latest(max_length)
    where, own_ptr = ragged(own.begin, own.lengths)
    number = np.concatenate([np.repeat(np.arange(len(own)), np.diff(part)) for part in (ptr, own_ptr)])
    order = np.argsort(number, kind="stable")  # a user's earlier clicks, then those of the sample
    end = ptr[1:] + own_ptr[1:]
    time = (
        None if own.time is None or not known.has_time else np.concatenate([known.time[rows], own.time[where]])[order]
    )
    return replace(
        own,
        item=np.concatenate([known.item[rows], own.item[where]])[order],
        time=time,
        begin=np.maximum(ptr[:-1] + own_ptr[:-1], end - max_length),
        end=end,
        earlier=None,
    )


def _by_user(log: EventLog) -> tuple[EventLog, np.ndarray]:
    """The log with each user's clicks as one session, and the old row of each event."""
    if log.session_user is None:
        raise InputError("the log has no users; name its user column when reading it (user=, --user)")
    unknown = -1 - np.arange(log.num_sessions)
    _, first, owner = np.unique(
        np.where(log.session_user >= 0, log.session_user, unknown), return_index=True, return_inverse=True
    )
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))  # by each user's first session, as sessions are numbered
    session = rank[owner][log.session]
    order, first = np.lexsort((log.time, session)), np.sort(first)  # by time also where sessions overlap
    whole = replace(
        log,
        session=session[order],
        item=log.item[order],
        time=log.time[order],
        sessions=log.sessions[first],
        session_user=log.session_user[first],
        value=None if log.value is None else log.value[order],
    )
    return whole, order
