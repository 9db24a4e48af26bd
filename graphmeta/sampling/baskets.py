"""Samples of baskets, sessions whose clicks have no order: any of their items is a target."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from graphmeta.data.events import EventLog
from graphmeta.data.splits import check_log
from graphmeta.sampling.padding import ragged
from graphmeta.sampling.samples import Samples, joined, last_clicks, prefixes, samples_at


def leave_one_out(log: EventLog, *, per_session: int = 4, max_length: int = 50, seed: int = 0) -> Samples:
    """Random clicks of each session as targets, at most ``per_session``; the context is all of its other clicks.

    For sessions whose clicks have no order, see :func:`is_unordered`.

    Args:
        max_length: a context keeps its last clicks.
        seed: of the choice.
    """
    check_log("leave_one_out", log)
    chosen = _some_clicks(log, np.flatnonzero(log.lengths[log.session] >= 2), per_session=per_session, seed=seed)
    session = log.session[chosen]
    where, ptr = ragged(log.ptr[:-1][session], log.lengths[session])
    target_last = np.lexsort(
        (where == np.repeat(chosen, np.diff(ptr)), np.repeat(np.arange(len(chosen)), np.diff(ptr)))
    )
    item, end = log.item[where[target_last]], ptr[1:] - 1
    time = log.time[where[target_last]] if log.has_time else None
    user = None if log.session_user is None else log.session_user[session]
    begin = np.maximum(ptr[:-1], end - max_length)
    return Samples(item, begin, end, item[end], session, time, user, items=log.items, users=log.users)


def is_unordered(log: EventLog) -> bool:
    """Whether the clicks of most sessions (nine in ten of those with two or more) have one time: baskets."""
    if not log.has_time:
        return False
    begin, end = log.ptr[:-1], log.ptr[1:]
    longer = end - begin >= 2
    return bool(longer.any() and (log.time[begin[longer]] == log.time[end[longer] - 1]).mean() >= 0.9)


def next_items(log: EventLog, *, max_length: int = 50, empty: float = 0.0, seed: int = 0) -> Samples:
    """:func:`leave_one_out` of a log of baskets (:func:`is_unordered`), :func:`prefixes` of any other.

    Args:
        empty: the probability that such a sample is left out, and that one of :func:`without_context` is taken instead;
            at 1 all samples are of these.
        seed: of the choice.
    """
    samples = (leave_one_out if is_unordered(log) else prefixes)(log, max_length=max_length)
    if not empty:
        return samples
    random, first = np.random.default_rng(seed), without_context(log, seed=seed)
    kept = samples.take(random.random(len(samples)) >= empty)
    return joined(kept, first.take(random.random(len(first)) < empty))


def without_context(log: EventLog, *, per_session: int = 4, seed: int = 0) -> Samples:
    """Random clicks of each session as targets, at most ``per_session``, without any context: what a session will
    contain before its first click. A session of one click has a sample too.

    The mean of the softmax loss over them is that of predicting the session's items as a set.

    >>> from graphmeta.testing import fake_log
    >>> samples = without_context(fake_log(sessions=3, length=6))
    >>> len(samples), int(samples.lengths.max())
    (12, 0)
    """
    check_log("without_context", log)
    rows = _some_clicks(log, np.arange(log.num_events), per_session=per_session, seed=seed)
    samples, begin = samples_at(log, rows, rows, log.session[rows]), log.ptr[log.session[rows]]
    return replace(samples, begin=begin, end=begin)


def validation_mix(log: EventLog, *, max_length: int = 50, empty: float = 0.0, seed: int = 0) -> Samples:
    """One query for each session, to choose an epoch by: its last click, or a random click before which nothing is
    known.

    Args:
        empty: the probability of the latter.
        seed: of the choice, which is the same at each call.
    """
    queries = last_clicks(log, max_length=max_length)
    if not empty:
        return queries
    first = without_context(log, per_session=1, seed=seed)
    chosen = np.random.default_rng(seed).random(log.num_sessions) < empty
    return joined(queries.take(~chosen[queries.session]), first.take(chosen[first.session]))


def _some_clicks(log: EventLog, rows: np.ndarray, *, per_session: int, seed: int) -> np.ndarray:
    """At most ``per_session`` random ones of these clicks of each session, by session."""
    random = np.random.default_rng(seed)
    rows = rows[np.lexsort((random.random(len(rows)), log.session[rows]))]
    first = np.cumsum(np.append(0, np.bincount(log.session[rows], minlength=log.num_sessions)))[:-1]
    return rows[np.arange(len(rows)) - first[log.session[rows]] < per_session]
