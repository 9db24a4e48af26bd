"""Recommendations for all sessions of a file or a log, in parts: constant memory, and a killed run continues."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import pandas as pd

from graphmeta.data.events import EventLog
from graphmeta.data.read_options import Inactivity, ReadOptions
from graphmeta.errors import InputError
from graphmeta.inference.filters import CallOptions, taken_from
from graphmeta.inference.parts import COLUMNS, Parts, check_format, parts_folder
from graphmeta.inference.recommend import none_for
from graphmeta.inference.session_file import Clicks, Layout, SessionFile, layout_of, parts_of
from graphmeta.protocols import Bar
from graphmeta.sampling.best import Recommendation
from graphmeta.storage import state_hash
from graphmeta.storage.lock import locked

if TYPE_CHECKING:
    from graphmeta.system import System

_SESSIONS = 4096  # of a log at a time


@dataclass(frozen=True)
class Written:
    """What :func:`recommend_file` wrote: the file, the number of sessions by flag, and the parts of an earlier run."""

    out: Path
    sessions: dict[str, int]
    resumed: int


def session_file(system: System, path: str | Path, **names: str | None) -> SessionFile:
    """A file of sessions in the columns of the log that a model was fitted to, stored by ``graphmeta fit``.

    Columns of times and users that the file lacks are left out, and so are conditions on columns that it lacks.

    Args:
        names: ``session, item, time, user``, if they have other names in this file.

    Raises:
        InputError: a model without stored columns, and no name of the items and sessions.
    """
    given = {role: name for role, name in names.items() if name is not None}
    stored = system.notes.get("columns")
    if stored is None and not {"session", "item"} <= given.keys():
        raise InputError(
            "the model was not written by graphmeta fit, so the columns of the file are unknown; name them: "
            "gm.SessionFile(path, item=…, session=…) (--item-column and --session-column)"
        )
    stored = stored or {}
    options = ReadOptions(**stored.get("options", {}))
    known: dict[str, Any] = {role: stored.get(role) for role in ("item", "session", "time", "user")} | given
    there = SessionFile(path, known["item"], options=options).header()
    for role in ("item", "session"):
        if role not in given and known[role] is not None and str(known[role]) not in there:
            raise InputError(
                f"{path}: no column {known[role]!r} for the {role}, as the log of the model has; the file has: "
                f"{', '.join(there[:12])}; name the column: gm.SessionFile({role}=…) (--{role}-column)"
            )
    known |= {role: None for role in ("time", "user") if role not in given and known[role] not in there}
    cut = known["session"] or Inactivity(stored.get("inactivity_seconds", 3600.0))
    where = {name: values for name, values in options.where.items() if name in there}
    return SessionFile(path, known["item"], cut, known["time"], known["user"], replace(options, where=where))


def recommend_file(
    system: System,
    sessions: SessionFile | str | Path,
    out: str | Path,
    k: int = 10,
    *,
    history: EventLog | None = None,
    bar: Bar | None = None,
    **options: Unpack[CallOptions],
) -> Written:
    """Write the k best next items of every session of a file: a row per recommendation, with the columns ``session,
    rank, item, name, score, flag``.

    ``flag`` is :attr:`Recommendation.why <graphmeta.sampling.best.Recommendation>`: unknown items are skipped, and a
    session of which nothing is known has popular items. A session without any item to recommend has one row, whose flag
    is "no known item" or "no allowed item". Sessions come in the order of the file.

    The file is read twice, in parts: first every row is checked, before anything is written. A run that was killed
    continues at its last finished part if it is started again with the same arguments (``OUT.parts`` beside the output
    has these parts); ``out`` appears when all is done.

    Args:
        sessions: the file; a path if the model was fitted by ``graphmeta fit`` and it has the same columns.
        out: ``.csv``, ``.tsv``, ``.jsonl`` or ``.parquet`` (a row group per part).
        history: a log with the users' earlier sessions.
        bar: shows progress, ``(parts, name) -> parts``.
        among, exclude, exclude_seen, steps, max_support: as in
            :meth:`System.recommend <graphmeta.system.System.recommend>`.

    Raises:
        InputError: a row that cannot be read, rows of a session that are not consecutive, an output file of another
            type, or parts of another request; names the row and the remedy.
    """
    check_format(Path(out))
    check_is_no_input(Path(out), sessions)
    file = sessions if isinstance(sessions, SessionFile) else session_file(system, sessions)
    system.recommend_many([], k)  # checks k
    if history is not None and file.user is None:
        raise InputError(
            "history= needs the users of the sessions; name their column: SessionFile(user=…) (--user-column)"
        )
    options = resolved(system, options)
    layout = layout_of(file)
    whole, number = (layout.whole, system.items.ids.dtype.kind == "i"), len(layout.bounds) - 1
    folder = parts_folder(Path(out))
    with locked(folder):
        parts = Parts(out, _request(system, file, layout, k, history, options), whole=whole)
        first = parts.done
        numbers: Iterable[int] = range(first, number)
        reader = parts_of(file, layout, first=first) if number > first else iter(())
        for part in numbers if bar is None else bar(numbers, "recommend"):
            parts.add(part, recommendations(system, next(reader), k, history=history, **options))
        written = Written(Path(out), parts.join(number), first)
    with suppress(OSError):
        folder.rmdir()  # of an interrupted run, which the lock has not made
    return written


def check_is_no_input(out: Path, *files: Any) -> None:
    """Raise an InputError if the output file is one of the files that are read."""
    for one in files:
        path = Path(one.path if isinstance(one, SessionFile) else one) if one is not None else None
        if path is not None and path.exists() and out.exists() and path.samefile(out):
            raise InputError(f"{out}: is read, so it cannot be written to; name another output file (--out)")


def recommend_log(
    system: System, log: EventLog, k: int = 10, *, history: EventLog | None = None, **options: Unpack[CallOptions]
) -> Iterator[pd.DataFrame]:
    """The k best next items of every session of a log, as frames of some thousand sessions each.

    The columns are those of :func:`recommend_file`.

    Raises:
        InputError: ``history`` for a log without users, or for a system that reads none; see :func:`recommend_file`.
    """
    options = resolved(system, options)
    for begin in range(0, log.num_sessions, _SESSIONS):
        rows = range(begin, min(begin + _SESSIONS, log.num_sessions))
        events = [slice(log.ptr[row], log.ptr[row + 1]) for row in rows]
        users = None
        if log.users is not None and log.session_user is not None:
            users = [log.users.ids[user] if user >= 0 else None for user in log.session_user[begin : rows.stop]]
        clicks = Clicks(
            log.sessions[begin : rows.stop],
            [log.items.ids[log.item[event]].tolist() for event in events],
            [log.time[event] for event in events] if log.has_time else None,
            users,
        )
        yield recommendations(system, clicks, k, history=history, **options)


def resolved(system: System, options: CallOptions) -> CallOptions:
    """The same options with their filters as one mask, so that they are checked once."""
    filters, adapting = taken_from(options)
    allowed = filters.allowed(system.items)
    excluded = None if allowed is None else ~allowed
    return {"exclude": excluded, "exclude_seen": filters.exclude_seen, **adapting}


def recommendations(
    system: System, clicks: Clicks, k: int, *, history: EventLog | None = None, **options: Unpack[CallOptions]
) -> pd.DataFrame:
    """The recommendations of these sessions, a row each."""
    uses_users = system.users is not None or system.reads_history
    users = clicks.users if uses_users else None
    found = system.recommend_many(
        clicks.sessions,
        k,
        users=users,
        history=history,
        times=clicks.times,
        unknown="ignore",
        **options,
    )
    rows = list[tuple[Any, ...]]()
    for session, clicked, ranking in zip(clicks.ids.tolist(), clicks.sessions, found, strict=True):
        rows.extend((session, at, *_fields(one)) for at, one in enumerate(ranking, 1))
        if not ranking:
            rows.append((session, None, None, None, None, none_for(system, clicked)))
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    return frame.astype({"rank": "Int32"} | ({"item": "Int64"} if system.items.ids.dtype.kind == "i" else {}))


def _fields(one: Recommendation) -> tuple[Any, ...]:
    return one.item, one.name, one.score, one.why


def _request(
    system: System, file: SessionFile, layout: Layout, k: int, history: EventLog | None, options: CallOptions
) -> dict[str, Any]:
    """What identifies a run: equal requests give equal files."""
    filters, adapting = taken_from(options)
    allowed = filters.allowed(system.items)
    items = hashlib.sha256(system.items.fingerprint() + (b"" if allowed is None else allowed.tobytes()))
    cut = file.session.seconds if isinstance(file.session, Inactivity) else file.session
    return {
        "version": 1,
        "input": layout.digest,
        "bounds": [len(layout.bounds), layout.bounds[-1]],
        "columns": [file.item, cut, file.time, file.user],
        "options": asdict(file.options),
        "model": [state_hash(system), items.hexdigest(), *system.limits.values()],
        "history": [
            None if history is None else history.fingerprint(),
            None if system.histories is None else system.histories.log().fingerprint(),
        ],
        "graph": None if system.sampler is None else system.sampler.log.fingerprint(),
        "k": k,
        "exclude_seen": filters.exclude_seen,
        **adapting,
    }
