"""Options shared by several commands: how a log is read and split, and limits of a system.

Nothing here imports torch before it is called.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

if TYPE_CHECKING:
    from graphmeta.cli.log_columns import Columns
    from graphmeta.data.events import EventLog
    from graphmeta.data.tables import EntityTable

MaxSupport = Annotated[
    int | None, typer.Option("--max-support", min=1, help="Maximum support samples per session, the last ones.")
]
MaxLength = Annotated[
    int | None, typer.Option("--max-length", min=1, help="Maximum context length, the last clicks of a session.")
]
Events = Annotated[Path, typer.Argument(metavar="EVENTS", help="CSV, TSV or Parquet file, one row per event.")]


@dataclass(frozen=True)
class LogOptions:
    """Files and columns of a log."""

    events: Events
    item: Annotated[str, typer.Option("--item", help="Column of item ids.")]
    session: Annotated[
        str | None, typer.Option("--session", help="Column of session ids; optional with --user and --time.")
    ] = None
    time: Annotated[
        str | None, typer.Option("--time", help="Column of times: ISO 8601 or seconds; row order if not given.")
    ] = None
    user: Annotated[str | None, typer.Option("--user", help="Column of user ids.")] = None
    items: Annotated[Path | None, typer.Option("--items", help="Item file, one row per item, clicked or not.")] = None
    item_key: Annotated[str | None, typer.Option("--item-key", help="Its column of item ids; --item if not given.")] = (
        None
    )
    attributes: Annotated[
        str | None, typer.Option("--attributes", help="Its categorical columns, as A,B; all if not given.")
    ] = None
    types: Annotated[
        str | None,
        typer.Option(
            "--types",
            help="Its columns of other types, as price=numeric,image=vector,title=text; genres=several splits at |.",
        ),
    ] = None
    label: Annotated[str | None, typer.Option("--label", help="Its column of item names, for display only.")] = None
    users: Annotated[Path | None, typer.Option("--users", help="User file, one row per user.")] = None
    user_key: Annotated[str | None, typer.Option("--user-key", help="Its column of user ids; --user if not given.")] = (
        None
    )
    inactivity_seconds: Annotated[
        float, typer.Option("--inactivity-seconds", help="Inactivity that ends a session, without --session.")
    ] = 3600.0

    def columns(self) -> Columns:
        """The columns of the event file."""
        from graphmeta.cli.log_columns import Columns

        return Columns(self.item, self.session, self.time, self.user, self.inactivity_seconds)

    def catalogue(self) -> EntityTable | None:
        """The table of all items of the item file, if there is one."""
        from graphmeta.cli.log_columns import ItemColumns, entities

        item_columns = ItemColumns(self.attributes, self.types, self.label)
        return entities(self.items, self.item_key or self.item, item_columns)

    def log(self, items: EntityTable | None = None) -> EventLog:
        """Read the log from the files, with these items instead of those of :meth:`catalogue` if given."""
        from graphmeta.cli.log_columns import entities

        items = self.catalogue() if items is None else items
        users = entities(self.users, self.user_key or self.user, complete=False)
        return self.columns().read(self.events, items=items, users=users)


@dataclass(frozen=True)
class SplitOptions:
    """How a log is filtered and split by time."""

    test: Annotated[float, typer.Option("--test", help="Share of test sessions, the last ones.")] = 0.1
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


def _default(field: Field[Any]) -> Any:
    if field.default_factory is not MISSING:
        return field.default_factory()
    return inspect.Parameter.empty if field.default is MISSING else field.default


def flattened(command: Callable[..., None]) -> Callable[..., None]:
    """Replace the command's dataclass parameters by their fields as options, because typer has no option groups."""
    parameters = inspect.signature(command, eval_str=True).parameters
    groups: dict[str, Any] = {n: p.annotation for n, p in parameters.items() if is_dataclass(p.annotation)}
    only = inspect.Parameter.KEYWORD_ONLY
    options: list[inspect.Parameter] = []
    for name, parameter in parameters.items():
        if name not in groups:
            options.append(parameter.replace(kind=only))
            continue
        hints = get_type_hints(groups[name], include_extras=True)
        options += [
            inspect.Parameter(
                field.name,
                only,
                default=_default(field),
                annotation=hints[field.name],
            )
            for field in fields(groups[name])
        ]

    @wraps(command)
    def called(**given: Any) -> None:
        made = {
            name: group(**{field.name: given.pop(field.name) for field in fields(group)})
            for name, group in groups.items()
        }
        command(**made, **given)

    called.__dict__["__signature__"] = inspect.Signature(options)
    return called
