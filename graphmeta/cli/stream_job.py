"""From a log to a folder with metrics of systems that are retrained every period: the ``stream`` command.

A folder holds ``metrics.json``, ``periods.png`` and one folder per system with its state after the last finished period
and the deployed model, whose version is in ``metrics.json``. All input is validated before anything is written, and
files are written atomically.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from graphmeta.data.events import EventLog
from graphmeta.data.splits import period_edges
from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError, counted, duration
from graphmeta.evaluation.lists import lengths
from graphmeta.plots import stream as stream_plots
from graphmeta.published.catalogue import CATALOGUE, build
from graphmeta.retrain.strategy import Full
from graphmeta.retrain.stream import PeriodReport, Pretraining, overall, stream
from graphmeta.retrain.testing import StreamEvaluation
from graphmeta.sampling.histories import sessions_by_user
from graphmeta.sampling.samples import prefixes
from graphmeta.storage import clear_temporary, load_state, state_hash, write_json
from graphmeta.storage.versions import complete, identity, whole_version
from graphmeta.system import System
from graphmeta.training.run import Checkpoint

Say = Callable[[str], None]
_UNITS = {"s": 1, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


@dataclass(frozen=True)
class StreamJob:
    """Systems to evaluate, one after the other, on the same stream.

    Args:
        base: the system that retraining strategies wrap.
        period: length of a period, see :func:`edges_of`.
        first: number of pretraining periods.
        epochs: of pretraining.
        negatives: sampled per test click.
    """

    systems: tuple[str, ...]
    folder: Path
    period: str
    base: str = "mf"
    first: int = 10
    epochs: int = 10
    width: int = 64
    negatives: int = 999
    seed: int = 0
    resume: bool = False


def check_systems(names: tuple[str, ...], base: str, *, users: bool) -> None:
    """Raise an InputError for an unknown system, one that needs missing users, or one that cannot be retrained in a
    stream.
    """
    for name in (*names, base):
        if name not in CATALOGUE:
            build(name, EntityTable(np.zeros(0, dtype=np.int64), {}))  # the error suggests the nearest name
    for name in names:
        needed = CATALOGUE[base if _is_wrapper(name) else name]
        needed.check_users(users)
        if needed.held_out:
            raise InputError(
                f"{needed.name} needs held-out statistics and has a frozen base; retrain that base instead"
            )
        if needed.predicts_ratings:
            raise InputError(f"{needed.name} predicts ratings, not the next item; streams rank items")


def edges_of(log: EventLog, period: str) -> np.ndarray:
    """Boundaries of the periods, of length ``7d``, ``12h``, ``90min``, ``2w``, ``30s`` or ``5000events``.

    Raises:
        InputError: an invalid length, or a duration for a log without times.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|min|h|d|w|events)\s*", period)
    if found is None or not float(found[1]) > 0 or (found[2] == "events" and "." in found[1]):
        raise InputError(f"--period {period!r} must be a length like 7d, 12h, 90min, 2w, 30s or 5000events")
    if found[2] == "events":
        return period_edges(log, events=int(found[1]))
    if not log.has_time:
        raise InputError(f"--period {period} needs times; name their column (--time), or count events: 5000events")
    return period_edges(log, seconds=float(found[1]) * _UNITS[found[2]])


def run_stream(job: StreamJob, log: EventLog, *, say: Say) -> dict[str, list[PeriodReport]]:
    """Run each system through the stream, and write the folder.

    If users are known, every click of a user is a test query with all their earlier clicks as context; else every click
    of a session except the first.

    Args:
        say: called with one line per period.
    """
    known = log.users is not None
    log, evaluation = (
        (sessions_by_user(log), StreamEvaluation(job.negatives))
        if known
        else (log, StreamEvaluation(job.negatives, samples=prefixes))
    )
    edges = edges_of(log, job.period)
    histories: dict[str, list[PeriodReport]] = {}
    for name in job.systems:
        system, place = _built(name, job, log), job.folder / name
        reports = stream(
            system,
            log,
            edges=edges,
            strategy=system.retraining or Full(),
            begin=Pretraining(job.first, Full(job.epochs)),
            evaluation=evaluation,
            seed=job.seed,
            checkpoint=Checkpoint(place, job.resume),
        )
        histories[name], began = [], time.monotonic()
        for report in reports:
            histories[name].append(report)
            spent, done = time.monotonic() - began, len(histories[name])
            left = len(edges) - 2 - report.period
            ending = f", about {duration(left * spent / done)} left for {name}" if left else ""
            say(_line(name, report, len(edges) - 1) + ending)
        system.notes |= {"system": name, "seed": job.seed, "period": job.period, "weights": state_hash(system)}
        _save(system, place / "model", resumed=job.resume)
    document = {
        name: {"version": identity(job.folder / name / "model"), **overall(h), "periods": [asdict(r) for r in h]}
        for name, h in histories.items()
    }
    clear_temporary(job.folder, ("metrics.json", "periods.png"))
    write_json(job.folder / "metrics.json", {"seed": job.seed, "period": job.period, "systems": document})
    stream_plots.periods(histories, job.folder / "periods.png")
    return histories


def _save(system: System, folder: Path, *, resumed: bool) -> None:
    """Write a new version, unless a run that was interrupted later has written it."""
    if resumed and identity(folder) is not None:
        document = whole_version(folder, lambda version: load_state(version, "model")[1])
        if document["notes"] == system.notes:
            complete(folder)
            return
    system.save(folder)


def _built(name: str, job: StreamJob, log: EventLog) -> System:
    with torch.random.fork_rng():
        torch.manual_seed(job.seed)
        wrapped = {"base": job.base} if _is_wrapper(name) else {}
        return build(name, log.items, users=log.users, width=job.width, **wrapped)


def _is_wrapper(name: str) -> bool:
    """Whether the system wraps another one with a retraining strategy."""
    return CATALOGUE[name].family == "streaming" and CATALOGUE[name].base is not None


def _line(name: str, report: PeriodReport, periods: int) -> str:
    k = max(lengths(report.sampled), default=20)
    shown = ", ".join(
        f"{100 * found[f'hit@{k}']:.2f} % among {among}"
        for found, among in ((report.sampled, "sampled"), (report.full, "all"))
        if found
    )
    return (
        f"{name}   period {report.period + 1}/{periods}   {counted(report.rows, 'click')}   Hit@{k} {shown or '-'}   "
        f"retrained in {report.train_seconds:.1f} s"
    )
