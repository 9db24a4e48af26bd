"""From a log to a folder that says how systems fare when they are retrained every period: what ``stream`` does.

A folder holds ``metrics.json``, ``periods.png`` and, a folder a system, its state after the last finished period and
the model that is in service then. All input is checked before anything is written, and every file is written whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from graphmeta.data.events import EventLog
from graphmeta.data.splits import period_edges
from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError
from graphmeta.plots import stream as stream_plots
from graphmeta.published.catalogue import CATALOGUE, build
from graphmeta.retrain.strategy import Full
from graphmeta.retrain.stream import PeriodReport, Pretraining, overall, stream
from graphmeta.retrain.testing import StreamEvaluation
from graphmeta.sampling.histories import by_user
from graphmeta.sampling.samples import prefixes
from graphmeta.storage import write_json
from graphmeta.system import System
from graphmeta.training.run import Checkpoint

Say = Callable[[str], None]
_UNITS = {"s": 1, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


@dataclass(frozen=True)
class StreamJob:
    """Systems to put in service, one after the other, on the same stream.

    Args:
        base: what those that are a retraining around another system go around.
        period: how long a period is, as :func:`edges_of` reads it; first: so many are pretrained on.
        epochs: times through them; negatives: items drawn for each click that is asked about.
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
    """Raise an InputError unless the catalogue has these, and there are users if one needs to know them."""
    for name in (*names, base):
        if name not in CATALOGUE:
            build(name, EntityTable(np.zeros(0, dtype=np.int64), {}))  # says which name is nearest
    for name in names:
        needed = CATALOGUE[base if _around(name) else name]
        needed.check_users(users)
        if needed.held_out:
            raise InputError(
                f"{needed.name} learns on sessions that were not counted, and its base stays; retrain that base"
            )
        if needed.rates:
            raise InputError(f"{needed.name} predicts ratings, not the next item; it cannot be in service here")


def edges_of(log: EventLog, period: str) -> np.ndarray:
    """Where the periods begin and the last ends; ``7d``, ``12h``, ``90min``, ``2w``, ``30s`` or ``5000events`` long.

    Raises:
        InputError: another text, or a length of time for a log without times.
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
    """Put each system through the stream, and write the folder.

    Where users are known, a row is every click of theirs, after all their clicks before; else every click of a session
    but the first.

    Args:
        say: told a line a period.
    """
    known = log.users is not None
    log, evaluation = (
        (by_user(log), StreamEvaluation(job.negatives))
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
        histories[name] = []
        for report in reports:
            histories[name].append(report)
            say(_line(name, report, len(edges) - 1))
        system.notes |= {"system": name, "seed": job.seed, "period": job.period}
        system.save(place / "model")
    document = {name: {**overall(h), "periods": [asdict(r) for r in h]} for name, h in histories.items()}
    write_json(job.folder / "metrics.json", {"seed": job.seed, "period": job.period, "systems": document})
    stream_plots.periods(histories, job.folder / "periods.png")
    return histories


def _built(name: str, job: StreamJob, log: EventLog) -> System:
    with torch.random.fork_rng():
        torch.manual_seed(job.seed)
        around = {"base": job.base} if _around(name) else {}
        return build(name, log.items, users=log.users, width=job.width, **around)


def _around(name: str) -> bool:
    """Whether it is a retraining around another system."""
    return CATALOGUE[name].family == "streaming" and name != "mf"


def _line(name: str, report: PeriodReport, periods: int) -> str:
    shown = ", ".join(
        f"{100 * found['hit@20']:.2f} % among {among}"
        for found, among in ((report.sampled, "drawn"), (report.full, "all"))
        if found
    )
    return (
        f"{name}   period {report.period + 1}/{periods}   {report.rows:,} clicks   Hit@20 {shown or '-'}   "
        f"retrained in {report.train_seconds:.1f} s"
    )
