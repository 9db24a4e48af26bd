"""Tasks of a time window: what each user buys or clicks in the days after a time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from graphmeta.data.events import EventLog
from graphmeta.data.splits import check_log
from graphmeta.errors import InputError, check_number

DAY = 86400.0  # seconds


def next_days(log: EventLog, *, at: float | None = None, days: float = 7.0) -> tuple[EventLog, EventLog]:
    """The log until a time, and one session for each user with an event in the days after it, ``(at, at + days]``.

    Such a session has the user's distinct items of these days, and begins right after ``at``, so that
    :func:`~graphmeta.evaluation.next_basket.evaluate_next_basket` ranks them given all events until ``at``. Both logs
    have the item and user indices of ``log``. Sessions of unknown users are no targets.

    Args:
        at: seconds since 1970; the last event's time less ``days`` if not given.

    Raises:
        InputError: a log without times or users, or no event before or after the time.

    >>> import pandas as pd
    >>> frame = pd.DataFrame({"s": [1, 2, 3, 4], "u": ["a", "b", "a", "a"], "i": ["x", "y", "z", "z"]})
    >>> log = EventLog.read(frame.assign(t=[20240101, 20240105, 20240108, 20240109]), session="s", user="u", item="i",
    ...     time="t")
    >>> known, after = next_days(log, days=4.0)
    >>> known.num_events, after.sessions.tolist(), after.item.tolist()
    (2, ['a'], [2])
    """
    check_log("next_days", log)
    check_number("days", days, 1e-6)
    if log.users is None or log.session_user is None:
        raise InputError("next_days needs the users of a log; name its user column when reading it (user=, --user)")
    if not log.has_time or log.num_events == 0:
        raise InputError("next_days needs times; name the log's time column when reading it (time=, --time)")
    at = float(log.time.max()) - days * DAY if at is None else float(at)
    user, until = log.session_user[log.session], log.time <= at
    within = ~until & (log.time <= at + days * DAY) & (user >= 0)
    if not until.any() or not within.any():
        raise InputError(
            f"no event {'of a known user in the days after' if until.any() else 'until'} the time {at:.0f} (seconds "
            f"since 1970); the log has {log.time.min():.0f} to {log.time.max():.0f}"
        )
    known = log.select(until).aligned_to(log.items, log.users)
    owner, item = np.divmod(np.unique(user[within] * log.num_items + log.item[within]), log.num_items)
    users, session = np.unique(owner, return_inverse=True)
    after = replace(
        log,
        session=session.astype(np.int64),
        item=item,
        time=np.full(len(item), np.nextafter(at, np.inf)),
        sessions=log.users.ids[users],
        session_user=users,
        value=None,
    )
    return known, after
