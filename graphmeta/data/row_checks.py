"""Checks of the rows of an event log that give warnings, one for each kind of doubt."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from functools import partial

import numpy as np
import pandas as pd

from graphmeta.data.columns import numeric, shown, spelled
from graphmeta.errors import InputError, counted

_HOUR = 3600


def without_repeats(frame: pd.DataFrame, roles: Iterable[str]) -> pd.DataFrame:
    """The frame without duplicate rows; its index keeps the row numbers.

    Args:
        roles: the columns that are read.

    Warns:
        UserWarning: the number of duplicates, and that of rows that differ in a row number alone, which are kept.
    """
    again = _duplicated(frame)
    if again.any():
        warnings.warn(
            f"dropped, because they repeat an earlier row in every column: {counted(again.sum(), 'row')} "
            f"(the first: row {frame.index[np.argmax(again)] + 1})",
            stacklevel=4,
        )
        return frame.loc[~again]
    numbers = [at for at, name in enumerate(frame.columns) if name not in roles and _is_row_number(frame.iloc[:, at])]
    if numbers:
        equal = _duplicated(frame.iloc[:, [at for at in range(frame.shape[1]) if at not in numbers]])
        if equal.any():
            names = ", ".join(repr(str(frame.columns[at])) for at in numbers)
            warnings.warn(
                f"kept, though they repeat an earlier row in every column but the row number {names}: "
                f"{counted(equal.sum(), 'row')} (the first: row {frame.index[np.argmax(equal)] + 1}); drop that column "
                f"if they are duplicates",
                stacklevel=4,
            )
    return frame


def _duplicated(frame: pd.DataFrame) -> np.ndarray:
    try:
        return frame.duplicated().to_numpy()
    except TypeError:  # unhashable values such as lists
        return frame.map(partial(spelled, form=repr)).duplicated().to_numpy()


def _is_row_number(values: pd.Series) -> bool:
    """Whether a column numbers the rows of its table, from any number on."""
    if len(values) < 2 or pd.api.types.is_bool_dtype(values):
        return False
    first, second = numeric(values.iloc[:2])
    if not second > first:
        return False
    number = numeric(values)
    return np.array_equal(number - number[0], values.index.to_numpy() - values.index[0])


def question_blocks(session_ids: np.ndarray) -> None:
    """Warn if session numbers begin anew in a log without times: they ascend, and fall back to numbers read before.

    Sessions at the same time, whose rows alternate, are no such case: there, numbers fall at about every other block.

    Warns:
        UserWarning: the number of sessions in separate blocks of rows.
    """
    session, names = pd.factorize(session_ids)
    numbers = numeric(pd.Series(names))
    if np.isnan(numbers).any():
        return
    begins = np.flatnonzero(np.diff(session, prepend=-1))
    blocks = np.bincount(session[begins], minlength=len(names))
    falls = int((np.diff(numbers[session[begins]]) < 0).sum())
    if (blocks > 1).any() and 4 * falls <= len(begins):
        first = int(session[begins][np.argmax(pd.Series(session[begins]).duplicated())])
        warnings.warn(
            f"sessions in separate blocks of rows: {(blocks > 1).sum():,} of {len(names):,} (the first: "
            f"{shown(names[first])}), and the log has no times: if the numbering begins anew (a file per day), "
            f"different sessions are read as one; make the ids unique, or name the column of times (time=, --time)",
            stacklevel=4,
        )


def question_clock(session: np.ndarray, times: np.ndarray, rows: np.ndarray) -> None:
    """Warn about times without offset that go back by up to an hour at night within a session, as at the end of
    daylight saving time, in a file whose sessions are otherwise in time order.

    Args:
        session: of each event, in the order of the file.
        times: in seconds.
        rows: row numbers from 0.
    """
    codes = pd.factorize(session)[0]
    order = np.argsort(codes, kind="stable")
    step = np.diff(times[order])
    back = (step < 0) & (np.diff(codes[order]) == 0)
    if not back.any():
        return
    before = times[order][:-1][back]
    hour, month = before % 86400 // _HOUR, pd.to_datetime(pd.Series(before), unit="s").dt.month.to_numpy()
    if ((step[back] >= -_HOUR) & (hour >= 1) & (hour < 3) & np.isin(month, [3, 4, 9, 10, 11])).all():
        at = order[1:][back][0]
        warnings.warn(
            f"times that go back within a session at night: {back.sum():,} (the first: row {rows[at] + 1}, session "
            f"{shown(session[at])}): a clock without offset at the end of daylight saving time? Events are sorted by "
            f"these times; write them in UTC or with their offset to keep the order of the rows",
            stacklevel=4,
        )


def check_items(found: int, items: int) -> None:
    """Check that a log, in memory or on disk, has as many items as a system.

    Raises:
        InputError: it has another number of items.
    """
    if found != items:
        raise InputError(f"the log has {found} items, the system {items}; align the log: log.aligned_to(items, users)")


def no_event_left(min_item_support: int, min_session_length: int, min_user_sessions: int) -> InputError:
    """The error of a filter that drops all events of a log, in memory or on disk."""
    users = f" and users of at least {min_user_sessions} sessions" if min_user_sessions > 1 else ""
    return InputError(
        f"no event is left with items of at least {min_item_support} events and sessions of at least "
        f"{min_session_length}{users}; lower the limits"
    )
