"""EventLog: one validated table of clicks, grouped by session and sorted by time.

Cutting a log returns a new one without any trace of the removed events, not even in its vocabulary: ``log.before(t)``
does not depend on events at or after ``t``. Results always use the original ids.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import pandas as pd
from torch_geometric.data import HeteroData

from graphmeta.data import show, store
from graphmeta.data.columns import shown
from graphmeta.data.event_rows import EventColumns, EventRows, LogColumns, frame_of, read_rows
from graphmeta.data.read_options import ActionWeights, Inactivity, Source
from graphmeta.data.row_checks import check_items, no_event_left
from graphmeta.data.scan.log import ScannedLog, scan
from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError


@dataclass(frozen=True, eq=False)
class EventLog:
    """Clicks of sessions on items, sorted: sessions by their first event, events by time within a session.

    Events with equal times keep the order of their rows. A log without times uses the row number as time.

    Shapes:
        session, item ``[N]`` int64 indices; time ``[N]`` float64 seconds since 1970 (or row numbers);
        value ``[N]`` or None; sessions ``[S]`` original ids; session_user ``[S]`` int64 indices (-1: unknown) or None;
        has_time: whether times are seconds, not row numbers.
    """

    session: np.ndarray
    item: np.ndarray
    time: np.ndarray
    sessions: np.ndarray
    items: EntityTable
    users: EntityTable | None = None
    session_user: np.ndarray | None = None
    value: np.ndarray | None = None
    has_time: bool = True

    def __post_init__(self) -> None:
        if self.session.shape == self.item.shape and self.session.dtype == self.item.dtype == np.int64:
            session, item = store.side_by_side(self.session, self.item)  # the edges of the graph, in one array
            object.__setattr__(self, "session", session)
            object.__setattr__(self, "item", item)

    @classmethod
    def read(
        cls,
        source: Source,
        *,
        item: str,
        session: str | Inactivity | None = None,
        time: str | None = None,
        user: str | None = None,
        value: str | ActionWeights | None = None,
        items: EntityTable | None = None,
        users: EntityTable | None = None,
    ) -> EventLog:
        """Read an event log from a CSV, TSV or Parquet file or a frame; you name the columns.

        Other formats, files without header, a selection of rows: pass ``options.of(file)``, see
        :class:`~graphmeta.data.read_options.ReadOptions`. Without a session column, a user's events are split into
        sessions by :class:`~graphmeta.data.read_options.Inactivity`. If there are times, duplicate rows (equal in every
        column) are dropped with a warning; without times they count as repeated clicks.

        Warns:
            UserWarning: dropped rows; or, without times, sessions whose rows are not consecutive.

        Args:
            session: a column, or the inactivity that ends a session (an hour by default).
            time: ISO 8601, dates such as 20240501, or numbers; see :func:`~graphmeta.data.times.seconds`.
            user: a session belongs to the user of its first event; an empty cell is an unknown user.
            value: a number for each event (a rating, an amount), or
                :class:`~graphmeta.data.read_options.ActionWeights`.
            items: item attributes, see :meth:`EntityTable.read`.
            users: the same for users.

        Raises:
            InputError: a missing file, column or value, unreadable times, ids of mixed types, a session of two
                users; one line that names row, column and remedy.

        Warns:
            UserWarning: dropped rows; rows that differ in a row number alone; ids that differ by blanks alone; times
                that all lie in 1970 and 1971, or go back at the end of daylight saving time.

        >>> times = [1714550400, 1714550460, 1714636800, 1714636860]
        >>> frame = pd.DataFrame({"s": [1, 1, 2, 2], "i": ["a", "b", "b", "a"], "t": times})
        >>> log = EventLog.read(frame, session="s", item="i", time="t")
        >>> log.num_sessions, log.items.ids.tolist(), log.item.tolist()
        (2, ['a', 'b'], [0, 1, 1, 0])
        """
        if users is not None and user is None:
            raise InputError("a user table without a user column in the log; name the column of user ids")
        found = read_rows(*frame_of(source), EventColumns(item, session, time, user, value))
        log, order = _assemble(found)
        if found.user is not None and found.users is not None:
            log = _with_users(log, found.user[order], found.users, found.rows[order])
        return replace(
            log,
            has_time=time is not None,
            items=log.items if items is None else items.aligned(log.items.ids),
            users=log.users if users is None or log.users is None else users.aligned(log.users.ids, "user"),
        )

    @classmethod
    def scan(
        cls, source: Source | Sequence[str | Path], *, memory: str | int | None = None, **columns: Unpack[LogColumns]
    ) -> ScannedLog:
        """Read a log that need not fit into memory, from files such as ``"events/*.parquet"``, with DuckDB.

        The events are validated, sorted and stored in a temporary folder; the log is that of :meth:`read` on the rows
        of all files, in the alphabetic order of their names. ``scan(…).collect()`` is the same log in memory, and
        ``.shards()`` are parts of it. Encodings other than UTF-8, separators of several characters, columns of ids of
        other types than text and whole numbers, and rows with more fields than the header are refused.

        Args:
            source: a file, a pattern, a list of them, or ``options.of(pattern)``; Parquet, CSV or TSV.
            memory: what DuckDB and a shard may take together, such as "2GB"; half of the machine's if not given.
            columns: ``item, session, time, user, value, items, users``, see :meth:`read`.

        Raises:
            InputError: as :meth:`read`; files with different columns, or duckdb is not installed.
        """
        items, users = columns.pop("items", None), columns.pop("users", None)
        given: dict[str, Any] = dict(columns)
        named = EventColumns(**given)
        if users is not None and named.user is None:
            raise InputError("a user table without a user column in the log; name the column of user ids")
        return scan(cls, source, named, memory=memory, tables=(items, users))

    def to_frame(self) -> pd.DataFrame:
        """One row per event, in the log's order, with original ids: columns session, item and, where the log has them,
        time (float64 seconds since 1970), user (missing if unknown) and value. ``EventLog.read`` reads it back.

        >>> frame = pd.DataFrame({"s": [2, 1], "i": ["a", "b"], "t": [9, 5]})
        >>> EventLog.read(frame, session="s", item="i", time="t").to_frame().values.tolist()
        [[1, 'b', 5.0], [2, 'a', 9.0]]
        """
        return show.frame(self)

    def __repr__(self) -> str:
        return show.text(self)

    def _repr_html_(self) -> str:
        return show.html(self)

    @cached_property
    def graph(self) -> HeteroData:
        """The log as one heterogeneous graph in the same memory; do not change it (:func:`build_graph` returns a copy
        of the stores). A training log's graph has no later events.

        Node types: ``session``, ``item``, ``user`` (if known) and one for each item and user attribute; ``names`` holds
        their ids or values. Edge types:

        * ``(session, contains, item)``: one per click, with ``position`` in the session, ``time`` in seconds and, where
          the log has it, ``value``;
        * ``(item, follows, item)``: transitions between consecutive clicks of a session, their count as ``weight``;
        * ``(user, owns, session)``, and ``session.user`` (-1: unknown);
        * ``(item, has, <attribute>)`` and ``(user, has, <attribute>)``: one edge per value, none for an unknown one.

        An attribute name that is already in use is prefixed with its owner: ``user_category`` if items have a
        ``category``. Numeric and vector columns are columns of ``x`` (float32).

        The edges ``contains``, ``time``, ``value``, ``session.user`` and ids share memory with the log's arrays.
        """
        return store.to_graph(self)

    @property
    def num_events(self) -> int:
        """Number of events."""
        return len(self.item)

    @property
    def num_sessions(self) -> int:
        """Number of sessions."""
        return len(self.sessions)

    @property
    def num_items(self) -> int:
        """Number of items in the vocabulary, with or without events."""
        return len(self.items)

    @cached_property
    def ptr(self) -> np.ndarray:
        """Pointer of the sessions: session s has the events ``ptr[s]:ptr[s + 1]``, ``[S + 1]``."""
        return np.searchsorted(self.session, np.arange(self.num_sessions + 1))

    @property
    def lengths(self) -> np.ndarray:
        """Number of events of each session, ``[S]``."""
        return np.diff(self.ptr)

    @property
    def starts(self) -> np.ndarray:
        """Time of each session's first event, ``[S]``, non-decreasing."""
        return self.time[self.ptr[:-1]]

    @property
    def support(self) -> np.ndarray:
        """Number of events of each item, ``[num_items]``."""
        return np.bincount(self.item, minlength=self.num_items)

    def session_id(self, session: int) -> Any:
        """The original id of a session."""
        return self.sessions[session]

    def support_since(self, session: int) -> np.ndarray:
        """Number of events of each item in this session and those after it, ``[num_items]``."""
        return np.bincount(self.item[self.session >= session], minlength=self.num_items)

    def select(self, events: np.ndarray) -> EventLog:
        """The log of these events (a mask ``[N]``), with only their sessions, items and users.

        Sessions are sorted again by their first remaining event.
        """
        rows = np.flatnonzero(events)
        rows = rows[_by_start(self.session[rows], self.time[rows])]
        session, kept_sessions = _renumber(self.session[rows])
        item, kept_items = _renumber(self.item[rows])
        user, users = None, self.users
        if self.session_user is not None and users is not None:
            user = self.session_user[kept_sessions]
            user[user >= 0], kept_users = _renumber(user[user >= 0])
            users = users.take(kept_users)
        return replace(
            self,
            session=session,
            item=item,
            time=self.time[rows],
            sessions=self.sessions[kept_sessions],
            items=self.items.take(kept_items),
            users=users,
            session_user=user,
            value=None if self.value is None else self.value[rows],
        )

    def without_last_clicks(self) -> EventLog:
        """The log without the last click of each session; indices stay the same.

        For statistics of the training log that are used to predict these last clicks: the targets must not be counted.
        """
        last = np.zeros(self.num_events, dtype=bool)
        last[self.ptr[1:][self.lengths > 0] - 1] = True
        return self.without(last)

    def without(self, events: np.ndarray) -> EventLog:
        """The log without these events (a mask ``[N]``); indices stay the same."""
        known = ~events
        value = None if self.value is None else self.value[known]
        return replace(self, session=self.session[known], item=self.item[known], time=self.time[known], value=value)

    def before(self, cut: float) -> EventLog:
        """Events with time < ``cut`` (seconds); a session that crosses the cut keeps its first part."""
        return self.select(self.time < cut)

    def after(self, cut: float) -> EventLog:
        """The sessions that begin at or after ``cut`` (seconds)."""
        return self.select(self.starts[self.session] >= cut)

    def periods(self, seconds: float) -> Iterator[EventLog]:
        """Consecutive periods of ``seconds`` by event time, from the first event on; a period may be empty.

        Raises:
            InputError: a period that is not longer than 0 seconds.
        """
        if not seconds > 0:
            raise InputError(f"a period must be longer than 0 seconds, not {seconds!r}")
        number = np.floor((self.time - self.time.min(initial=np.inf)) / seconds).astype(np.int64)
        for period in range(int(number.max(initial=-1)) + 1):
            yield self.select(number == period)

    def filter(self, *, min_item_support: int = 1, min_session_length: int = 1, min_user_sessions: int = 1) -> EventLog:
        """Drop rare items, short sessions and users of few sessions until all conditions hold (a fixed point).

        Sessions of unknown users are not filtered by ``min_user_sessions``.

        Raises:
            InputError: if no event is left.
        """
        log = self
        while True:
            enough = (log.support[log.item] >= min_item_support) & (log.lengths[log.session] >= min_session_length)
            if log.session_user is not None:
                known = log.session_user >= 0
                sessions = np.bincount(log.session_user[known])
                few = known.copy()
                few[known] = sessions[log.session_user[known]] < min_user_sessions
                enough &= ~few[log.session]
            if enough.all():
                break
            log = log.select(enough)
        if log.num_events == 0:
            raise no_event_left(min_item_support, min_session_length, min_user_sessions)
        return log

    def fingerprint(self) -> str:
        """A hash of 16 characters over events, times, values, items and users."""
        digest = hashlib.sha256()
        for part in (self.session, self.item, self.time, self.session_user, self.value):
            digest.update(b"-" if part is None else part.tobytes())
        for table in (self.items, self.users):
            digest.update(b"-" if table is None else table.fingerprint())
        return digest.hexdigest()[:16]

    def with_entities(self, *, items: EntityTable | None = None, users: EntityTable | None = None) -> EventLog:
        """The same events with further items and users, without events, at the end of the tables; indices stay the
        same. They are nodes of :attr:`graph`, with edges to their attributes.

        Raises:
            InputError: an id that the log has already, or users for a log without users.
        """
        if users is not None and self.users is None:
            raise InputError("the log has no users; read it with its user column before you add some")
        more = {"items": items, "users": users}
        return replace(self, **{name: getattr(self, name).joined(one) for name, one in more.items() if one is not None})

    def must_have(self, items: int) -> None:
        """Check the number of items.

        Raises:
            InputError: the log has another number of items.
        """
        check_items(self.num_items, items)

    def aligned_to(self, items: EntityTable, users: EntityTable | None = None) -> EventLog:
        """The same events with the indices of another item table; events on items not in it are dropped.

        With ``users``, user indices are mapped too; users not in that table get -1, and their events stay. Without
        ``users``, the result has no users.
        """
        rows = items.rows_of(self.items.ids)
        known = self.select(rows[self.item] >= 0)
        known = replace(known, item=items.rows_of(known.items.ids)[known.item], items=items)
        if users is None or known.users is None or known.session_user is None:
            return replace(known, users=None, session_user=None)
        number = np.append(users.rows_of(known.users.ids), -1)  # the last entry is for unknown users
        return replace(known, users=users, session_user=number[known.session_user])

    def of_sessions(self, chosen: np.ndarray) -> EventLog:
        """The log of these sessions (a mask ``[S]``)."""
        return self.select(chosen[self.session])


def _assemble(rows: EventRows) -> tuple[EventLog, np.ndarray]:
    """The log without users, and the position in ``rows`` of each event.

    Sessions are ordered by their first event, ties by the row of that event, so later events do not affect the order.
    """
    by_time = np.argsort(rows.time, kind="stable")
    session, sessions = pd.factorize(rows.session[by_time])
    order = by_time[np.argsort(session, kind="stable")]
    item, items = pd.factorize(rows.item[order])
    log = EventLog(
        session=np.sort(session).astype(np.int64),
        item=item.astype(np.int64),
        time=rows.time[order],
        sessions=np.asarray(sessions),
        items=EntityTable(np.asarray(items), {}),
        value=None if rows.value is None else rows.value[order],
    )
    return log, order


def _by_start(session: np.ndarray, time: np.ndarray) -> np.ndarray:
    """Order of events (grouped by session) that sorts sessions by their first event; ties keep their order."""
    begins = np.flatnonzero(np.diff(session, prepend=-1))
    number = np.zeros(len(session), dtype=np.int64)
    number[begins[1:]] = 1
    return np.argsort(time[begins][np.cumsum(number)], kind="stable")


def _with_users(log: EventLog, user: np.ndarray, names: np.ndarray, rows: np.ndarray) -> EventLog:
    """The log with the user of each session.

    Args:
        user: of each event, -1 if unknown.
        names: their ids.
        rows: the source row of each event, for the error.
    """
    of_session = user[log.ptr[:-1]].astype(np.int64)  # of its first event, so that later events do not affect it
    named = np.full(log.num_sessions, -1, dtype=np.int64)
    known = np.flatnonzero(user >= 0)[::-1]
    named[log.session[known]] = user[known]  # of its first event with a known user
    strange = (user >= 0) & (user != named[log.session])
    if strange.any():
        at = int(np.argmax(strange))
        first, second = shown(names[named[log.session[at]]]), shown(names[user[at]])
        raise InputError(
            f"row {rows[at] + 1}: session {shown(log.sessions[log.session[at]])} has events of users {first} and "
            f"{second}; use different session ids for different users"
        )
    late = (of_session < 0) & (named >= 0)
    if late.any():
        at = int(np.argmax(late))
        warnings.warn(
            f"sessions that begin without a user and name one later: {late.sum():,} (the first: "
            f"{shown(log.sessions[at])}, user {shown(names[named[at]])}); they are read as of unknown users; if the "
            f"user was known from the beginning, fill in the user in the session's first row",
            stacklevel=3,
        )
    number, kept = _renumber(of_session[of_session >= 0])
    of_session[of_session >= 0] = number
    return replace(log, users=EntityTable(names[kept], {}), session_user=of_session)


def _renumber(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """New indices by first appearance, and the old index of each."""
    new, old = pd.factorize(codes)
    return new.astype(np.int64), np.asarray(old, dtype=np.int64)
