"""Tables in chunks of rows, so that files larger than the memory can be read."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from graphmeta.data.column_types.values import text
from graphmeta.data.columns import column
from graphmeta.data.read_options import ReadOptions, Table
from graphmeta.data.table_files import readable, separator_of, suffix_of, with_names
from graphmeta.errors import InputError


def chunks(table: Table, rows: int, *, wanted: Callable[[str], bool] | None = None) -> Iterator[pd.DataFrame]:
    """The rows of a CSV, TSV or Parquet file (``.gz`` too) or of a frame, at most ``rows`` at a time.

    Types, missing values and row numbers (the index) are those of
    :func:`~graphmeta.data.table_files.read_frame`; conditions (``where``) are applied. A chunk may be empty.

    Args:
        wanted: which columns to read, by name, beside those of the conditions; all if not given, or without header.

    Raises:
        InputError: a missing or empty file, or one that is not a table.
    """
    options = table.options
    kept = None if wanted is None or not options.header else partial(_is_read, wanted, options)
    if isinstance(table.source, pd.DataFrame):
        whole = table.source.reset_index(drop=True)
        found: Iterator[pd.DataFrame] = (whole.iloc[at : at + rows] for at in range(0, len(whole), rows))
    else:
        found = _of_file(Path(table.source), table, rows, kept)
    for frame in found:
        selected = np.ones(len(frame), dtype=bool)
        for name, values in options.where.items():
            own = text(column(frame, name, "condition (where, --where)"))
            selected &= own.isin([str(value) for value in values]).to_numpy(dtype=bool)
        yield frame if selected.all() else frame.loc[selected]


def _is_read(wanted: Callable[[str], bool], options: ReadOptions, name: str) -> bool:
    return wanted(name) or name in options.where


def _of_file(path: Path, table: Table, rows: int, kept: Callable[[str], bool] | None) -> Iterator[pd.DataFrame]:
    if not path.is_file():
        raise InputError(f"{path}: no such file; check the path")
    options, begin = table.options, 0
    with readable(path, options):
        parquet = suffix_of(path) in (".parquet", ".pq")
        for frame in _parquet(path, rows, kept) if parquet else _text(path, table, rows, kept):
            frame = with_names(frame, path, options)
            frame.index = pd.RangeIndex(begin, begin + len(frame))
            begin += len(frame)
            yield frame
    if begin == 0:
        raise InputError(f"{path}: the file has a header but no rows; nothing to read")


def _parquet(path: Path, rows: int, kept: Callable[[str], bool] | None) -> Iterator[pd.DataFrame]:
    try:
        from pyarrow.lib import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise InputError(f"{path}: Parquet needs pyarrow; pip install 'graphmeta[large]'") from None

    try:
        with ParquetFile(path) as file:
            names = [name for name in file.schema_arrow.names if kept is None or kept(name)]
            for batch in file.iter_batches(rows, columns=names):
                yield batch.to_pandas().reset_index(drop=True)
    except (ArrowException, UnicodeDecodeError) as error:
        raise ValueError(str(error).encode("ascii", "replace").decode()) from None


def _text(path: Path, table: Table, rows: int, kept: Callable[[str], bool] | None) -> Iterator[pd.DataFrame]:
    options = table.options
    separator = separator_of(path, options)
    given: dict[str, Any] = {"dtype": str, "keep_default_na": False, "na_values": [""], "chunksize": rows}
    given |= {"header": "infer" if options.header else None, "encoding": options.encoding or None}
    if len(separator) > 1:
        given |= {"sep": re.escape(separator), "engine": "python", "quoting": csv.QUOTE_NONE}
    else:
        given["sep"] = separator
    if kept is not None:
        given["usecols"] = kept
    if options.drop_bad_rows:
        given["on_bad_lines"] = "skip"
    with pd.read_csv(path, **given) as file:
        yield from file
