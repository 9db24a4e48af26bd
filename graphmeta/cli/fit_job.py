"""From a log to a folder with a trained and evaluated model and its model card: shared by ``fit`` and ``run``.

A folder holds ``model/`` (weights, training sequences, model card), ``metrics.json`` and ``curves.png``; during
training also ``checkpoint/``. All input is validated before the folder is created, and files are written atomically.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from graphmeta.cli.history import anonymous, save_history
from graphmeta.cli.log_columns import Columns
from graphmeta.cli.model_card import card
from graphmeta.cli.new_items import with_new_items, with_vocabulary
from graphmeta.data.events import EventLog
from graphmeta.data.merging import merged
from graphmeta.data.splits import Split
from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError
from graphmeta.evaluation.compare import Comparison, baselines, by_known_sessions, compare, metrics
from graphmeta.evaluation.lists import COMPARED_KS, lists_below
from graphmeta.evaluation.protocol import Rules, cuts, test_queries
from graphmeta.evaluation.queries import reads_history
from graphmeta.evaluation.ranking import Result, evaluate
from graphmeta.plots import figures as plots
from graphmeta.protocols import Bar
from graphmeta.published.catalogue import CATALOGUE
from graphmeta.published.plan_checkpoint import drop
from graphmeta.published.training_plan import Plan, Say, request_of, train_plan
from graphmeta.sampling.samples import Samples, last_clicks
from graphmeta.sampling.user_histories import UserHistories
from graphmeta.storage import load_state, write_bytes, write_json
from graphmeta.system import System
from graphmeta.training.run import Checkpoint, Report

_PICTURE = "known_sessions.png"


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
    """A finished job: the system, and metrics of it and its baselines on the test split; ``last_sessions`` are those
    with only the last n earlier sessions of each user known.
    """

    system: System
    results: Comparison
    last_sessions: dict[str, dict[int | None, Result]] = field(default_factory=dict)


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
    models = baselines(past, known)
    results = compare(system, queries, past=past, models=models, base=base, bar=bar)
    document = metrics(results, system=job.plan.system, seed=job.plan.seed)
    last_sessions = _by_last_sessions({**models, "system": system}, queries)
    if last_sessions:
        document["known_sessions"] = {name: results[name].slices["known sessions"] for name in last_sessions}
        document["last_sessions"] = {
            name: {"all" if n is None else str(n): result.metrics for n, result in own.items()}
            for name, own in last_sessions.items()
        }
        plots.known_sessions({name: results[name] for name in last_sessions}, last_sessions, job.folder / _PICTURE)
    system.notes |= _notes(job, trained.plan, log, split, trained.histories[job.plan.system]) | {
        "metrics": document,
        "request": request,
    }
    if job.keep_histories and not system.reads_history:
        say(f"note: {job.plan.system} reads no earlier sessions of users; --keep-histories has no effect")
    if job.keep_histories and system.reads_history:
        system.histories = UserHistories.of(*ranked.parts)
    _write(job.folder / "model", system, past, results, keep_histories=job.keep_histories)
    plots.curves(trained.histories, job.folder / "curves.png", baselines=_validation_baselines(past, ranked.valid))
    write_json(job.folder / "metrics.json", document)
    drop(job.folder / "checkpoint")
    return Outcome(system, results, last_sessions)


def _by_last_sessions(models: Mapping[str, Any], queries: Samples) -> dict[str, dict[int | None, Result]]:
    """The curves of the models that read users' histories, on at most 250 queries; none if the system does not."""
    if not reads_history(models["system"]) or queries.earlier is None:
        return {}
    few = queries.take(np.linspace(0, len(queries) - 1, min(len(queries), 250)).astype(np.int64))
    return by_known_sessions({name: model for name, model in models.items() if reads_history(model)}, few)


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
        "columns": job.columns.to_json(),
        "rules": asdict(job.rules),
        "cuts": cuts(log, split),
        "source": job.source,
        "training": {
            "sessions": train.num_sessions,
            "events": train.num_events,
            "items": train.num_items,
            "validation_sessions": split.valid.num_sessions if CATALOGUE[plan.system].held_out else 0,
        },
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
    ks = lists_below(past.num_items, COMPARED_KS)
    return {name.replace("_", " "): evaluate(model, samples, ks=ks).metrics for name, model in models.items()}


def with_earlier(queries: Samples, log: EventLog, parts: Sequence[EventLog]) -> Samples:
    """The queries of a log with their users' earlier sessions in these logs, if these have users."""
    if any(part.users is None for part in parts):
        return queries
    return UserHistories.of(*parts).attached(queries, log)


def _write(folder: Path, system: System, past: EventLog, results: Comparison, *, keep_histories: bool) -> None:
    save_history(folder, past)
    write_bytes(folder / "README.md", card(system, results).encode())
    system.save(folder, keep_histories=keep_histories)
