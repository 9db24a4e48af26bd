"""Tables from CSV, TSV and Parquet files and from frames, with the rows that are selected."""

from __future__ import annotations

import csv
import gzip
import re
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd

from graphmeta.data.column_types.values import text
from graphmeta.data.columns import column
from graphmeta.data.read_options import ReadOptions, Source, likely_separator, separator_remedy, table_of
from graphmeta.errors import InputError, counted

_SEPARATORS = {".csv": ",", ".tsv": "\t", ".txt": "\t", ".tab": "\t", ".dat": "\t"}
_UNUSED = "\x1f"  # the ASCII unit separator, for separators of several characters


def read_frame(source: Source) -> pd.DataFrame:
    """The table behind a CSV, TSV or Parquet path (``.gz`` too), or a copy of the frame given.

    Text files are read as text: types are decided later for whole columns, so that one letter in row 90,000 cannot
    give an id column two types. Only empty cells are missing: NA, None and null are text. The index is the row numbers
    of the table, also where options select rows.

    Raises:
        InputError: a missing or empty file, one that is not a table, or a condition that no row meets.
    """
    table = table_of(source)
    if isinstance(table.source, pd.DataFrame):
        return _selected(table.source.reset_index(drop=True), table.options)
    path = Path(table.source)
    if not path.is_file():
        raise InputError(f"{path}: no such file; check the path")
    frame = _parse(path, table.options)
    if frame.empty:
        raise InputError(f"{path}: the file has a header but no rows; nothing to read")
    return _selected(frame, table.options)


def _selected(frame: pd.DataFrame, options: ReadOptions) -> pd.DataFrame:
    """The rows that ``where`` selects."""
    for name, wanted in options.where.items():
        found = text(column(frame, name, "condition (where, --where)"))
        chosen = found.isin([str(value) for value in wanted]).to_numpy(dtype=bool)
        if not chosen.any():
            usual = ", ".join(f"{value!r:.40} ({n:,})" for value, n in found.value_counts().head(5).items())
            there = " ".join(usual.split()) or "no row"
            raise InputError(f"no row has {name}={' or '.join(map(str, wanted))}; the column has {there}")
        frame = frame.loc[chosen]
    return frame


def _parse(path: Path, options: ReadOptions) -> pd.DataFrame:
    with readable(path, options):
        frame = _parquet(path) if suffix_of(path) in (".parquet", ".pq") else _text_table(path, options)
    return with_names(frame, path, options)


def with_names(frame: pd.DataFrame, path: Path, options: ReadOptions) -> pd.DataFrame:
    """The frame with a name for each column: numbers from 1 for a file without header.

    Raises:
        InputError: more fields in a row than the header has names.
    """
    if not isinstance(frame.index, pd.RangeIndex):
        other = _other_separator(path, options)
        raise InputError(f"{path}: row 1 has more fields than the header has names; name every column{other}")
    if not options.header:
        frame.columns = [str(number + 1) for number in range(frame.shape[1])]
    return frame


def suffix_of(path: Path) -> str:
    """The file type: ``.csv`` of ``clicks.csv.gz``."""
    return Path(path.name.removesuffix(".gz")).suffix.lower()


@contextmanager
def readable(path: Path, options: ReadOptions) -> Iterator[None]:
    """Within it, errors of a file that is not a readable table are InputErrors with their remedy."""
    try:
        yield
    except InputError:
        raise
    except pd.errors.EmptyDataError:
        raise InputError(f"{path}: the file is empty; nothing to read") from None
    except (ValueError, OSError, EOFError, NotImplementedError, LookupError, zlib.error) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        remedy = "save it as UTF-8 CSV, TSV or Parquet, or name its encoding (encoding, --encoding)"
        if isinstance(error, pd.errors.ParserError):
            remedy = "correct the line, or drop such rows (drop_bad_rows, --drop-bad-rows)"
            remedy += _other_separator(path, options)
        raise InputError(f"{path}: not a readable table ({reason}); {remedy}") from None


def _parquet(path: Path) -> pd.DataFrame:
    """A Parquet table, with all of its text decoded.

    Raises:
        InputError: pyarrow is not installed.
        ValueError: a file that cannot be read, or text that is not UTF-8.
    """
    try:
        from pyarrow.lib import ArrowException
    except ImportError:
        raise InputError(f"{path}: Parquet needs pyarrow; pip install 'graphmeta[large]'") from None
    try:
        frame = pd.read_parquet(path).reset_index(drop=True)
        for _, values in frame.items():
            if isinstance(values.dtype, pd.StringDtype):
                values.to_numpy(dtype=object)
    except (ArrowException, UnicodeDecodeError) as error:
        detail = str(error).encode("ascii", "replace").decode()
        wrong_text = "Wrapping" in detail or isinstance(error, UnicodeDecodeError)
        raise ValueError("it contains text that is not UTF-8" if wrong_text else detail) from None
    return frame


def separator_of(path: Path, options: ReadOptions) -> str:
    """The separator of a text file: the one that is given, or that of its first line."""
    if options.sep is not None:
        return options.sep
    usual = _SEPARATORS.get(suffix_of(path), ",")
    return likely_separator(_first_line(path, options), usual) or usual


def _text_table(path: Path, options: ReadOptions) -> pd.DataFrame:
    separator = separator_of(path, options)
    given: dict[str, Any] = {"dtype": str, "keep_default_na": False, "na_values": [""], "sep": separator}
    given["header"] = "infer" if options.header else None
    source: Path | StringIO = path
    if len(separator) > 1:
        source = StringIO(_decoded(path, options.encoding).replace(separator, _UNUSED))
        given |= {"sep": _UNUSED, "quoting": csv.QUOTE_NONE}
    elif options.encoding:
        given["encoding"] = options.encoding
    if not options.drop_bad_rows:
        return pd.read_csv(source, **given)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        frame = pd.read_csv(source, on_bad_lines="warn", **given)
    skipped = re.findall(r"[Ss]kipping line (\d+)", "\n".join(str(one.message) for one in found))
    if skipped:
        warnings.warn(
            f"{path.name}: dropped, because they have more fields than the table: {counted(len(skipped), 'line')} "
            f"(the first: line {skipped[0]})",
            stacklevel=2,
        )
    return frame


def _first_line(path: Path, options: ReadOptions) -> str:
    return str(pd.read_csv(path, sep="\0", nrows=0, encoding=options.encoding).columns[0])


def _other_separator(path: Path, options: ReadOptions) -> str:
    """A remedy for a given separator, if the first line seems to have another one."""
    if options.sep is None:
        return ""
    line = _first_line(path, options)
    if (first := likely_separator(line, options.sep, rare="~ ")) == options.sep:
        first = likely_separator(line.replace(options.sep, ""), rare="~")
    return f"; {separator_remedy(first)}" if first is not None else ""


def _decoded(path: Path, encoding: str) -> str:
    content = path.read_bytes()
    return (gzip.decompress(content) if path.name.endswith(".gz") else content).decode(encoding)
