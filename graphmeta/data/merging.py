"""Two logs as one."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import numpy as np

from graphmeta.data.events import EventLog
from graphmeta.data.scan.log import ScannedLog
from graphmeta.data.tables import same_ids
from graphmeta.errors import InputError

Log = TypeVar("Log", EventLog, ScannedLog)


def merged(one: Log, other: Log) -> Log:
    """The sessions of two logs with the same item and user tables, and no session in common.

    Raises:
        InputError: logs with different tables.
    """
    if not same_ids(one.items, other.items) or not same_ids(one.users, other.users):
        raise InputError("the logs have different items or users; align them: log.aligned_to(items, users)")
    if isinstance(one, ScannedLog) or isinstance(other, ScannedLog):
        assert isinstance(one, ScannedLog) and isinstance(other, ScannedLog)
        return one.merged(other)
    session = np.concatenate([one.session, other.session + one.num_sessions])
    starts = np.concatenate([one.starts, other.starts])
    order = np.argsort(starts, kind="stable")
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    rows = np.argsort(place[session], kind="stable")
    value, user = None, None
    if one.value is not None and other.value is not None:
        value = np.concatenate([one.value, other.value])[rows]
    if one.session_user is not None and other.session_user is not None:
        user = np.concatenate([one.session_user, other.session_user])[order]
    return replace(
        one,
        session=place[session][rows],
        item=np.concatenate([one.item, other.item])[rows],
        time=np.concatenate([one.time, other.time])[rows],
        sessions=np.concatenate([one.sessions, other.sessions])[order],
        session_user=user,
        value=value,
    )
