"""Counts of pairs of items, summed over the shards of a log on disk."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from graphmeta.data.scan.database import Database
from graphmeta.data.scan.log import ScannedLog

if TYPE_CHECKING:
    from graphmeta.data.events import EventLog

_AT_ONCE = 4_000_000  # pairs


def parts_of(log: EventLog | ScannedLog) -> Iterator[EventLog]:
    """The shards of a log on disk; the log itself if it is in memory."""
    if isinstance(log, ScannedLog):
        yield from log.shards()
    else:
        yield log


class PairCounts:
    """Sums of counts of pairs ``first · items + second``, on disk.

    Args:
        log: whose database holds them.
    """

    def __init__(self, log: ScannedLog) -> None:
        self._db: Database = log.db
        self._items = max(log.num_items, 1)
        self._table = self._db.table("SELECT CAST(0 AS BIGINT) AS k, CAST(0 AS BIGINT) AS n WHERE false", stem="pairs")

    def add(self, pair: np.ndarray, count: np.ndarray) -> None:
        """Add the counts of different pairs."""
        if len(pair):
            self._db.append(self._table, {"k": pair, "n": count.astype(np.int64)})

    def blocks(self) -> Iterator[tuple[range, np.ndarray, np.ndarray]]:
        """Ranges of first items that cover all of them, their pairs, sorted, and the counts of these; some million
        pairs at a time.
        """
        rows = self._db.arrays(f"SELECT k // {self._items} AS i, count(*) AS n FROM {self._table} GROUP BY i")
        work = np.bincount(rows["i"], rows["n"], minlength=self._items)
        block = np.cumsum(work) // _AT_ONCE
        bounds = [0, *(np.flatnonzero(np.diff(block)) + 1).tolist(), self._items]
        for begin, end in zip(bounds[:-1], bounds[1:], strict=True):
            yield range(begin, end), *self.between(begin, end)

    def between(self, begin: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        """The pairs of the first items from ``begin`` to ``end``, sorted, and their counts."""
        found = self._db.arrays(
            f"SELECT k, CAST(sum(n) AS BIGINT) AS n FROM {self._table} WHERE k >= {begin * self._items} AND k < "
            f"{end * self._items} GROUP BY k ORDER BY k"
        )
        return found["k"], found["n"]

    def drop(self) -> None:
        """Remove the table."""
        self._db.drop(self._table)
