"""Statistics of a log for the personal re-ranker: popularity, repurchases, attribute values in one session."""

from __future__ import annotations

import numpy as np

from graphmeta.data.events import EventLog
from graphmeta.sampling.user_histories import DAY


def popularity(log: EventLog) -> np.ndarray:
    """Per item: log of its events / 8, of its events in the latest tenth of sessions / 6, the trend, and the log of
    its sessions: ``[num_items, 4]``.
    """
    size, tenth = log.num_items, max(log.num_sessions // 10, 1)
    recent = np.bincount(log.item[log.session >= log.num_sessions - tenth], minlength=size)
    sessions = np.bincount(np.unique(log.session * size + log.item) % size, minlength=size)
    trend = np.log((recent / tenth + 0.002) / (log.support / max(log.num_sessions, 1) + 0.002))
    return np.stack([np.log1p(log.support) / 8, np.log1p(recent) / 6, trend, np.log1p(sessions)], 1)


def repurchases(log: EventLog) -> np.ndarray:
    """Per item: mean days between two sessions of a user with it, the log of these, the share of its users who had it
    again, and the log of its users / 6: ``[num_items, 4]``; a session without a user counts for none.
    """
    size = log.num_items
    if log.session_user is None:
        return np.zeros((size, 4))
    user = log.session_user[log.session]
    rows = np.flatnonzero(user >= 0)
    rows = rows[np.lexsort((log.time[rows], log.item[rows], user[rows]))]
    same = (np.diff(user[rows]) == 0) & (np.diff(log.item[rows]) == 0) & (np.diff(log.session[rows]) != 0)
    days = np.diff(log.time[rows]) / DAY if log.has_time else np.ones(max(len(rows) - 1, 0))
    later = log.item[rows][1:][same]
    gaps = np.log(days[same] + 0.5)
    usual = gaps.mean() if len(gaps) else np.log(30.0)
    count = np.bincount(later, minlength=size)
    interval = np.exp((np.bincount(later, gaps, minlength=size) + 5 * usual) / (count + 5))
    pair = np.unique(np.stack([user[rows], log.item[rows]]), axis=1)[1] if len(rows) else rows
    buyers = np.bincount(pair, minlength=size)
    again = np.unique(np.stack([user[rows][1:][same], later]), axis=1)[1] if same.any() else rows[:0]
    share = (np.bincount(again, minlength=size) + 1) / (buyers + 3)
    return np.stack([interval, np.log(interval) / 4, share, np.log1p(buyers) / 6], 1)


def lift_of_values(log: EventLog, codes: np.ndarray, values: int) -> np.ndarray:
    """``log((n_ab + 5) / (n_a n_b / sessions + 5))`` of two attribute values, ``[values, values]``; n: sessions with a
    value, or with both; n_aa counts those with two items of a. Code 0 (unknown) has 0.
    """
    items = np.unique(log.session * log.num_items + log.item)
    session, code = items // log.num_items, codes[items % log.num_items]
    pair, count = np.unique(session * values + code, return_counts=True)
    session, code = np.divmod(pair, values)
    own = np.bincount(code, minlength=values).astype(np.float64)
    both = np.zeros((values, values))
    begin = np.searchsorted(session, np.arange(log.num_sessions + 1))
    lengths = np.diff(begin)
    first = np.repeat(np.arange(len(session)), lengths[session])
    offset = np.arange(len(first)) - np.repeat(np.cumsum(lengths[session]) - lengths[session], lengths[session])
    second = begin[session[first]] + offset
    np.add.at(both, (code[first], code[second]), 1.0)
    both[np.arange(values), np.arange(values)] = np.bincount(code, count > 1, minlength=values)
    lift = np.log((both + 5) / (np.outer(own, own) / max(log.num_sessions, 1) + 5))
    lift[0] = lift[:, 0] = 0.0
    return lift
