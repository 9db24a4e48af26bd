"""From a log to a folder with a trained and evaluated model and its model card: shared by ``fit`` and ``run``.

A folder holds ``model/`` (weights, training sequences, model card), ``metrics.json`` and ``curves.png``; during
training also ``checkpoint/``. All input is validated before the folder is created, and files are written atomically.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from graphmeta.cli.history import anonymous, load_history, save_history
from graphmeta.cli.log_columns import Columns
from graphmeta.cli.model_card import card
from graphmeta.cli.new_items import with_new_items, with_vocabulary
from graphmeta.data.events import EventLog
from graphmeta.data.merging import merged
from graphmeta.data.splits import Split
from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError
from graphmeta.evaluation.compare import Comparison, baselines, by_known_sessions, compare, metrics
from graphmeta.evaluation.lists import lists_below
from graphmeta.evaluation.protocol import KS, Rules, cuts, test_queries, unseen
from graphmeta.evaluation.queries import reads_history
from graphmeta.evaluation.ranking import Result, evaluate
from graphmeta.plots import figures as plots
from graphmeta.protocols import Bar
from graphmeta.published.catalogue import CATALOGUE
from graphmeta.published.load import load
from graphmeta.published.plan_checkpoint import drop
from graphmeta.published.training_plan import Plan, Say, request_of, train_plan
from graphmeta.sampling.samples import Samples, last_clicks
from graphmeta.sampling.user_histories import UserHistories
from graphmeta.storage import load_state, write_bytes, write_json
from graphmeta.system import System
from graphmeta.training.run import Checkpoint, Report


@dataclass(frozen=True)
class Job:
    """A training plan, a log file, split rules and an output folder.

    Args:
        source: name of the log in the model card.
        keep_histories: store the users' sessions with the model.
        catalogue: all items that may be recommended, also those without training events.
    """

    plan: Plan
    columns: Columns
    rules: Rules
    source: str
    folder: Path
    resume: bool = False
    keep_histories: bool = False
    catalogue: EntityTable | None = None


@dataclass(frozen=True)
class Outcome:
    """A finished job: the system, and metrics of it and its baselines on the test split."""

    system: System
    results: Comparison
    known_sessions: dict[str, dict[int | None, Result]] = field(default_factory=dict)


def check_folder(folder: Path) -> None:
    """Raise an InputError if the folder is not writable, before hours of training."""
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise InputError(f"{place}: is a file; name a folder to write to")
    if not os.access(place, os.W_OK):
        raise InputError(f"{place}: cannot be written to; choose another folder")


def run_job(job: Job, log: EventLog, *, split: Split, say: Say, bar: Bar) -> Outcome | None:
    """Train, compare on the test split, and write the folder; None if it has the result of this job already.

    Args:
        say: called with each log line; bar: ``(batches, name) -> batches``, shows progress.
    """
    request = request_of(job.plan, split)
    new = None if job.catalogue is None else job.catalogue.new_to(split.train.items)
    if new is not None:
        request["new items"] = new.fingerprint().hex()[:16]
    if job.resume and _finished(job.folder, request):
        return None
    trained = train_plan(job.plan, split, Checkpoint(job.folder / "checkpoint", job.resume), say=say, bar=bar)
    system, base = trained.system, trained.base
    if new is not None and len(new):
        system, base = with_new_items(system, base, new, name=job.plan.system, say=say)
    ranked = split if system.items is trained.system.items else with_vocabulary(split, log, system.items)
    # Baselines count the sessions that the system's own statistics count.
    known = merged(ranked.train, ranked.valid) if CATALOGUE[job.plan.system].held_out else ranked.train
    past = anonymous(known)
    queries = with_earlier(test_queries(ranked.test, job.rules), ranked.test, ranked.parts)
    results = compare(system, queries, past=past, known=known, base=base, bar=bar)
    document = metrics(results, system=job.plan.system, seed=job.plan.seed)
    by_history = _by_history(system, queries, known)
    if by_history:
        document["known_sessions"] = {
            name: {"all" if n is None else str(n): result.metrics for n, result in own.items()}
            for name, own in by_history.items()
        }
        plots.known_sessions(by_history, job.folder / "known_sessions.png")
    system.notes |= _notes(job, trained.plan, log, split, trained.histories[job.plan.system]) | {
        "metrics": document,
        "request": request,
    }
    if job.keep_histories and system.reads_history:
        system.histories = UserHistories.of(*ranked.parts)
    _write(job.folder / "model", system, past, results, keep_histories=job.keep_histories)
    plots.curves(trained.histories, job.folder / "curves.png", baselines=_validation_baselines(past, ranked.valid))
    write_json(job.folder / "metrics.json", document)
    drop(job.folder / "checkpoint")
    return Outcome(system, results, by_history)


def _by_history(system: System, queries: Samples, known: EventLog) -> dict[str, dict[int | None, Result]]:
    """The curves of the system and of users' baselines, on at most 250 queries; none if it reads no history."""
    if not system.reads_history or queries.earlier is None:
        return {}
    few = queries.take(np.linspace(0, len(queries) - 1, min(len(queries), 250)).astype(np.int64))
    others = {name: model for name, model in baselines(known, known).items() if reads_history(model)}
    return by_known_sessions({**others, "system": system}, few)


def _finished(folder: Path, request: dict[str, Any]) -> bool:
    if (folder / "checkpoint").exists() or not (folder / "metrics.json").is_file():
        return False
    return load_state(folder / "model", "model")[1]["notes"].get("request") == request


def _notes(job: Job, plan: Plan, log: EventLog, split: Split, history: list[Report]) -> dict[str, Any]:
    """Metadata of the training, saved with the model."""
    train = split.train
    return {
        **plan.settings(),
        "best_epoch": max(report.epoch for report in history if report.best) + 1,
        "columns": asdict(job.columns),
        "rules": asdict(job.rules),
        "cuts": cuts(log, split),
        "source": job.source,
        "training": {"sessions": train.num_sessions, "events": train.num_events, "items": train.num_items},
        "graphmeta": _version(),
        "date": date.today().isoformat(),
    }


def _version() -> str:
    try:
        return version("graphmeta")
    except PackageNotFoundError:
        return "(from a checkout)"


def _validation_baselines(past: EventLog, valid: EventLog) -> dict[str, dict[str, float]]:
    """Baselines on the validation sessions, to draw with the validation curve."""
    samples = last_clicks(valid)
    if len(samples) == 0:
        return {}
    models = baselines(past)
    ks = lists_below(past.num_items, KS)
    return {name.replace("_", " "): evaluate(model, samples, ks=ks).metrics for name, model in models.items()}


def with_earlier(queries: Samples, log: EventLog, parts: Sequence[EventLog]) -> Samples:
    """The queries of a log with their users' earlier sessions in these logs, if these have users."""
    if any(part.users is None for part in parts):
        return queries
    return UserHistories.of(*parts).attached(queries, log)


def read_like(system: System, events: Path) -> EventLog:
    """A log in the columns that the system's own log was read from.

    Raises:
        InputError: a model not written by a command, or of a log without users.
    """
    columns = system.notes.get("columns")
    if columns is None or columns.get("user") is None:
        why = "not written by fit or run" if columns is None else "fitted to a log without users (--user)"
        raise InputError(f"the model was {why}, so the columns of {events.name} are unknown; use it from Python")
    return Columns(**columns).read(events)


def _write(folder: Path, system: System, past: EventLog, results: Comparison, *, keep_histories: bool) -> None:
    save_history(folder, past)
    write_bytes(folder / "README.md", card(system, results).encode())
    system.save(folder, keep_histories=keep_histories)


@dataclass(frozen=True)
class Scored:
    """Evaluation of a model on the sessions of a log after its training data; fields as in ``metrics.json``."""

    system: System
    results: Comparison
    document: dict[str, Any]
    sessions: int
    all_sessions: int
    unknown: int


def score(folder: Path, events: Path, *, bar: Bar) -> Scored:
    """Evaluate the model in a folder on the sessions of a file that begin after its training data.

    The folder's training sequences have no users, so baselines that read users' earlier sessions are left out.

    Raises:
        InputError: a model not written by a command, or a file without later sessions.
    """
    system = load(folder)
    notes = system.notes
    if "cuts" not in notes:
        raise InputError(
            f"{folder}: not written by fit or run, so its training period is unknown; evaluate it from Python"
        )
    columns, rules = Columns(**notes["columns"]), Rules(**notes["rules"])
    # A model without users needs no user column, unless sessions are defined by user.
    plain = system.users is None and columns.session is not None and not system.reads_history
    log = (replace(columns, user=None) if plain else columns).read(events)
    new = unseen(log, notes["cuts"])
    known = new.aligned_to(system.items, system.users)
    queries = test_queries(known, rules)
    if system.reads_history:
        own = new.aligned_to(system.items, new.users)
        histories = UserHistories.of(log.aligned_to(system.items, log.users))
        histories = histories if system.histories is None else system.histories.joined(histories)
        queries = histories.attached(queries, own)
    results = compare(system, queries, past=load_history(folder, system.items), bar=bar)
    unknown = new.num_events - known.num_events
    document = metrics(results, system=notes["system"], seed=notes["seed"]) | {
        "sessions": new.num_sessions,
        "all_sessions": log.num_sessions,
        "unknown_clicks": unknown,
    }
    return Scored(system, results, document, new.num_sessions, log.num_sessions, unknown)
