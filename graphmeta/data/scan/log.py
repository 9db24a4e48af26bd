"""A log on disk: cuts and filters in SQL, shards of whole sessions as in-memory logs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphmeta.data.event_rows import EventColumns
from graphmeta.data.read_options import Source, table_of
from graphmeta.data.row_checks import no_event_left
from graphmeta.data.scan.assembly import Tables, assembled, ordered
from graphmeta.data.scan.database import Database, available, bytes_of
from graphmeta.data.scan.files import files_of, raw_rows
from graphmeta.data.scan.stored import StoredLog
from graphmeta.data.scan.validation import Validation
from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError

if TYPE_CHECKING:
    from graphmeta.data.events import EventLog


@dataclass(frozen=True, eq=False, repr=False)
class ScannedLog(StoredLog):
    """A log whose events are in a DuckDB file, with the methods of :class:`~graphmeta.data.events.EventLog` that do not
    need all events at once; made by :meth:`EventLog.scan <graphmeta.data.events.EventLog.scan>`.

    Cuts return logs of the same database. See :class:`~graphmeta.data.scan.stored.StoredLog` for the fields, sizes,
    ``shards`` and ``collect``.
    """

    def before(self, cut: float) -> ScannedLog:
        """Events with time < ``cut`` (seconds); a session that crosses the cut keeps its first part."""
        return (
            self._select(f"t < {float(cut)!r}") if math.isfinite(cut) else self._select("true" if cut > 0 else "false")
        )

    def after(self, cut: float) -> ScannedLog:
        """The sessions that begin at or after ``cut`` (seconds)."""
        return self.of_sessions(self.starts >= cut)

    def of_sessions(self, chosen: np.ndarray) -> ScannedLog:
        """The log of these sessions (a mask ``[S]``)."""
        runs = np.flatnonzero(np.diff(chosen.astype(np.int8), prepend=0, append=0)).reshape(-1, 2)
        if len(runs) <= 1:
            begin, end = runs[0] if len(runs) else (0, 0)
            return self._select(f"s >= {begin} AND s < {end}")
        kept = self.db.stored({"s": np.flatnonzero(chosen).astype(np.int32)})
        found = self._select(f"s IN (SELECT s FROM {kept})")
        self.db.drop(kept)
        return found

    def filter(
        self, *, min_item_support: int = 1, min_session_length: int = 1, min_user_sessions: int = 1
    ) -> ScannedLog:
        """Drop rare items, short sessions and users of few sessions until all conditions hold; see
        :meth:`EventLog.filter <graphmeta.data.events.EventLog.filter>`.

        Raises:
            InputError: if no event is left.
        """
        log = self._select(*self._fixed_point(min_item_support, min_session_length, min_user_sessions))
        if log.num_events == 0:
            raise no_event_left(min_item_support, min_session_length, min_user_sessions)
        return log

    def _fixed_point(self, items: int, sessions: int, users: int) -> tuple[str, list[str]]:
        """The condition of the events that are left by :meth:`filter`, and tables of the sessions' starts before each
        step but the first, the latest first: sessions that begin at one time keep the order that they had.
        """
        db, events = self.db, self.tables.events
        least = {"i": items, "s": sessions, "u": 1 if self.users is None else users}
        gone = {
            name: db.table(f"SELECT CAST(0 AS INTEGER) AS c WHERE {name!r} = ''", stem="gone")
            for name, most in least.items()
            if most > 1
        }
        kept = " AND ".join(f"{name} NOT IN (SELECT c FROM {table})" for name, table in gone.items()) or "true"
        starts: list[str] = []
        while gone:
            few = {name: db.table(self._few(name, least[name], kept), stem="few") for name in gone}
            if not any(db.value(f"SELECT count(*) FROM {table}") for table in few.values()):
                break
            for name, table in few.items():
                db.run(f"INSERT INTO {gone[name]} SELECT c FROM {table}")
            db.drop(*few.values())
            starts.insert(0, db.table(f"SELECT s, arg_min(t, rowid) AS start FROM {events} WHERE {kept} GROUP BY s"))
        return kept, starts[1:]

    def _few(self, name: str, least: int, kept: str) -> str:
        """The query of items, sessions or (known) users that are too rare among the events that are kept."""
        events = f"{self.tables.events} WHERE {kept}"
        if name == "u":
            events = f"(SELECT DISTINCT s, u FROM {events}) WHERE u >= 0"
        return f"SELECT {name} AS c FROM {events} GROUP BY {name} HAVING count(*) < {least}"

    def aligned_to(self, items: EntityTable, users: EntityTable | None = None) -> ScannedLog:
        """The same events with the indices of another item table; see :meth:`EventLog.aligned_to
        <graphmeta.data.events.EventLog.aligned_to>`.
        """
        rows = items.rows_of(self.tables.item_ids)
        known = self._select(self._of_codes(rows >= 0))
        user_of = None
        if users is not None and known.users is not None and self.tables.user_ids is not None:
            user_of = users.rows_of(self.tables.user_ids)
        tables = known.tables if user_of is not None else replace(known.tables, user_ids=None)
        return replace(
            known,
            items=items,
            item_of=rows,
            users=users if user_of is not None else None,
            user_of=user_of,
            tables=tables,
        )

    def _of_codes(self, kept: np.ndarray) -> str:
        """The condition that an event's item is one of these codes (a mask)."""
        if kept.all():
            return "true"
        return f"i IN (SELECT i FROM {self.db.stored({'i': np.flatnonzero(kept).astype(np.int32)})})"

    def _select(self, condition: str, ties: Sequence[str] = ()) -> ScannedLog:
        """The log of the events that meet a condition, with only their sessions, items and users.

        Args:
            ties: tables ``s, start`` whose starts order sessions that begin at one time, the first one first.
        """
        db, tables = self.db, self.tables
        sorting = " ORDER BY rowid" if " IN (" in condition else ""  # a join may lose the order of the events
        kept = db.table(f"SELECT s, i, t, u, v FROM {tables.events} WHERE {condition}{sorting}", stem="kept")
        begins = "s IS DISTINCT FROM lag(s) OVER ()"
        first = (
            f"SELECT row_number() OVER () - 1 AS o, s, t AS start FROM (SELECT s, t, {begins} AS b FROM {kept}) WHERE b"
        )
        joined = "".join(f" JOIN {table} AS tie{at} USING (s)" for at, table in enumerate(ties))
        order = ", ".join(["b.start", *(f"tie{at}.start" for at in range(len(ties))), "b.o"])
        sessions = db.table(
            f"SELECT old.id, b.start, old.u, old.n, b.o FROM ({first}) AS b JOIN (SELECT rowid AS s, id, u, n FROM "
            f"{tables.sessions}) AS old USING (s){joined} ORDER BY {order}",
            stem="sessions",
        )
        moved = bool(db.value(f"SELECT count(*) FROM {sessions} WHERE o <> rowid"))
        return _log(self, ordered(db, sessions, (kept, begins), tables, moved=moved))

    def merged(self, other: ScannedLog) -> ScannedLog:
        """The sessions of two logs of one scan with the same item and user tables, and no session in common; see
        :func:`graphmeta.data.merging.merged`.
        """
        db, own, more = self.db, self.tables, other.tables
        size = self.num_sessions
        events = db.table(
            f"SELECT s, i, t, u, v FROM {own.events} UNION ALL SELECT s + {size} AS s, i, t, u, v FROM {more.events}",
            stem="both",
        )
        sessions = db.table(
            f"SELECT * FROM (SELECT id, start, u, n, rowid AS o FROM {own.sessions} UNION ALL SELECT id, "
            "start, u, n, rowid "
            f"+ {size} AS o FROM {more.sessions}) ORDER BY start, o",
            stem="sessions",
        )
        return replace(self, tables=ordered(db, sessions, (events, "s IS DISTINCT FROM lag(s) OVER ()"), own))


def _log(like: ScannedLog, tables: Tables) -> ScannedLog:
    """A log with the items and users of new tables, by their first appearance."""
    db = like.db
    first = db.arrays(f"SELECT i, min(rowid) AS p FROM {tables.events} GROUP BY i")
    codes = first["i"][np.argsort(first["p"])]
    items = like.items.take(like.item_of[codes])
    users, user_of = like.users, like.user_of
    if users is not None and user_of is not None:
        seen = db.arrays(f"SELECT u, min(rowid) AS p FROM {tables.sessions} WHERE u >= 0 GROUP BY u")
        own = seen["u"][np.argsort(seen["p"])]
        own = own[user_of[own] >= 0]
        users, user_of = users.take(user_of[own]), _index(own, len(user_of))
    return replace(
        like, tables=tables, items=items, item_of=_index(codes, len(like.item_of)), users=users, user_of=user_of
    )


def _index(codes: np.ndarray, size: int) -> np.ndarray:
    """The index of each code, -1 for one that is not listed."""
    found = np.full(size, -1, dtype=np.int64)
    found[codes] = np.arange(len(codes))
    return found


def scan(
    make: Callable[..., EventLog],
    source: Source | Sequence[str | Path],
    columns: EventColumns,
    *,
    memory: str | int | None = None,
    tables: tuple[EntityTable | None, EntityTable | None] = (None, None),
) -> ScannedLog:
    """See :meth:`EventLog.scan <graphmeta.data.events.EventLog.scan>`.

    Args:
        make: builds the in-memory log.
        tables: attributes of items and of users.
    """
    listed = isinstance(source, list | tuple)
    table = table_of(source[0] if listed else source)  # pyright: ignore[reportArgumentType]
    paths: Any = source if listed else table.source
    if not isinstance(table.source, str | Path):
        raise InputError("scan reads files; a frame is in memory already: EventLog.read(frame, …)")
    columns.cut()
    limit = available() if memory is None else bytes_of(memory)
    db = Database(limit // 2)
    raw = raw_rows(db, files_of(paths), table.options, columns)
    checks = Validation(db, raw, table.options, columns)
    made = assembled(db, checks, checks.checked(), columns)
    items = EntityTable(made.item_ids, {})
    users = None if made.user_ids is None else EntityTable(made.user_ids, {})
    everything = ScannedLog(
        db,
        made,
        items,
        users,
        np.arange(len(items)),
        None if users is None else np.arange(len(users)),
        limit // 2,
        make,
    )
    log = _log(everything, made)
    given_items, given_users = tables
    return replace(
        log,
        items=log.items if given_items is None else given_items.aligned(log.items.ids),
        users=log.users if given_users is None or log.users is None else given_users.aligned(log.users.ids, "user"),
    )
