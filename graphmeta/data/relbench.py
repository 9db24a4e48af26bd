"""RelBench databases: a folder of Parquet tables with their keys in ``manifest.yaml``, and tasks on them.

The format is that of relbench 3 (Robinson et al. 2024): ``db/<table>.parquet``; primary keys are row numbers; the
manifest names keys, time columns, and the times after which validation and test begin; ``tasks/<name>/manifest.yaml``
defines a task.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from graphmeta.data.events import EventLog
from graphmeta.data.relbench_export import TASK as TASK
from graphmeta.data.relbench_export import to_relbench as to_relbench
from graphmeta.data.relbench_files import KINDS, entities, read_manifest, task_manifest
from graphmeta.data.table_files import read_frame
from graphmeta.data.windows import DAY, next_days
from graphmeta.errors import InputError


@dataclass(frozen=True)
class RecommendationTask:
    """A recommendation task: for users at a time, the items of the ``days`` after it, ranked by MAP@``k``.

    ``known`` has the events until the test time, ``test`` one session for each labelled user, which begins right after
    it; ``valid_known`` and ``valid`` the same at the validation time. All have the items of the whole database:
    ``evaluate_next_basket(model, task.test, history=task.known, ks=(task.k,))``.
    """

    name: str
    k: int
    days: float
    valid_known: EventLog
    valid: EventLog
    known: EventLog
    test: EventLog


def from_relbench(folder: str | Path, *, task: str | None = None, until: str | None = "test") -> EventLog:
    """The events of a RelBench database between the users and items of a recommendation task, as a log.

    The table of events is the one with a time column and foreign keys to both. Its sessions are those of a foreign key
    to a table ``sessions``; without one, a user's events at one time are a session. Events without an item or a time,
    and without a session or user, are left out. The log has all items and users of the database, with or without
    events. Of their columns, numbers are read as numeric, and others with at most a thousand values as categories; a
    database of :func:`to_relbench` has its types.

    Args:
        task: whose users and items; the database's only task if not given.
        until: ``"val"`` or ``"test"``, the last time that is read, or None for all events.

    Raises:
        InputError: a folder that is not such a database, an unknown task or ``until``, no table of events or several.
    """
    about, spec = read_manifest(Path(folder) / "manifest.yaml"), task_manifest(Path(folder), task)
    if until not in ("val", "test", None):
        raise InputError(f'until={until!r} must be "val", "test" or None for all events')
    log = _whole_log(Path(folder), about, spec)
    if until is None:
        return log
    return log.select(log.time <= _seconds(about[f"{until}_timestamp"])).aligned_to(log.items, log.users)


def relbench_task(folder: str | Path, *, task: str | None = None) -> RecommendationTask:
    """A recommendation task of a RelBench database, with its labels.

    Labels are those of ``tasks/<task>/val.parquet`` and ``test.parquet``; without these files, the items of each user's
    events in ``(time, time + timedelta]``.

    Raises:
        InputError: as :func:`from_relbench`.
    """
    folder = Path(folder)
    about, spec = read_manifest(folder / "manifest.yaml"), task_manifest(folder, task)
    log, days = _whole_log(folder, about, spec), pd.Timedelta(spec["timedelta"]).total_seconds() / DAY
    parts: list[EventLog] = []
    for part in ("val", "test"):
        at = _seconds(about[f"{part}_timestamp"])
        labels = folder / "tasks" / spec["name"] / f"{part}.parquet"
        if labels.is_file():
            known = log.select(log.time <= at).aligned_to(log.items, log.users)
            parts += [known, _labelled(log, read_frame(labels), spec, at)]
        else:
            parts += next_days(log, at=at, days=days)
    return RecommendationTask(spec["name"], int(spec["eval_k"]), days, *parts)


def _labelled(log: EventLog, labels: pd.DataFrame, spec: dict[str, Any], at: float) -> EventLog:
    """A session right after the time for each row of a table of labels, whose keys are rows of users and items."""
    lists = [np.unique(np.asarray(items, dtype=np.int64)) for items in labels[spec["dst_entity_col"]]]
    session = np.repeat(np.arange(len(lists)), [len(one) for one in lists])
    return EventLog(
        session=session,
        item=np.concatenate([np.zeros(0, np.int64), *lists]),
        time=np.full(len(session), np.nextafter(at, np.inf)),
        sessions=np.arange(len(lists)),
        items=log.items,
        users=log.users,
        session_user=labels[spec["src_entity_col"]].to_numpy(dtype=np.int64),
    )


def _whole_log(folder: Path, about: dict[str, Any], spec: dict[str, Any]) -> EventLog:
    """All events, with all users and items."""
    tables = about["tables"]
    users, items = (entities(folder, about, spec[f"{end}_entity_table"]) for end in ("src", "dst"))
    name, of_user, of_item = _events(folder, tables, spec["src_entity_table"], spec["dst_entity_table"])
    rows, time = read_frame(folder / "db" / f"{name}.parquet"), tables[name]["time_col"]
    visit = next((key for key, table in tables[name]["fkeys"].items() if table == "sessions"), None)
    rows = rows.dropna(subset=[of_item, time, of_user if visit is None else visit])
    if rows.empty:
        raise InputError(f"{folder}: no row of {name!r} has a user, an item and a time")
    user = _keys(rows, of_user)
    frame = pd.DataFrame({"time": np.asarray(rows[time]).astype("datetime64[us]").astype(np.int64) / 1e6})
    frame["item"] = items.ids[_keys(rows, of_item)]
    frame["user"] = pd.Series([*users.ids.tolist(), None], dtype=object).to_numpy()[user]
    if visit is None:
        frame["session"] = pd.factorize(pd.MultiIndex.from_arrays([user, frame["time"]]))[0]
    else:
        known = read_frame(folder / "db" / "sessions.parquet")
        ids = np.asarray(known["id" if KINDS in about else tables["sessions"]["pkey"]])
        frame["session"] = ids[_keys(rows, visit)]
    value = "value" if KINDS in about and "value" in rows else None
    if value is not None:
        frame[value] = np.asarray(rows[value], dtype=np.float64)
    log = EventLog.read(frame, session="session", item="item", user="user", time="time", value=value)
    return log.aligned_to(items, users)


def _keys(rows: pd.DataFrame, key: str) -> np.ndarray:
    """A foreign key as row numbers, -1 where it is missing."""
    return np.asarray(pd.Series(rows[key]).astype("Float64").fillna(-1.0), dtype=np.int64)


def _events(folder: Path, tables: dict[str, Any], users: str, items: str) -> tuple[str, str, str]:
    """The table of events between users and items, and its foreign keys to both."""
    found = []
    for name, table in tables.items():
        keys = {target: key for key, target in table["fkeys"].items()}
        if table["time_col"] is not None and users in keys and items in keys:
            found.append((name, keys[users], keys[items]))
    if len(found) != 1:
        names = f"several: {', '.join(one[0] for one in found)}" if found else "none"
        raise InputError(
            f"{folder}: one table must have a time and foreign keys to {users!r} and {items!r}; there is {names}; "
            f"choose a task of other tables"
        )
    return found[0]


def _seconds(stamp: str) -> float:
    """A time of a manifest in seconds since 1970."""
    return float(np.datetime64(stamp, "us").astype(np.int64)) / 1e6
