"""Prequential evaluation: the deployed model is tested on each period before it is retrained on it."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from graphmeta.data.events import EventLog
from graphmeta.errors import InputError, counted
from graphmeta.retrain.period import Period, State
from graphmeta.retrain.strategy import Full, Strategy
from graphmeta.retrain.testing import Measures, StreamEvaluation
from graphmeta.storage import clear_state, load_state, save_state
from graphmeta.system import System
from graphmeta.training.run import Checkpoint


@dataclass(frozen=True)
class PeriodReport:
    """Metrics of the deployed model on a period, and the cost of retraining on it.

    ``sampled`` and ``full`` hold the metrics among sampled candidates and among all items seen so far; ``rows`` is the
    number of test clicks, ``begin`` the period's start. CPU seconds are summed over threads. ``users`` has the metrics
    of known and of new users, see :class:`~graphmeta.retrain.testing.Measures`.
    """

    period: int
    begin: float
    rows: int
    sampled: dict[str, float]
    full: dict[str, float]
    test_seconds: float
    train_seconds: float
    train_cpu_seconds: float
    users: dict[str, Measures] = field(default_factory=dict)


@dataclass(frozen=True)
class Pretraining:
    """Number of first periods to train on before the first test, by ``strategy``; jointly if not given."""

    first: int = 10
    strategy: Strategy | None = None


def stream(
    system: System,
    log: EventLog,
    *,
    edges: np.ndarray,
    strategy: Strategy,
    begin: Pretraining = Pretraining(),
    evaluation: StreamEvaluation | None = None,
    seed: int = 0,
    checkpoint: Checkpoint | None = None,
) -> Iterator[PeriodReport]:
    """Test a system on each period, then let the strategy retrain it on that period.

    The first periods pretrain it; all later ones are tested on. Neither training nor test queries depend on later
    periods; users and items of the whole log have table rows from the start, which keep their initial values until
    their first event (except that :class:`~graphmeta.retrain.transfer.Transfer` transfers all rows).

    Args:
        edges: boundaries of the periods, see :func:`~graphmeta.data.splits.period_edges`.
        begin: pretraining before the first test.
        evaluation: test queries and candidates of a period.
        checkpoint: where to save after each period; a resumed stream continues bit for bit.

    Raises:
        InputError: a log numbered differently from the system, no period left to test on, no item to sample.

    Source: Zhang et al. 2020 (SML), section 5.1: periods as test sets, averaged by their rows (:func:`overall`).
    """
    evaluation, first = evaluation or StreamEvaluation(), begin.first
    system.check(log, "stream's")
    if not 1 <= first < len(edges) - 1:
        raise InputError(
            f"of {counted(len(edges) - 1, 'period')}, the first {first} are for pretraining; none is left, so shorten "
            f"periods"
        )
    evaluation = evaluation.fitted(log, edges, first)
    setting = _setting(system, log, edges, strategy) | {
        "seed": seed,
        "first": first,
        "evaluation": re.sub(r" at 0x\w+", "", repr(evaluation)),
    }
    run = _Service(system, setting)
    if checkpoint is not None and checkpoint.resume:
        run.load(checkpoint.folder)
    yield from run.reports
    if run.next < 0:
        period = Period.of(log, edges, first - 1, seed=seed)
        (begin.strategy or Full()).retrain(system, {}, period)
        run.state, run.next = strategy.begin(system, period), first
    while run.next < len(edges) - 1:
        period = Period.of(log, edges, run.next, seed=seed)
        began = time.perf_counter()
        found = evaluation.measure(system, period)
        tested, cpu = time.perf_counter(), time.process_time()
        if period.is_new(period.samples(system)).any():
            run.state = strategy.retrain(system, run.state, period)
        system.eval()
        times = tested - began, time.perf_counter() - tested, time.process_time() - cpu
        run.note(PeriodReport(run.next, period.begin, found.rows, found.sampled, found.full, *times, found.users))
        if checkpoint is not None:
            run.save(checkpoint.folder)
        yield run.reports[-1]


def overall(
    reports: Sequence[PeriodReport], *, since: int = 0, users: str | None = None
) -> dict[str, dict[str, float]]:
    """Means over the periods from number ``since`` on, weighted by their rows, for ``sampled`` and ``full``; with
    ``users="known"`` or ``"new"``, over the clicks of these users.
    """
    every = [report if users is None else report.users.get(users) for report in reports if report.period >= since]
    chosen = [report for report in every if report is not None and report.rows]
    rows = sum(report.rows for report in chosen)
    out: dict[str, dict[str, float]] = {}
    for kind in ("sampled", "full"):
        found = [getattr(report, kind) for report in chosen]
        out[kind] = {
            name: sum(report.rows * one[name] for report, one in zip(chosen, found, strict=True)) / rows
            for name in (found[0] if found else ())
        }
    return out


def _setting(system: System, log: EventLog, edges: np.ndarray, strategy: Strategy) -> dict[str, Any]:
    """Everything that a stream's results depend on."""
    return {
        "log": log.fingerprint(),
        "edges": edges.tolist(),
        "strategy": _named(strategy),
        "system": hashlib.sha256(f"{system}{system.spec}".encode()).hexdigest()[:16],
        "weights": {name: list(weight.shape) for name, weight in system.named_parameters()},
    }


def _named(value: object) -> str:
    """``repr`` without memory addresses of functions."""
    return re.sub(r" at 0x\w+", "", repr(value))


def _report(document: dict[str, Any]) -> PeriodReport:
    """A report from its ``asdict``."""
    users = {name: Measures(**group) for name, group in document.get("users", {}).items()}
    return PeriodReport(**{**document, "users": users})


class _Service:
    """A deployed system and its progress: the content of a checkpoint."""

    def __init__(self, system: System, setting: dict[str, Any]) -> None:
        self.system, self.setting = system, setting
        self.state: State = {}
        self.reports: list[PeriodReport] = []
        self.next = -1

    def note(self, report: PeriodReport) -> None:
        """Store the report of a finished period."""
        self.reports.append(report)
        self.next += 1

    def save(self, folder: Path) -> None:
        """Write everything that the next period depends on."""
        tensors = {f"weight/{name}": tensor for name, tensor in self.system.state_dict().items()}
        tensors |= {f"state/{name}": tensor for name, tensor in self.state.items()}
        if self.system.events is not None:
            tensors["events"] = torch.as_tensor(self.system.events)
        reports = [asdict(report) for report in self.reports]
        save_state(folder, "stream", tensors, {"setting": self.setting, "next": self.next, "reports": reports})

    def load(self, folder: Path) -> None:
        """Resume from what :meth:`save` wrote, if the folder has a checkpoint."""
        if not (folder / "stream.json").is_file():
            return
        tensors, document = load_state(folder, "stream")
        clear_state(folder, "stream")
        if document["setting"] != self.setting:
            changed = sorted(k for k in self.setting if document["setting"].get(k) != self.setting[k])
            raise InputError(
                f"{folder}: a checkpoint of another stream (different: {', '.join(changed)}); drop --resume or use "
                f"its settings"
            )
        self.system.load_state_dict(
            {k.removeprefix("weight/"): t for k, t in tensors.items() if k.startswith("weight/")}
        )
        self.state = {k.removeprefix("state/"): t for k, t in tensors.items() if k.startswith("state/")}
        if "events" in tensors:
            self.system.events = tensors["events"].numpy()
        self.reports = [_report(report) for report in document["reports"]]
        self.next = document["next"]
