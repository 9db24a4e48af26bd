"""Rows that repeat an earlier row, by hashes of all columns."""

from __future__ import annotations

import warnings

from graphmeta.data.scan.database import Database
from graphmeta.data.scan.files import RawRows
from graphmeta.errors import counted


def without_repeats(db: Database, raw: RawRows) -> int:
    """Drop rows that repeat an earlier one in every column, and return their number; see
    :func:`graphmeta.data.row_checks.without_repeats`.

    Warns:
        UserWarning: their number, or that of rows that differ in a row number alone.
    """
    again = _repeats(db, raw, "h1, h2")
    if again is not None:
        count, first = db.row(f"SELECT count(*), min(row) FROM {again}")
        warnings.warn(
            f"dropped, because they repeat an earlier row in every column: {counted(count, 'row')} (the first: "
            f"{raw.files.spelled(first)})",
            stacklevel=4,
        )
        db.run(f"DELETE FROM {raw.table} WHERE row IN (SELECT row FROM {again})")
        return count
    if raw.numbers and (again := _repeats(db, raw, "r1, r2")) is not None:
        count, first = db.row(f"SELECT count(*), min(row) FROM {again}")
        names = ", ".join(repr(name) for name in raw.numbers)
        warnings.warn(
            f"kept, though they repeat an earlier row in every column but the row number {names}: "
            f"{counted(count, 'row')} (the first: {raw.files.spelled(first)}); drop that column if they are "
            f"duplicates",
            stacklevel=4,
        )
    return 0


def _repeats(db: Database, raw: RawRows, hashes: str) -> str | None:
    """A table of the rows whose hashes an earlier row has; None if there are none."""
    several = db.table(
        f"SELECT {hashes}, min(row) AS first FROM {raw.table} GROUP BY {hashes} HAVING count(*) > 1",
        stem="several",
    )
    if db.value(f"SELECT count(*) FROM {several}") == 0:
        return None
    return db.table(f"SELECT row FROM {raw.table} JOIN {several} USING ({hashes}) WHERE row > first", stem="again")
