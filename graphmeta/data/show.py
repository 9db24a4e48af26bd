"""Display of an event log: three lines of text, a small HTML table, and a frame with original ids."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from graphmeta.errors import counted

if TYPE_CHECKING:
    from graphmeta.data.events import EventLog


def facts(log: EventLog) -> dict[str, str]:
    """Size, time span and columns of a log as text."""
    users = "" if log.users is None else f", {counted(len(log.users), 'user')}"
    length = f"; {log.num_events / log.num_sessions:.1f} events a session" if log.num_sessions else ""
    return {
        "size": f"{counted(log.num_events, 'event')} in {counted(log.num_sessions, 'session')}, "
        f"{counted(log.num_items, 'item')}{users}{length}",
        "time": _span(log),
        "columns": "; ".join(_columns(log)),
    }


def text(log: EventLog) -> str:
    """Size, time span and columns of the log in three lines of text."""
    found = facts(log)
    return f"EventLog: {found['size']}\n  time: {found['time']}\n  columns: {found['columns']}"


def html(log: EventLog) -> str:
    """The same as an HTML table, with the first events."""
    rows = "".join(f"<tr><th>{name}</th><td>{escape(value)}</td></tr>" for name, value in facts(log).items())
    first = log.of_sessions(np.arange(log.num_sessions) < 2)
    return f"<table>{rows}</table>{frame(first).head(5).to_html(index=False, border=0)}"


def frame(log: EventLog) -> pd.DataFrame:
    """One row per event with original ids, see :meth:`EventLog.to_frame <graphmeta.data.events.EventLog.to_frame>`."""
    columns = {"session": log.sessions[log.session], "item": log.items.ids[log.item]}
    if log.has_time:
        columns["time"] = log.time
    if log.users is not None and log.session_user is not None:
        user = log.session_user[log.session]
        ids = np.array([*log.users.ids, None], dtype=object)  # the last one is for unknown users
        columns["user"] = ids[user] if (user < 0).any() else log.users.ids[user]
    if log.value is not None:
        columns["value"] = log.value
    return pd.DataFrame(columns)


def _span(log: EventLog) -> str:
    if not log.has_time:
        return "none; events are in the order of their rows"
    if log.num_events == 0:
        return "no event"
    first, last = float(log.time.min()), float(log.time.max())
    try:
        return " to ".join(f"{pd.Timestamp(at, unit='s'):%Y-%m-%d %H:%M}" for at in (first, last)) + " (UTC)"
    except (ValueError, OverflowError):
        return f"{first:g} to {last:g} seconds"


def _columns(log: EventLog) -> list[str]:
    """Which columns events, items and users have."""
    own = ["session", "item", *["time"] * log.has_time, *["user"] * (log.session_user is not None)]
    found = [", ".join([*own, *["value"] * (log.value is not None)])]
    for name, table in (("items", log.items), ("users", log.users)):
        names = [] if table is None else list(table.columns)
        if names:
            found.append(f"{name}: {', '.join(names)}")
    return found
