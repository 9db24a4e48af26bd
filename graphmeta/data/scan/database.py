"""A DuckDB database in a temporary folder, with bounded memory."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch

from graphmeta.errors import InputError

_UNITS = {"kb": 2**10, "mb": 2**20, "gb": 2**30, "kib": 2**10, "mib": 2**20, "gib": 2**30, "": 1, "b": 1}
_LEAST = 2**27  # bytes; DuckDB cannot sort with less
_PER_THREAD = 2**28
CHUNK = 2**19  # rows fetched at a time


def bytes_of(memory: str | int) -> int:
    """A number of bytes, from a number or a text such as "2GB" (1 GB = 2^30 bytes).

    Raises:
        InputError: text without a number, an unknown unit, or less than 256 MB.

    >>> bytes_of("1.5 GB") == 3 * 2**29
    True
    """
    found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kmg]i?b|b)?\s*", str(memory), re.IGNORECASE)
    if found is None:
        raise InputError(f"memory={memory!r} is no size; write '2GB' or '512MB'")
    size = int(float(found[1]) * _UNITS[(found[2] or "").lower()])
    if size < 2 * _LEAST:
        raise InputError(f"memory={memory!r} is too little to sort a log in; give at least '256MB'")
    return size


def available() -> int:
    """Half of the memory that is available on this machine, within the limit of its control group; in bytes."""
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        if os.path.exists(path):
            with open(path) as file:
                text = file.read().strip()
            free = min(free, int(text)) if text.isdigit() else free
    return max(free // 2, 2 * _LEAST)


class Database:
    """A database whose tables are on disk in a temporary folder, which is removed with the object.

    Args:
        memory: bytes that DuckDB may use; it spills to disk beyond.

    Raises:
        InputError: duckdb is not installed.
    """

    def __init__(self, memory: int) -> None:
        try:
            import duckdb  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise InputError("scanning a log needs duckdb; pip install 'graphmeta[large]'") from None
        self.error = duckdb.Error
        folder = tempfile.mkdtemp(prefix="graphmeta-scan-")
        self._numbers = itertools.count()
        limit = max(memory, _LEAST)
        self._connection = duckdb.connect(
            f"{folder}/log.duckdb",
            config={
                "memory_limit": f"{limit // 2**20}MiB",
                "temp_directory": f"{folder}/spill",
                "threads": max(1, min(torch.get_num_threads(), limit // _PER_THREAD)),
                "preserve_insertion_order": True,
            },
        )
        weakref.finalize(self, _remove, self._connection, folder)
        self.run("SET TimeZone = 'UTC'")
        self.run("SET enable_progress_bar = false")

    def run(self, sql: str, *values: Any) -> Any:
        """Run a statement; ``?`` in it are the values."""
        return self._connection.execute(sql, list(values))

    def row(self, sql: str, *values: Any) -> tuple[Any, ...]:
        """The first row of the result."""
        return self.run(sql, *values).fetchall()[0]

    def value(self, sql: str, *values: Any) -> Any:
        """The first value of the result."""
        return self.row(sql, *values)[0]

    def arrays(self, sql: str, *values: Any) -> dict[str, np.ndarray]:
        """The columns of the result."""
        return {name: np.ma.getdata(found) for name, found in self.run(sql, *values).fetchnumpy().items()}

    def frame(self, sql: str, *values: Any) -> pd.DataFrame:
        """The result as a frame."""
        return self.run(sql, *values).df()

    def frames(self, sql: str, rows: int = CHUNK) -> Iterator[pd.DataFrame]:
        """The result in frames of about so many rows; other statements may run between."""
        cursor = self._connection.cursor()
        cursor.execute("SET TimeZone = 'UTC'")
        found = cursor.execute(sql)
        while len(frame := found.fetch_df_chunk(max(rows // 2048, 1))):
            yield frame

    def types(self, source: str) -> dict[str, str]:
        """The type of each column of a table or table function."""
        return {str(name): str(kind) for name, kind, *_ in self.run(f"DESCRIBE SELECT * FROM {source}").fetchall()}

    def table(self, sql: str, *, stem: str = "t") -> str:
        """A new table with the rows of a query, in their order; returns its name."""
        name = f"{stem}_{next(self._numbers)}"
        self.run(f"CREATE TABLE {name} AS {sql}")
        return name

    def stored(self, columns: dict[str, np.ndarray], *, stem: str = "a") -> str:
        """A new table with these arrays as columns; returns its name."""
        name = f"{stem}_{next(self._numbers)}"
        frame = pd.DataFrame(columns)
        self._connection.register("given_frame", frame)
        try:
            self.run(f"CREATE TABLE {name} AS SELECT * FROM given_frame")
        finally:
            self._connection.unregister("given_frame")
        return name

    def append(self, table: str, columns: dict[str, np.ndarray]) -> None:
        """Append these arrays to a table."""
        self._connection.register("given_frame", pd.DataFrame(columns))
        try:
            self.run(f"INSERT INTO {table} SELECT * FROM given_frame")
        finally:
            self._connection.unregister("given_frame")

    def drop(self, *tables: str) -> None:
        """Remove tables."""
        for name in tables:
            self.run(f"DROP TABLE IF EXISTS {name}")


def _remove(connection: Any, folder: str) -> None:
    connection.close()
    shutil.rmtree(folder, ignore_errors=True)


def quoted(name: str) -> str:
    """A column name in SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text in SQL."""
    return "'" + text.replace("'", "''") + "'"
