"""Tables of items and users: ids in the order of their numbers, categorical attributes, readable names."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from graphmeta.data.columns import Source, column, ids, read_frame, shown, spelled
from graphmeta.errors import InputError


@dataclass(frozen=True, eq=False)
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


@dataclass(frozen=True, eq=False)
class Several:
    """A categorical column with any number of values a row: row r's are ``codes[ptr[r]:ptr[r + 1]]``.

    A row without any value has the one code 0, "unknown", so that every row has one at least.

    Shapes: codes ``[N]`` int64; ptr ``[rows + 1]`` int64; values ``[distinct + 1]`` text, ``values[0] == ""``.
    """

    codes: np.ndarray
    ptr: np.ndarray
    values: np.ndarray

    @property
    def size(self) -> int:
        """How many values there are, "unknown" included."""
        return len(self.values)

    def take(self, rows: np.ndarray) -> Several:
        """The column of these rows; row -1 is unknown. The values stay, so codes keep their meaning."""
        codes, begin = np.append(self.codes, 0), np.append(self.ptr[:-1], len(self.codes))
        count = np.append(np.diff(self.ptr), 1)[rows]
        ptr = np.concatenate([[0], np.cumsum(count)]).astype(np.int64)
        where = np.arange(ptr[-1]) + np.repeat(begin[rows] - ptr[:-1], count)
        return Several(codes[where], ptr, self.values)


@dataclass(frozen=True, eq=False)
class EntityTable:
    """Items or users: their original ids in the order of their numbers, attributes and readable labels.

    ``attributes`` have one value a row, the columns in ``several`` any number.

    >>> table = EntityTable.read(pd.DataFrame({"sku": ["a", "b"], "brand": ["X", None]}), key="sku")
    >>> table.ids.tolist(), table.attributes["brand"].codes.tolist()
    (['a', 'b'], [1, 0])
    """

    ids: np.ndarray
    attributes: Mapping[str, Attribute]
    labels: np.ndarray | None = None
    complete: bool = True
    several: Mapping[str, Several] = field(default_factory=dict)

    @classmethod
    def read(
        cls,
        source: Source,
        *,
        key: str,
        attributes: Sequence[str] | None = None,
        label: str | None = None,
        complete: bool = True,
        several: Mapping[str, str] | None = None,
    ) -> EntityTable:
        """Read a table of items or users.

        Args:
            key: the column of ids, each once.
            attributes: the categorical columns to keep; all but ``key`` and ``label`` if not given. Numbers are
                taken as categories: cut a price into bands before you pass it.
            label: a column with readable names, for people only; no model sees it.
            complete: every id with events must have a row, or reading the log is an error; if False, an id
                without a row is "unknown" in every attribute.
            several: the columns with several values a row, and what stands between the values in text, e.g.
                ``{"genres": "|"}``; a cell may also be a list or an array.

        Raises:
            InputError: a missing column, a missing id or an id that stands twice.
        """
        frame = read_frame(source)
        keys = ids(column(frame, key, "key"), "key")
        twice = pd.Series(keys, dtype=keys.dtype).duplicated().to_numpy()
        if twice.any():
            again = shown(keys[np.argmax(twice)])
            raise InputError(f"column {key!r}, row {np.argmax(twice) + 1}: {again} stands twice; keep one row an id")
        many = several or {}
        others = (key, label, *many)
        names = [c for c in frame.columns if c not in others] if attributes is None else attributes
        names = [names] if isinstance(names, str) else names
        columns = {str(name): _categorical(column(frame, name, "attribute")) for name in names}
        labels = None if label is None else _text(column(frame, label, "label")).to_numpy(dtype=object)
        lists = {name: _several(column(frame, name, "attribute"), mark) for name, mark in many.items()}
        return cls(keys, columns, labels, complete, lists)

    def __len__(self) -> int:
        return len(self.ids)

    def fingerprint(self) -> bytes:
        """Bytes that differ where ids or what is known of them do; labels are for people and do not count."""
        digest = hashlib.sha256(repr(self.ids.tolist()).encode())
        for name, one in self.attributes.items():
            digest.update(f"{name} {one.values.tolist()}".encode() + one.codes.tobytes())
        for name, many in self.several.items():
            digest.update(f"{name} {many.values.tolist()}".encode() + many.codes.tobytes() + many.ptr.tobytes())
        return digest.digest()

    def rows_of(self, wanted: np.ndarray) -> np.ndarray:
        """The row of each id, -1 where it is not known."""
        return locate(self.ids, wanted)

    def take(self, rows: np.ndarray) -> EntityTable:
        """The table of these rows, in this order."""
        labels = None if self.labels is None else self.labels[rows]
        return self._of(rows, self.ids[rows], labels)

    def _of(self, rows: np.ndarray, ids: np.ndarray, labels: np.ndarray | None) -> EntityTable:
        """The columns of these rows (-1: unknown), under these ids."""
        columns = {name: attribute.take(rows) for name, attribute in self.attributes.items()}
        return EntityTable(
            ids, columns, labels, self.complete, {name: many.take(rows) for name, many in self.several.items()}
        )

    def aligned(self, wanted: np.ndarray, role: str = "item") -> EntityTable:
        """One row for each wanted id, in that order; without a row there is "unknown" everywhere.

        Raises:
            InputError: an id without a row in a table that is ``complete``.
        """
        rows = self.rows_of(wanted)
        if (rows < 0).any() and self.complete:
            raise InputError(
                f"{role} table: no row for {shown(wanted[np.argmax(rows < 0)])}, which has events "
                f"({(rows < 0).sum()} such ids); add the rows, or allow them as unknown (complete=False)"
            )
        labels = None
        if self.labels is not None:
            labels = np.where(rows >= 0, self.labels[rows], "") if len(self.labels) else np.full(len(rows), "", object)
        return self._of(rows, wanted, labels)

    def to_json(self) -> dict[str, Any]:
        """The table in plain lists, for a file."""
        return {
            "ids": self.ids.tolist(),
            "labels": None if self.labels is None else self.labels.tolist(),
            "attributes": {
                name: {"codes": a.codes.tolist(), "values": a.values.tolist()} for name, a in self.attributes.items()
            },
            "several": {
                name: {"codes": a.codes.tolist(), "ptr": a.ptr.tolist(), "values": a.values.tolist()}
                for name, a in self.several.items()
            },
        }

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> EntityTable:
        """The table that :meth:`to_json` wrote; ids without a row in it count as unknown."""
        numbers = all(isinstance(i, int) for i in stored["ids"])
        attributes = {
            name: Attribute(np.array(a["codes"], dtype=np.int64), np.array(a["values"], dtype=object))
            for name, a in stored["attributes"].items()
        }
        several = {
            name: Several(np.array(a["codes"]), np.array(a["ptr"]), np.array(a["values"], dtype=object))
            for name, a in stored.get("several", {}).items()
        }
        labels = None if stored["labels"] is None else np.array(stored["labels"], dtype=object)
        ids = np.array(stored["ids"]) if numbers else np.array(stored["ids"], dtype=object)
        return cls(ids, attributes, labels, complete=False, several=several)

    def describe(self, row: int) -> str:
        """A readable name for one row: its label if there is one, with its id."""
        label = "" if self.labels is None else str(self.labels[row])
        return f"{label} [{self.ids[row]}]" if label else str(self.ids[row])


def _categorical(values: pd.Series) -> Attribute:
    text = _text(values)
    codes, distinct = pd.factorize(text.where(text != "", None))
    return Attribute(codes.astype(np.int64) + 1, np.concatenate([[""], np.asarray(distinct, dtype=object)]))


def _several(cells: pd.Series, mark: str) -> Several:
    parts = [_values_of(cell if known else None, mark) for cell, known in zip(cells, cells.notna(), strict=True)]
    count = np.array([len(part) for part in parts], dtype=np.int64)
    found = _categorical(pd.Series([value for part in parts for value in part], dtype=object))
    return Several(found.codes, np.concatenate([[0], np.cumsum(count)]).astype(np.int64), found.values)


def _values_of(cell: object, mark: str) -> list[object]:
    """The distinct values of a cell, in their order; one missing value where there is none."""
    if isinstance(cell, list | tuple | set | np.ndarray):
        values = [value.item() if isinstance(value, np.generic) else value for value in cell]
    else:
        values = [] if cell is None else [part.strip() for part in spelled(cell).split(mark)]
    return list(dict.fromkeys(value for value in values if value not in ("", None))) or [None]


def _text(values: pd.Series) -> pd.Series:
    """Values as text, "" for missing; whole floats without ".0": a gap makes floats of a column of ints."""
    known = values.notna().to_numpy(dtype=bool)
    if pd.api.types.is_float_dtype(values) and (np.mod(values[known], 1) == 0).all():
        values = values.astype(object).where(known, 0).map(int)
    return pd.Series([spelled(v) if k else "" for v, k in zip(values, known, strict=True)], dtype=object)


def locate(known: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Position of each wanted id among the known ones, -1 where there is none; 7 and "7" are the same, "07" is not."""
    if len(wanted) == 0 or len(known) == 0:
        return np.full(len(wanted), -1, dtype=np.int64)
    numeric = known.dtype.kind == "i" and np.asarray(wanted).dtype.kind in "iu"
    index, sought = (known, wanted) if numeric else (_as_text(known), _as_text(wanted))
    return pd.Index(index).get_indexer(pd.Index(sought)).astype(np.int64)


def _as_text(values: np.ndarray) -> pd.Index:
    return pd.Index([spelled(value) for value in values], dtype=object)
