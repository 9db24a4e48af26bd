"""The tables of a log on disk, and what is read of them: sizes, columns, shards."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from graphmeta.data.row_checks import check_items
from graphmeta.data.scan.assembly import Tables
from graphmeta.data.scan.database import CHUNK, Database
from graphmeta.data.tables import EntityTable
from graphmeta.errors import counted

if TYPE_CHECKING:
    from graphmeta.data.events import EventLog

PER_EVENT = 200  # bytes of an event of a shard: its columns, and the samples of a batch sampler
_MIX = 2654435761  # Knuth's multiplicative hash


@dataclass(frozen=True, eq=False, repr=False)
class StoredLog:
    """A log whose events are in a DuckDB file, see :class:`~graphmeta.data.scan.log.ScannedLog`.

    Args:
        db: the database.
        tables: see :class:`~graphmeta.data.scan.assembly.Tables`.
        items, users: the tables of the log.
        item_of, user_of: the index of each code there, -1 for none.
        memory: bytes that a shard may take.
        make: builds the in-memory log of arrays.
    """

    db: Database
    tables: Tables
    items: EntityTable
    users: EntityTable | None
    item_of: np.ndarray
    user_of: np.ndarray | None
    memory: int
    make: Callable[..., EventLog]

    @property
    def has_time(self) -> bool:
        """Whether times are seconds, not row numbers."""
        return self.tables.has_time

    @cached_property
    def num_events(self) -> int:
        """Number of events."""
        return self.db.value(f"SELECT count(*) FROM {self.tables.events}")

    @cached_property
    def num_sessions(self) -> int:
        """Number of sessions."""
        return self.db.value(f"SELECT count(*) FROM {self.tables.sessions}")

    @property
    def num_items(self) -> int:
        """Number of items in the vocabulary."""
        return len(self.items)

    def __repr__(self) -> str:
        return (
            f"ScannedLog: {counted(self.num_events, 'event')}, {counted(self.num_sessions, 'session')}, "
            f"{counted(self.num_items, 'item')}, on disk; {counted(self.num_shards, 'shard')}"
        )

    @cached_property
    def support(self) -> np.ndarray:
        """Number of events of each item, ``[num_items]``."""
        return self.support_since(0)

    def session_id(self, session: int) -> Any:
        """The original id of a session."""
        return self._session_ids(self.db.frame(f"SELECT id, u, n FROM {self.tables.sessions} WHERE rowid = {session}"))[
            0
        ]

    def support_since(self, session: int) -> np.ndarray:
        """Number of events of each item in this session and those after it, ``[num_items]``."""
        found = self.db.arrays(f"SELECT i, count(*) AS n FROM {self.tables.events} WHERE s >= {session} GROUP BY i")
        row = self.item_of[found["i"]]
        return np.bincount(row[row >= 0], found["n"][row >= 0], minlength=self.num_items).astype(np.int64)

    @cached_property
    def starts(self) -> np.ndarray:
        """Time of each session's first event, ``[S]``, non-decreasing."""
        return self.db.arrays(f"SELECT start FROM {self.tables.sessions} ORDER BY rowid")["start"]

    @property
    def session_user(self) -> np.ndarray | None:
        """The user of each session, ``[S]``, -1 if unknown; None for a log without users."""
        if self.user_of is None:
            return None
        codes = self.db.arrays(f"SELECT u FROM {self.tables.sessions} ORDER BY rowid")["u"]
        return np.append(self.user_of, -1)[codes]

    def must_have(self, items: int) -> None:
        """Check the number of items.

        Raises:
            InputError: the log has another number of items.
        """
        check_items(self.num_items, items)

    def fingerprint(self) -> str:
        """The hash of :meth:`EventLog.fingerprint <graphmeta.data.events.EventLog.fingerprint>`."""
        digest = hashlib.sha256()
        for column, kind in (("s", np.int64), ("i", np.int64), ("t", np.float64)):
            for part in self._column(column, kind):
                digest.update(part.tobytes())
        users = self.session_user
        digest.update(b"-" if users is None else users.tobytes())
        for part in self._column("v", np.float64) if self.tables.has_value else ():
            digest.update(part.tobytes())
        digest.update(b"" if self.tables.has_value else b"-")
        for table in (self.items, self.users):
            digest.update(b"-" if table is None else table.fingerprint())
        return digest.hexdigest()[:16]

    def _column(self, name: str, kind: type) -> Iterator[np.ndarray]:
        """A column of all events, in chunks; items as indices."""
        for begin in range(0, self.num_events, CHUNK):
            span = f"rowid >= {begin} AND rowid < {begin + CHUNK}"
            part = self.db.arrays(f"SELECT {name} AS c FROM {self.tables.events} WHERE {span} ORDER BY rowid")["c"]
            yield self.item_of[part] if name == "i" else part.astype(kind, copy=False)

    # In memory

    @property
    def fits_memory(self) -> bool:
        """Whether the log can be collected within its memory."""
        return self.num_shards == 1

    @cached_property
    def num_shards(self) -> int:
        """Number of shards, each of which fits the memory."""
        return max(1, math.ceil(self.num_events * PER_EVENT / self.memory))

    def shard_sizes(self, *, seed: int = 0) -> np.ndarray:
        """Number of events of each shard."""
        found = self.db.arrays(f"SELECT {self._shard(seed)} AS k, count(*) AS n FROM {self.tables.events} GROUP BY k")
        return np.bincount(found["k"], found["n"], minlength=self.num_shards).astype(np.int64)

    def shards(self, *, seed: int = 0) -> Iterator[EventLog]:
        """Logs of disjoint sessions, with the items and users of the whole, that fit the memory one at a time.

        The sessions of a user are in one shard, and other sessions are distributed at random; the distribution depends
        on ``seed``. A single shard is the whole log.
        """
        for number in range(self.num_shards):
            yield self.shard(number, seed=seed)

    def shard(self, number: int, *, seed: int = 0) -> EventLog:
        """One of :meth:`shards`."""
        if self.num_shards == 1:
            return self.collect()
        chosen = f"{self._shard(seed)} = {number}"
        numbered = f"(SELECT rowid AS s, id, u, n FROM {self.tables.sessions})"
        sessions = self.db.frame(f"SELECT * FROM {numbered} WHERE {chosen} ORDER BY s")
        events = self.db.arrays(f"SELECT s, i, t, v FROM {self.tables.events} WHERE {chosen} ORDER BY rowid")
        return self._made(events, sessions)

    def collect(self) -> EventLog:
        """The whole log in memory."""
        both = np.empty((2, self.num_events), dtype=np.int64)
        columns: dict[str, np.ndarray] = {"s": both[0], "i": both[1], "t": np.empty(self.num_events)}
        if self.tables.has_value:
            columns["v"] = np.empty(self.num_events)
        for begin in range(0, self.num_events, CHUNK):
            span = f"rowid >= {begin} AND rowid < {begin + CHUNK}"
            part = self.db.arrays(f"SELECT {', '.join(columns)} FROM {self.tables.events} WHERE {span} ORDER BY rowid")
            for name, values in columns.items():
                values[begin : begin + len(part[name])] = self.item_of[part[name]] if name == "i" else part[name]
        ids = self.db.frame(f"SELECT id, u, n FROM {self.tables.sessions} ORDER BY rowid")
        return self._log_of(columns, ids)

    def _made(self, events: dict[str, np.ndarray], sessions: Any) -> EventLog:
        """The log of some sessions."""
        number = sessions["s"].to_numpy()
        columns = {
            "s": np.searchsorted(number, events["s"]).astype(np.int64),
            "i": self.item_of[events["i"]],
            "t": events["t"],
            "v": events["v"],
        }
        return self._log_of(columns, sessions)

    def _log_of(self, columns: dict[str, np.ndarray], sessions: Any) -> EventLog:
        user = None if self.user_of is None else np.append(self.user_of, -1)[sessions["u"].to_numpy()]
        return self.make(
            session=columns["s"],
            item=columns["i"],
            time=columns["t"],
            sessions=self._session_ids(sessions),
            items=self.items,
            users=self.users,
            session_user=user,
            value=columns["v"] if self.tables.has_value else None,
            has_time=self.has_time,
        )

    def _session_ids(self, sessions: Any) -> np.ndarray:
        """The ids of sessions."""
        if self.tables.owners is not None:
            names = self.tables.owners[sessions["u"].to_numpy()]
            return np.array([f"{name}#{n}" for name, n in zip(names, sessions["n"], strict=True)], dtype=object)
        ids = sessions["id"]
        return ids.to_numpy(dtype=np.int64 if ids.dtype.kind == "i" else object)

    def _shard(self, seed: int) -> str:
        """The SQL of an event's shard, of its user, or its session if that is unknown."""
        owner = "CAST(CASE WHEN u >= 0 THEN u ELSE s END AS BIGINT)"
        odd = 2 * (seed % 2**16) + 1
        mixed = f"((({owner} + {odd}) * {_MIX}) & 4294967295)"
        return f"(xor({mixed}, {mixed} >> 15) & 65535) * {self.num_shards} >> 16"
