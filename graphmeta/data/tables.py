"""Tables of items and users: original ids by index, attribute columns, readable labels."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from typing import Any

import numpy as np
import pandas as pd

from graphmeta.data.column_checks import question_column
from graphmeta.data.column_types import TYPES, Categorical, Column, Several
from graphmeta.data.column_types.values import text
from graphmeta.data.columns import WHOLE, BadRows, column, ids, place, shown, spelled
from graphmeta.data.parse_rows import Parser, parse_rows
from graphmeta.data.read_options import Source, table_of
from graphmeta.data.table_files import read_frame
from graphmeta.errors import InputError


@dataclass(frozen=True, eq=False)
class EntityTable:
    """Items or users: their original ids by index, attribute columns and readable labels.

    ``columns`` maps names to columns: categories (``attributes``, one per row; ``several``, any number per row),
    numbers, vectors and texts, see :mod:`graphmeta.data.column_types`. ``complete``: whether each id with events must
    have a row (None: a warning counts those without).

    >>> table = EntityTable.read(pd.DataFrame({"sku": ["a", "b"], "brand": ["X", None]}), key="sku")
    >>> table.ids.tolist(), table.attributes["brand"].codes.tolist()
    (['a', 'b'], [1, 0])
    """

    ids: np.ndarray
    columns: Mapping[str, Column]
    labels: np.ndarray | None = None
    complete: bool | None = None

    @property
    def attributes(self) -> dict[str, Categorical]:
        """The categorical columns with one value per row."""
        return {name: one for name, one in self.columns.items() if isinstance(one, Categorical)}

    @property
    def several(self) -> dict[str, Several]:
        """The categorical columns with any number of values per row."""
        return {name: many for name, many in self.columns.items() if isinstance(many, Several)}

    @property
    def categories(self) -> dict[str, Categorical | Several]:
        """All categorical columns, with one value per row or several, in the order of the table."""
        return {name: one for name, one in self.columns.items() if isinstance(one, Categorical | Several)}

    def without(self, *kinds: str) -> EntityTable:
        """The table without its columns of these types, such as ``categorical``."""
        return replace(self, columns={name: one for name, one in self.columns.items() if one.kind not in kinds})

    @classmethod
    def read(
        cls,
        source: Source,
        *,
        key: str,
        attributes: Sequence[str] | None = None,
        label: str | None = None,
        complete: bool | None = None,
        several: Mapping[str, str] | None = None,
        types: Mapping[str, str] | None = None,
    ) -> EntityTable:
        """Read a table of items or users.

        Args:
            key: the column of ids, each once.
            attributes: the categorical columns to keep; all but ``key``, ``label`` and those of ``types`` and
                ``several`` if not given. Only empty cells are unknown; NA, None and null are categories.
            label: a column with readable names, for display only; models do not read it.
            complete: an id with events but without a row is "unknown" in every attribute; reading the log then gives
                a warning with their number if not given, an error if True, nothing if False.
            types: the columns of other types, by name: ``{"price": "numeric", "image": "vector", "title": "text"}``,
                see :mod:`graphmeta.data.column_types`.
            several: the columns with several values per row, and the separator of values in text cells, e.g.
                ``{"genres": "|"}``; a cell may also be a list or an array.

        Raises:
            InputError: a missing column, a missing id or a duplicate id, an unknown type or an empty separator.

        Warns:
            UserWarning: a categorical column with nearly as many values as rows, or with several per cell, unless
                ``types`` declares it as categorical.
        """
        frame, options = read_frame(source), table_of(source).options
        many, types = several or {}, types or {}
        strange = next((kind for kind in types.values() if kind not in TYPES), None)
        if strange is not None:
            raise InputError(f"no column type is called {strange!r}; there are {', '.join(sorted(TYPES))}")
        if "" in many.values():
            raise InputError("a column of several values needs a separator, such as several={'genre': '|'}")
        others = (key, label, *many, *types)
        names = [c for c in frame.columns if c not in others] if attributes is None else attributes
        names = [names] if isinstance(names, str) else names
        reading: dict[str, Callable[[pd.Series, str], Column]] = {str(n): Categorical.read for n in names}
        reading |= {name: partial(Several.read, separator=mark) for name, mark in many.items()}
        reading |= {name: TYPES[kind].read for name, kind in types.items()}
        parsers: dict[str, Parser] = {"\0key": lambda frame: _keys(column(frame, key, "key"))}
        for name, read in reading.items():
            parsers[name] = partial(_column, name=name, read=read)
        if label is not None:
            parsers["\0label"] = lambda frame: text(column(frame, label, "label")).to_numpy(dtype=object)
        frame, found = parse_rows(frame, parsers, drop=options.drop_bad_rows)
        keys, labels = found.pop("\0key"), found.pop("\0label", None)
        for name in reading.keys() - types.keys():
            question_column(name, found[name])
        return cls(keys, found, labels, complete)

    def __len__(self) -> int:
        return len(self.ids)

    def fingerprint(self) -> bytes:
        """A hash over ids and columns; labels are for display only and are not included."""
        digest = hashlib.sha256(repr(self.ids.tolist()).encode())
        for name, one in self.columns.items():
            one.add_to_hash(digest, name)
        return digest.digest()

    def rows_of(self, wanted: np.ndarray) -> np.ndarray:
        """The row of each id, -1 for an unknown id; see :func:`locate`. The index is built once."""
        return _located(wanted, len(self), numbers=self.ids.dtype.kind == "i", index=self._index)

    @cached_property
    def _index(self) -> Callable[[bool], pd.Index]:
        """The index of the ids as numbers or as text, built at its first use."""
        return cache(partial(_index_of, self.ids))

    def take(self, rows: np.ndarray) -> EntityTable:
        """The table of these rows, in this order."""
        labels = None if self.labels is None else self.labels[rows]
        return self._of(rows, self.ids[rows], labels)

    def new_to(self, other: EntityTable) -> EntityTable:
        """The rows whose ids another table does not have, e.g. the items of a catalogue without clicks:
        ``system.extended(catalogue.new_to(system.items))``.
        """
        return self.take(np.flatnonzero(other.rows_of(self.ids) < 0))

    def _of(self, rows: np.ndarray, ids: np.ndarray, labels: np.ndarray | None) -> EntityTable:
        """The columns of these rows (-1: unknown), under these ids."""
        return EntityTable(ids, {name: one.take(rows) for name, one in self.columns.items()}, labels, self.complete)

    def joined(self, more: EntityTable) -> EntityTable:
        """The rows of this table, then those of another; indices and codes of this one stay the same.

        Columns that only ``more`` has are left out; rows of ``more`` are unknown in those that it lacks.

        Raises:
            InputError: an id that is in both, or a column of another type.
        """
        if (twice := self.rows_of(more.ids) >= 0).any():
            raise InputError(f"{shown(more.ids[np.argmax(twice)])} is in the table already; add only new rows")
        nothing, columns = np.full(len(more), -1), {}
        for name, own in self.columns.items():
            other = more.columns.get(name, own.take(nothing))
            if other.kind != own.kind:
                raise InputError(f"column {name!r} is {own.kind} here and {other.kind} in the new rows; use one type")
            columns[name] = own.joined(other)
        labels = None
        if self.labels is not None:
            labels = np.concatenate(
                [self.labels, np.full(len(more), "", object) if more.labels is None else more.labels]
            )
        same = self.ids.dtype == more.ids.dtype
        ids = [self.ids, more.ids] if same else [self.ids.astype(object), more.ids.astype(object)]
        return replace(self, ids=np.concatenate(ids), columns=columns, labels=labels)

    def aligned(self, wanted: np.ndarray, role: str = "item") -> EntityTable:
        """One row for each wanted id, in that order; ids without a row are "unknown" in every column.

        Raises:
            InputError: an id without a row in a table that is ``complete``; no row for any of the ids.

        Warns:
            UserWarning: the number of ids without a row, unless ``complete`` is set.
        """
        rows = self.rows_of(wanted)
        absent = rows < 0
        if absent.any() and self.complete:
            raise InputError(
                f"{role} table: no row for {shown(wanted[np.argmax(absent)])}, which has events "
                f"({absent.sum()} such ids); add the rows, or allow them as unknown (complete=False)"
            )
        if absent.all() and len(absent) and len(self) and self.complete is None:
            raise InputError(
                f"{role} table: none of the {len(wanted):,} {role}s with events has a row; the log has "
                f"{shown(wanted[0])}, the table {shown(self.ids[0])}: name the column with the same ids (key, "
                f"--{role}-key)"
            )
        if absent.any() and self.complete is None:
            warnings.warn(
                f"{role} table: no row for {absent.sum():,} of {len(wanted):,} {role}s with events (such as "
                f"{shown(wanted[np.argmax(absent)])}); their attributes are unknown",
                stacklevel=3,
            )
        labels = None
        if self.labels is not None:
            labels = np.where(rows >= 0, self.labels[rows], "") if len(self.labels) else np.full(len(rows), "", object)
        return self._of(rows, wanted, labels)

    def to_json(self) -> dict[str, Any]:
        """The table as JSON values."""
        return {
            "ids": self.ids.tolist(),
            "labels": None if self.labels is None else self.labels.tolist(),
            "columns": {name: {"kind": one.kind, **one.to_json()} for name, one in self.columns.items()},
        }

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> EntityTable:
        """The table that :meth:`to_json` wrote; ids without a row in it count as unknown."""
        columns = {name: TYPES[one["kind"]].from_json(one) for name, one in stored.get("columns", {}).items()}
        # Before format 4 there were two types of columns, each under a key of its own.
        columns |= {name: Categorical.from_json(one) for name, one in stored.get("attributes", {}).items()}
        columns |= {name: Several.from_json(one) for name, one in stored.get("several", {}).items()}
        labels = None if stored["labels"] is None else np.array(stored["labels"], dtype=object)
        return cls(ids_of(stored["ids"]), columns, labels, complete=False)

    def describe(self, row: int) -> str:
        """A readable name for one row: its label if there is one, with its id."""
        label = "" if self.labels is None else str(self.labels[row])
        return f"{label} [{self.ids[row]}]" if label else str(self.ids[row])


def same_ids(one: EntityTable | None, other: EntityTable | None) -> bool:
    """Whether two tables have the same ids in the same order; True if either is unknown (None)."""
    return one is None or other is None or one is other or np.array_equal(one.ids, other.ids)


def ids_of(values: list[Any]) -> np.ndarray:
    """Ids from JSON: int64 if all are numbers, else text."""
    numbers = all(isinstance(value, int) for value in values)
    return np.array(values, dtype=np.int64) if numbers and values else np.array(values, dtype=object)


def all_of(tables: Sequence[EntityTable]) -> EntityTable:
    """One table with the ids of all tables, those of the first one first; the first one if all have its ids."""
    if all(same_ids(tables[0], table) for table in tables[1:]):
        return tables[0]
    ids = pd.unique(pd.Series(np.concatenate([table.ids.astype(object) for table in tables])))
    return EntityTable(np.asarray(ids, dtype=object), {})


def locate(known: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Position of each wanted id among the known ids, or -1; 7, "7" and "7.0" are equal, "07" is not, None is no id."""
    return _located(wanted, len(known), numbers=known.dtype.kind == "i", index=partial(_index_of, known))


def _located(wanted: np.ndarray, known: int, *, numbers: bool, index: Callable[[bool], pd.Index]) -> np.ndarray:
    """:func:`locate` among so many ids, by the index of their numbers or texts."""
    if len(wanted) == 0 or known == 0:
        return np.full(len(wanted), -1, dtype=np.int64)
    numeric = numbers and np.asarray(wanted).dtype.kind in "iu"
    sought = wanted if numeric else _as_text(wanted)
    known_ids = index(numeric)
    found = known_ids.get_indexer(pd.Index(sought)).astype(np.int64)
    if not numeric and (found < 0).any():
        rest = [_whole_text(one) for one in sought[found < 0]]
        found[found < 0] = known_ids.get_indexer(pd.Index(rest, dtype=object))
    if not numeric:
        found[[one is None for one in wanted]] = -1
    return found


def _index_of(known: np.ndarray, numeric: bool) -> pd.Index:
    """The index of ids, with its hash table: pandas does not lock while it fills one, and threads share the index."""
    index = pd.Index(known if numeric else _as_text(known))
    index.get_indexer(index[:1])
    return index


def _whole_text(value: str) -> str:
    """ "7" for "7.0"; other text as it is."""
    whole = WHOLE.fullmatch(value)
    return value if whole is None else whole[1]


def _as_text(values: np.ndarray) -> pd.Index:
    return pd.Index([spelled(value) for value in values], dtype=object)


def _keys(values: pd.Series) -> np.ndarray:
    """The ids of a table, each once."""
    keys = ids(values, "key")
    twice = pd.Series(keys, dtype=keys.dtype).duplicated().to_numpy()
    if twice.any():
        message = f"{place(values, twice)}: {shown(keys[np.argmax(twice)])} occurs twice; keep one row per id"
        raise BadRows(message, twice, "the id occurs before")
    return keys


def _column(frame: pd.DataFrame, *, name: str, read: Callable[[pd.Series, str], Column]) -> Column:
    return read(column(frame, name, "attribute"), name)
