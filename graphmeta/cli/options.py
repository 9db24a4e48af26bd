"""Options shared by several commands: how a log is read and split, and limits of a system.

Nothing here imports torch before it is called.
"""

from __future__ import annotations

from dataclasses import dataclass
from glob import has_magic
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from graphmeta.cli import console

if TYPE_CHECKING:
    from graphmeta.data.events import EventLog
    from graphmeta.data.read_options import ReadOptions
    from graphmeta.data.scan.log import ScannedLog
    from graphmeta.data.stored_columns import Columns
    from graphmeta.data.tables import EntityTable

MaxSupport = Annotated[
    int | None, typer.Option("--max-support", min=1, help="Maximum support samples per session, the last ones.")
]
MaxLength = Annotated[
    int | None, typer.Option("--max-length", min=1, help="Maximum context length, the last clicks of a session.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress; notes, errors and results only.")]


@dataclass(frozen=True)
class Printed:
    """What a command prints."""

    quiet: Quiet = False
    as_json: Json = False

    def show(self) -> None:
        """Choose it for all output that follows."""
        console.show(quiet=self.quiet or self.as_json, as_json=self.as_json)


Model = Annotated[Path, typer.Argument(metavar="DIR", help="A folder written by `fit` or `run`.")]
Events = Annotated[Path, typer.Argument(metavar="EVENTS", help="CSV, TSV or Parquet file, one row per event.")]


@dataclass(frozen=True)
class FileOptions:
    """How the files are parsed, and which rows are read."""

    where: Annotated[
        list[str] | None,
        typer.Option(
            "--where",
            help="Read only events with COLUMN=VALUE, such as event=view; repeat it for more values of a column, or "
            "for conditions on several columns, which must all hold.",
        ),
    ] = None
    action: Annotated[str | None, typer.Option("--action", help="Column of actions, for --action-weight.")] = None
    action_weight: Annotated[
        list[str] | None,
        typer.Option(
            "--action-weight",
            help="ACTION=NUMBER, repeated for each action: the value of its events in the graph; training does not "
            "read it.",
        ),
    ] = None
    time_format: Annotated[
        str | None,
        typer.Option(
            "--time-format",
            help="Format of times, such as '%d.%m.%Y %H:%M', or unit of numbers since 1970: s, ms, us, ns, min, h, D. "
            "If not given: ISO 8601, YYYYMMDD, YYYYMMDDhhmmss, or seconds.",
        ),
    ] = None
    sep: Annotated[
        str | None, typer.Option("--sep", help="Separator of the event file, such as ';' or '::'; found if not given.")
    ] = None
    no_header: Annotated[
        bool,
        typer.Option("--no-header", help="The event file has no header; name columns by number: --item 2."),
    ] = False
    items_sep: Annotated[
        str | None, typer.Option("--items-sep", help="Separator of the item and user file; found if not given.")
    ] = None
    items_no_header: Annotated[
        bool,
        typer.Option(
            "--items-no-header", help="The item and user file have no header; name columns by number: --item-key 1."
        ),
    ] = False
    encoding: Annotated[
        str, typer.Option("--encoding", help="Encoding of text files, such as latin-1.", show_default=False)
    ] = "utf-8-sig"
    drop_bad_rows: Annotated[
        bool,
        typer.Option(
            "--drop-bad-rows", help="Drop rows that cannot be read, and print their number, instead of an error."
        ),
    ] = False

    def of_events(self) -> ReadOptions:
        """The options of the event file."""
        from graphmeta.cli.log_columns import conditions
        from graphmeta.data.read_options import ReadOptions

        where = conditions(self.where or ())
        return ReadOptions(self.sep, not self.no_header, self.encoding, where, self.time_format, self.drop_bad_rows)

    def of_entities(self) -> ReadOptions:
        """The options of the item file and the user file."""
        from graphmeta.data.read_options import ReadOptions

        header = not self.items_no_header
        return ReadOptions(self.items_sep, header, self.encoding, drop_bad_rows=self.drop_bad_rows)


@dataclass(frozen=True)
class LogOptions:
    """Files and columns of a log."""

    events: Events
    item: Annotated[str, typer.Option("--item", help="Column of item ids.")]
    session: Annotated[
        str | None, typer.Option("--session", help="Column of session ids; optional with --user and --time.")
    ] = None
    time: Annotated[
        str | None, typer.Option("--time", help="Column of times: see --time-format; row order if not given.")
    ] = None
    user: Annotated[
        str | None, typer.Option("--user", help="Column of user ids; an empty cell is an unknown user.")
    ] = None
    items: Annotated[
        Path | None,
        typer.Option("--items", help="Item file, one row per item; items without a row have unknown attributes."),
    ] = None
    item_key: Annotated[str | None, typer.Option("--item-key", help="Its column of item ids; --item if not given.")] = (
        None
    )
    attributes: Annotated[
        str | None,
        typer.Option(
            "--attributes",
            help="Its categorical columns, as A,B; all others if not given. NA, None and null are categories.",
        ),
    ] = None
    types: Annotated[
        str | None,
        typer.Option(
            "--types",
            help="Its columns of other types, as price=numeric,image=vector,title=text.",
        ),
    ] = None
    label: Annotated[str | None, typer.Option("--label", help="Its column of item names, for display only.")] = None
    users: Annotated[Path | None, typer.Option("--users", help="User file, one row per user.")] = None
    user_key: Annotated[str | None, typer.Option("--user-key", help="Its column of user ids; --user if not given.")] = (
        None
    )
    several: Annotated[
        list[str] | None,
        typer.Option("--several", help="Item or user column with several values per cell: 'genre=|'; may repeat."),
    ] = None
    inactivity_seconds: Annotated[
        float, typer.Option("--inactivity-seconds", help="Inactivity that ends a session, without --session.")
    ] = 3600.0
    memory: Annotated[
        str | None,
        typer.Option(
            "--memory",
            help="Memory for reading, such as 2GB; a log that does not fit stays on disk, and fit trains on parts of "
            "it. For a pattern of files, such as 'events/*.parquet', half of the machine's.",
        ),
    ] = None

    def columns(self, files: FileOptions) -> Columns:
        """The columns of the event file and how it is read."""
        from graphmeta.cli.log_columns import weights
        from graphmeta.data.stored_columns import Columns

        actions = weights(files.action, files.action_weight or ())
        named = (self.item, self.session, self.time, self.user, self.inactivity_seconds)
        return Columns(*named, files.of_events(), actions)

    def catalogue(self, files: FileOptions) -> EntityTable | None:
        """The table of all items of the item file, if there is one."""
        from graphmeta.cli.log_columns import ItemColumns, entities

        item_columns = ItemColumns(self.attributes, self.types, self.label, tuple(self.several or ()))
        return entities(self.items, self.item_key or self.item, item_columns, files.of_entities())

    def log(self, files: FileOptions, items: EntityTable | None = None) -> EventLog:
        """Read the log from the files, with these items instead of those of :meth:`catalogue` if given."""
        from graphmeta.data.events import EventLog
        from graphmeta.errors import InputError

        found = self.scanned(files, items)
        if not isinstance(found, EventLog):
            raise InputError(f"{self.events}: does not fit the memory; give more (--memory), or fewer files")
        return found

    def scanned(self, files: FileOptions, items: EntityTable | None = None) -> EventLog | ScannedLog:
        """The same, but a log that does not fit the memory stays on disk."""
        from graphmeta.cli.log_columns import entities

        items = self.catalogue(files) if items is None else items
        users = entities(self.users, self.user_key or self.user, options=files.of_entities())
        columns = self.columns(files)
        if self.memory is None and not has_magic(str(self.events)):
            return columns.read(self.events, items=items, users=users)
        return columns.scan(self.events, memory=self.memory, items=items, users=users)


@dataclass(frozen=True)
class TaskOrLogOptions(LogOptions):
    """Files and columns of a log, or the name of a RelBench task, whose columns are known."""

    item: Annotated[str, typer.Option("--item", help="Column of item ids; not of a task relbench:DATABASE/TASK.")] = ""

    def log(self, files: FileOptions, items: EntityTable | None = None) -> EventLog:
        """Read the log from the files."""
        from graphmeta.errors import InputError

        if not self.item:
            raise InputError(f"{self.events}: name its column of item ids (--item), or a task relbench:DATABASE/TASK")
        return super().log(files, items)


@dataclass(frozen=True)
class SplitOptions:
    """How a log is filtered and split by time."""

    test: Annotated[float, typer.Option("--test", help="Share of test sessions, the last ones; 0 for no test.")] = 0.1
    valid: Annotated[float, typer.Option("--valid", help="Share of validation sessions, those before the test.")] = 0.1
    min_item_support: Annotated[
        int, typer.Option("--min-item-support", min=1, help="Leave out items with fewer events.")
    ] = 5
    min_session_length: Annotated[
        int, typer.Option("--min-session-length", min=1, help="Leave out sessions with fewer events.")
    ] = 2


@dataclass(frozen=True)
class Limits:
    """Limits on support and context length."""

    max_support: MaxSupport = None
    max_length: MaxLength = None


def versioned_folder(folder: Path) -> Path:
    """The model folder inside a folder written by ``fit``, or the folder itself."""
    return folder / "model" if (folder / "model").is_dir() else folder
