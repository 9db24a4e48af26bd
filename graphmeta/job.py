"""From a log to a folder with a trained, measured and described model: what ``fit`` and ``run`` have in common.

A folder holds ``model/`` (weights, training sequences, model card), ``metrics.json`` and ``curves.png``; while a
training runs, also ``checkpoint/``. All input is checked before the folder is made, and every file is written whole.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from graphmeta import plots
from graphmeta.batch import last_clicks
from graphmeta.card import card
from graphmeta.errors import InputError
from graphmeta.evaluate import Result, evaluate
from graphmeta.events import EventLog
from graphmeta.published import CATALOGUE, build
from graphmeta.report import (
    KS,
    Bar,
    Columns,
    Rules,
    anonymous,
    baselines,
    compare,
    cuts,
    metrics,
    questions,
    recall,
    remember,
    unseen,
)
from graphmeta.splits import Split, last_sessions
from graphmeta.storage import load_state, save_state, write_bytes, write_json
from graphmeta.system import System
from graphmeta.tables import EntityTable
from graphmeta.train import Adam, Checkpoint, Report, train

Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """A training: which system, how large, how long, from which seed."""

    system: str
    epochs: int
    seed: int
    width: int
    batch_size: int = 100
    lr: float = 1e-3


@dataclass(frozen=True)
class Job:
    """A plan on the log of a file, cut by rules, into a folder.

    Args:
        source: what the log is called in the model card.
    """

    plan: Plan
    columns: Columns
    rules: Rules
    source: str
    folder: Path
    resume: bool = False


@dataclass(frozen=True)
class Outcome:
    """A finished job: the system, and how good it and its rivals are on the test cut."""

    system: System
    results: dict[str, Result]


def stages(plan: Plan) -> tuple[Plan | None, Plan]:
    """How a system is trained: one that adapts begins with its encoder, trained alone to predict every click.

    Meta-training sees one query a session; the encoder alone sees every click, and learns faster. It is also what
    adaptation is compared with. One that learns how far to trust counts begins likewise.
    """
    name = CATALOGUE[plan.system].encoder
    if name is None:
        return None, plan
    return replace(plan, system=name), _looking(plan) if CATALOGUE[plan.system].counts else _meta(plan)


def _looking(plan: Plan) -> Plan:
    """Small batches: there are few sessions to learn on."""
    return replace(plan, batch_size=min(plan.batch_size, 100))


def _meta(plan: Plan) -> Plan:
    """Half the epochs, a quarter of the batch (a task is several samples) and a tenth of the rate."""
    return replace(plan, epochs=max(1, plan.epochs // 2), batch_size=max(1, plan.batch_size // 4), lr=plan.lr / 10)


def check_system(name: str, *, users: bool) -> None:
    """Raise an InputError unless the catalogue has this system and there are users if it needs to know them."""
    if name not in CATALOGUE:
        build(name, EntityTable(np.zeros(0, dtype=np.int64), {}))
    for part in filter(None, (name, CATALOGUE[name].encoder)):
        CATALOGUE[part].check_users(users)
    if CATALOGUE[name].rates:
        raise InputError(f"{name} predicts ratings, not the next item; train it in Python, see graphmeta.scenarios")


def check_folder(folder: Path) -> None:
    """Raise an InputError unless files can be written there, before hours go into what would be written."""
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise InputError(f"{place}: is a file; name a folder to write to")
    if not os.access(place, os.W_OK):
        raise InputError(f"{place}: cannot be written to; choose another folder")


def carry_out(job: Job, log: EventLog, *, split: Split, say: Say, bar: Bar) -> Outcome | None:
    """Train, compare on the test cut, and write the folder; None if it holds this very job's result already.

    Args:
        say: told a line at a time; bar: ``(batches, name) -> batches``, shows progress.
    """
    request = _request(job.plan, split)
    if job.resume and _finished(job.folder, request):
        return None
    checkpoint, alone = job.folder / "checkpoint", None
    histories: dict[str, list[Report]] = {}
    if not job.resume:
        _drop(checkpoint / "alone")
        _drop(checkpoint)
    first, last = stages(job.plan)
    earlier, later = _dealt(job.plan, split)
    if first is not None:
        say(f"the encoder alone ({first.system}), trained to predict every click:")
        place = Checkpoint(checkpoint / "alone", job.resume)
        alone, histories[f"{first.system} alone"] = _trained(first, earlier, place, say=say, bar=bar)
        say(f"{last.system}, beginning with what the encoder has learned:")
    place = Checkpoint(checkpoint, job.resume)
    system, history = _trained(last, later, place, say=say, bar=bar, begin=alone, counted=earlier.train)
    if later is not earlier:
        system.fit(split.train)  # in the end, all is counted
    histories[job.plan.system] = history
    past = anonymous(split.train)
    results = compare(system, questions(split.test, job.rules), past=past, alone=alone, bar=bar)
    document = metrics(results, system=job.plan.system, seed=job.plan.seed)
    system.notes |= _notes(job, log, split, history) | {"metrics": document, "request": request}
    _write(job.folder / "model", system, past, results)
    plots.curves(histories, job.folder / "curves.png", baselines=_rivals(past, split.valid))
    write_json(job.folder / "metrics.json", document)
    _drop(checkpoint / "alone")
    _drop(checkpoint)
    return Outcome(system, results)


def _dealt(plan: Plan, split: Split) -> tuple[Split, Split]:
    """What the encoder learns on and is counted, and what the system learns on: all, or the last tenth apart."""
    if not CATALOGUE[plan.system].counts:
        return split, split
    if split.train.num_sessions < 2:
        raise InputError(f"{plan.system} counts some sessions and learns on others, and there is one; bring more")
    logs = last_sessions(split.train, max(split.train.num_sessions // 10, 1))
    earlier, later = (replace(split, train=log) for log in logs)
    return earlier, later


def _trained(
    plan: Plan,
    split: Split,
    checkpoint: Checkpoint,
    *,
    say: Say,
    bar: Bar,
    begin: System | None = None,
    counted: EventLog | None = None,
) -> tuple[System, list[Report]]:
    """The system with its best epoch's weights, and every epoch's report; it starts from ``begin``, if given."""
    with torch.random.fork_rng():
        torch.manual_seed(plan.seed)
        system = build(plan.system, split.train.items, users=split.train.users, width=plan.width)
    if begin is not None:
        system.start_from(begin)
    samples = system.training_samples(split.train)
    if len(samples) == 0:
        clicks = "three" if system.episodic else "two"
        raise InputError(f"no training session is long enough for {plan.system}; it needs {clicks} clicks in one")
    if system.adaptation is not None and system.episodic:
        say(f"memory of adapting: {system.adaptation.estimate(plan.batch_size, system.support(samples))}")
    request, folder = _request(plan, split), checkpoint.folder
    history: list[Report] = []
    reports = train(
        system,
        split.train,
        epochs=plan.epochs,
        optimizer=Adam(lr=plan.lr, weight_decay=1e-6),
        batch_size=plan.batch_size,
        valid=split.valid if split.valid.num_events else None,
        counted=counted,
        seed=plan.seed,
        checkpoint=Checkpoint(folder, _goes_on(checkpoint, request)),
        progress=lambda batches: bar(batches, f"epoch {len(history) + 1}/{plan.epochs}"),
    )
    for report in reports:
        history.append(report)
        if len(history) == 1:
            save_state(folder, "request", {}, request)
        say(_line(report, plan.epochs))
    return system, history


def _line(report: Report, epochs: int) -> str:
    told = [f"epoch {report.epoch + 1}/{epochs}", f"loss {report.loss:.4f}"]
    if report.valid:
        found = (f"{name} {100 * report.valid[key]:.2f} %" for name, key in _SHOWN if key in report.valid)
        told += ["validation " + ", ".join(found)]
    return "   ".join([*told, f"{report.seconds:.0f} s"]) + ("   best so far" if report.best and report.valid else "")


_SHOWN = (("Hit@20", "hit@20"), ("MRR@20", "mrr@20"))


def _request(plan: Plan, split: Split) -> dict[str, Any]:
    """What a training depends on: its plan, and a few letters that differ where the data do."""
    data = "-".join(log.fingerprint() for log in (split.train, split.valid, split.test))
    return {**asdict(plan), "data": data}


def _goes_on(checkpoint: Checkpoint, request: dict[str, Any]) -> bool:
    """Whether to go on from what lies in the folder; if not, it is removed.

    Raises:
        InputError: the checkpoint of another training; names what differs.
    """
    if not checkpoint.resume or not (checkpoint.folder / "request.json").is_file():
        _drop(checkpoint.folder)
        return False
    _, stored = load_state(checkpoint.folder, "request")
    changed = [key for key in request if stored.get(key) != request[key]]
    if changed:
        raise InputError(
            f"{checkpoint.folder}: a checkpoint of another training (different: {', '.join(changed)}); "
            f"use its settings, or drop --resume to begin anew"
        )
    return True


def _drop(folder: Path) -> None:
    """Remove a checkpoint, and the folder if nothing else is in it."""
    for name in ("training", "request"):
        for file in (folder / f"{name}.json", *folder.glob(f"{name}-*.safetensors")):
            file.unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _finished(folder: Path, request: dict[str, Any]) -> bool:
    if (folder / "checkpoint").exists() or not (folder / "metrics.json").is_file():
        return False
    return load_state(folder / "model", "model")[1]["notes"].get("request") == request


def _notes(job: Job, log: EventLog, split: Split, history: list[Report]) -> dict[str, Any]:
    """What the model remembers of its making."""
    train = split.train
    return {
        **asdict(job.plan),
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


def _rivals(past: EventLog, valid: EventLog) -> dict[str, dict[str, float]]:
    """The baselines on the validation sessions, to draw beside what training reached there."""
    asked = last_clicks(valid)
    if len(asked) == 0:
        return {}
    rivals = baselines(past)
    return {name.replace("_", " "): evaluate(rival, asked, ks=KS).metrics for name, rival in rivals.items()}


def _write(folder: Path, system: System, past: EventLog, results: dict[str, Result]) -> None:
    remember(folder, past)
    write_bytes(folder / "README.md", card(system, results).encode())
    system.save(folder)


@dataclass(frozen=True)
class Scored:
    """A model on a log: its sessions that begin after the model's cut, of all; the rest as in ``metrics.json``."""

    system: System
    results: dict[str, Result]
    document: dict[str, Any]
    sessions: int
    all_sessions: int
    unknown: int


def score(folder: Path, events: Path, *, bar: Bar) -> Scored:
    """Score the model in a folder on the sessions of a file that it cannot have been made from.

    Raises:
        InputError: a model that no command wrote, or a file without later sessions.
    """
    system = System.load(folder)
    notes = system.notes
    if "cuts" not in notes:
        raise InputError(f"{folder}: not written by fit or run, so its cut is not known; evaluate it from Python")
    columns, rules = Columns(**notes["columns"]), Rules(**notes["rules"])
    # Who does not look at users needs no column of them, unless it is they who tell sessions apart.
    plain = system.users is None and columns.session is not None
    log = (replace(columns, user=None) if plain else columns).read(events)
    new = unseen(log, notes["cuts"])
    known = new.aligned_to(system.items, system.users)
    results = compare(system, questions(known, rules), past=recall(folder, system.items), bar=bar)
    unknown = new.num_events - known.num_events
    document = metrics(results, system=notes["system"], seed=notes["seed"]) | {
        "sessions": new.num_sessions,
        "all_sessions": log.num_sessions,
        "unknown_clicks": unknown,
    }
    return Scored(system, results, document, new.num_sessions, log.num_sessions, unknown)
