"""The order of logs without times that come from several files: each file is later than those before it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from graphmeta.data.events import EventLog


def in_file_order(*logs: EventLog, stacklevel: int = 2) -> list[EventLog]:
    """The logs with one numbering of all events: a log without times counts rows on from those of earlier files.

    Two logs are of one file if no row has two different events; each is taken to be of the file with which it shares an
    event, otherwise of the last one that allows it. Logs with times are returned as they are.

    Warns:
        UserWarning: logs of several files without times.
    """
    number = files_of(logs)
    if not any(number):
        return list(logs)
    warnings.warn(
        f"the sessions are of {max(number) + 1} files without times: those of a later file are taken to be later; if "
        f"they are not, read the files with their times (time=, --time)",
        stacklevel=stacklevel,
    )
    rows = np.zeros(max(number) + 1)
    np.maximum.at(rows, number, [1 + log.time.max(initial=-1) for log in logs])
    begins = np.cumsum(rows) - rows
    return [replace(log, time=log.time + begins[at]) for log, at in zip(logs, number, strict=True)]


def files_of(logs: Sequence[EventLog]) -> list[int]:
    """The file of each log, by number; 0 for all logs if they have times."""
    if len(logs) < 2 or any(log.has_time for log in logs):
        return [0] * len(logs)
    files: list[list[EventLog]] = []
    number = []
    for log in logs:
        shared = [_shared_rows(log, file) for file in files]
        found = [at for at, rows in enumerate(shared) if rows] or [at for at, rows in enumerate(shared) if rows == 0]
        number.append(found[-1] if found else len(files))
        if not found:
            files.append([])
        files[number[-1]].append(log)
    return number


def _shared_rows(log: EventLog, file: list[EventLog]) -> int | None:
    """Number of the log's rows that are in the file too; None if any of them is another event there."""
    shared = 0
    for other in file:
        _, own, its = np.intersect1d(log.time, other.time, return_indices=True)
        if any((one[own] != two[its]).any() for one, two in zip(_events(log), _events(other), strict=True)):
            return None
        shared += len(own)
    return shared


def _events(log: EventLog) -> list[np.ndarray]:
    """Session, item and user of each event, by their ids."""
    found = [log.sessions.astype(object)[log.session], log.items.ids.astype(object)[log.item]]
    if log.users is not None and log.session_user is not None:
        users = np.array([*log.users.ids.tolist(), None], dtype=object)
        found.append(users[log.session_user[log.session]])
    return found
