"""The columns of a file that hold sessions, items, times and attributes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from graphmeta.data.events import EventLog, Inactivity
from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError


@dataclass(frozen=True)
class Columns:
    """Column names of an event file, and the inactivity in seconds that ends a session without a session column."""

    item: str
    session: str | None = None
    time: str | None = None
    user: str | None = None
    inactivity_seconds: float = 3600.0

    def read(self, events: Path, *, items: EntityTable | None = None, users: EntityTable | None = None) -> EventLog:
        """Read the log from this file."""
        return EventLog.read(
            events,
            session=self.session or Inactivity(self.inactivity_seconds),
            item=self.item,
            time=self.time,
            user=self.user,
            items=items,
            users=users,
        )


def entities(
    file: Path | None,
    key: str | None,
    *,
    attributes: str | None = None,
    label: str | None = None,
    complete: bool = True,
) -> EntityTable | None:
    """The table of items or users in a file, if there is one; errors name the file.

    Args:
        key: its column of ids.
        attributes: its categorical columns, as ``A,B``.
        complete: whether an id without a row is an error.
    """
    if file is None:
        if attributes or label:
            raise InputError("--attributes and --label are columns of an item file: name it with --items")
        return None
    if key is None:
        raise InputError("--users needs --user, the column of user ids in the log")
    names = None if attributes is None else [name.strip() for name in attributes.split(",") if name.strip()]
    try:
        return EntityTable.read(file, key=key, attributes=names, label=label, complete=complete)
    except InputError as error:
        raise InputError(str(error) if str(file) in str(error) else f"{file}: {error}") from None
