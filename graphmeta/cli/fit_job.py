"""From a log to a folder with a trained and evaluated model and its model card: shared by ``fit`` and ``run``.

A folder holds ``model/`` (versions of weights, training sequences, model card and reports), and the reports of the
current version: ``metrics.json``, ``epochs.csv`` and pictures; during training also ``checkpoint/``. All input is
validated before the folder is created, and files are written atomically.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from graphmeta.cli.epochs import as_json, write_epochs
from graphmeta.cli.history import anonymous, save_history
from graphmeta.cli.measuring import Job, Measured, counted, measured_on_test, validation_baselines
from graphmeta.cli.model_card import card
from graphmeta.cli.new_items import with_new_items
from graphmeta.data.events import EventLog
from graphmeta.data.scan.log import ScannedLog
from graphmeta.data.splits import Split
from graphmeta.distributed.first import on_first
from graphmeta.errors import InputError
from graphmeta.evaluation.compare import Comparison
from graphmeta.evaluation.protocol import cuts, whole_log
from graphmeta.evaluation.ranking import Result
from graphmeta.plots import figures as plots
from graphmeta.protocols import Bar
from graphmeta.published.plan_checkpoint import drop
from graphmeta.published.training_plan import Say, TrainedPlan, refit, request_of, train_plan
from graphmeta.sampling.user_histories import UserHistories
from graphmeta.storage import load_state, write_bytes, write_json
from graphmeta.storage.reports import REPORTS
from graphmeta.storage.versions import complete, identity, new_version, whole_version
from graphmeta.system import System
from graphmeta.training.run import Checkpoint


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


def check_model(folder: Path, system: str, *, overwrite: bool) -> None:
    """Raise an InputError if the output folder holds a model of another system, unless it is to be replaced."""
    place = folder / "model"
    if overwrite or identity(place) is None:
        return
    try:
        document = whole_version(place, lambda version: load_state(version, "model")[1])
        found = document["notes"].get("system") or (document.get("spec") or document["recipe"])["name"]
    except (InputError, KeyError, TypeError, AttributeError):
        found = None
    if found != system:
        what = "a file that is not a readable model" if found is None else f"a model of {found}"
        raise InputError(
            f"{place}: holds {what}; choose another --out, or pass --overwrite to replace it by {system} (`graphmeta "
            f"rollback {folder}` then restores it)"
        )


def run_job(job: Job, log: EventLog | ScannedLog, *, split: Split, say: Say, bar: Bar) -> Outcome | None:
    """Train, compare on the test split, train again on the whole log, and write the folder; None if it has the result
    of this job already.

    In several processes (:func:`graphmeta.distributed.joined`) all of them run the job, and rank 0 writes. Without a
    test part nothing is compared, and ``recipe.refit=False`` keeps the compared model.

    Args:
        say: called with each log line.
        bar: ``(batches, name) -> batches``, shows progress.
    """
    request = request_of(job.plan, split)
    new = None if job.catalogue is None else job.catalogue.new_to(split.train.items)
    if new is not None:
        request["new items"] = new.fingerprint().hex()[:16]
    if job.keep_histories:
        request["keep histories"] = True
    if job.resume and on_first(lambda: _finished(job.folder, request)):
        on_first(lambda: _complete(job.folder))
        return None
    checkpoint = Checkpoint(job.folder / "checkpoint", job.resume)
    trained = train_plan(job.plan, split, checkpoint, say=say, bar=bar)
    ranked, measured = split, None
    if split.test.num_events:
        ranked, measured = measured_on_test(job, log, split, trained, new, say=say, bar=bar)
    document = {"system": job.plan.system, "seed": job.plan.seed, "samples": 0}
    document = document if measured is None else measured.document
    shipped, training = trained, split
    if job.plan.recipe.refit is not False and (job.rules.test or job.rules.valid):
        training = whole_log(log, job.rules)
        shipped = refit(job.plan, trained, training.train, checkpoint, say=say, bar=bar)
    system = shipped.system
    if measured is not None and shipped is trained:
        system = measured.system
    elif job.catalogue is not None:
        more = job.catalogue.new_to(training.train.items)
        system = with_new_items(system, None, more, name=job.plan.system, say=say)[0] if len(more) else system
    system.notes |= _notes(job, trained, shipped, log, (split, training)) | {"metrics": document, "request": request}
    if job.keep_histories and not system.reads_history:
        say(f"note: {job.plan.system} reads no earlier sessions of users; --keep-histories has no effect")
    used = ranked if shipped is trained else training
    if job.keep_histories and system.reads_history:
        system.histories = UserHistories.of(*used.parts)
    made = _Made(system, trained, shipped, measured, document, ranked, used)
    on_first(lambda: _write_all(job, made))
    if measured is None:
        return Outcome(system, None)
    return Outcome(measured.system, measured.results, measured.last_sessions)


@dataclass(frozen=True)
class _Made:
    """What a job has made: the shipped system, its trainings, and the splits that were ranked and used."""

    system: System
    trained: TrainedPlan
    shipped: TrainedPlan
    measured: Measured | None
    document: dict[str, Any]
    ranked: Split
    used: Split


def _finished(folder: Path, request: dict[str, Any]) -> bool:
    """Whether the current version is the result of this request."""
    if identity(folder / "model") is None:
        return False
    document = whole_version(folder / "model", lambda version: load_state(version, "model")[1])
    return document["notes"].get("request") == request


def _notes(
    job: Job, measured: TrainedPlan, shipped: TrainedPlan, log: EventLog | ScannedLog, splits: tuple[Split, Split]
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


def _sizes(log: EventLog | ScannedLog) -> dict[str, int]:
    return {"sessions": log.num_sessions, "events": log.num_events, "items": log.num_items}


def _version() -> str:
    try:
        return version("graphmeta")
    except PackageNotFoundError:
        return "(from a checkout)"


def _write_all(job: Job, made: _Made) -> None:
    """Write the model with its reports as a new version; the checkpoint is removed."""
    system, results = made.system, None if made.measured is None else made.measured.results
    past = anonymous(counted(job, made.used))
    on_valid = validation_baselines(anonymous(made.ranked.train), made.ranked.valid)
    system.check_finite()
    with new_version(job.folder / "model") as place:
        save_history(place, past)
        write_bytes(place / "README.md", card(system, results).encode())
        _report(made, on_valid, place / REPORTS)
        system.write_files(place, keep_histories=job.keep_histories)
    drop(job.folder / "checkpoint")


def _report(made: _Made, on_valid: Mapping[str, Mapping[str, float]], folder: Path) -> None:
    """Write the curves, the picture of known sessions, the epochs and the metrics.

    Args:
        on_valid: baselines on the validation sessions, see
            :func:`~graphmeta.cli.measuring.validation_baselines`.
    """
    plots.curves(made.trained.histories, folder / "curves.png", baselines=on_valid)
    if made.measured is not None:
        made.measured.draw(folder)
    write_epochs(made.shipped.histories, folder)
    write_json(folder / "metrics.json", made.document | {"history": as_json(made.shipped.histories)})


def _complete(folder: Path) -> None:
    """Finish what a run that was killed after its model was written has left to do."""
    complete(folder / "model")
    drop(folder / "checkpoint")
