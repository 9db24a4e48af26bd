"""Times of a scanned log as seconds: numbers in SQL, text by the parser of :mod:`graphmeta.data.times`, in chunks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from graphmeta.data.columns import as_float, numeric
from graphmeta.data.read_options import TIME_UNITS
from graphmeta.data.scan.database import Database
from graphmeta.data.times import COMPACT, LATEST, by_format, by_kind, compact_dates, without_offset

_NUMBERS = (
    "TINYINT",
    "SMALLINT",
    "INTEGER",
    "BIGINT",
    "UTINYINT",
    "USMALLINT",
    "UINTEGER",
    "UBIGINT",
    "FLOAT",
    "DOUBLE",
)
DATED = (
    "TIMESTAMP",
    "TIMESTAMP_S",
    "TIMESTAMP_MS",
    "TIMESTAMP_NS",
    "TIMESTAMP WITH TIME ZONE",
    "TIMESTAMPTZ_NS",
    "DATE",
)
_WITH_OFFSET = ("TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ_NS")
READ = (*_NUMBERS, *DATED, "VARCHAR")


Parse = Callable[[pd.Series], np.ndarray]


@dataclass(frozen=True)
class Seconds:
    """The SQL of the seconds of a row and of whether its time cannot be read, over ``source``, a table or join.

    ``clock``: whether the times are those of a clock without offset.
    """

    source: str
    seconds: str
    wrong: str
    clock: bool


def seconds_of(db: Database, table: str, kind: str, form: str | None) -> Seconds:
    """How the column ``time`` of a table is read; no value is missing.

    Args:
        kind: its type in SQL.
        form: see :class:`~graphmeta.data.read_options.ReadOptions`.
    """
    if kind in DATED:
        clock = kind not in _WITH_OFFSET and (kind != "DATE" or form is None)
        return Seconds(table, _of_dates(kind), "false", clock)
    first = pd.Series(db.frame(f"SELECT time AS v FROM {table} ORDER BY row LIMIT 1")["v"])
    if form is not None and form not in TIME_UNITS:
        return _mapped(db, table, lambda v: _or_missing(*by_format(v, form)), without_offset(first, form))
    if kind == "VARCHAR" and form is None and np.isnan(as_float(first.iloc[0])):
        return _mapped(db, table, lambda v: _or_missing(*by_kind(v)), without_offset(first))
    source, number = table, "CAST(time AS DOUBLE)"
    if kind == "VARCHAR":
        source = _mapped(db, table, numeric, clock=False).source
        number = "x"
    if form is not None:
        return Seconds(source, f"{number} / {TIME_UNITS[form]!r}", f"NOT coalesce(abs({number} / {TIME_UNITS[form]!r}) "
                       "<= 1e11, false)", clock=False)  # fmt: skip
    return _of_numbers(db, source, number)


def _of_dates(kind: str) -> str:
    if kind == "DATE":
        return "CAST(epoch(CAST(time AS TIMESTAMP)) AS DOUBLE)"
    if kind in ("TIMESTAMP_NS", "TIMESTAMPTZ_NS"):
        return "CAST(epoch_ns(CAST(time AS TIMESTAMP_NS)) AS DOUBLE) / 1e9"
    return "CAST(epoch_us(time) AS DOUBLE) / 1e6"


def _or_missing(found: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    return np.where(wrong, np.nan, found)


def _mapped(db: Database, table: str, parse: Parse, clock: bool) -> Seconds:
    """Seconds by a parser of values, which runs over the distinct ones in chunks; NaN is wrong."""
    places = db.table("SELECT CAST(NULL AS VARCHAR) AS v, CAST(NULL AS DOUBLE) AS x WHERE false", stem="times")
    numbers = not db.types(table)["time"].startswith("VARCHAR")
    distinct = db.table(f"SELECT DISTINCT time AS v FROM {table}", stem="distinct")
    for frame in db.frames(f"SELECT v, CAST(v AS VARCHAR) AS t FROM {distinct}"):
        values = pd.Series(frame["v"]) if numbers else pd.Series(frame["v"].to_numpy(dtype=object), dtype="str")
        db.append(places, {"v": frame["t"].to_numpy(dtype=object), "x": _each(values, parse)})
    db.drop(distinct)
    joined = f"(SELECT {table}.*, {places}.x FROM {table} JOIN {places} ON CAST({table}.time AS VARCHAR) = {places}.v)"
    return Seconds(joined, "x", "x IS NULL OR isnan(x)", clock)


def _each(values: pd.Series, parse: Parse) -> np.ndarray:
    """The parsed values, NaN for those that cannot be read: a parser may find none that can, beside one that cannot."""
    found = parse(values)
    return found if len(found) == len(values) else np.full(len(values), np.nan)


def _of_numbers(db: Database, source: str, number: str) -> Seconds:
    """Seconds of numbers: dates such as 20240501, or the unit by the median."""
    size = db.value(f"SELECT count(*) FROM {source}")
    compact = _compact(db, source, number, size)
    if compact is not None:
        return compact
    wrong = f"NOT coalesce(abs({number}) < {LATEST!r}, false)"
    if db.value(f"SELECT count(*) FROM {source} WHERE {wrong}"):
        return Seconds(source, number, wrong, clock=False)
    unit = next(
        (unit for unit, least in ((1e9, 1e17), (1e6, 1e14), (1e3, 1e11)) if _above(db, source, number, least)), 1.0
    )
    return Seconds(source, f"{number} / {unit!r}", f"abs({number}) / {unit!r} > 1e11", clock=False)


def _above(db: Database, source: str, number: str, least: float) -> bool:
    """Whether the median of the absolute numbers is above ``least``."""
    size = f"abs({number})"
    above, all_, low, high = db.row(
        f"SELECT count(*) FILTER ({size} > {least!r}), count(*), max({size}) FILTER ({size} <= {least!r}), "
        f"min({size}) FILTER ({size} > {least!r}) FROM {source}"
    )
    return 2 * above > all_ or (2 * above == all_ and (low + high) / 2 > least)


def _compact(db: Database, source: str, number: str, size: int) -> Seconds | None:
    """Seconds if more than half of the numbers are dates of the same number of digits."""
    for digits in COMPACT:
        scale = 10.0 ** (digits - 4)
        inside = (
            f"coalesce({number} >= {1900 * scale!r} AND {number} < {2100 * scale!r} AND {number} = "
            f"floor({number}), false)"
        )
        if 2 * db.value(f"SELECT count(*) FROM {source} WHERE {inside}") <= size:
            continue
        dates = db.table("SELECT CAST(NULL AS BIGINT) AS d, CAST(NULL AS DOUBLE) AS s WHERE false", stem="dates")
        distinct = db.table(
            f"SELECT DISTINCT CAST({number} AS BIGINT) AS d FROM {source} WHERE {inside}", stem="distinct"
        )
        for frame in db.frames(f"SELECT d FROM {distinct}"):
            found = frame["d"].to_numpy()
            db.append(dates, {"d": found, "s": compact_dates(found, digits)})
        joined = (
            f"(SELECT q.*, CASE WHEN {inside} THEN {dates}.s END AS date_seconds FROM {source} AS q LEFT JOIN "
            f"{dates} ON "
            f"CASE WHEN {inside} THEN CAST({number} AS BIGINT) END = {dates}.d)"
        )
        wrong = "date_seconds IS NULL OR isnan(date_seconds)"
        if 2 * db.value(f"SELECT count(*) FROM {joined} WHERE NOT ({wrong})") <= size:
            return None
        return Seconds(joined, "date_seconds", wrong, clock=True)
    return None
