"""A warning for logs without times whose rows are sorted by user."""

from __future__ import annotations

import warnings

import numpy as np

from graphmeta.data.events import EventLog
from graphmeta.data.scan.log import ScannedLog


def warn_sorted_by_user(log: EventLog | ScannedLog) -> None:
    """Warn if the order of a log without times is that of its users, some of whom have several sessions."""
    if log.has_time or log.session_user is None or log.num_sessions < 2:
        return
    user = log.session_user
    users = len(np.unique(user))
    if 1 < users < len(user) and np.count_nonzero(np.diff(user)) == users - 1:
        warnings.warn(
            "the log has no times and its rows are sorted by user: its last sessions are those of the last users, not "
            "the latest ones; sort the rows by time, or by how many sessions of the same user follow, most first",
            stacklevel=3,
        )
