"""The commands that use a trained model: ``recommend``, ``similar``, ``explain``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from graphmeta.cli import console
from graphmeta.cli.given_model import GivenModel
from graphmeta.cli.options import Json, Model, Quiet
from graphmeta.errors import InputError, counted

if TYPE_CHECKING:
    from graphmeta.inference.filters import CallOptions, Filters
    from graphmeta.sampling.best import Recommendation
    from graphmeta.system import System


@dataclass(frozen=True)
class GivenUser:
    """The user of the sessions, and what is known of users."""

    user: Annotated[str | None, typer.Option("--user", help="User id of the sessions.")] = None
    history: Annotated[
        Path | None,
        typer.Option("--history", help="Log with users' earlier sessions, in the columns that fit has read."),
    ] = None


class Treatment(StrEnum):
    """What is done with items unknown to the model."""

    error = "raise"
    warn = "warn"
    ignore = "ignore"


Unknown = Annotated[Treatment, typer.Option(help="Treatment of unknown items.")]
_SESSION = (
    "Item ids, oldest first, separated by commas, or by blanks if no id has one; ids with commas in quotes: "
    "'\"a, b\",c'"
)
_TIMES = "Times of the clicks, separated by commas, written as in the log that fit has read"


@dataclass(frozen=True)
class GivenSessions:
    """Sessions that are given as options."""

    session: Annotated[list[str] | None, typer.Option("--session", help=f"{_SESSION}; may be repeated.")] = None
    times: Annotated[list[str] | None, typer.Option("--times", help=f"{_TIMES}; once per --session.")] = None
    unknown: Unknown = Treatment.error
    as_json: Json = False


@dataclass(frozen=True)
class FilesOfSessions:
    """A file of sessions, and the file of recommendations for all of them."""

    source: Annotated[
        Path | None,
        typer.Option(
            "--in",
            help="File of sessions (CSV, TSV, Parquet), one row per click, in the columns that fit has read; the rows "
            "of a session are consecutive. With --out, instead of --session.",
        ),
    ] = None
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="File to write, one row per recommendation: .csv, .tsv, .jsonl or .parquet. If the run is killed, the "
            "same command continues it.",
        ),
    ] = None
    session_column: Annotated[
        str | None, typer.Option("--session-column", help="Column of session ids in --in, if it has another name.")
    ] = None
    item_column: Annotated[
        str | None, typer.Option("--item-column", help="Column of item ids in --in, if it has another name.")
    ] = None
    time_column: Annotated[
        str | None, typer.Option("--time-column", help="Column of times in --in, if it has another name.")
    ] = None
    user_column: Annotated[
        str | None, typer.Option("--user-column", help="Column of user ids in --in, if it has another name.")
    ] = None
    quiet: Quiet = False


@dataclass(frozen=True)
class ItemFilters:
    """Which items may be found."""

    exclude: Annotated[
        list[str] | None,
        typer.Option(
            "--exclude", help="Leave these items out: a file of item ids, one per line, or COLUMN=VALUE; repeatable."
        ),
    ] = None
    among: Annotated[
        list[str] | None,
        typer.Option(
            "--among",
            help="Recommend only these: a file of item ids, one per line (those in stock), or COLUMN=VALUE of the item "
            "table; values of one column are alternatives, everything else must hold together.",
        ),
    ] = None

    @property
    def files(self) -> tuple[str, ...]:
        """What may be files of ids."""
        return (*(self.exclude or ()), *(self.among or ()))

    def of(self, model: System, *, seen: bool = False) -> Filters:
        """The filters."""
        from graphmeta.cli.recommend_job import filters_of

        return filters_of(model, self.among or (), self.exclude or (), seen=seen)


@dataclass(frozen=True)
class FilterOptions(ItemFilters):
    """Which items may be recommended."""

    exclude_seen: Annotated[
        bool, typer.Option("--exclude-seen", help="Do not recommend items of the session itself.")
    ] = False


def recommend(
    folder: Model,
    given: GivenSessions,
    files: FilesOfSessions,
    filtering: FilterOptions,
    whose: GivenUser,
    model: GivenModel,
    k: Annotated[int, typer.Option("-k", min=1, help="Number of items.")] = 10,
) -> None:
    """Recommend the next items of sessions; the sessions may be new.

    Of those given by --session, or of all sessions of a file: --in sessions.csv --out recommendations.csv.
    """
    if (given.session is None) == (files.source is None):
        raise InputError(
            "name sessions by --session ITEM,ITEM, or a file of them by --in FILE --out FILE (one of both)"
        )
    if files.source is not None:
        if whose.user is not None or given.times:
            raise InputError("users and times of --in are columns of the file: --user-column, --time-column")
        return _recommend_file(partial(model.load, folder), files, filtering, k, whose.history)
    if files.out is not None:
        raise InputError("--out is for the sessions of a file: --in FILE; for --session, use --json")
    _recommend_sessions(model.load(folder), given, filtering, k, whose)
    return None


def _recommend_file(
    load: Callable[[], System], files: FilesOfSessions, filtering: FilterOptions, k: int, history: Path | None
) -> None:
    from graphmeta.cli.recommend_job import history_log, summary
    from graphmeta.inference.bulk import check_is_no_input, recommend_file, session_file
    from graphmeta.inference.parts import check_format

    console.show(quiet=files.quiet)
    if files.source is None or files.out is None:
        raise InputError("--in needs the file to write: --out recommendations.csv")
    check_format(files.out)
    check_is_no_input(files.out, files.source, history, *filtering.files)
    model = load()
    filters = filtering.of(model, seen=filtering.exclude_seen)
    names = {name: getattr(files, f"{name}_column") for name in ("session", "item", "time", "user")}
    source, known = session_file(model, files.source, **names), history_log(model, history)
    if source.user is not None and model.reads_history and known is None and model.histories is None:
        console.say("note: no --history, so no earlier session of a user is read, and nothing is adapted to users")
    try:
        written = recommend_file(model, source, files.out, k, history=known, bar=console.bar, **_keywords(filters))
    except KeyboardInterrupt:
        raise typer.Abort(f"interrupted; the same command continues after the parts in {files.out}.parts") from None
    if written.resumed:
        console.say(f"note: continued an interrupted run after {counted(written.resumed, 'finished part')}")
    console.say(summary(written))


def _keywords(filters: Filters) -> CallOptions:
    """The filters as keywords of a call."""
    return {"among": filters.among, "exclude": filters.exclude, "exclude_seen": filters.exclude_seen}


def _recommend_sessions(model: System, given: GivenSessions, filtering: FilterOptions, k: int, by: GivenUser) -> None:
    from graphmeta.cli.recommend_job import known_sessions, owners, sessions_of, times_of
    from graphmeta.inference.recommend import WHY_NONE, none_for

    sessions = sessions_of(model, given.session or ())
    whose = owners(model, by.user, len(sessions), console.say)
    when = times_of(model, given.times, sessions)
    known = known_sessions(model, by.user, by.history, console.say)
    filters = filtering.of(model, seen=filtering.exclude_seen)
    rankings = model.recommend_many(
        sessions, k, users=whose, history=known, times=when, unknown=given.unknown, **_keywords(filters)
    )
    if given.as_json:
        document = [
            {"session": clicks, "items": [vars(offered) for offered in ranking]}
            for clicks, ranking in zip(sessions, rankings, strict=True)
        ]
        console.say_json(document)
        return
    for clicks, ranking in zip(sessions, rankings, strict=True):
        if ranking:
            _show(clicks, ranking)
        else:
            console.say(f"no item to recommend after {', '.join(clicks)}: {WHY_NONE[none_for(model, clicks)]}")


def _show(clicks: Sequence[str], ranking: Sequence[Recommendation]) -> None:
    """Print the recommendations of a session."""
    from graphmeta.sampling.best import POPULAR

    title = "After " + ", ".join(clicks) if clicks else "The first item of a session"
    if ranking[0].why == POPULAR:
        title += ": nothing of it is known to this model; popular items, by their training events"
    rows = [(at + 1, offered.name, f"{offered.score:.3f}") for at, offered in enumerate(ranking)]
    console.table(title, ("", "item", "score"), rows, left=2)


def similar(
    folder: Model,
    item: Annotated[str, typer.Argument(metavar="ITEM", help="Item id.")],
    filtering: ItemFilters,
    given: GivenModel,
    k: Annotated[int, typer.Option("-k", min=1, help="Number of items.")] = 10,
    as_json: Json = False,
) -> None:
    """Find the items most similar to one.

    By the cosine of the vectors that the model scores with.
    """
    model = given.load(folder)
    filters = filtering.of(model)
    found = model.similar(item, k, among=filters.among, exclude=filters.exclude)
    if as_json:
        console.say_json([vars(one) for one in found])
        return
    rows = [(at + 1, one.name, f"{one.score:.3f}") for at, one in enumerate(found)]
    console.table(f"Similar to {item}", ("", "item", "cosine"), rows, left=2)


def explain(
    folder: Model,
    session: Annotated[str, typer.Option("--session", help=f"{_SESSION}.")],
    item: Annotated[str, typer.Option("--item", help="The item whose score is explained.")],
    whose: GivenUser,
    given: GivenModel,
    times: Annotated[str | None, typer.Option("--times", help=f"{_TIMES}.")] = None,
    unknown: Unknown = Treatment.error,
    as_json: Json = False,
) -> None:
    """Explain the score of an item in a session.

    By part of the model, by click and by the user's earlier sessions, in numbers that add up to the score.
    """
    from graphmeta.cli.recommend_job import known_sessions, owners, sessions_of, times_of

    model = given.load(folder)
    clicks = sessions_of(model, [session])[0]
    owners(model, whose.user, 1, console.say)
    when = times_of(model, None if times is None else [times], [clicks])
    found = model.explain(
        clicks,
        item,
        user=whose.user,
        history=known_sessions(model, whose.user, whose.history, console.say),
        times=None if when is None else when[0],
        unknown=unknown,
    )
    if as_json:
        console.say_json(asdict(found))
    else:
        for line in str(found).split("\n"):
            console.say_out(line)
