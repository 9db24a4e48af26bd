"""Users' earlier sessions: which sessions of a user ended before a question, and their events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from graphmeta.data.events import EventLog
from graphmeta.data.splits import check_log
from graphmeta.data.tables import EntityTable, all_of, same_ids
from graphmeta.errors import InputError
from graphmeta.sampling.file_order import files_of, in_file_order
from graphmeta.sampling.padding import ragged
from graphmeta.sampling.samples import Samples

DAY = 86400.0  # seconds


@dataclass(frozen=True, eq=False)
class UserHistories:
    """The sessions of each user, by their first event: user u has the sessions ``ptr[u]:ptr[u + 1]``.

    Session r has the events ``begin[r]:begin[r + 1]``. It is earlier than a question if it, and every session of the
    user that began before it, ended strictly before the question's session began.

    Shapes: item ``[N]`` int64, time ``[N]`` float64 (seconds, or row numbers of a log without times); begin ``[R + 1]``
    int64; starts, ends ``[R]`` float64 (ends: the latest event of the user so far); ptr ``[U + 1]`` int64;
    sessions ``[R]`` original ids.
    """

    item: np.ndarray
    time: np.ndarray
    begin: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    ptr: np.ndarray
    sessions: np.ndarray
    items: EntityTable
    users: EntityTable
    has_time: bool = True

    @classmethod
    def of(cls, *logs: EventLog) -> UserHistories:
        """The sessions of known users in these logs; a session that is in several logs (the same id, user and time of
        the first event) counts once.

        Args:
            logs: logs with the same item indices, e.g. the parts of a split. Logs without times must be of one file;
                :meth:`together` takes those of several.

        Raises:
            InputError: a log without users, or with other item indices than the first, logs with and without times,
                logs of several files without times, or no log.
        """
        if not logs:
            raise InputError("there is no log to take histories from; pass one")
        for log in logs:
            check_log("UserHistories.of", log)
        if len({log.has_time for log in logs}) > 1:
            raise InputError(
                "some of the logs have times and some have none; read all with the column of times (time=)"
            )
        for log in logs:
            if log.users is None or log.session_user is None:
                raise InputError("the log has no users; name its user column when reading it (user=, --user)")
            if not same_ids(log.items, logs[0].items):
                raise InputError("the logs have different items; align them first: log.aligned_to(items, log.users)")
        if any(files_of(logs)):
            raise InputError(
                "the logs are of several files without times, whose rows have no common order; read them with times "
                "(time=), or take UserHistories.together(None, *logs), each file later than those before it"
            )
        users = all_of([log.users for log in logs if log.users is not None])
        owner = np.concatenate([_rows_of(users, log)[log.session_user] for log in logs])
        ids = np.concatenate([log.sessions.astype(object) for log in logs])
        lengths = np.concatenate([log.lengths for log in logs])
        starts = np.concatenate([np.append(log.time, np.inf)[log.ptr[:-1]] for log in logs])
        again = pd.DataFrame({"id": ids, "user": owner, "start": starts}).duplicated().to_numpy()
        kept = np.flatnonzero((owner >= 0) & (lengths > 0) & ~again)
        kept = kept[np.lexsort((kept, starts[kept], owner[kept]))]
        first = np.cumsum(lengths) - lengths
        rows, begin = ragged(first[kept], lengths[kept])
        item, time = (np.concatenate([getattr(log, name) for log in logs])[rows] for name in ("item", "time"))
        return cls.of_columns(
            {"item": item, "time": time, "begin": begin, "owner": owner[kept], "sessions": ids[kept]},
            items=logs[0].items,
            users=users,
            has_time=logs[0].has_time,
        )

    @classmethod
    def of_columns(
        cls, columns: Mapping[str, np.ndarray], *, items: EntityTable, users: EntityTable, has_time: bool
    ) -> UserHistories:
        """The histories of sessions that are sorted by user and first event.

        Args:
            columns: item, time, begin and sessions as above, and owner ``[R]``, the user of each session.
        """
        item, time, begin, owner, sessions = (columns[n] for n in ("item", "time", "begin", "owner", "sessions"))
        ends = pd.Series(time[begin[1:] - 1]).groupby(owner).cummax().to_numpy(dtype=np.float64)
        ptr = np.searchsorted(owner, np.arange(len(users) + 1))
        return cls(item, time, begin, time[begin[:-1]], ends, ptr, sessions, items, users, has_time)

    @classmethod
    def together(
        cls, kept: UserHistories | None, *logs: EventLog, stacklevel: int = 2
    ) -> tuple[UserHistories, list[EventLog]]:
        """The histories ``kept`` with the sessions of these logs, and the logs with the times that the histories give
        them: ``histories.attached(samples, logs[0])``.

        Several files without times are put in their order, see :func:`~graphmeta.sampling.file_order.in_file_order`.
        """
        first = [] if kept is None else [kept.log()]
        every = in_file_order(*first, *logs, stacklevel=stacklevel + 1)
        return cls.of(*every), every[len(first) :]

    def log(self) -> EventLog:
        """The sessions as a log."""
        order = np.argsort(self.starts, kind="stable")
        rows, ptr = ragged(self.begin[:-1][order], np.diff(self.begin)[order])
        session = np.repeat(np.arange(len(order)), np.diff(ptr))
        return EventLog(
            session=session,
            item=self.item[rows],
            time=self.time[rows],
            sessions=self.sessions[order],
            items=self.items,
            users=self.users,
            session_user=self.owner[order],
            has_time=self.has_time,
        )

    @property
    def owner(self) -> np.ndarray:
        """The user of each session, ``[R]``."""
        return np.repeat(np.arange(len(self.ptr) - 1), np.diff(self.ptr))

    def session_of(self, rows: np.ndarray) -> np.ndarray:
        """The session of each of these events."""
        return np.searchsorted(self.begin, rows, side="right") - 1

    def until(self, user: np.ndarray, before: np.ndarray) -> np.ndarray:
        """The end of each user's sessions that are earlier than a time: rows ``ptr[user]:until``, ``[S]``.

        Shapes: user ``[S]`` int64 (-1: unknown, which has none), before ``[S]`` float64.
        """
        times, key = self._by_end
        found = np.searchsorted(key, user * (len(times) + 1) + np.searchsorted(times, before))
        return np.where(user >= 0, np.maximum(found, self.ptr[user]), 0)

    @cached_property
    def _by_end(self) -> tuple[np.ndarray, np.ndarray]:
        """The distinct ends, sorted, and of each session a key that sorts by user, then by end."""
        times, rank = np.unique(self.ends, return_inverse=True)
        return times, self.owner * (len(times) + 1) + rank

    def before_sessions(self, sessions: np.ndarray) -> Earlier:
        """The sessions of the same user that are earlier than each of these sessions."""
        return self.earlier(self.owner[sessions], self.starts[sessions])

    def attached(self, samples: Samples, log: EventLog) -> Samples:
        """The samples of a log with their users' earlier sessions.

        Args:
            log: the log that ``samples.session`` refers to; its users are found by their ids.
        """
        if log.users is None or log.session_user is None:
            return replace(samples, earlier=None)
        user = _rows_of(self.users, log)[log.session_user[samples.session]]
        return replace(samples, earlier=self.earlier(user, log.starts[samples.session]))

    def for_users(self, users: Sequence[Any], *, before: np.ndarray | None = None) -> Earlier:
        """The sessions of these users, by id; an unknown user has none.

        Args:
            before: the time of each question ``[S]``; the end of all histories if not given.
        """
        user = self.users.rows_of(np.array(list(users), dtype=object))
        now = np.nextafter(self.time.max(initial=0.0), np.inf)
        return self.earlier(user, np.full(len(user), now) if before is None else before)

    def earlier(self, user: np.ndarray, before: np.ndarray) -> Earlier:
        """The users' sessions that are earlier than a time."""
        until = self.until(user, before)
        return Earlier(self, np.where(user >= 0, self.ptr[user], 0), until, before)


@dataclass(frozen=True, eq=False)
class Earlier:
    """The earlier sessions of each sample's user: sample s has the sessions ``since[s]:until[s]`` of the histories.

    Shapes: since, until ``[S]`` int64; query_time ``[S]`` float64, the time of the query.
    """

    histories: UserHistories
    since: np.ndarray
    until: np.ndarray
    query_time: np.ndarray

    @property
    def sessions(self) -> np.ndarray:
        """Number of earlier sessions, ``[S]``."""
        return self.until - self.since

    @property
    def events(self) -> np.ndarray:
        """Number of events of the earlier sessions, ``[S]``."""
        return self.histories.begin[self.until] - self.histories.begin[self.since]

    def last(self, sessions: int) -> Earlier:
        """At most the last ``sessions`` earlier sessions of each sample."""
        return replace(self, since=np.maximum(self.since, self.until - sessions))

    def take(self, rows: np.ndarray | slice) -> Earlier:
        """Those of these samples."""
        return replace(self, since=self.since[rows], until=self.until[rows], query_time=self.query_time[rows])

    def latest(self, events: int | None) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the events, at most the last ``events`` of each sample, ``[sum]``, and pointer ``[S + 1]``."""
        end, count = self.histories.begin[self.until], self.events
        count = count if events is None else np.minimum(count, events)
        return ragged(end - count, count)

    def columns(self) -> HistoryColumns:
        """The events as columns."""
        known = self.histories
        rows, ptr = self.latest(None)
        sample = np.repeat(np.arange(len(self.since)), np.diff(ptr))
        session = known.session_of(rows)
        ago = self.query_time[sample] - known.time[rows]
        days = ago / DAY if known.has_time else np.zeros(len(rows))
        return HistoryColumns(known.item[rows], sample, self.until[sample] - session, np.maximum(days, 0.0))


@dataclass(frozen=True)
class HistoryColumns:
    """Events of earlier sessions: n_id (item), sample, age (sessions ago, 1 is the latest), days before the question.

    Shapes: all ``[H]``; days float64 (0 for a log without times), the others int64.
    """

    n_id: np.ndarray
    sample: np.ndarray
    age: np.ndarray
    days: np.ndarray


def _rows_of(users: EntityTable, log: EventLog) -> np.ndarray:
    """The row of each user of the log in ``users``, and -1 for unknown ones as the last entry."""
    return np.append(users.rows_of(log.users.ids if log.users is not None else users.ids[:0]), -1)
