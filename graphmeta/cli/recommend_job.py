"""Recommendations on the command line: reads sessions, filters and users from options, and writes files of them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from graphmeta.cli.session_ids import session_of
from graphmeta.data.events import EventLog
from graphmeta.data.read_options import ReadOptions
from graphmeta.data.times import seconds
from graphmeta.errors import InputError, counted, plain
from graphmeta.inference.bulk import Written
from graphmeta.inference.filters import Filters, chosen_items
from graphmeta.inference.recommend import NOTHING_ALLOWED, NOTHING_KNOWN
from graphmeta.sampling.best import ATTRIBUTES, MODEL, POPULAR
from graphmeta.sampling.given_histories import given_earlier
from graphmeta.sampling.queries import knows_any
from graphmeta.sampling.user_histories import UserHistories

if TYPE_CHECKING:
    from collections.abc import Callable

    from graphmeta.system import System

_FLAGS = {
    MODEL: "by the model",
    ATTRIBUTES: "by the model, known by attributes alone",
    POPULAR: "popular items (nothing of the session is known)",
    NOTHING_KNOWN: "none (no known item)",
    NOTHING_ALLOWED: "none (no allowed item)",
}


def filters_of(system: System, among: Sequence[str], exclude: Sequence[str], *, seen: bool) -> Filters:
    """The filters of ``--among`` and ``--exclude``, each a file of item ids, one per line, or COLUMN=VALUE.

    Values of one column are alternatives; files and columns must all allow an item.

    Raises:
        InputError: a file that cannot be read, a column or value that does not exist, or no item left.
    """
    allowed = np.ones(len(system.items), dtype=bool)
    for name, given, columns in (("--among", *_sources(among)), ("--exclude", *_sources(exclude))):
        masks = [chosen_items(f"{name} {path}", _ids(path), system.items) for path in given]
        masks += [chosen_items(name, {column: values}, system.items) for column, values in columns.items()]
        for mask in masks:
            allowed &= mask if name == "--among" else ~mask
    if not allowed.any():
        raise InputError("--among and --exclude leave no item that is known to this model; correct them")
    return Filters(among=None if allowed.all() else allowed, exclude_seen=seen)


def _sources(given: Sequence[str]) -> tuple[list[Path], dict[str, list[str]]]:
    """The files, and the values of columns."""
    files, columns = list[Path](), dict[str, list[str]]()
    for one in given:
        name, mark, value = one.partition("=")
        if mark and not Path(one).is_file():
            columns.setdefault(name.strip(), []).append(value.strip())
        else:
            files.append(Path(one))
    return files, columns


def _ids(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file of item ids; name one, or COLUMN=VALUE") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a text file of item ids, one per line ({error}); correct it") from None
    found = [line.strip() for line in lines if line.strip()]
    if not found:
        raise InputError(f"{path}: the file has no item id; write one per line, or leave the option out")
    return found


def summary(written: Written) -> str:
    """What was written, in one line."""
    every = sum(written.sessions.values())
    counts = [f"{written.sessions[flag]:,} {text}" for flag, text in _FLAGS.items() if written.sessions.get(flag)]
    return f"written: {written.out}; {counted(every, 'session')}: {', '.join(counts)}"


def sessions_of(model: System, texts: Sequence[str]) -> list[list[str]]:
    """The item ids of sessions; an id may have blanks, or commas if it is quoted or the only one.

    Raises:
        InputError: a text with blanks, of which neither the whole nor any part is known.
    """
    known, sessions = {str(one) for one in model.items.ids}, []
    for text in texts:
        parts = session_of(text, known)
        unmarked = "," not in text and '"' not in text
        if unmarked and len(parts) > 1 and not knows_any(model.items, parts):
            raise InputError(
                f"neither {text.strip()!r} nor any of its parts {', '.join(map(repr, parts))} is an item known to this "
                f"model; separate ids that have blanks by commas"
            )
        sessions.append(parts)
    return sessions


def times_of(model: System, texts: Sequence[str] | None, sessions: Sequence[Sequence[str]]) -> list[list[float]] | None:
    """The times of ``--times`` in seconds, each text those of a session, read as ``fit`` has read those of the log.

    Raises:
        InputError: a time that cannot be read, or another number of times than of clicks or sessions.
    """
    if not texts:
        return None
    if len(texts) != len(sessions):
        given, wanted = counted(len(texts), "list"), counted(len(sessions), "session")
        raise InputError(f"{given} of times for {wanted}; give --times once per --session")
    form = ReadOptions(**(model.notes.get("columns") or {}).get("options", {})).time_format
    return [_times(text, len(session), form) for text, session in zip(texts, sessions, strict=True)]


def _times(text: str, clicks: int, form: str | None) -> list[float]:
    parts = [text.strip()] if clicks == 1 else session_of(text, ())
    if len(parts) != clicks:
        raise InputError(
            f"--times {text!r} has {counted(len(parts), 'time')} for {counted(clicks, 'click')}; give one per click, "
            f"separated by commas"
        )
    try:
        with warnings.catch_warnings():  # numbers from 0 on are fine here
            warnings.simplefilter("ignore")
            return seconds(pd.Series(parts, dtype=object), "time", form).tolist()
    except InputError:
        as_read = "seconds since 1970 or ISO 8601 (2024-05-01T12:00:00)" if form is None else repr(form)
        raise InputError(
            f"--times {text!r} cannot be read; write one time per click, separated by commas, as in the log that the "
            f"model was fitted to: {as_read}"
        ) from None


def owners(model: System, user: str | None, sessions: int, say: Callable[[str], None]) -> list[str] | None:
    """The user of each session; prints a note if the model ignores users or the user is unknown to it."""
    if user is None:
        return None
    if model.reads_history:
        return [user] * sessions
    if model.users is None:
        say("note: this model does not use users; --user has no effect")
    elif user not in map(str, model.users.ids):
        say(f"note: user {user!r} is unknown to this model; recommending as for an unknown user")
    return [user] * sessions


def history_log(model: System, history: Path | None) -> EventLog | None:
    """The log of ``--history``, joined to the sessions that the model stores, if it stores any.

    Raises:
        InputError: a model that reads no history.
    """
    from graphmeta.cli.evaluate_job import read_like

    if history is None:
        return None
    if not model.reads_history:
        raise InputError("this model reads no history; leave --history out, or fit a system that adapts to users")
    log = read_like(model, history)
    if model.histories is None:
        return log
    own = log.aligned_to(model.items, log.users)
    return UserHistories.together(model.histories, own, stacklevel=5)[0].log()


def known_sessions(
    model: System, user: str | None, history: Path | None, say: Callable[[str], None]
) -> EventLog | None:
    """The log of ``--history``; prints how many of the user's sessions are read."""
    if not model.reads_history:
        return history_log(model, history)
    if user is None:
        if history is not None:
            raise InputError("--history needs the user whose sessions are read: --user")
        say("note: no --user, so no user's history is read")
        return None
    log = history_log(model, history)
    earlier = given_earlier(log, [user], items=model.items, kept=model.histories)
    if earlier is None or not earlier.sessions[0]:
        ids = [] if earlier is None else [str(one) for one in earlier.histories.users.ids]
        near = next((one for one in ids if plain(one) == plain(user) and one != user), None)
        remedy = "check the id" if ids else "name a log that has some: --history FILE"
        remedy = f"did you mean {near!r}?" if near else remedy
        say(f"note: no session of user {user!r} is known, so nothing is adapted; {remedy}")
    else:
        sessions, events = int(earlier.sessions[0]), int(earlier.events[0])
        say(f"user {user}: {counted(sessions, 'earlier session')}, {counted(events, 'event')}")
    return log
