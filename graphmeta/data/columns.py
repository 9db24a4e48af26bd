"""Columns of frames: where raw ids and numbers are validated and indexed (times: :mod:`graphmeta.data.times`).

Ids keep their type: whole numbers are ``int``, everything else ``str``. Messages count rows from 1, without the
header; the index of a column is its row numbers from 0.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd

from graphmeta.data.read_options import likely_separator, separator_remedy
from graphmeta.errors import InputError

# Text that other programs write for a missing value. In ids and categories it is a value: NA is a country, too.
MISSING_WORDS = frozenset(["NA", "N/A", "#N/A", "<NA>", "NaN", "nan", "NaT", "null", "NULL", "None", "none"])
WHOLE = re.compile(r"(0|-?[1-9][0-9]{0,18})(?:\.0+)?")  # "560", and "560.0" as pandas writes ints with gaps


class BadRows(InputError):
    """Rows that cannot be read: a mask over the rows of a column, and the reason without the place."""

    def __init__(self, message: str, wrong: np.ndarray, reason: str) -> None:
        super().__init__(message)
        self.wrong = wrong
        self.reason = reason


def column(frame: pd.DataFrame, name: str, role: str) -> pd.Series:
    """The column ``name``, or an error that lists the existing columns."""
    name = str(name) if name not in frame.columns else name  # the number of a column
    there = " ".join(", ".join(map(str, frame.columns[:12])).split())
    if name not in frame.columns:
        raise InputError(f"no column {name!r} for the {role}; the table has: {there}{_header_remedy(frame)}")
    values = frame[name]
    if isinstance(values, pd.DataFrame):
        raise InputError(f"column {name!r} for the {role} occurs more than once in the table ({there}); rename")
    if isinstance(values.dtype, pd.CategoricalDtype | pd.SparseDtype):
        return values.astype(object).infer_objects()
    return values


def _header_remedy(frame: pd.DataFrame) -> str:
    """What to do if the names look like data, or the separator is another one."""
    names = [str(name) for name in frame.columns]
    if names != [str(number + 1) for number in range(len(names))] and any(re.match(r"-?\d", name) for name in names):
        return (
            "; that looks like data: for a file without header, name columns by number: ReadOptions(header=False) "
            "(--no-header --item 2)"
        )
    if len(names) == 1 and len(frame):
        other = next(
            (mark for line in (names[0], str(frame.iloc[0, 0])) if (mark := likely_separator(line, rare="~ "))), None
        )
        if other is not None:
            return f"; a single column: {separator_remedy(other)}"
        if re.search(r"[^\w\s.-]", names[0]):
            return "; a single column: name the separator of the file, such as ReadOptions(sep='^') (--sep '^')"
    return ""


def ids(values: pd.Series, role: str) -> np.ndarray:
    """Clean ids: an ``int64`` array if every value is a whole number that fits, else an array of ``str``.

    "560.0" is 560 in a column of whole numbers.

    Raises:
        InputError: a missing or empty value, or numbers mixed with text; names row and column.

    Warns:
        UserWarning: ids that differ by blanks alone, or that look like missing values, such as "null".
    """
    _refuse_missing(values, role)
    if pd.api.types.is_float_dtype(values):
        return _whole(values, role)
    if pd.api.types.is_bool_dtype(values) or pd.api.types.is_signed_integer_dtype(values):
        return values.to_numpy(dtype=np.int64)
    if not isinstance(values.dtype, pd.StringDtype):
        _refuse_mixed(values, role)
    codes, distinct = pd.factorize(values.to_numpy(dtype=object))
    found = _numbers_if_all(np.asarray(distinct))
    if found.dtype == object:
        question_text(found, role)
    return found[codes]


def question_text(distinct: np.ndarray, role: str) -> None:
    """Warn about distinct ids that only blanks distinguish, and about those that other programs write for nothing."""
    words = sorted(MISSING_WORDS.intersection(distinct))
    if words:
        warnings.warn(
            f"the {role} {words[0]!r} looks like a missing value and is read as an id; "
            f"if it is none, leave these cells empty or drop the rows",
            stacklevel=4,
        )
    plain = np.array([" ".join(one.split()) for one in distinct], dtype=object)
    if (plain != distinct).any():
        codes, names = pd.factorize(plain)
        twice = np.bincount(codes) > 1
        if twice.any():
            group = ", ".join(shown(one) for one in distinct[codes == np.argmax(twice)][:3])
            others = f" and {twice.sum() - 1} other groups" if twice.sum() > 1 else ""
            warnings.warn(
                f"the {role} ids {group}{others} differ by blanks alone and are read as different {role}s; "
                f"strip the blanks if they are the same",
                stacklevel=4,
            )


def missing(values: pd.Series) -> np.ndarray:
    """Which values are missing: none given, or text that is empty or blank."""
    found = values.isna().to_numpy(dtype=bool)
    if isinstance(values.dtype, pd.StringDtype):
        return found | (values.str.strip() == "").to_numpy(dtype=bool, na_value=False)
    if values.dtype == object:
        return found | np.fromiter((isinstance(v, str) and not v.strip() for v in values), bool, len(values))
    return found


def _refuse_missing(values: pd.Series, role: str) -> None:
    wrong = missing(values)
    if wrong.any():
        rest = f" (and {wrong.sum() - 1} more)" if wrong.sum() > 1 else ""
        message = f"{place(values, wrong)}: the {role} is missing{rest}; fill it in or drop the row"
        raise BadRows(message, wrong, f"the {role} is missing")


def place(values: pd.Series, wrong: np.ndarray) -> str:
    """Column and row of the first invalid value."""
    return f"column {values.name!r}, row {values.index[int(np.argmax(wrong))] + 1}"


def _refuse_mixed(values: pd.Series, role: str) -> None:
    """Ids are all text or all whole numbers."""
    kinds = np.array([_kind(value) for value in values], dtype=object)
    wrong = (kinds != "text") & (kinds != "a whole number")
    wrong = wrong if wrong.any() else kinds != kinds[:1]
    if wrong.any():
        row = int(np.argmax(wrong))
        among = "instead of text or a whole number" if row == 0 else f"among {kinds[0]}"
        message = (
            f"{place(values, wrong)}: the {role} {shown(values.iloc[row])} is {kinds[row]} {among}; "
            f"convert the whole column to one type"
        )
        raise BadRows(message, wrong, f"the {role} has another type")


def _kind(value: object) -> str:
    if isinstance(value, str):
        return "text"
    if isinstance(value, int) and value.bit_length() > 1000:
        return "a number of more than 300 digits"
    whole = isinstance(value, float | np.floating) and float(value).is_integer() and abs(float(value)) < 2**53
    return "a whole number" if whole or isinstance(value, int | np.integer | np.bool) else type(value).__name__


def shown(value: object) -> str:
    """A value for a message: as written, on one line, at most 80 characters."""
    plain = value.item() if isinstance(value, np.number) else value
    return " ".join(spelled(plain, repr).split())[:80]


def spelled(value: object, form: Callable[[object], str] = str) -> str:
    """``str(value)``, with a fallback for values that Python or pandas cannot format (5,000 digits, dates BC)."""
    try:
        return form(value)
    except (NotImplementedError, ValueError, OverflowError):
        return value.isoformat() if isinstance(value, date) else f"a very long {type(value).__name__}"


def _whole(values: pd.Series, role: str) -> np.ndarray:
    found = values.to_numpy(dtype=np.float64)
    broken = ~(np.abs(found) < 2**53) | (found != np.floor(found))  # beyond 2^53 floats skip numbers
    if broken.any():
        message = (
            f"{place(values, broken)}: the {role} {shown(found[np.argmax(broken)])} is not an exact whole number; "
            f"use int or str ids"
        )
        raise BadRows(message, broken, f"the {role} is not a whole number")
    return found.astype(np.int64)


def _numbers_if_all(values: np.ndarray) -> np.ndarray:
    """As ``int64`` if every value is a whole number, or its canonical text ("007" stays text), and fits."""
    text = [value if isinstance(value, str) else str(int(value)) for value in values]
    found = [WHOLE.fullmatch(one) for one in text]
    try:
        if all(found):
            return np.array([int(one[1]) for one in found if one is not None], dtype=np.int64)
    except OverflowError:
        pass
    return np.array(text, dtype=object)


def numeric(values: pd.Series) -> np.ndarray:
    """As ``float64``, NaN for values that are not numbers (including durations, dates and complex numbers)."""
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_complex_dtype(values):
        return values.to_numpy(dtype=np.float64)
    kinds = (str, int, float, Decimal, np.integer, np.floating)
    plain = [v if isinstance(v, kinds) and not isinstance(v, np.timedelta64) else None for v in values]
    try:
        return np.asarray(pd.to_numeric(np.array(plain, dtype=object), errors="coerce"), dtype=np.float64)
    except OverflowError:  # an int of more than 300 digits: one by one, to find which
        return np.array([as_float(value) for value in plain])


def as_float(value: Any) -> float:
    """The number, NaN for other values."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return float("nan")


def numbers(values: pd.Series, role: str) -> np.ndarray:
    """A ``float64`` column without gaps. Raises: InputError, naming row and column."""
    _refuse_missing(values, role)
    found = numeric(values)
    wrong = ~np.isfinite(found)
    if wrong.any():
        value = shown(values.iloc[int(np.argmax(wrong))])
        message = f"{place(values, wrong)}: the {role} {value} is not a finite number; correct or drop the row"
        raise BadRows(message, wrong, f"the {role} is not a number")
    return found
