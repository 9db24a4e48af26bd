"""From checked rows to the tables of a scanned log: events in the order of a log, and its sessions."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace

import numpy as np

from graphmeta.data.columns import shown
from graphmeta.data.event_rows import EventColumns
from graphmeta.data.read_options import Inactivity
from graphmeta.data.scan.database import Database
from graphmeta.data.scan.files import RawRows
from graphmeta.data.scan.validation import Expressions, Validation
from graphmeta.errors import InputError


@dataclass(frozen=True)
class Tables:
    """The tables of a log.

    ``events``: ``s`` (session), ``i`` (code of the item), ``t``, ``u`` (code of the session's user, -1: unknown) and
    ``v``, in the order of the log: ``rowid`` is the position. ``sessions``: ``id``, ``start``, ``u`` and ``n``, by
    number: ``rowid`` is the session. Codes point into ``item_ids`` and ``user_ids``, in any order.

    Args:
        owners: the user ids that ids of sessions begin with, ``user#n``, if sessions are those of inactivity.
    """

    events: str
    sessions: str
    item_ids: np.ndarray
    user_ids: np.ndarray | None
    has_time: bool
    has_value: bool
    owners: np.ndarray | None


def assembled(db: Database, checks: Validation, rows: Expressions, columns: EventColumns) -> Tables:
    """Sort the rows as :meth:`EventLog.read` does, and number sessions, items and users.

    Raises:
        InputError: a session of two users.
    """
    raw, session = checks.raw, columns.cut()
    inactivity = session.seconds if isinstance(session, Inactivity) else None
    items, item_ids = _codes(db, rows, "item")
    users, user_ids = _codes(db, rows, "user") if "user" in rows.of else (None, None)
    if user_ids is not None and len(user_ids) == 0:
        user_ids = np.empty(0, dtype=object)
    value = rows.of.get("value", "CAST(NULL AS DOUBLE)")
    key = rows.of["session"] if inactivity is None else "users.code"
    user = "CAST(-1 AS INTEGER)" if users is None else "coalesce(users.code, -1)"
    joined = "" if users is None else f"LEFT JOIN {users} AS users ON ({rows.of['user']}) = users.id"
    typed = db.table(
        f"SELECT {key} AS k, {rows.of['time']} AS t, row, items.code AS i, {user} AS u, {value} AS v FROM "
        f"{rows.source} AS q "
        f"JOIN {items} AS items ON ({rows.of['item']}) = items.id {joined}",
        stem="typed",
    )
    db.drop(raw.table, items, *([] if users is None else [users]))
    if columns.time is None and columns.session != columns.user:
        _question_blocks(db, typed)
    by_key = db.table(f"SELECT * FROM {typed} ORDER BY k, t, row", stem="by_key")
    db.drop(typed)
    begins = "k IS DISTINCT FROM lag(k) OVER ()"
    if inactivity is not None:
        begins += f" OR t - lag(t) OVER () > {inactivity!r}"
    starts = _starts(db, by_key, begins, has_users=users is not None, by_inactivity=inactivity is not None)
    if checks.clock:
        rows_of = f"SELECT {_ordinal('b')} AS o, row, t FROM (SELECT *, {begins} AS b FROM {by_key})"
        _question_clock(db, rows_of, starts, raw, None if inactivity is None else user_ids)
    if users is not None and inactivity is None:
        _check_users(db, starts, by_key, raw, user_ids)
    made = Tables("", "", item_ids, user_ids, columns.time is not None, columns.value is not None,
                  None if inactivity is None else user_ids)  # fmt: skip
    return ordered(db, starts, (by_key, begins), made)


def _codes(db: Database, rows: Expressions, role: str) -> tuple[str, np.ndarray]:
    """A table of the distinct ids of a role and their codes, and the ids by code."""
    name = db.table(
        f"SELECT id, CAST(row_number() OVER (ORDER BY id) - 1 AS INTEGER) AS code FROM (SELECT DISTINCT "
        f"{rows.of[role]} AS "
        f"id FROM {rows.source} AS q) WHERE id IS NOT NULL",
        stem=role,
    )
    ids = db.frame(f"SELECT id FROM {name} ORDER BY code")["id"]
    return name, ids.to_numpy(dtype=np.int64 if role in rows.whole else object)


def _starts(db: Database, by_key: str, begins: str, *, has_users: bool, by_inactivity: bool) -> str:
    """The sessions of events that are sorted by session, in the order of a log: by start, then by the row of their
    first event; ``o`` is their number in the order of the events.
    """
    number = "o - min(o) OVER (PARTITION BY u)" if by_inactivity else "CAST(0 AS BIGINT)"
    return db.table(
        f"SELECT {'CAST(NULL AS BIGINT)' if by_inactivity else 'k'} AS id, start, CAST({'u' if has_users else '-1'} AS "
        f"INTEGER) AS u, {number} AS n, o, row FROM (SELECT row_number() OVER () - 1 AS o, t AS start, row, k, u FROM "
        f"(SELECT *, {begins} AS b FROM {by_key}) WHERE b) ORDER BY start, row",
        stem="starts",
    )


def _ordinal(begins: str) -> str:
    """The SQL of the number of an event's session in the order of the events."""
    return f"CAST(sum(CASE WHEN {begins} THEN 1 ELSE 0 END) OVER (ROWS UNBOUNDED PRECEDING) - 1 AS INTEGER)"


def ordered(
    db: Database, sessions: str, events: tuple[str, str], tables: Tables, *, moved: bool | None = None
) -> Tables:
    """The tables of a log, of its sessions in their new order; ``o`` is their number in the order of the events.

    Args:
        events: the table, a session's events one after the other, and the SQL of whether an event begins a session.
        moved: whether events must be joined with their sessions; if not given, if the order differs.
    """
    if moved is None:
        moved = bool(db.value(f"SELECT count(*) FROM {sessions} WHERE o <> rowid")) or tables.user_ids is not None
    source, begins = events
    query = (
        f"SELECT {_ordinal('b')} AS s, row_number() OVER () AS p, i, t, u, v "
        f"FROM (SELECT i, t, u, v, {begins} AS b FROM {source})"
    )
    if moved:
        query = (
            f"SELECT to_s.s, own.i, own.t, to_s.u, own.v FROM ({query}) AS own JOIN (SELECT CAST(rowid AS INTEGER) AS "
            f"s, o, u FROM {sessions}) AS to_s ON own.s = to_s.o ORDER BY to_s.s, own.p"
        )
    else:
        query = f"SELECT s, i, t, u, v FROM ({query})"
    made = db.table(query, stem="events")
    kept = db.table(f"SELECT id, start, u, n FROM {sessions}", stem="sessions")
    db.drop(source, sessions)
    return replace(tables, events=made, sessions=kept)


def _check_users(db: Database, starts: str, by_key: str, raw: RawRows, names: np.ndarray | None) -> None:
    """Refuse sessions of two users; warn about those whose user is named late, which count as unknown."""
    assert names is not None
    known = f"SELECT k AS id, min(u) AS least, max(u) AS most FROM {by_key} WHERE u >= 0 GROUP BY k"
    two = db.run(
        f"SELECT id FROM ({known}) AS known JOIN {starts} AS s USING (id) WHERE least <> most ORDER BY "
        "s.start, s.row LIMIT 1"
    ).fetchall()
    if two:
        session = two[0][0]
        found = db.frame(f"SELECT u, row FROM {by_key} WHERE k = ? AND u >= 0 ORDER BY rowid", session)
        user = found["u"].to_numpy()
        at = int(np.argmax(user != user[0]))
        raise InputError(
            f"{raw.files.spelled(int(found['row'].iloc[at]))}: session {shown(session)} has events of users "
            f"{shown(names[user[0]])} and {shown(names[user[at]])}; use different session ids for different users"
        )
    late = f"FROM ({known}) AS known JOIN {starts} AS s USING (id) WHERE s.u < 0"
    count = db.value(f"SELECT count(*) {late}")
    if count:
        session, user = db.row(f"SELECT id, least {late} ORDER BY s.start, s.row LIMIT 1")
        warnings.warn(
            f"sessions that begin without a user and name one later: {count:,} (the first: {shown(session)}, user "
            f"{shown(names[user])}); they are read as of unknown users; if the user was known from the beginning, fill "
            f"in the user in the session's first row",
            stacklevel=5,
        )


def _question_clock(db: Database, rows: str, starts: str, raw: RawRows, owners: np.ndarray | None) -> None:
    """The warning of :func:`~graphmeta.data.row_checks.question_clock`.

    Args:
        rows: the query of session, row and time of each event.
        owners: see :class:`Tables`.
    """
    steps = (
        f"SELECT o, row, lag(t) OVER own AS before, t - lag(t) OVER own AS step, min(row) OVER (PARTITION BY "
        "o) AS first "
        f"FROM ({rows}) WINDOW own AS (PARTITION BY o ORDER BY row)"
    )
    hour, month = (
        "floor((before - 86400 * floor(before / 86400)) / 3600)",
        "month(make_timestamp(CAST(floor(before) AS BIGINT) * 1000000))",
    )
    count, night, first = db.row(
        f"SELECT count(*), bool_and(step >= -3600 AND {hour} >= 1 AND {hour} < 3 AND {month} IN (3, 4, 9, 10, 11)), "
        f"min((first, row, o)) FROM ({steps}) WHERE step < 0"
    )
    if count and night:
        session, user, n = db.row(f"SELECT id, u, n FROM {starts} WHERE o = ?", first[2])
        session = session if owners is None else f"{owners[user]}#{n}"
        warnings.warn(
            f"times that go back within a session at night: {count:,} (the first: "
            f"{raw.files.spelled(first[1])}, session "
            f"{shown(session)}): a clock without offset at the end of daylight saving time? Events are sorted by these "
            f"times; write them in UTC or with their offset to keep the order of the rows",
            stacklevel=6,
        )


def _question_blocks(db: Database, typed: str) -> None:
    number = "TRY_CAST(k AS DOUBLE)"
    if db.value(f"SELECT count(*) FROM {typed} WHERE {number} IS NULL"):
        return
    blocks = db.table(
        f"SELECT k, row, {number} < lag({number}) OVER () AS falls FROM (SELECT k, row FROM (SELECT k, row, k "
        "IS DISTINCT "
        f"FROM lag(k) OVER () AS b FROM (SELECT k, row FROM {typed} ORDER BY row)) WHERE b)",
        stem="blocks",
    )
    several = f"SELECT k, count(*) AS n FROM {blocks} GROUP BY k HAVING count(*) > 1"
    count = db.value(f"SELECT count(*) FROM ({several})")
    size, falls = db.row(f"SELECT count(*), count(*) FILTER (falls) FROM {blocks}")
    if count and 4 * falls <= size:
        sessions = db.value(f"SELECT count(DISTINCT k) FROM {blocks}")
        first = db.value(
            f"SELECT k FROM (SELECT k, row, row_number() OVER (PARTITION BY k ORDER BY row) AS b FROM "
            f"{blocks}) WHERE b = 2 "
            f"ORDER BY row LIMIT 1"
        )
        warnings.warn(
            f"sessions in separate blocks of rows: {count:,} of {sessions:,} (the first: {shown(first)}), and "
            "the log has "
            f"no times: if the numbering begins anew (a file per day), different sessions are read as one; "
            "make the ids "
            f"unique, or name the column of times (time=, --time)",
            stacklevel=6,
        )
