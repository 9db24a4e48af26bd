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


@dataclass(frozen=True)
class ItemColumns:
    """Columns of an item file, as given on the command line.

    Args:
        attributes: the categorical columns, as ``A,B``; all others if not given.
        types: the columns of other types, as ``price=numeric,title=text``.
        label: the column of names.
    """

    attributes: str | None = None
    types: str | None = None
    label: str | None = None

    def names(self) -> list[str] | None:
        """The categorical columns."""
        return None if self.attributes is None else _parts(self.attributes)

    def kinds(self) -> dict[str, str]:
        """The type of each column of another type, by name.

        Raises:
            InputError: a part that is not ``column=type``, or a column with two types.
        """
        kinds: dict[str, str] = {}
        for part in _parts(self.types or ""):
            name, mark, kind = (text.strip() for text in part.rpartition("="))
            if not (name and mark and kind):
                raise InputError(f"--types {part!r} must be column=type, such as price=numeric")
            if name in kinds or name in (self.names() or ()):
                raise InputError(f"column {name!r} is given two types by --attributes and --types; keep one")
            kinds[name] = kind
        return kinds


def entities(
    file: Path | None, key: str | None, columns: ItemColumns = ItemColumns(), *, complete: bool = True
) -> EntityTable | None:
    """The table of items or users in a file, if there is one; errors name the file.

    Args:
        key: its column of ids; columns: its other columns.
        complete: whether an id without a row is an error.
    """
    if file is None:
        if columns != ItemColumns():
            raise InputError("--attributes, --types and --label are columns of an item file: name it with --items")
        return None
    if key is None:
        raise InputError("--users needs --user, the column of user ids in the log")
    kinds = columns.kinds()
    try:
        return EntityTable.read(
            file, key=key, attributes=columns.names(), label=columns.label, complete=complete, types=kinds
        )
    except InputError as error:
        raise InputError(str(error) if str(file) in str(error) else f"{file}: {error}") from None


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
