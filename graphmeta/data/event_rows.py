"""The rows of an event log as columns of ids, times and values, validated, in the order of the file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Required, TypedDict

import numpy as np
import pandas as pd

from graphmeta.data.column_types.values import text
from graphmeta.data.columns import BadRows, column, ids, missing, numbers, place, shown
from graphmeta.data.parse_rows import Parser, parse_rows
from graphmeta.data.read_options import ActionWeights, Inactivity, ReadOptions, Source, table_of
from graphmeta.data.row_checks import question_blocks, question_clock, without_repeats
from graphmeta.data.table_files import read_frame
from graphmeta.data.times import seconds, without_offset
from graphmeta.errors import InputError, counted

if TYPE_CHECKING:
    from graphmeta.data.tables import EntityTable


@dataclass(frozen=True)
class EventColumns:
    """Which columns hold items, sessions, times, users and values; see :meth:`EventLog.read`."""

    item: str
    session: str | Inactivity | None = None
    time: str | None = None
    user: str | None = None
    value: str | ActionWeights | None = None

    def cut(self) -> str | Inactivity:
        """The column of sessions, or the inactivity that ends them.

        Raises:
            InputError: neither a session column, nor user and time.
        """
        session = Inactivity() if self.session is None else self.session
        if isinstance(session, Inactivity) and (self.user is None or self.time is None):
            raise InputError(
                "no session column: name one (session=, --session), or user and time, to split sessions by inactivity"
            )
        return session

    def names(self) -> list[str]:
        """The columns that are read."""
        value = self.value.column if isinstance(self.value, ActionWeights) else self.value
        return [name for name in (self.item, self.session, self.time, self.user, value) if isinstance(name, str)]


class LogColumns(TypedDict, total=False):
    """The columns and tables of a log, as arguments; see :meth:`EventLog.read`."""

    item: Required[str]
    session: str | Inactivity | None
    time: str | None
    user: str | None
    value: str | ActionWeights | None
    items: EntityTable | None
    users: EntityTable | None


@dataclass(frozen=True)
class EventRows:
    """Events in the order of the file. Shapes: all ``[N]``; user codes point into ``users``, -1: unknown; ``rows`` are
    row numbers from 0."""

    session: np.ndarray
    item: np.ndarray
    time: np.ndarray
    value: np.ndarray | None
    user: np.ndarray | None
    users: np.ndarray | None
    rows: np.ndarray


def frame_of(source: Source) -> tuple[pd.DataFrame, ReadOptions]:
    """The rows of a file or frame, and the options that it is read with.

    Raises:
        InputError: no rows; see :func:`~graphmeta.data.table_files.read_frame`.
    """
    frame = read_frame(source)
    if len(frame) == 0:
        raise InputError("the event log has no rows; nothing to read")
    return frame, table_of(source).options


def read_rows(frame: pd.DataFrame, options: ReadOptions, columns: EventColumns) -> EventRows:
    """The events of a frame whose index is the row numbers of its file.

    Raises:
        InputError: see :meth:`EventLog.read`.
    """
    session = columns.cut()
    frame = frame if columns.time is None else without_repeats(frame, columns.names())
    frame, found = parse_rows(frame, parsers_of(columns, options.time_format), drop=options.drop_bad_rows)
    rows = frame.index.to_numpy()
    user, users = found.get("user", (None, None))
    times = found.get("time", rows.astype(np.float64))
    if isinstance(session, Inactivity):
        assert user is not None and users is not None
        session_ids = _cut(user, users, times, session.seconds)
    else:
        session_ids = found["session"]
    if columns.time is not None and without_offset(column(frame, columns.time, "time"), options.time_format):
        question_clock(session_ids, times, rows)
    if columns.time is None:
        if columns.session != columns.user:  # a user's rows may be anywhere
            question_blocks(session_ids)
        times = np.arange(len(frame), dtype=np.float64)
    return EventRows(session_ids, found["item"], times, found.get("value"), user, users, rows)


def parsers_of(columns: EventColumns, form: str | None) -> dict[str, Parser]:
    """What reads the array of each role from the frame.

    Args:
        form: of times.
    """
    session = columns.cut()
    item, time, user, value = columns.item, columns.time, columns.user, columns.value
    parsers: dict[str, Parser] = {"item": lambda frame: ids(column(frame, item, "item"), "item")}
    if time is not None:
        parsers["time"] = lambda frame: seconds(column(frame, time, "time"), "time", form)
    if user is not None:
        needed = isinstance(session, Inactivity)
        parsers["user"] = lambda frame: _users(column(frame, user, "user"), needed=needed)
    if isinstance(session, str):
        parsers["session"] = lambda frame: ids(column(frame, session, "session"), "session")
    if isinstance(value, ActionWeights):
        parsers["value"] = lambda frame: _weights(column(frame, value.column, "action"), value)
    elif value is not None:
        parsers["value"] = lambda frame: numbers(column(frame, value, "value"), "value")
    return parsers


def _users(values: pd.Series, *, needed: bool) -> tuple[np.ndarray, np.ndarray]:
    """The user of each event (-1: unknown) and the distinct ids.

    Args:
        needed: whether an unknown user is an error, because sessions are split by user.
    """
    unknown = missing(values)
    if needed and unknown.any():
        raise no_user(values, unknown)
    codes = np.full(len(values), -1, dtype=np.int64)
    if unknown.all():
        return codes, np.empty(0, dtype=object)
    try:
        codes[~unknown], users = pd.factorize(ids(values.loc[~unknown], "user"))
    except BadRows as bad:
        wrong = np.zeros(len(values), dtype=bool)
        wrong[~unknown] = bad.wrong
        raise BadRows(str(bad), wrong, bad.reason) from None
    return codes, np.asarray(users)


def no_user(values: pd.Series, unknown: np.ndarray) -> BadRows:
    """The error for unknown users where sessions are split by user, a mask over the values."""
    message = (
        f"{place(values, unknown)}: the user is missing ({counted(unknown.sum(), 'row')}), and sessions are split "
        f"by user; name a session column, or drop such rows (drop_bad_rows, --drop-bad-rows)"
    )
    return BadRows(message, unknown, "the user is missing")


def _weights(values: pd.Series, actions: ActionWeights) -> np.ndarray:
    """The weight of each event's action."""
    weights = {str(name): float(one) for name, one in actions.weights.items()}
    names = text(values)
    found = names.map(weights).to_numpy(dtype=np.float64)
    wrong = np.isnan(found)
    if wrong.any():
        raise no_weight(values, names, wrong, weights)
    return found


def no_weight(values: pd.Series, names: pd.Series, wrong: np.ndarray, weights: Iterable[str]) -> BadRows:
    """The error for actions without a weight, a mask over the values.

    Args:
        names: the values as text.
        weights: the actions that have one.
    """
    message = (
        f"{place(values, wrong)}: the action {shown(names.iloc[int(np.argmax(wrong))])} has no weight "
        f"({', '.join(weights)} have); add one, or leave such rows out (where, --where)"
    )
    return BadRows(message, wrong, "the action has no weight")


def _cut(user: np.ndarray, names: np.ndarray, times: np.ndarray, inactivity: float) -> np.ndarray:
    """Session ids ``user#number``: a new session after more than ``inactivity`` seconds without an event."""
    order = np.lexsort((times, user))
    other = np.diff(user[order], prepend=-1) != 0
    begins = other | (np.diff(times[order], prepend=times[order[:1]]) > inactivity)
    number = np.cumsum(begins)
    number -= number[other][np.cumsum(other) - 1]
    out = np.empty(len(user), dtype=object)
    out[order] = [f"{names[u]}#{n}" for u, n in zip(user[order], number, strict=True)]
    return out
