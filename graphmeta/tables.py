"""Columns from files and frames: the only place where raw values are read, checked and numbered.

Ids stay what the user wrote: whole numbers as ``int``, everything else as ``str``. Rows are counted from 1,
the header not included, in every message.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from graphmeta.errors import InputError

Source = str | Path | pd.DataFrame
_SEPARATORS = {".csv": ",", ".tsv": "\t", ".txt": "\t", ".tab": "\t", ".dat": "\t"}


def read_frame(source: Source) -> pd.DataFrame:
    """The table behind a CSV, TSV or Parquet path (``.gz`` too), or a copy of the frame given.

    Text files are read as text: what is a number is decided by whole columns later, so that one stray
    letter in row 90,000 cannot give one id two types.

    Raises:
        InputError: a missing or empty file, or one that is no table.
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
            return pd.read_parquet(path)
        separator = _SEPARATORS.get(suffix) or ","
        header = pd.read_csv(path, sep=separator, nrows=0, encoding="utf-8-sig")
        if len(header.columns) == 1 and ";" in str(header.columns[0]):
            separator = ";"
        return pd.read_csv(path, sep=separator, dtype=str, keep_default_na=True, encoding="utf-8-sig")
    except ImportError:
        raise InputError(f"{path}: Parquet needs pyarrow; pip install 'graphmeta[large]'") from None
    except pd.errors.EmptyDataError:
        raise InputError(f"{path}: the file is empty; nothing to read") from None
    except (ValueError, OSError, EOFError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"{path}: not a readable table ({reason}); save it as CSV, TSV or Parquet") from None


def column(frame: pd.DataFrame, name: str, role: str) -> pd.Series:
    """The column called ``name``, or an error that lists the columns there are."""
    if name not in frame.columns:
        there = ", ".join(map(str, frame.columns[:12]))
        raise InputError(f"no column {name!r} for the {role}; the table has: {there}")
    return frame[name]


def ids(values: pd.Series, role: str) -> np.ndarray:
    """Clean ids: an ``int64`` array if every value is a whole number, else an array of ``str``.

    Raises:
        InputError: a missing value, or numbers mixed with text; names row and column.
    """
    _refuse_missing(values, role)
    if pd.api.types.is_integer_dtype(values) or pd.api.types.is_bool_dtype(values):
        return values.to_numpy(dtype=np.int64)
    if pd.api.types.is_float_dtype(values):
        return _whole(values, role)
    kinds = values.map(type)
    if not all(issubclass(kind, (str, int, np.integer)) for kind in kinds.unique()):
        row = int(np.argmax(~kinds.map(lambda k: issubclass(k, (str, int, np.integer))).to_numpy(dtype=bool)))
        raise InputError(_mixed(values, role, row, kinds.iloc[row].__name__, "id"))
    text = kinds.map(lambda kind: issubclass(kind, str)).to_numpy(dtype=bool)
    if text.any() and not text.all():
        row = int(np.argmax(text != text[0]))
        raise InputError(_mixed(values, role, row, kinds.iloc[row].__name__, kinds.iloc[0].__name__))
    if not text.any():
        return values.to_numpy(dtype=np.int64)
    return _numbers_if_all(values.to_numpy(dtype=object))


def _mixed(values: pd.Series, role: str, row: int, found: str, among: str) -> str:
    return (
        f"column {values.name!r}, row {row + 1}: the {role} {values.iloc[row]!r} is {found} among {among}; "
        f"convert the whole column to one type"
    )


def _refuse_missing(values: pd.Series, role: str) -> None:
    missing = values.isna().to_numpy(dtype=bool)
    if missing.any():
        row = int(np.argmax(missing)) + 1
        rest = f" (and {missing.sum() - 1} more)" if missing.sum() > 1 else ""
        raise InputError(
            f"column {values.name!r}, row {row}: the {role} is missing{rest}; fill it in or drop the row"
        )


def _whole(values: pd.Series, role: str) -> np.ndarray:
    numbers = values.to_numpy(dtype=np.float64)
    broken = ~np.isfinite(numbers) | (numbers != np.floor(numbers))
    if broken.any():
        row = int(np.argmax(broken))
        raise InputError(
            f"column {values.name!r}, row {row + 1}: the {role} {numbers[row]!r} is no whole number; use int or str ids"
        )
    return numbers.astype(np.int64)


def _numbers_if_all(text: np.ndarray) -> np.ndarray:
    """Text as ``int64`` when every value is the canonical spelling of a whole number ("007" stays text)."""
    series = pd.Series(text, dtype=object).astype(str)
    if series.str.fullmatch(r"0|-?[1-9][0-9]{0,17}").all():
        return series.to_numpy(dtype=object).astype(np.int64)
    return series.to_numpy(dtype=object)


def seconds(values: pd.Series, role: str = "time") -> np.ndarray:
    """Times as ``float64`` seconds since 1970-01-01 UTC, from numbers or from ISO 8601 text.

    Numbers above 1e11 are taken as milliseconds, above 1e14 as microseconds, above 1e17 as nanoseconds:
    the year 5138 is further off than a log in milliseconds.

    Raises:
        InputError: missing, infinite or unreadable values; names row and column.
    """
    _refuse_missing(values, role)
    if pd.api.types.is_datetime64_any_dtype(values):
        return _from_datetimes(pd.to_datetime(values, utc=True))
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64)
    if np.isfinite(numbers).all():
        return numbers / _unit(numbers)
    if pd.api.types.is_numeric_dtype(values) or np.isfinite(numbers).mean() > 0.5:
        raise InputError(_unreadable(values, role, int(np.argmax(~np.isfinite(numbers)))))
    times = pd.to_datetime(values.astype(str), utc=True, errors="coerce", format="ISO8601")
    if times.isna().any():
        raise InputError(_unreadable(values, role, int(np.argmax(times.isna().to_numpy()))))
    return _from_datetimes(times)


def _unit(numbers: np.ndarray) -> float:
    largest = float(np.abs(numbers).max(initial=0.0))
    return 1e9 if largest > 1e17 else 1e6 if largest > 1e14 else 1e3 if largest > 1e11 else 1.0


def _from_datetimes(times: pd.Series) -> np.ndarray:
    return times.dt.tz_localize(None).to_numpy().astype("datetime64[ns]").astype(np.int64) / 1e9


def _unreadable(values: pd.Series, role: str, row: int) -> str:
    return (
        f"column {values.name!r}, row {row + 1}: the {role} {values.iloc[row]!r} cannot be read; "
        f"use seconds since 1970 or ISO 8601 (2024-05-01T12:00:00) in every row"
    )


def numbers(values: pd.Series, role: str) -> np.ndarray:
    """A ``float64`` column without gaps. Raises: InputError, naming row and column."""
    _refuse_missing(values, role)
    found = pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64)
    if not np.isfinite(found).all():
        row = int(np.argmax(~np.isfinite(found)))
        raise InputError(
            f"column {values.name!r}, row {row + 1}: the {role} {values.iloc[row]!r} is no finite number"
        )
    return found


@dataclass(frozen=True)
class Attribute:
    """A categorical column: ``codes[row]`` points into ``values``; code 0 stands for "unknown".

    Shapes: codes ``[rows]`` int64; values ``[distinct + 1]`` text, ``values[0] == ""``.
    """

    codes: np.ndarray
    values: np.ndarray

    @property
    def size(self) -> int:
        """How many values there are, "unknown" included."""
        return len(self.values)

    def take(self, rows: np.ndarray) -> Attribute:
        """The attribute of these rows; row -1 is unknown. The values stay, so codes keep their meaning."""
        return Attribute(
            np.where(rows >= 0, self.codes[rows], 0) if len(self.codes) else np.zeros(len(rows), np.int64),
            self.values,
        )


@dataclass(frozen=True)
class EntityTable:
    """Items or users: their original ids in the order of their numbers, attributes and readable labels.

    >>> table = EntityTable.read(pd.DataFrame({"sku": ["a", "b"], "brand": ["X", None]}), key="sku")
    >>> table.ids.tolist(), table.attributes["brand"].codes.tolist()
    (['a', 'b'], [1, 0])
    """

    ids: np.ndarray
    attributes: Mapping[str, Attribute]
    labels: np.ndarray | None = None
    complete: bool = True

    @classmethod
    def read(
        cls,
        source: Source,
        *,
        key: str,
        attributes: Sequence[str] | None = None,
        label: str | None = None,
        complete: bool = True,
    ) -> EntityTable:
        """Read a table of items or users.

        Args:
            key: the column of ids, each once.
            attributes: the categorical columns to keep; all but ``key`` and ``label`` if not given. Numbers are
                taken as categories: cut a price into bands before you pass it.
            label: a column with readable names, for people only; no model sees it.
            complete: every id with events must have a row, or reading the log is an error; if False, an id
                without a row is "unknown" in every attribute.

        Raises:
            InputError: a missing column, a missing id or an id that stands twice.
        """
        frame = read_frame(source)
        keys = ids(column(frame, key, "key"), "key")
        twice = pd.Index(keys).duplicated()
        if twice.any():
            row = int(np.argmax(twice))
            raise InputError(f"column {key!r}, row {row + 1}: {keys[row]!r} stands twice; keep one row an id")
        names = [c for c in frame.columns if c not in (key, label)] if attributes is None else attributes
        columns = {str(name): _categorical(column(frame, name, "attribute")) for name in names}
        labels = (
            column(frame, label, "label").fillna("").astype(str).to_numpy(dtype=object) if label else None
        )
        return cls(keys, columns, labels, complete)

    def __len__(self) -> int:
        return len(self.ids)

    def rows_of(self, wanted: np.ndarray) -> np.ndarray:
        """The row of each id, -1 where it is not known."""
        return locate(self.ids, wanted)

    def take(self, rows: np.ndarray) -> EntityTable:
        """The table of these rows, in this order."""
        columns = {name: attribute.take(rows) for name, attribute in self.attributes.items()}
        return EntityTable(
            self.ids[rows], columns, None if self.labels is None else self.labels[rows], self.complete
        )

    def aligned(self, wanted: np.ndarray) -> EntityTable:
        """One row for each wanted id, in that order; without a row there is "unknown" everywhere.

        Raises:
            InputError: an id without a row in a table that is ``complete``.
        """
        rows = self.rows_of(wanted)
        if (rows < 0).any() and self.complete:
            raise InputError(
                f"item table: no row for {wanted[np.argmax(rows < 0)]!r}, which has events ({(rows < 0).sum()} such ids); "
                f"add the rows, or allow them as unknown (complete=False)"
            )
        columns = {name: attribute.take(rows) for name, attribute in self.attributes.items()}
        labels = None
        if self.labels is not None:
            labels = (
                np.where(rows >= 0, self.labels[rows], "")
                if len(self.labels)
                else np.full(len(rows), "", object)
            )
        return EntityTable(wanted, columns, labels, self.complete)

    def describe(self, row: int) -> str:
        """A readable name for one row: its label if there is one, with its id."""
        label = "" if self.labels is None else str(self.labels[row])
        return f"{label} [{self.ids[row]}]" if label else str(self.ids[row])


def _categorical(values: pd.Series) -> Attribute:
    text = values.astype(object).where(values.notna(), None)
    codes, distinct = pd.factorize(np.array([None if v is None else str(v) for v in text], dtype=object))
    return Attribute(codes.astype(np.int64) + 1, np.concatenate([[""], distinct]).astype(object))


def locate(known: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Position of each wanted id among the known ones, -1 where there is none. Types must agree to match."""
    if len(wanted) == 0 or len(known) == 0:
        return np.full(len(wanted), -1, dtype=np.int64)
    numeric = known.dtype.kind == "i"
    if numeric != (np.asarray(wanted).dtype.kind in "iu"):
        return _locate_as_text(known, wanted)
    return pd.Index(known).get_indexer(pd.Index(wanted)).astype(np.int64)


def _locate_as_text(known: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    spelled = pd.Index([str(v) for v in known], dtype=object)
    return spelled.get_indexer(pd.Index([str(v) for v in wanted], dtype=object)).astype(np.int64)
