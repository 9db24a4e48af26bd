"""Evaluation of a model folder on a later log: shared by ``evaluate`` and, for reading logs, by ``recommend``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from graphmeta.cli.history import load_history
from graphmeta.data.events import EventLog
from graphmeta.data.merging import merged
from graphmeta.data.stored_columns import Columns
from graphmeta.errors import InputError, counted
from graphmeta.evaluation.compare import Comparison, baselines, compare, metrics
from graphmeta.evaluation.protocol import Rules, test_queries, unseen
from graphmeta.protocols import Bar
from graphmeta.published.catalogue import CATALOGUE
from graphmeta.published.load import load
from graphmeta.sampling.file_order import in_file_order
from graphmeta.sampling.user_histories import UserHistories
from graphmeta.system import System


def read_like(system: System, events: Path) -> EventLog:
    """A log with users, in the columns that the system's own log was read from.

    Raises:
        InputError: a model not written by a command, or of a log without users; a file without these columns.
    """
    columns = system.notes.get("columns")
    if columns is None or columns.get("user") is None:
        why = "not written by fit or run" if columns is None else "fitted to a log without users (--user)"
        raise InputError(f"the model was {why}, so the columns of {events.name} are unknown; use it from Python")
    return Columns.from_json(columns).read_again(events)


@dataclass(frozen=True)
class Scored:
    """Evaluation of a model on the sessions of a log after its training data; fields as in ``metrics.json``.

    ``counted``: sessions that baselines of users are fitted on; None if the model's log has no users.
    """

    system: System
    results: Comparison
    document: dict[str, Any]
    sessions: int
    all_sessions: int
    unknown: int
    counted: int | None

    def counted_sessions(self) -> str:
        """The number and the part of these sessions: systems that hold out a part are refitted on it."""
        cuts, held_out = self.system.notes["cuts"], CATALOGUE[self.system.notes["system"]].held_out
        part = "before the test" if held_out else "of the training part, before the validation"
        part = "before the end of the model's log" if cuts["valid_from"] == cuts["test_from"] else part
        return f"{counted(self.counted or 0, 'session')} {part}"


def score(folder: Path, events: Path, *, history: Path | None = None, bar: Bar) -> Scored:
    """Evaluate the model in a folder on the sessions of a file that begin after its training data.

    The folder's training sequences have no users. Baselines that read users' earlier sessions are fitted on those that
    the model stores, those of ``history`` and those of ``events``, as far as they began before the test; without any
    they are left out.

    Args:
        history: a log with users' earlier sessions, in the columns of the model's own log.

    Raises:
        InputError: a model not written by a command, a file without later sessions, or a history for a model of a log
            without users.
    """
    system = load(folder)
    notes = system.notes
    if "cuts" not in notes:
        raise InputError(
            f"{folder}: not written by fit or run, so its training period is unknown; evaluate it from Python"
        )
    columns, rules = Columns.from_json(notes["columns"]), Rules(**notes["rules"])
    others = [] if history is None else [read_like(system, history)]
    # A model without users needs no user column, unless sessions are defined by user.
    plain = system.users is None and columns.session is not None and not system.reads_history and not others
    log = (replace(columns, user=None) if plain else columns).read_again(events)
    new = unseen(log, notes["cuts"])
    known = new.aligned_to(system.items, system.users)
    queries, past_of_users = test_queries(known, rules), None
    if not plain and log.users is not None:
        kept = [] if system.histories is None else [system.histories.log()]
        placed = in_file_order(*kept, *others, log, stacklevel=3)
        own = unseen(placed[-1], notes["cuts"])
        histories = UserHistories.of(*(one.aligned_to(system.items, one.users) for one in placed))
        queries = histories.attached(queries, own.aligned_to(system.items, own.users))
        past_of_users = _counted(histories.log(), float(own.starts.min()), system)
    past = load_history(folder, system.items)
    models = {} if past is None else baselines(past, past_of_users, beside=notes["system"])
    results = compare(system, queries, past=past or Popular(system), models=models, bar=bar)
    unknown = new.num_events - known.num_events
    document = metrics(results, system=notes["system"], seed=notes["seed"]) | {
        "sessions": new.num_sessions,
        "all_sessions": log.num_sessions,
        "unknown_clicks": unknown,
    }
    sessions = 0 if past_of_users is None else past_of_users.num_sessions
    return Scored(
        system,
        results,
        document,
        new.num_sessions,
        log.num_sessions,
        unknown,
        None if columns.user is None else sessions,
    )


class Popular:
    """The events of each item that a system has counted, if its model has no training sequences."""

    def __init__(self, system: System) -> None:
        counts = system.events
        self.support = np.zeros(system.num_items, dtype=np.int64) if counts is None else counts


def _counted(log: EventLog, begin: float, system: System) -> EventLog | None:
    """The sessions that baselines of users count, as in ``fit``: those before its cuts, or without times before
    ``begin``; None without any.
    """
    cuts, held_out = system.notes["cuts"], CATALOGUE[system.notes["system"]].held_out
    if not cuts["has_time"]:
        cuts = {"valid_from": min(begin, cuts["valid_from"]), "test_from": begin}
    first = log.before(cuts["valid_from"])
    first = first.of_sessions(first.lengths >= system.notes["rules"]["min_session_length"])
    then = log.before(cuts["test_from"]).after(cuts["valid_from"])
    first, then = (part.aligned_to(log.items, log.users) for part in (first, then))
    known = merged(first, then) if held_out else first
    return known if known.num_events else None
