"""The raw rows of a scan, checked like those of a log that is read in memory, as columns of ids, times and values."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from graphmeta.data.column_types.values import text
from graphmeta.data.columns import MISSING_WORDS, BadRows, ids, numbers, question_text
from graphmeta.data.event_rows import EventColumns, no_user, no_weight
from graphmeta.data.parse_rows import DroppedRows
from graphmeta.data.read_options import ActionWeights, Inactivity, ReadOptions
from graphmeta.data.scan.database import Database, literal
from graphmeta.data.scan.files import RawRows
from graphmeta.data.scan.repeats import without_repeats
from graphmeta.data.scan.times import READ, Seconds, seconds_of
from graphmeta.data.times import TWO_YEARS, absent_times, question_years, unreadable
from graphmeta.errors import InputError

_BLANKS = "".join(chr(code) for code in range(0x3001) if chr(code).isspace())
_SPACE = "[" + "".join(rf"\x{{{ord(mark):x}}}" for mark in _BLANKS) + "]+"
_WHOLE = r"(0|-?[1-9][0-9]{0,18})(\.0+)?"
_SIGNED = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "BOOLEAN")
_FLOATS = ("FLOAT", "DOUBLE")
_NUMERIC = (*_SIGNED, *_FLOATS, "UBIGINT")
_NUMBER = r"\s*[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\s*"
_MOST_NAMED = 100_000  # rows that an error counts


@dataclass(frozen=True)
class Expressions:
    """The SQL of each role over ``source``: ids as BIGINT or VARCHAR (a missing user is NULL), ``time`` and ``value``
    as DOUBLE. ``whole``: the roles whose ids are numbers."""

    source: str
    of: dict[str, str]
    whole: frozenset[str]


class Validation:
    """Checks of the raw rows, role by role; see :meth:`checked`."""

    def __init__(self, db: Database, raw: RawRows, options: ReadOptions, columns: EventColumns) -> None:
        self.db, self.raw, self.options, self.columns = db, raw, options, columns
        self.size = db.value(f"SELECT count(*) FROM {raw.table}")
        self.reasons: dict[str, tuple[int, int]] = {}
        self._time: Seconds | None = None

    def checked(self) -> Expressions:
        """Check all rows, drop those that cannot be read with ``drop_bad_rows``, and return how to read each role.

        Raises:
            InputError: a row that cannot be read; names file, row, column and remedy.

        Warns:
            UserWarning: as :meth:`EventLog.read <graphmeta.data.events.EventLog.read>`.
        """
        self._check_types()
        if self.raw.hashed:
            self.size -= without_repeats(self.db, self.raw)
        checks: dict[str, Callable[[], None]] = {
            "item": lambda: self._check_ids("item"),
            "time": self._check_times,
            "user": self._check_users,
            "session": lambda: self._check_ids("session"),
            "value": self._check_values,
        }
        while any(self._dropped(check) for role, check in checks.items() if role in self.raw.names):
            self._time = None
        if self.reasons:
            left = self.db.value(f"SELECT count(*) FROM {self.raw.table}")
            listed = ", ".join(
                f"{reason} in {n:,} (the first: {self.raw.files.spelled(row)})"
                for reason, (row, n) in self.reasons.items()
            )
            warnings.warn(DroppedRows(f"dropped rows: {self.size - left:,} of {self.size:,}: {listed}"), stacklevel=4)
        return self._expressions()

    def _check_types(self) -> None:
        for role, kind in self.raw.types.items():
            able = READ if role == "time" else (*_NUMERIC, "VARCHAR")
            if kind not in able:
                raise InputError(
                    f"column {self.raw.names[role]!r} for the {role} is of type {kind}, which a scan does not read; "
                    f"write it as text or whole numbers, or read the files in memory with EventLog.read"
                )

    def _dropped(self, check: Callable[[], None]) -> bool:
        """Whether rows were dropped after a check; without such rows, or an order to drop them, False or an error."""
        try:
            check()
        except _Bad as bad:
            if not self.options.drop_bad_rows:
                raise InputError(bad.message) from None
            left = self.db.value(f"SELECT count(*) FROM {self.raw.table}")
            if bad.count == left:
                raise InputError(f"no row can be read: {bad.message}") from None
            first, count = self.reasons.get(bad.reason, (bad.first, 0))
            self.reasons[bad.reason] = (first, count + bad.count)
            self.db.run(f"DELETE FROM {self.raw.table} WHERE row IN (SELECT row FROM {bad.source} WHERE {bad.wrong})")
            return True
        return False

    def _refuse(self, role: str, wrong: str, word: Callable[[pd.Series], object], source: str | None = None) -> None:
        """Raise if the condition ``wrong`` holds for a row; ``word``, given the wrong values, raises the message."""
        source = source or self.raw.table
        count, first = self.db.row(f"SELECT count(*), min(row) FROM {source} WHERE {wrong}")
        if not count:
            return
        found = self.db.frame(f"SELECT row, {role} AS v FROM {source} WHERE {wrong} ORDER BY row LIMIT {_MOST_NAMED}")
        path, own = self.raw.files.place(first)
        name = self.raw.names[role]
        values = pd.Series(found["v"].to_numpy(dtype=object), index=found["row"].to_numpy() - first + own, name=name)
        try:
            word(values.convert_dtypes() if values.isna().all() else values)
        except BadRows as bad:
            message = str(bad).replace(f"(and {len(values) - 1} more)", f"(and {count - 1} more)")
            raise _Bad(f"{path}: {message}" if path else message, bad.reason, count, first, (source, wrong)) from None

    def _missing(self, role: str) -> str:
        kind = self.raw.types[role]
        if kind == "VARCHAR":
            return f"{role} IS NULL OR trim({role}, {literal(_BLANKS)}) = ''"
        return f"{role} IS NULL OR isnan({role})" if kind in _FLOATS else f"{role} IS NULL"

    def _check_ids(self, role: str, among: str = "true") -> None:
        if among == "true":
            self._refuse(role, self._missing(role), lambda v: ids(v, role))
        if self.raw.types[role] in _FLOATS:
            broken = f"{among} AND (NOT (abs({role}) < 9007199254740992) OR {role} <> floor({role}))"
            self._refuse(role, broken, lambda v: ids(v.astype(np.float64), role))

    def _check_users(self) -> None:
        missing = self._missing("user")
        if isinstance(self.columns.cut(), Inactivity):
            self._refuse("user", missing, lambda v: _raise(no_user(v, np.ones(len(v), bool))))
        self._check_ids("user", f"NOT ({missing})")

    def _check_times(self) -> None:
        form, kind = self.options.time_format, self.raw.types["time"]
        self._refuse("time", self._missing("time"), lambda v: _raise(absent_times(v, np.ones(len(v), bool), "time")))
        self._time = found = seconds_of(self.db, self.raw.table, kind, form)
        whole = self.db.types(self.raw.table)["time"] not in _FLOATS

        def word(values: pd.Series) -> None:
            values = values if whole else values.astype(np.float64)
            _raise(unreadable(values, np.ones(len(values), bool), "time", form))

        self._refuse("time", found.wrong, word, found.source)

    def _check_values(self) -> None:
        kind, value = self.raw.types["value"], self.columns.value
        if isinstance(value, ActionWeights):
            unknown = (
                f"coalesce({_spelled('value', kind)}, '') NOT IN ({', '.join(map(literal, map(str, value.weights)))})"
            )
            have = [str(name) for name in value.weights]
            self._refuse("value", unknown, lambda v: _raise(no_weight(v, text(v), np.ones(len(v), bool), have)))
            return
        self._refuse("value", self._missing("value"), lambda v: numbers(v, "value"))
        if kind in _FLOATS or kind == "VARCHAR":
            number = _as_number("value", kind)
            self._refuse("value", f"NOT coalesce(isfinite({number}), false)", lambda v: numbers(v, "value"))

    def _expressions(self) -> Expressions:
        """The SQL of all roles, after warnings about ids and times."""
        found: dict[str, str] = {}
        whole = set()
        for role in ("item", "user", "session"):
            if role in self.raw.names:
                found[role], numbered = self._ids(role)
                whole |= {role} if numbered else set()
        source = self.raw.table
        if self._time is not None:
            source, found["time"] = self._time.source, self._time.seconds
            self._question_years(self._time)
        else:  # the number of the row among those that are left
            source = f"(SELECT *, row_number() OVER (ORDER BY row) - 1 AS number FROM {source})"
            found["time"] = "CAST(number AS DOUBLE)"
        value = self.columns.value
        if isinstance(value, ActionWeights):
            cases = " ".join(f"WHEN {literal(str(name))} THEN {float(one)!r}" for name, one in value.weights.items())
            found["value"] = f"CAST(CASE {_spelled('value', self.raw.types['value'])} {cases} END AS DOUBLE)"
        elif value is not None:
            found["value"] = _as_number("value", self.raw.types["value"])
        return Expressions(source, found, frozenset(whole))

    @property
    def clock(self) -> bool:
        """Whether times are those of a clock without offset."""
        return self._time is not None and self._time.clock

    def _ids(self, role: str) -> tuple[str, bool]:
        """The SQL of clean ids, NULL for missing ones, and whether they are whole numbers."""
        kind, known = self.raw.types[role], f"NOT ({self._missing(role)})"
        if kind in _SIGNED or kind in _FLOATS:
            return f"CASE WHEN {known} THEN CAST({role} AS BIGINT) END", True
        text = f"CAST({role} AS VARCHAR)"
        number = f"TRY_CAST(regexp_extract({text}, {literal(_WHOLE)}, 1) AS BIGINT)"
        others = self.db.value(
            f"SELECT count(*) FROM {self.raw.table} WHERE {known} AND NOT "
            f"(regexp_full_match({text}, {literal(_WHOLE)}) AND {number} IS NOT NULL)"
        )
        if not others:
            return f"CASE WHEN {known} THEN {number} END", True
        if kind == "VARCHAR":
            self._question_text(role, known)
        return f"CASE WHEN {known} THEN {text} END", False

    def _question_text(self, role: str, known: str) -> None:
        """The warnings of ids in memory, over the ids that may give one."""
        plain = f"trim(regexp_replace({role}, {literal(_SPACE)}, ' ', 'g'), ' ')"
        words = ", ".join(map(literal, sorted(MISSING_WORDS)))
        found = self.db.frame(
            f"SELECT {role} AS v, min(row) AS first FROM {self.raw.table} WHERE {known} AND ({role} IN "
            f"({words}) OR {plain} "
            f"IN (SELECT {plain} FROM {self.raw.table} WHERE {known} AND {plain} <> {role})) GROUP BY v ORDER BY first"
        )
        if len(found):
            question_text(found["v"].to_numpy(dtype=object), role)

    def _question_years(self, time: Seconds) -> None:
        if self.options.time_format is not None:
            return
        least, most = self.db.row(f"SELECT min({time.seconds}), max({time.seconds}) FROM {time.source}")
        if least is not None and least >= 0 and most < TWO_YEARS:
            first = self.db.frame(f"SELECT time AS v, {time.seconds} AS s FROM {time.source} ORDER BY row LIMIT 1")
            question_years(self.raw.names["time"], first["v"].iloc[0], first["s"].iloc[0], stacklevel=5)


class _Bad(Exception):
    """Rows that cannot be read: the message, its reason, how many there are, the first, and where they are."""

    def __init__(self, message: str, reason: str, count: int, first: int, where: tuple[str, str]) -> None:
        super().__init__(message)
        self.message, self.reason, self.count, self.first = message, reason, count, first
        self.source, self.wrong = where


def _raise(error: BadRows) -> None:
    raise error


def _spelled(role: str, kind: str) -> str:
    """The text of a value, as conditions and actions name it."""
    if kind == "BOOLEAN":
        return f"CASE WHEN {role} THEN 'True' ELSE 'False' END"
    return f"CAST({role} AS VARCHAR)"


def _as_number(role: str, kind: str) -> str:
    if kind != "VARCHAR":
        return f"CAST({role} AS DOUBLE)"
    return f"CASE WHEN regexp_full_match({role}, {literal(_NUMBER)}) THEN TRY_CAST({role} AS DOUBLE) END"
