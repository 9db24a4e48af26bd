"""Files of sessions to recommend for, read in parts of whole sessions, so that memory does not grow with the file."""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from graphmeta.data.columns import column, shown
from graphmeta.data.event_rows import EventColumns, parsers_of, read_rows
from graphmeta.data.parse_rows import DroppedRows, parse_rows
from graphmeta.data.read_options import Inactivity, ReadOptions
from graphmeta.data.table_chunks import chunks
from graphmeta.errors import InputError, counted

_ROWS = 16_384  # of a chunk, and at least of a part


@dataclass(frozen=True)
class SessionFile:
    """A CSV, TSV or Parquet file of sessions, one row per click. The rows of a session are consecutive; without a
    session column (:class:`~graphmeta.data.read_options.Inactivity`), those of a user.

    Clicks are put in the order of time, without ``time`` in that of the file.

    Args:
        session, item, time, user: the columns, as in :meth:`EventLog.read`.
        options: how the file is parsed.
    """

    path: str | Path
    item: str
    session: str | Inactivity | None = None
    time: str | None = None
    user: str | None = None
    options: ReadOptions = ReadOptions()

    @property
    def columns(self) -> EventColumns:
        """The columns that are read."""
        return EventColumns(self.item, self.session, self.time, self.user)

    def header(self) -> list[str]:
        """The names of the columns in the file.

        Raises:
            InputError: a file that cannot be read.
        """
        options = replace(self.options, where={})
        return [str(name) for name in next(chunks(options.of(self.path), 1)).columns]


@dataclass(frozen=True)
class Layout:
    """Where the parts of a file begin, found and checked in one pass before anything is computed.

    ``bounds``: row numbers ``[parts + 1]``; ``sessions``: groups of consecutive rows; ``whole``: whether all session
    ids are whole numbers; ``digest``: the file's SHA-256; ``noted``: the kinds of warnings that were given, which are
    not given again.
    """

    bounds: list[int]
    sessions: int
    whole: bool
    digest: str
    noted: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Clicks:
    """The sessions of a part, in the order of the file: their ids ``[S]``, items, times and users (None: unknown)."""

    ids: np.ndarray
    sessions: list[list[Any]]
    times: list[Any] | None
    users: list[Any] | None


def layout_of(file: SessionFile, *, rows: int = _ROWS) -> Layout:
    """Read the columns of a file once, check every row, and divide it into parts of at least ``rows`` rows.

    Raises:
        InputError: a column that is missing, a row that cannot be read, or a session whose rows are not consecutive;
            names the row and the remedy.
    """
    columns, options = file.columns, file.options
    cut, names, there = columns.cut(), set(columns.names()), next(_frames(file, 1))
    for role, name in (("item", file.item), ("session", file.session), ("time", file.time), ("user", file.user)):
        if isinstance(name, str):
            column(there, name, role)
    role = "user" if isinstance(cut, Inactivity) else "session"
    bounds, whole, end, dropped, last = [0], True, 0, 0, None
    starts, keys, noted = list[np.ndarray](), list[np.ndarray](), set[str]()
    with _once(noted):
        for frame in chunks(options.of(file.path), _ROWS, wanted=names.__contains__):
            if not len(frame):
                continue
            end = int(frame.index[-1]) + 1
            kept, found = parse_rows(frame, parsers_of(columns, options.time_format), drop=options.drop_bad_rows)
            dropped += len(frame) - len(kept)
            ids = found["session"] if role == "session" else found["user"][1][found["user"][0]]
            whole &= role == "session" and ids.dtype.kind == "i"
            key = _hashes(ids)
            begins = np.flatnonzero(key != np.append(key[:1] - 1 if last is None else [last], key[:-1]))
            last = key[-1]
            starts.append(kept.index.to_numpy()[begins])
            keys.append(key[begins])
            while (at := np.searchsorted(starts[-1], bounds[-1] + rows)) < len(starts[-1]):
                bounds.append(int(starts[-1][at]))
    if not starts:
        raise InputError(f"{file.path}: no row meets the conditions (where, --where); nothing to read")
    if dropped:
        warnings.warn(f"dropped rows: {dropped:,} of {Path(file.path).name} cannot be read", stacklevel=2)
    _check_consecutive(file, role, np.concatenate(starts), np.concatenate(keys))
    with Path(file.path).open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    return Layout([*bounds, end], sum(map(len, starts)), whole, digest, frozenset(noted))


def parts_of(file: SessionFile, layout: Layout, *, first: int = 0) -> Iterator[Clicks]:
    """The parts of a file, from number ``first`` on."""
    number, held, seen = first, list[pd.DataFrame](), set(layout.noted)
    bounds = layout.bounds
    for frame in _frames(file, _ROWS):
        frame = frame.loc[frame.index >= bounds[first]]
        while len(frame) and number + 2 < len(bounds) and frame.index[-1] >= bounds[number + 1]:
            inside = frame.index < bounds[number + 1]
            yield _clicks(file, [*held, frame.loc[inside]], seen, whole=layout.whole)
            held, frame, number = [], frame.loc[~inside], number + 1
        held.append(frame)
    if number + 1 < len(bounds):
        yield _clicks(file, held, seen, whole=layout.whole)


def _clicks(file: SessionFile, frames: list[pd.DataFrame], seen: set[str], *, whole: bool) -> Clicks:
    with _once(seen):
        rows = read_rows(pd.concat(frames), file.options, file.columns)
    codes, ids = pd.factorize(rows.session)
    order = np.lexsort((rows.time, codes))
    begins = np.searchsorted(codes[order], np.arange(1, len(ids)))
    items = [part.tolist() for part in np.split(rows.item[order], begins)]
    times = None if file.time is None else np.split(rows.time[order], begins)
    users = None
    if rows.user is not None and rows.users is not None:
        of_first = rows.user[order][np.append(0, begins).astype(np.int64)]
        users = [rows.users[code] if code >= 0 else None for code in of_first]
    names = np.array([int(one) for one in ids]) if whole else np.array([str(one) for one in ids], dtype=object)
    return Clicks(names, items, times, users)


def _frames(file: SessionFile, rows: int) -> Iterator[pd.DataFrame]:
    return chunks(file.options.of(file.path), rows)


def _hashes(ids: np.ndarray) -> np.ndarray:
    """64 bits of each id; 7 and "7" are equal."""
    return np.array([hash(str(one)) for one in ids])


def _check_consecutive(file: SessionFile, role: str, starts: np.ndarray, keys: np.ndarray) -> None:
    again = pd.Series(keys).duplicated().to_numpy()
    if not again.any():
        return
    row = int(starts[np.argmax(again)])
    name = file.user if role == "user" else file.session
    frame = next(frame for frame in _frames(file, _ROWS) if row in frame.index)
    value = shown(column(frame, str(name), role).loc[row])
    raise InputError(
        f"{file.path}: row {row + 1}: {role} {value} goes on after rows of others "
        f"({counted(int(again.sum()), 'such row')}); sort the file by the column {name!r}, in the order of time "
        f"within it"
    )


@contextmanager
def _once(seen: set[str]) -> Iterator[None]:
    """Within it, warnings that differ only in numbers and quoted values are given once; those that count dropped rows
    of a chunk are not.

    Args:
        seen: those that were given; further ones are added.
    """
    show = warnings.showwarning

    def show_once(message: Warning | str, *rest: Any) -> None:
        kind = re.sub(r"'[^']*'|[0-9]+", "", str(message))
        if kind not in seen and not isinstance(message, DroppedRows):
            seen.add(kind)
            show(message, *rest)

    with warnings.catch_warnings():
        warnings.showwarning = show_once
        yield
