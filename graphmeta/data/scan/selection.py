"""Columns of roles and conditions on rows, in SQL."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from graphmeta.data.columns import column
from graphmeta.data.event_rows import EventColumns
from graphmeta.data.read_options import ReadOptions
from graphmeta.data.scan.database import Database, literal, quoted
from graphmeta.errors import InputError

WHOLE = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT")


def named(kinds: dict[str, str], columns: EventColumns) -> dict[str, str]:
    """The column of each role.

    Raises:
        InputError: a column that the files do not have.
    """
    session, value = columns.cut(), columns.value
    wanted = {
        "item": columns.item,
        "time": columns.time,
        "user": columns.user,
        "session": session if isinstance(session, str) else None,
        "value": value if isinstance(value, str) or value is None else value.column,
    }
    roles = {"value": "value" if isinstance(value, str) else "action"}
    return {role: named_column(kinds, name, roles.get(role, role)) for role, name in wanted.items() if name is not None}


def named_column(kinds: dict[str, str], name: str, role: str) -> str:
    column(pd.DataFrame(columns=list(kinds)), name, role)
    return str(name)


def condition(kinds: dict[str, str], name: str, values: Sequence[str]) -> str:
    """The SQL of a condition; a missing value is the empty text."""
    kind, wanted = kinds[str(name)], ", ".join(literal(str(value)) for value in values)
    text = f"CAST({quoted(str(name))} AS VARCHAR)"
    if kind == "BOOLEAN":
        text = f"CASE WHEN {quoted(str(name))} THEN 'True' ELSE 'False' END"
    elif kind != "VARCHAR" and kind not in WHOLE:
        raise InputError(
            f"a scan selects rows by columns of text, whole numbers or truth values, and {name!r} is {kind}; convert "
            f"it, or read the files in memory with EventLog.read"
        )
    return f"CASE WHEN {quoted(str(name))} IS NULL THEN '' ELSE {text} END IN ({wanted})"


def no_row(db: Database, sources: list[str], kinds: dict[str, str], options: ReadOptions) -> str:
    """The message for conditions that no row meets."""
    everything = " UNION ALL ".join(f"SELECT * FROM {source}" for source in sources)
    met = "true"
    for name, values in options.where.items():
        own = condition(kinds, name, values)
        if db.value(f"SELECT count(*) FROM ({everything}) WHERE {met} AND {own}") == 0:
            text = f"coalesce(CAST({quoted(str(name))} AS VARCHAR), '')"
            usual = db.run(
                f"SELECT {text} AS v, count(*) AS n FROM ({everything}) WHERE {met} GROUP BY v ORDER BY n "
                "DESC, v LIMIT 5"
            ).fetchall()
            there = " ".join(", ".join(f"{value!r:.40} ({n:,})" for value, n in usual).split()) or "no row"
            return f"no row has {name}={' or '.join(map(str, values))}; the column has {there}"
        met = f"{met} AND {own}"
    return "no row meets all conditions (where, --where)"
