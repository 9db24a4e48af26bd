"""The rows of one or several files as one DuckDB table, in their order."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from graphmeta.data.event_rows import EventColumns
from graphmeta.data.read_options import ReadOptions
from graphmeta.data.scan.database import Database, literal, quoted
from graphmeta.data.scan.selection import WHOLE, condition, named, named_column, no_row
from graphmeta.data.table_files import readable, separator_of, suffix_of, with_names
from graphmeta.errors import InputError

_NUMERIC = (*WHOLE, "FLOAT", "DOUBLE")
_NAMES_BEFORE = "__index_level_"  # index columns of frames that pandas has written
ROLES = ("item", "time", "user", "session", "value")


def files_of(source: str | Path | Sequence[str | Path]) -> list[Path]:
    """The files of a pattern such as ``events/*.parquet``, in alphabetic order, or those that are listed.

    Raises:
        InputError: no such file.
    """
    if not isinstance(source, str | Path):
        return [path for one in source for path in files_of(one)]
    if Path(source).is_file():
        return [Path(source)]
    found = [Path(path) for path in sorted(glob.glob(str(source), recursive=True)) if Path(path).is_file()]
    if not found:
        raise InputError(f"{source}: no such file; check the path or pattern")
    return found


@dataclass(frozen=True)
class Files:
    """Files and the number of their first rows, by which a row of all has its place."""

    paths: list[Path]
    begins: list[int]

    def place(self, row: int) -> tuple[str, int]:
        """The file of a row, "" if there is only one, and its number there, from 0."""
        at = int(np.searchsorted(self.begins, row, side="right")) - 1
        return ("" if len(self.paths) == 1 else str(self.paths[at])), row - self.begins[at]

    def spelled(self, row: int) -> str:
        """``row 5``, or ``events/2.parquet, row 5``."""
        path, own = self.place(row)
        return f"{path}, row {own + 1}" if path else f"row {own + 1}"


@dataclass(frozen=True)
class RawRows:
    """A table ``row, <role>…`` of raw values, the type of each role and the names of their columns.

    ``hashed``: whether it has hashes of all columns, h1 and h2, to find duplicates by; ``numbers``: the columns that
    number the rows, and without which the hashes r1 and r2 are.
    """

    table: str
    files: Files
    types: dict[str, str]
    names: dict[str, str]
    hashed: bool
    numbers: list[str]


def raw_rows(db: Database, paths: list[Path], options: ReadOptions, columns: EventColumns) -> RawRows:
    """Load the columns that are read, and for logs with times two hashes of all columns.

    Raises:
        InputError: an unreadable or empty file, a missing column, files with other columns, a condition that no row
            meets, or an option that a scan does not support; names the remedy.
    """
    _check_options(paths[0], options)
    sources = [_source(db, path, options) for path in paths]
    kinds = [_kinds(db, source, path, options) for source, path in zip(sources, paths, strict=True)]
    for path, kind in zip(paths[1:], kinds[1:], strict=True):
        if kind != kinds[0]:
            differ = sorted(n for n in kinds[0].keys() | kind.keys() if kinds[0].get(n) != kind.get(n))
            raise InputError(
                f"{path}: its columns are not those of {paths[0]} (different: {', '.join(differ)}); write all files "
                f"with the same columns and types"
            )
    names = named(kinds[0], columns)
    for name in options.where:
        named_column(kinds[0], name, "condition (where, --where)")
    where = " AND ".join(condition(kinds[0], name, values) for name, values in options.where.items()) or "true"
    begins, begin, queries = [], 0, []
    for path, source in zip(paths, sources, strict=True):
        with _readable(db, path, options):
            size = db.value(f"SELECT count(*) FROM {source}")
        if size == 0:
            raise InputError(f"{path}: the file has a header but no rows; nothing to read")
        queries.append(f"SELECT * FROM ({_numbered(source, path, begin)}) WHERE {where}")
        begins.append(begin)
        begin += size
    hashed = columns.time is not None
    numbers = _numbers(db, queries, kinds[0], names) if hashed else []
    chosen = [f"{quoted(name)} AS {role}" for role, name in names.items()]
    chosen += _hashes("h", list(kinds[0])) if hashed else []
    chosen += _hashes("r", [name for name in kinds[0] if name not in numbers]) if numbers else []
    table = None
    for path, query in zip(paths, queries, strict=True):
        with _readable(db, path, options):
            loading = f"SELECT file_row AS row, {', '.join(chosen)} FROM ({query})"
            if table is None:
                table = db.table(loading, stem="raw")
            else:
                db.run(f"INSERT INTO {table} {loading}")
    assert table is not None
    if options.where and db.value(f"SELECT count(*) FROM {table}") == 0:
        raise InputError(no_row(db, sources, kinds[0], options))
    return RawRows(table, Files(paths, begins), {role: kinds[0][name] for role, name in names.items()}, names, hashed,
                   numbers)  # fmt: skip


def _check_options(path: Path, options: ReadOptions) -> None:
    """Refuse the options that only reading in memory supports."""
    remedy = "leave it out and write the files as UTF-8 Parquet or CSV, or read them in memory with EventLog.read"
    if options.encoding.lower().replace("_", "-") not in ("utf-8", "utf8", "utf-8-sig"):
        raise InputError(f"a scan reads text as UTF-8, not encoding={options.encoding!r}; {remedy}")
    if suffix_of(path) not in (".parquet", ".pq") and len(separator_of(path, options)) > 1:
        raise InputError(
            f"a scan reads separators of one character, not {separator_of(path, options)!r} (sep, --sep); {remedy}"
        )


class _readable:
    """Within it, errors of DuckDB are InputErrors that name the file."""

    def __init__(self, db: Database, path: Path, options: ReadOptions) -> None:
        self.db, self.path, self.options = db, path, options

    def __enter__(self) -> None:
        """Nothing to do."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, self.db.error):
            return
        reason = next(iter(str(error).strip().splitlines()), "")[:200]
        raise InputError(
            f"{self.path}: not a readable table ({reason}); correct the line, read it with EventLog.read, which can "
            f"drop lines, or save it as UTF-8 CSV, TSV or Parquet"
        ) from None


def _source(db: Database, path: Path, options: ReadOptions) -> str:
    """The table function that reads a file."""
    if suffix_of(path) in (".parquet", ".pq"):
        return f"read_parquet({literal(str(path))}, file_row_number = true)"
    with readable(path, options):
        given = {"sep": separator_of(path, options), "encoding": options.encoding, "dtype": str, "nrows": 1}
        header = "infer" if options.header else None
        frame = with_names(pd.read_csv(path, header=header, keep_default_na=False, **given), path, options)
    names = [str(name) for name in frame.columns]
    kinds = ", ".join(f"{literal(name)}: 'VARCHAR'" for name in names)
    return (
        f"read_csv({literal(str(path))}, delim = {literal(given['sep'])}, header = {str(options.header).lower()}, "
        f"columns = {{{kinds}}}, auto_detect = false, quote = '\"', escape = '\"', nullstr = '', parallel = false, "
        f"null_padding = true, strict_mode = true)"
    )


def _kinds(db: Database, source: str, path: Path, options: ReadOptions) -> dict[str, str]:
    with _readable(db, path, options):
        kinds = db.types(source)
    return {n: k for n, k in kinds.items() if n != "file_row_number" and not n.startswith(_NAMES_BEFORE)}


def _numbered(source: str, path: Path, begin: int) -> str:
    """The rows of a file with their number among all, from 0."""
    if suffix_of(path) in (".parquet", ".pq"):
        return f"SELECT *, file_row_number + {begin} AS file_row FROM {source}"
    return f"SELECT *, row_number() OVER () - 1 + {begin} AS file_row FROM {source}"


def _hashes(stem: str, names: list[str]) -> list[str]:
    """Two hashes of 64 bits each of these columns."""
    every = ", ".join(map(quoted, names)) or "0"
    return [f"hash({every}) AS {stem}1", f"hash('x', {every}) AS {stem}2"]


def _numbers(db: Database, queries: list[str], kinds: dict[str, str], names: dict[str, str]) -> list[str]:
    """The columns that are not read and number the rows, from any number on."""
    read = set(names.values())
    able = [name for name, kind in kinds.items() if name not in read and (kind == "VARCHAR" or kind in _NUMERIC)]
    if not able:
        return []
    steps = {name: f"TRY_CAST({quoted(name)} AS DOUBLE) - file_row" for name in able}
    sums = ", ".join(f"min({step}), max({step}), count({step})" for step in steps.values())
    found = [db.row(f"SELECT count(*), {sums} FROM ({query})") for query in queries]
    size = sum(one[0] for one in found)
    chosen = []
    for at, name in enumerate(able):
        least = [one[1 + 3 * at] for one in found if one[0]]
        most = [one[2 + 3 * at] for one in found if one[0]]
        counted = sum(one[3 + 3 * at] for one in found)
        if size > 1 and counted == size and min(least) == max(most):
            chosen.append(name)
    return chosen
