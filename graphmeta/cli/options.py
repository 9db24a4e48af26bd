"""The options that several commands share: how a log is read, and what a system looks at.

Nothing here needs torch before it is called.
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

MaxSupport = Annotated[
    int | None, typer.Option("--max-support", min=1, help="Support samples a session, the last ones.")
]
MaxLength = Annotated[
    int | None, typer.Option("--max-length", min=1, help="Clicks of a session that are looked at, the last ones.")
]
Events = Annotated[Path, typer.Argument(metavar="EVENTS", help="CSV, TSV or Parquet file with a row an event.")]


@dataclass(frozen=True)
class LogOptions:
    """A log as the command line describes it."""

    events: Events
    item: Annotated[str, typer.Option("--item", help="Column of item ids.")]
    session: Annotated[
        str | None, typer.Option("--session", help="Column of session ids; may be left out with --user and --time.")
    ] = None
    time: Annotated[
        str | None, typer.Option("--time", help="Column of times: ISO 8601 or seconds; without, the order of rows.")
    ] = None
    user: Annotated[str | None, typer.Option("--user", help="Column of user ids.")] = None
    items: Annotated[Path | None, typer.Option("--items", help="File with a row an item.")] = None
    item_key: Annotated[
        str | None, typer.Option("--item-key", help="Its column of item ids; if not given, named as --item.")
    ] = None
    attributes: Annotated[
        str | None, typer.Option("--attributes", help="Its columns of categories, as A,B; all if not given.")
    ] = None
    label: Annotated[str | None, typer.Option("--label", help="Its column of readable names, for people only.")] = None
    users: Annotated[Path | None, typer.Option("--users", help="File with a row a user.")] = None
    user_key: Annotated[
        str | None, typer.Option("--user-key", help="Its column of user ids; if not given, named as --user.")
    ] = None
    inactivity_seconds: Annotated[
        float, typer.Option("--inactivity-seconds", help="The pause that ends a session, if there is no --session.")
    ] = 3600.0

    def columns(self) -> Columns:
        """What the columns of the event file hold."""
        from graphmeta.cli.log_columns import Columns

        return Columns(self.item, self.session, self.time, self.user, self.inactivity_seconds)

    def log(self) -> EventLog:
        """The log in the files."""
        from graphmeta.cli.log_columns import entities

        items = entities(self.items, self.item_key or self.item, attributes=self.attributes, label=self.label)
        users = entities(self.users, self.user_key or self.user, complete=False)
        return self.columns().read(self.events, items=items, users=users)


@dataclass(frozen=True)
class SplitOptions:
    """How a log is filtered and cut by time."""

    test: Annotated[float, typer.Option("--test", help="Share of sessions to measure on, the last ones.")] = 0.1
    valid: Annotated[float, typer.Option("--valid", help="Share of sessions to choose the epoch on, those before.")] = (
        0.1
    )
    min_item_support: Annotated[
        int, typer.Option("--min-item-support", min=1, help="Leave out items with fewer events.")
    ] = 5
    min_session_length: Annotated[
        int, typer.Option("--min-session-length", min=1, help="Leave out sessions with fewer events.")
    ] = 2


@dataclass(frozen=True)
class Limits:
    """How much of a session a system reads."""

    max_support: MaxSupport = None
    max_length: MaxLength = None


def _default(field: Field[Any]) -> Any:
    if field.default_factory is not MISSING:
        return field.default_factory()
    return inspect.Parameter.empty if field.default is MISSING else field.default


def flattened(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the fields of its dataclass parameters as options: typer knows no groups of them."""
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

    called.__signature__ = inspect.Signature(options)  # pyright: ignore[reportAttributeAccessIssue]
    return called
