"""Columns from files and frames: the only place where raw values are read, validated and indexed.

Ids keep their type: whole numbers are ``int``, everything else ``str``. Messages count rows from 1, without the
header; the index of a column is its row numbers from 0.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from graphmeta.errors import InputError

Source = str | Path | pd.DataFrame
_LATEST = 9.3e18  # nanoseconds since 1970 until the year 2262; no time in any unit exceeds it
_SEPARATORS = {".csv": ",", ".tsv": "\t", ".txt": "\t", ".tab": "\t", ".dat": "\t"}


def read_frame(source: Source) -> pd.DataFrame:
    """The table behind a CSV, TSV or Parquet path (``.gz`` too), or a copy of the frame given.

    Text files are read as text: types are decided later for whole columns, so that one letter in row 90,000 cannot
    give an id column two types.

    Raises:
        InputError: a missing or empty file, or one that is not a table.
    """
    if isinstance(source, pd.DataFrame):
        return source.reset_index(drop=True)
    path = Path(source)
    if not path.is_file():
        raise InputError(f"{path}: no such file; check the path")
    frame = _parse(path)
    if frame.empty:
        raise InputError(f"{path}: the file has a header but no rows; nothing to read")
    return frame


def _parse(path: Path) -> pd.DataFrame:
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    try:
        if suffix in (".parquet", ".pq"):
            return pd.read_parquet(path).reset_index(drop=True)
        header = pd.read_csv(path, sep="\0", nrows=0, encoding="utf-8-sig")
        separator = _separator(str(header.columns[0]), _SEPARATORS.get(suffix, ","))
        frame = pd.read_csv(path, sep=separator, dtype=str, encoding="utf-8-sig")
    except ImportError:
        raise InputError(f"{path}: Parquet needs pyarrow; pip install 'graphmeta[large]'") from None
    except pd.errors.EmptyDataError:
        raise InputError(f"{path}: the file is empty; nothing to read") from None
    except (ValueError, OSError, EOFError, NotImplementedError, zlib.error) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise InputError(f"{path}: not a readable table ({reason}); save it as UTF-8 CSV, TSV or Parquet") from None
    if not isinstance(frame.index, pd.RangeIndex):
        raise InputError(f"{path}: row 1 has more fields than the header has names; name every column")
    return frame


def _separator(header: str, usual: str) -> str:
    """The separator of the file type, unless the header contains only another one."""
    return next((mark for mark in (usual, ",", "\t", ";") if mark in header), usual)


def column(frame: pd.DataFrame, name: str, role: str) -> pd.Series:
    """The column ``name``, or an error that lists the existing columns."""
    there = " ".join(", ".join(map(str, frame.columns[:12])).split())
    if name not in frame.columns:
        raise InputError(f"no column {name!r} for the {role}; the table has: {there}")
    values = frame[name]
    if isinstance(values, pd.DataFrame):
        raise InputError(f"column {name!r} for the {role} occurs more than once in the table ({there}); rename")
    if isinstance(values.dtype, pd.CategoricalDtype | pd.SparseDtype):
        return values.astype(object).infer_objects()
    return values


def ids(values: pd.Series, role: str) -> np.ndarray:
    """Clean ids: an ``int64`` array if every value is a whole number that fits, else an array of ``str``.

    Raises:
        InputError: a missing value, or numbers mixed with text; names row and column.
    """
    _refuse_missing(values, role)
    if pd.api.types.is_float_dtype(values):
        return _whole(values, role)
    if pd.api.types.is_bool_dtype(values) or pd.api.types.is_signed_integer_dtype(values):
        return values.to_numpy(dtype=np.int64)
    if not isinstance(values.dtype, pd.StringDtype):
        _refuse_mixed(values, role)
    codes, distinct = pd.factorize(values.to_numpy(dtype=object))
    return _numbers_if_all(np.asarray(distinct))[codes]


def _refuse_missing(values: pd.Series, role: str) -> None:
    missing = values.isna().to_numpy(dtype=bool)
    if missing.any():
        rest = f" (and {missing.sum() - 1} more)" if missing.sum() > 1 else ""
        raise InputError(f"{_place(values, missing)}: the {role} is missing{rest}; fill it in or drop the row")


def _place(values: pd.Series, wrong: np.ndarray) -> str:
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
        raise InputError(
            f"{_place(values, wrong)}: the {role} {shown(values.iloc[row])} is {kinds[row]} {among}; "
            f"convert the whole column to one type"
        )


def _kind(value: object) -> str:
    if isinstance(value, str):
        return "text"
    if isinstance(value, int) and value.bit_length() > 1000:
        return "a number of more than 300 digits"
    return "a whole number" if isinstance(value, int | np.integer | np.bool) else type(value).__name__


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
    numbers = values.to_numpy(dtype=np.float64)
    broken = ~(np.abs(numbers) < 2**53) | (numbers != np.floor(numbers))  # beyond 2^53 floats skip numbers
    if broken.any():
        raise InputError(
            f"{_place(values, broken)}: the {role} {shown(numbers[np.argmax(broken)])} is not an exact whole number; "
            f"use int or str ids"
        )
    return numbers.astype(np.int64)


def _numbers_if_all(values: np.ndarray) -> np.ndarray:
    """As ``int64`` if every value is a whole number, or its canonical text ("007" stays text), and fits."""
    text = pd.Series([str(value if isinstance(value, str) else int(value)) for value in values], dtype=object)
    try:
        if text.str.fullmatch(r"0|-?[1-9][0-9]{0,18}").all():
            return text.to_numpy(dtype=object).astype(np.int64)
    except OverflowError:
        pass
    return text.to_numpy(dtype=object)


def seconds(values: pd.Series, role: str = "time") -> np.ndarray:
    """Times as ``float64`` seconds since 1970-01-01 UTC, from numbers or from ISO 8601 text.

    Numbers above 1e11 are taken as milliseconds, above 1e14 as microseconds, above 1e17 as nanoseconds
    (1e11 seconds would be the year 5138).

    Raises:
        InputError: missing, infinite or unreadable values; names row and column.
    """
    _refuse_missing(values, role)
    if pd.api.types.is_datetime64_any_dtype(values):
        return _from_datetimes(pd.to_datetime(values, utc=True))
    if len(values) and not pd.api.types.is_numeric_dtype(values) and np.isnan(_float(values.iloc[0])):
        times = pd.to_datetime(_iso(values), utc=True, errors="coerce", format="ISO8601")
        wrong = times.isna().to_numpy()
        if not wrong.any():
            return _from_datetimes(times)
    else:
        found = _numeric(values)
        wrong = ~(np.abs(found) < _LATEST)
        if not wrong.any():
            unit = _unit(np.median(np.abs(found)))
            wrong = np.abs(found) / unit > 1e11
            if not wrong.any():
                return found / unit
    raise InputError(
        f"{_place(values, wrong)}: the {role} {shown(values.iloc[int(np.argmax(wrong))])} cannot be read; "
        f"use seconds since 1970 or ISO 8601 (2024-05-01T12:00:00) in every row"
    )


def _numeric(values: pd.Series) -> np.ndarray:
    """As ``float64``, NaN for values that are not numbers (including durations, dates and complex numbers)."""
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_complex_dtype(values):
        return values.to_numpy(dtype=np.float64)
    kinds = (str, int, float, Decimal, np.integer, np.floating)
    plain = [v if isinstance(v, kinds) and not isinstance(v, np.timedelta64) else None for v in values]
    try:
        return np.asarray(pd.to_numeric(np.array(plain, dtype=object), errors="coerce"), dtype=np.float64)
    except OverflowError:  # an int of more than 300 digits: one by one, to find which
        return np.array([_float(value) for value in plain])


def _float(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return float("nan")


def _unit(typical: float) -> float:
    """Units per second, from the median time, so that one outlier does not rescale all others."""
    return 1e9 if typical > 1e17 else 1e6 if typical > 1e14 else 1e3 if typical > 1e11 else 1.0


def _iso(values: pd.Series) -> pd.Series:
    """Dates as ISO 8601 text; None if it does not begin with a digit (pandas reads "now" as the current time)."""
    dates = str | date | np.datetime64
    is_text = isinstance(values.dtype, pd.StringDtype)
    text = values if is_text else [spelled(v) if isinstance(v, dates) else "" for v in values]
    return pd.Series([v if v[:1].isdigit() and v.isascii() else None for v in text], dtype=object)


def _from_datetimes(times: pd.Series) -> np.ndarray:
    naive = times.dt.tz_localize(None).to_numpy()
    unit, _ = np.datetime_data(naive.dtype)
    return naive.astype(np.int64) / {"s": 1e0, "ms": 1e3, "us": 1e6, "ns": 1e9}[unit]


def numbers(values: pd.Series, role: str) -> np.ndarray:
    """A ``float64`` column without gaps. Raises: InputError, naming row and column."""
    _refuse_missing(values, role)
    found = _numeric(values)
    wrong = ~np.isfinite(found)
    if wrong.any():
        value = shown(values.iloc[int(np.argmax(wrong))])
        raise InputError(f"{_place(values, wrong)}: the {role} {value} is not a finite number; correct or drop the row")
    return found
