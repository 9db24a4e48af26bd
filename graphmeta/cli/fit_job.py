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

from graphmeta.cli.epochs import as_json, write_epochs
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
from graphmeta.evaluation.protocol import Rules, cuts, test_queries, whole_log
from graphmeta.evaluation.queries import reads_history
from graphmeta.evaluation.ranking import Result, evaluate
from graphmeta.plots import figures as plots
from graphmeta.protocols import Bar
from graphmeta.published.catalogue import CATALOGUE
from graphmeta.published.plan_checkpoint import drop
from graphmeta.published.training_plan import Plan, Say, TrainedPlan, ignore, refit, request_of, train_plan
from graphmeta.sampling.samples import Samples, last_clicks
from graphmeta.sampling.user_histories import UserHistories
from graphmeta.storage import load_state, write_bytes, write_json
from graphmeta.system import System
from graphmeta.training.run import Checkpoint

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
    """A finished job: the system, and metrics of it and its baselines on the test split (None without one), as measured
    before it was trained again; ``last_sessions`` are those with only the last n earlier sessions of each user known.
    """

    system: System
    results: Comparison | None
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
    """Train, compare on the test split, train again on the whole log, and write the folder; None if it has the result
    of this job already.

    Without a test part nothing is compared, and ``recipe.refit=False`` keeps the compared model.

    Args:
        say: called with each log line; bar: ``(batches, name) -> batches``, shows progress.
    """
    request = request_of(job.plan, split)
    new = None if job.catalogue is None else job.catalogue.new_to(split.train.items)
    if new is not None:
        request["new items"] = new.fingerprint().hex()[:16]
    if job.resume and _finished(job.folder, request):
        return None
    checkpoint = Checkpoint(job.folder / "checkpoint", job.resume)
    trained = train_plan(job.plan, split, checkpoint, say=say, bar=bar)
    ranked, measured = split, None
    if split.test.num_events:
        ranked, measured = _measured(job, log, split, trained, new, say=say, bar=bar)
    document = {"system": job.plan.system, "seed": job.plan.seed, "samples": 0}
    document = document if measured is None else measured.document
    shipped, training = trained, split
    if job.plan.recipe.refit is not False:
        training = whole_log(log, job.rules)
        shipped = refit(job.plan, trained, training.train, checkpoint, say=say, bar=bar, on_epoch=ignore)
    system = shipped.system
    if measured is not None and shipped is trained:
        system = measured.system
    elif job.catalogue is not None:
        more = job.catalogue.new_to(training.train.items)
        system = with_new_items(system, None, more, name=job.plan.system, say=say)[0] if len(more) else system
    system.notes |= _notes(job, trained, shipped, log, (split, training)) | {"metrics": document, "request": request}
    if job.keep_histories and not system.reads_history:
        say(f"note: {job.plan.system} reads no earlier sessions of users; --keep-histories has no effect")
    past = _counted(job, training if shipped is not trained else ranked)
    if job.keep_histories and system.reads_history:
        system.histories = UserHistories.of(*(training if shipped is not trained else ranked).parts)
    results = None if measured is None else measured.results
    _write(job.folder / "model", system, anonymous(past), results, keep_histories=job.keep_histories)
    counted = anonymous(_counted(job, ranked))
    baselines_on_valid = _validation_baselines(counted, ranked.valid)
    plots.curves(trained.histories, job.folder / "curves.png", baselines=baselines_on_valid)
    write_epochs(shipped.histories, job.folder)
    write_json(job.folder / "metrics.json", document | {"history": as_json(shipped.histories)})
    drop(job.folder / "checkpoint")
    if measured is None:
        return Outcome(system, None)
    return Outcome(measured.system, measured.results, measured.last_sessions)


@dataclass(frozen=True)
class Measured:
    """A system, its results and those of baselines on the test split, as objects and as a JSON document."""

    system: System
    results: Comparison
    last_sessions: dict[str, dict[int | None, Result]]
    document: dict[str, Any]


def _measured(
    job: Job, log: EventLog, split: Split, trained: TrainedPlan, new: EntityTable | None, *, say: Say, bar: Bar
) -> tuple[Split, Measured]:
    """The comparison on the test split, and the split with the vocabulary that is ranked."""
    system, base = trained.system, trained.base
    if new is not None and len(new):
        system, base = with_new_items(system, base, new, name=job.plan.system, say=say)
    ranked = split if system.items is trained.system.items else with_vocabulary(split, log, system.items)
    known = _counted(job, ranked)
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
    return ranked, Measured(system, results, last_sessions, document)


def _counted(job: Job, split: Split) -> EventLog:
    """The sessions that baselines count: those that the system's own statistics count."""
    return merged(split.train, split.valid) if CATALOGUE[job.plan.system].held_out else split.train


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


def _notes(
    job: Job, measured: TrainedPlan, shipped: TrainedPlan, log: EventLog, splits: tuple[Split, Split]
) -> dict[str, Any]:
    """Metadata of the training, saved with the model.

    Args:
        splits: of the measured and of the shipped model.
    """
    split, training = splits
    best = measured.best[job.plan.system].epochs
    assert best is not None
    found = {
        **measured.plan.settings(),
        "best_epoch": best,
        "columns": job.columns.to_json(),
        "rules": asdict(job.rules),
        "cuts": cuts(log, training),
        "source": job.source,
        "training": _sizes(training.train),
        "graphmeta": _version(),
        "date": date.today().isoformat(),
    }
    if shipped is not measured:
        found["measured"] = {"training": _sizes(split.train), "cuts": cuts(log, split)}
    return found


def _sizes(log: EventLog) -> dict[str, int]:
    return {"sessions": log.num_sessions, "events": log.num_events, "items": log.num_items}


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


def _write(folder: Path, system: System, past: EventLog, results: Comparison | None, *, keep_histories: bool) -> None:
    save_history(folder, past)
    write_bytes(folder / "README.md", card(system, results).encode())
    system.save(folder, keep_histories=keep_histories)
