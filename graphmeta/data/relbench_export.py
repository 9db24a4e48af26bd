"""Write a log as a RelBench database."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from graphmeta.data.events import EventLog
from graphmeta.data.relbench_files import KINDS, frame_of, write_manifest, write_table
from graphmeta.data.splits import check_log
from graphmeta.data.windows import DAY
from graphmeta.errors import InputError, check_number, check_whole

TASK = "user-item-purchase"
_SQL = """SELECT t.timestamp AS "timestamp", e."user", LIST(DISTINCT e.item) AS item
FROM timestamps t JOIN events e ON e."time" > t.timestamp AND e."time" <= t.timestamp + INTERVAL '{timedelta}'
WHERE e."user" IS NOT NULL
GROUP BY t.timestamp, e."user\""""


def to_relbench(log: EventLog, folder: str | Path, *, days: float = 7.0, k: int = 12) -> Path:
    """Write a log as a RelBench database, with the task of each user's items in the next days.

    Tables: ``events`` (session, user, item, time and value), ``sessions`` (user and start), ``users`` and ``items``,
    each with the original ids (``id``) and columns. The test begins ``days`` before the last event, in whole seconds,
    validation as long before the last event until then. RelBench's loader cuts events and sessions at these times;
    items and users have no time. Times are rounded to microseconds.

    Args:
        days: length of the task's window.
        k: of its MAP.

    Raises:
        InputError: a log without users or times, shorter than five windows, or pyarrow is not installed.

    Source: Robinson et al., RelBench: A Benchmark for Deep Learning on Relational Databases, 2024.
    """
    check_log("to_relbench", log)
    check_number("days", days, 1e-6)
    check_whole("k", k, 1)
    if log.users is None or log.session_user is None or not log.has_time:
        raise InputError("a RelBench database needs users and times; name their columns when reading the log")
    folder, first = Path(folder), log.time.min(initial=np.inf)
    test = float(np.floor(log.time.max(initial=-np.inf) - days * DAY))
    valid = float(np.floor(log.time[log.time <= test].max(initial=-np.inf) - days * DAY))
    if valid - 3 * days * DAY < first:
        raise InputError(
            f"the log must be longer than {5 * days:g} days: windows of {days:g} days for test, validation and three "
            f"times of training; pass smaller days="
        )
    for name, (rows, _) in (tables := _tables(log)).items():
        write_table(rows, folder / "db" / f"{name}.parquet")
    write_manifest(
        {
            "name": folder.name,
            "manifest_version": 1,
            "description": "Written by graphmeta.",
            "val_timestamp": str(_stamps(np.array(valid))),
            "test_timestamp": str(_stamps(np.array(test))),
            "tables": {name: spec for name, (_, spec) in tables.items()},
            KINDS: {
                "items": {name: column.kind for name, column in log.items.columns.items()},
                "users": {name: column.kind for name, column in log.users.columns.items()},
            },
        },
        folder / "manifest.yaml",
    )
    write_manifest(
        {
            "name": TASK,
            "kind": "forecast",
            "task_type": "recommendation",
            "description": f"The items of each user's events in the next {days:g} days.",
            "time_col": "timestamp",
            "src_entity_table": "users",
            "src_entity_col": "user",
            "dst_entity_table": "items",
            "dst_entity_col": "item",
            "eval_k": k,
            "timedelta": f"{round(days * DAY)} seconds",
            "sql": _SQL,
            "manifest_version": 1,
        },
        folder / "tasks" / TASK / "manifest.yaml",
    )
    return folder


def _tables(log: EventLog) -> dict[str, tuple[pd.DataFrame, dict[str, Any]]]:
    """The tables of a log, rows in the order of their times, and their keys for the manifest."""
    assert log.users is not None and log.session_user is not None

    def user(number: np.ndarray) -> pd.Series:
        return pd.Series(number, dtype="Int64").mask(number < 0)

    events = {"session": log.session, "user": user(log.session_user[log.session]), "item": log.item}
    events |= {"time": _stamps(log.time)} | ({} if log.value is None else {"value": log.value})
    sessions = {"session": np.arange(log.num_sessions), "id": log.sessions, "user": user(log.session_user)}
    fkeys = {"session": "sessions", "user": "users", "item": "items"}
    return {
        "events": (
            pd.DataFrame(events).iloc[np.argsort(log.time, kind="stable")],
            {"pkey": None, "time_col": "time", "fkeys": fkeys},
        ),
        "sessions": (
            pd.DataFrame({**sessions, "start": _stamps(log.starts)}),
            {"pkey": "session", "time_col": "start", "fkeys": {"user": "users"}},
        ),
        "users": (frame_of(log.users, "user"), {"pkey": "user", "time_col": None, "fkeys": {}}),
        "items": (frame_of(log.items, "item"), {"pkey": "item", "time_col": None, "fkeys": {}}),
    }


def _stamps(seconds: np.ndarray) -> np.ndarray:
    """Times to the microsecond."""
    return np.round(seconds * 1e6).astype(np.int64).astype("datetime64[us]")
