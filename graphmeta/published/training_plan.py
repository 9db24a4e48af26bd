"""A plan of training, and the trainings that come of it: encoders first, then what is built around them.

A finished training waits in its checkpoint until all are done, so an interrupted plan goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from graphmeta.data.events import EventLog
from graphmeta.data.splits import Split, last_sessions
from graphmeta.errors import InputError
from graphmeta.protocols import Bar
from graphmeta.published.catalogue import CATALOGUE, build
from graphmeta.storage import load_state, save_state
from graphmeta.system import System
from graphmeta.training.loop import train
from graphmeta.training.optimizers import Adam
from graphmeta.training.run import Checkpoint, Report

Say = Callable[[str], None]
WITHIN = ("alone", "again")  # folders of a checkpoint, for the trainings of encoders


@dataclass(frozen=True)
class Plan:
    """A training: which system, how large, how long, from which seed.

    Args:
        max_support, max_length: see :class:`~graphmeta.system.System`; the system's own if None.
    """

    system: str
    epochs: int
    seed: int
    width: int
    batch_size: int = 100
    lr: float = 1e-3
    max_support: int | None = None
    max_length: int | None = None


@dataclass(frozen=True)
class TrainedPlan:
    """What came of a plan: the system, its encoder as trained alone (if it has one), and the reports of all trainings,
    the system's own under its name."""

    system: System
    alone: System | None
    histories: dict[str, list[Report]]


def train_plan(plan: Plan, split: Split, checkpoint: Checkpoint, *, say: Say, bar: Bar) -> TrainedPlan:
    """Carry out all trainings of a plan, each with a checkpoint of its own.

    What learns how far to trust counts does so on the last tenth of the sessions, which neither its encoder has learned
    from nor anybody counted. Then it knows how far, and all are counted, and an encoder that has learned from all of
    them takes the place of the first (stacked generalisation: Wolpert 1992).

    Args:
        say: told a line at a time; bar: ``(batches, name) -> batches``, shows progress.
    """
    if not checkpoint.resume:
        drop(checkpoint.folder)
    first, last = stages(plan)
    earlier, later = _dealt(plan, split)
    trained, histories = partial(_trained, say=say, bar=bar), {}
    alone = None
    if first is not None:
        say(f"the encoder alone ({first.system}), trained to predict every click:")
        alone, histories[f"{first.system} alone"] = trained(first, earlier, _within(checkpoint, "alone"))
        say(f"{last.system}, beginning with what the encoder has learned:")
    system, history = trained(last, later, checkpoint, begin=alone, statistics_log=earlier.train)
    if first is not None and later is not earlier:
        say(f"the encoder once more ({first.system}), on all sessions:")
        alone, histories[f"{first.system} once more"] = trained(first, split, _within(checkpoint, "again"))
        system.load_matching(alone, frozen_only=True)
        system.fit_statistics(split.train)
    return TrainedPlan(system, alone, {**histories, plan.system: history})


def drop(folder: Path) -> None:
    """Remove a plan's checkpoints, and their folder if nothing else is in it."""
    for place in (*(folder / name for name in WITHIN), folder):
        _drop(place)


def stages(plan: Plan) -> tuple[Plan | None, Plan]:
    """How a system is trained: one that adapts begins with its encoder, trained alone to predict every click.

    Meta-training sees one query a session; the encoder alone sees every click, and learns faster. It is also what
    adaptation is compared with. One that learns how far to trust counts begins likewise.
    """
    name = CATALOGUE[plan.system].encoder
    if name is None:
        return None, plan
    return replace(plan, system=name), _looking(plan) if CATALOGUE[plan.system].held_out else _meta(plan)


def _looking(plan: Plan) -> Plan:
    """Small batches: there are few sessions to learn on."""
    return replace(plan, batch_size=min(plan.batch_size, 100))


def _meta(plan: Plan) -> Plan:
    """Half the epochs, a quarter of the batch (a task is several samples) and a tenth of the rate."""
    return replace(plan, epochs=max(1, plan.epochs // 2), batch_size=max(1, plan.batch_size // 4), lr=plan.lr / 10)


def _dealt(plan: Plan, split: Split) -> tuple[Split, Split]:
    """What the encoder learns on and is counted, and what the system learns on: all, or the last tenth apart."""
    if not CATALOGUE[plan.system].held_out:
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
    statistics_log: EventLog | None = None,
) -> tuple[System, list[Report]]:
    """The system with its best epoch's weights, and every epoch's report; it starts from ``begin``, if given."""
    with torch.random.fork_rng():
        torch.manual_seed(plan.seed)
        limits = {"max_support": plan.max_support, "max_length": plan.max_length}
        system = build(plan.system, split.train.items, users=split.train.users, width=plan.width, **limits)
    if begin is not None:
        system.load_matching(begin)
    samples = system.training_samples(split.train)
    if len(samples) == 0:
        clicks = "three" if system.episodic else "two"
        raise InputError(f"no training session is long enough for {plan.system}; it needs {clicks} clicks in one")
    if system.adaptation is not None and system.episodic:
        say(f"memory of adapting: {system.memory_estimate(samples, plan.batch_size)}")
    request, folder = request_of(plan, split), checkpoint.folder
    history: list[Report] = []
    reports = train(
        system,
        split.train,
        epochs=plan.epochs,
        optimizer=Adam(lr=plan.lr, weight_decay=1e-6),
        batch_size=plan.batch_size,
        valid=split.valid if split.valid.num_events else None,
        statistics_log=statistics_log,
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


def request_of(plan: Plan, split: Split) -> dict[str, Any]:
    """What a training depends on: its plan, and a few letters that differ where the data do."""
    data = "-".join(log.fingerprint() for log in (split.train, split.valid, split.test))
    return {**{name: value for name, value in asdict(plan).items() if value is not None}, "data": data}


def _within(checkpoint: Checkpoint, name: str) -> Checkpoint:
    return replace(checkpoint, folder=checkpoint.folder / name)


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
