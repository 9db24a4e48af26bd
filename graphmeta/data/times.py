"""Columns of times as seconds since 1970: numbers, compact dates, ISO 8601, or a format that is given."""

from __future__ import annotations

import re
import warnings
from datetime import date

import numpy as np
import pandas as pd

from graphmeta.data.columns import BadRows, as_float, missing, numeric, place, shown, spelled
from graphmeta.data.read_options import TIME_UNITS

LATEST = 9.3e18  # nanoseconds since 1970 until the year 2262; no time in any unit exceeds it
TWO_YEARS = 2 * 365 * 86400
# Numbers that are dates: YYYYMMDD, and the same with hours, minutes and seconds, by their number of digits.
COMPACT = {8: "%Y%m%d", 10: "%Y%m%d%H", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}


def seconds(values: pd.Series, role: str = "time", form: str | None = None) -> np.ndarray:
    """Times as ``float64`` seconds since 1970-01-01 UTC, from numbers, compact dates or ISO 8601 text.

    Numbers above 1e11 are taken as milliseconds, above 1e14 as microseconds, above 1e17 as nanoseconds
    (1e11 seconds would be the year 5138). A column in which most numbers are dates of the years 1900 to 2099, written
    as YYYYMMDD, YYYYMMDDhh, YYYYMMDDhhmm or YYYYMMDDhhmmss, is a column of dates.

    Args:
        form: a pattern of ``strptime``, or the unit of numbers since 1970 (a key of ``TIME_UNITS``); see
            :class:`~graphmeta.data.read_options.ReadOptions`.

    Raises:
        InputError: missing, infinite or unreadable values; names row and column.

    Warns:
        UserWarning: without ``form``, if all times lie in 1970 and 1971, which numbers that are no seconds do.
    """
    absent = missing(values)
    if absent.any():
        raise absent_times(values, absent, role)
    found, wrong = by_format(values, form) if form is not None else by_kind(values)
    if wrong.any():
        raise unreadable(values, wrong, role, form)
    if form is None and len(found) and (found >= 0).all() and (found < TWO_YEARS).all():
        question_years(values.name, values.iloc[0], found[0], stacklevel=4)
    return found


def absent_times(values: pd.Series, absent: np.ndarray, role: str) -> BadRows:
    """The error for missing times, a mask over the values."""
    rest = f" (and {absent.sum() - 1} more)" if absent.sum() > 1 else ""
    message = f"{place(values, absent)}: the {role} is missing{rest}; fill it in or drop the row"
    return BadRows(message, absent, f"the {role} is missing")


def unreadable(values: pd.Series, wrong: np.ndarray, role: str, form: str | None) -> BadRows:
    """The error for times that cannot be read, a mask over the values."""
    remedy = (
        f"correct the row, or the format {form!r}"
        if form is not None
        else "use seconds since 1970 or ISO 8601 (2024-05-01T12:00:00) in every row, or name the format: "
        "ReadOptions(time_format='%d.%m.%Y %H:%M') (--time-format '%d.%m.%Y %H:%M')"
    )
    bad = shown(values.iloc[int(np.argmax(wrong))])
    message = f"{place(values, wrong)}: the {role} {bad} cannot be read; {remedy}"
    return BadRows(message, wrong, f"the {role} cannot be read")


def question_years(name: object, first: object, second: float, *, stacklevel: int) -> None:
    """Warn that all times of a column lie in 1970 and 1971.

    Args:
        first: the first value, and ``second`` what it is read as.
    """
    warnings.warn(
        f"all times of column {name!r} lie in 1970 and 1971 ({shown(first)} is read as "
        f"{pd.Timestamp(second, unit='s'):%Y-%m-%d %H:%M:%S}); if they are not seconds since 1970, name their "
        f"unit or format: ReadOptions(time_format='D') (--time-format), 's' if they are",
        stacklevel=stacklevel,
    )


def by_kind(values: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Seconds, and which values cannot be read, of datetimes, ISO 8601 text or numbers."""
    if pd.api.types.is_datetime64_any_dtype(values):
        return _from_datetimes(pd.to_datetime(values, utc=True)), np.zeros(len(values), dtype=bool)
    if len(values) and not pd.api.types.is_numeric_dtype(values) and np.isnan(as_float(values.iloc[0])):
        times = pd.to_datetime(_iso(values), utc=True, errors="coerce", format="ISO8601")
        return _readable(times)
    found = numeric(values)
    compact = _compact(found)
    if compact is not None:
        return compact
    wrong = ~(np.abs(found) < LATEST)
    if wrong.any():
        return found, wrong
    unit = _unit(np.median(np.abs(found))) if len(found) else 1.0
    return found / unit, np.abs(found) / unit > 1e11


def by_format(values: pd.Series, form: str) -> tuple[np.ndarray, np.ndarray]:
    """The same in a unit, or by a pattern of ``strptime``."""
    if pd.api.types.is_datetime64_any_dtype(values):
        return by_kind(values)
    if form in TIME_UNITS:
        found = numeric(values) / TIME_UNITS[form]
        return found, ~(np.abs(found) <= 1e11)
    text = [_plain(value) for value in values]
    return _readable(pd.to_datetime(pd.Series(text, dtype=object), utc=True, errors="coerce", format=form))


def _plain(value: object) -> str:
    """As text; whole floats without ".0"."""
    return str(int(value)) if isinstance(value, float | np.floating) and float(value).is_integer() else spelled(value)


def _readable(times: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    wrong = times.isna().to_numpy(dtype=bool)
    return (np.zeros(len(times)) if wrong.any() else _from_datetimes(times)), wrong


def _compact(found: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Seconds and unreadable values, if more than half of the numbers are dates of the same number of digits."""
    plain = found[np.isfinite(found)]
    digits = len(f"{np.median(plain):.0f}") if len(plain) else 0
    if digits not in COMPACT:
        return None
    scale = 10.0 ** (digits - 4)
    inside = (found >= 1900 * scale) & (found < 2100 * scale) & (found == np.floor(found))
    if inside.mean() <= 0.5:
        return None
    distinct, codes = np.unique(found[inside].astype(np.int64), return_inverse=True)
    each = compact_dates(distinct, digits)
    known = ~np.isnan(each)
    valid = inside.copy()
    valid[inside] = known[codes]
    if valid.mean() <= 0.5:
        return None
    each[~known] = 0.0
    out = np.zeros(len(found))
    out[inside] = each[codes]
    return out, ~valid


def compact_dates(numbers: np.ndarray, digits: int) -> np.ndarray:
    """Seconds of dates that are written as numbers of so many digits, NaN for what is no date: ``[N] -> [N]``."""
    times = pd.to_datetime(pd.Series(numbers.astype(str)), format=COMPACT[digits], utc=True, errors="coerce")
    known = times.notna().to_numpy(dtype=bool)
    found = np.full(len(numbers), np.nan)
    if known.any():
        found[known] = _from_datetimes(times.loc[known])
    return found


def without_offset(values: pd.Series, form: str | None = None) -> bool:
    """Whether times are of a clock whose offset from UTC is unknown; numbers since 1970 are not."""
    if pd.api.types.is_datetime64_any_dtype(values):
        return values.dt.tz is None
    if form is not None and form not in TIME_UNITS:
        return "%z" not in form and "%Z" not in form
    first = values.iloc[0] if len(values) else None
    if form is None and isinstance(first, str) and np.isnan(as_float(first)):
        return re.search(r"\d[T ]\d.*([Zz]|[+-]\d\d(:?\d\d)?)$", first) is None
    return form is None and len(values) > 0 and _compact(numeric(values)) is not None


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
