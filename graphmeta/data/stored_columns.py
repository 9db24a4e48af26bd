"""The columns of a log, as a model stores them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from graphmeta.data.event_rows import LogColumns
from graphmeta.data.events import EventLog
from graphmeta.data.read_options import ActionWeights, Inactivity, ReadOptions
from graphmeta.data.scan.log import ScannedLog
from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError


@dataclass(frozen=True)
class Columns:
    """Columns of an event file and how it is read; stored in the model, so that later files are read like it.

    Args:
        inactivity_seconds: what ends a session without a session column.
        options: of reading the file.
        actions: the column of actions and the weight of each, the value of the events.
    """

    item: str
    session: str | None = None
    time: str | None = None
    user: str | None = None
    inactivity_seconds: float = 3600.0
    options: ReadOptions = ReadOptions()
    actions: ActionWeights | None = None

    def to_json(self) -> dict[str, Any]:
        """The columns and options as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Columns:
        """What :meth:`to_json` gave; an earlier version gave neither options nor actions."""
        options, actions = stored.get("options", {}), stored.get("actions")
        given = {name: one for name, one in stored.items() if name not in ("options", "actions")}
        return cls(**given, options=ReadOptions(**options), actions=actions and ActionWeights(**actions))

    def scan(
        self,
        events: Path,
        *,
        memory: str | None,
        items: EntityTable | None = None,
        users: EntityTable | None = None,
    ) -> EventLog | ScannedLog:
        """Read the log from the files of a pattern; it stays on disk if it does not fit the memory."""
        found = EventLog.scan(self.options.of(events), memory=memory, **self._named(items, users))
        return found.collect() if found.fits_memory else found

    def read(self, events: Path, *, items: EntityTable | None = None, users: EntityTable | None = None) -> EventLog:
        """Read the log from this file.

        Raises:
            InputError: see :meth:`EventLog.read`.
        """
        return EventLog.read(self.options.of(events), **self._named(items, users))

    def _named(self, items: EntityTable | None, users: EntityTable | None) -> LogColumns:
        """Columns and tables as arguments."""
        session = self.session or Inactivity(self.inactivity_seconds)
        named = LogColumns(item=self.item, session=session, time=self.time, user=self.user, value=self.actions)
        return named | LogColumns(item=self.item, items=items, users=users)

    def read_again(self, events: Path) -> EventLog:
        """Read another file in these columns; an error about columns names those of the model's own log.

        Raises:
            InputError: a file without these columns; see :meth:`EventLog.read`.
        """
        try:
            return self.read(events)
        except InputError as error:
            message = str(error)
            if "no column" in message:
                names = {name: one for name, one in asdict(self).items() if isinstance(one, str)}
                message += "; rename its columns to those of the log that the model was fitted to: " + ", ".join(
                    f"{name} {one!r}" for name, one in names.items()
                )
            raise InputError(message if str(events) in message else f"{events}: {message}") from None
