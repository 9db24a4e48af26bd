"""A stream of periods: the model in service is tested on each period before anything is learned from it."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from graphmeta.data.events import EventLog
from graphmeta.errors import InputError
from graphmeta.evaluation.metrics import ranks, summary, usable
from graphmeta.retrain.period import Period, State
from graphmeta.retrain.strategy import Full, Strategy
from graphmeta.sampling.histories import all_positions
from graphmeta.sampling.padding import ragged
from graphmeta.sampling.samples import Samples
from graphmeta.storage import load_state, save_state
from graphmeta.system import System
from graphmeta.training.run import Checkpoint

Progress = Callable[[Iterable[Any]], Iterable[Any]]


@dataclass(frozen=True)
class PeriodReport:
    """What the model in service was worth on a period, and what it took to retrain it on that period.

    ``sampled`` and ``full`` hold the metrics among drawn items and among all that had appeared; ``rows`` is how many
    clicks were asked about, ``begin`` the time of the first of them. CPU seconds add up over threads.
    """

    period: int
    begin: float
    rows: int
    sampled: dict[str, float]
    full: dict[str, float]
    test_seconds: float
    train_seconds: float
    train_cpu_seconds: float


@dataclass(frozen=True)
class Asking:
    """What is asked about a period: every click of it, among drawn items and among all.

    Candidates are the items that have appeared by the end of the period. The drawn ones, each as likely and none twice,
    are none that the user (where users are not known: the session) has clicked by then.

    Args:
        negatives: items drawn for each click.
        samples: the clicks of a log with what is known before each, e.g. ``prefixes``, which leaves out the first
            click of a session.
        max_length: clicks that are known at most, the last ones.
    """

    negatives: int = 999
    ks: tuple[int, ...] = (5, 10, 20)
    samples: Callable[..., Samples] = all_positions
    max_length: int = 50
    batch_size: int = 500

    def rows(self, period: Period) -> Samples:
        """The clicks of the period."""
        every = self.samples(period.past, max_length=self.max_length)
        return every.take(period.is_new(every).nonzero()[0])

    def measure(self, system: System, period: Period) -> tuple[int, dict[str, float], dict[str, float]]:
        """How many clicks, and the metrics of both rankings."""
        rows, seen = self.rows(period), np.flatnonzero(period.past.support)
        draw = Untouched(period.past, seen, np.random.default_rng(period.seed_for(4)))
        place, columns = np.searchsorted(seen, rows.target), torch.from_numpy(seen)
        found = torch.empty(2, len(rows), dtype=torch.float64)
        for at in range(0, len(rows), self.batch_size):
            part = slice(at, at + self.batch_size)
            chosen = torch.from_numpy(np.concatenate([place[part][:, None], draw(rows.take(part), self.negatives)], 1))
            scores = usable(system.scores(rows.take(part)))[:, columns].cpu()
            found[0, part] = ranks(scores.gather(1, chosen), torch.zeros(len(scores), dtype=torch.int64))
            found[1, part] = ranks(scores, torch.from_numpy(place[part]))
        return len(rows), summary(found[0], self.ks), summary(found[1], self.ks)

    def check(self, log: EventLog, edges: np.ndarray, first: int) -> None:
        """Raise an InputError if a period that will be asked about leaves too few items to compare with."""
        period = np.searchsorted(edges, log.time, "right") - 1
        owner = owners(log, log.session)
        item_since = np.full(log.num_items, len(edges))
        np.minimum.at(item_since, log.item, period)
        pair, place = np.unique(owner * log.num_items + log.item, return_inverse=True)
        pair_since = np.full(len(pair), len(edges))
        np.minimum.at(pair_since, place, period)
        for number in range(first, len(edges) - 1):
            seen = int((item_since <= number).sum())
            touched = np.bincount(pair[pair_since <= number] // log.num_items, minlength=int(owner.max()) + 1)
            least = seen - int(touched[owner[period == number]].max(initial=0))
            if least < self.negatives or max(self.ks) >= min(self.negatives + 1, seen):
                raise InputError(
                    f"in period {number + 1} somebody leaves {least} of {seen} items to draw {self.negatives} from, "
                    f"and lists have up to {max(self.ks)}: draw fewer (--negatives, at least {max(self.ks)}), or begin "
                    f"later (--first)"
                )


def owners(log: EventLog, session: np.ndarray) -> np.ndarray:
    """Whose sessions these are: numbers of users, and after them of sessions that are nobody's."""
    if log.session_user is None or log.users is None:
        return session
    user = log.session_user[session]
    return np.where(user >= 0, user, len(log.users) + session)


class Untouched:
    """Draws for each sample items that its user never clicked: places in ``seen``, the items there are so far."""

    def __init__(self, past: EventLog, seen: np.ndarray, random: np.random.Generator) -> None:
        self.random, self.size, self.past = random, len(seen), past
        pair = np.unique(owners(past, past.session) * self.size + np.searchsorted(seen, past.item))
        self.place, owner = pair % max(self.size, 1), pair // max(self.size, 1)
        self.ptr = np.searchsorted(owner, np.arange(int(owner.max(initial=0)) + 2))

    def __call__(self, samples: Samples, count: int) -> np.ndarray:
        """``[S, count]``.

        All items stand in one random ring; each sample begins somewhere on it and takes the first that are free.
        """
        owner = owners(self.past, samples.session)
        ring = self.random.permutation(self.size)
        where = np.empty_like(ring)
        where[ring] = np.arange(self.size)
        begin, touched = self.random.integers(0, self.size, len(samples)), np.diff(self.ptr)[owner]
        width = min(self.size, count + int(touched.max(initial=0)))
        inside, _ = ragged(self.ptr[owner], touched)
        row = np.repeat(np.arange(len(samples)), touched)
        ahead = (where[self.place[inside]] - begin[row]) % self.size
        taken = np.zeros((len(samples), width), dtype=bool)
        taken[row[ahead < width], ahead[ahead < width]] = True
        free = ~taken & ((~taken).cumsum(1) <= count)
        return ring[(begin[:, None] + free.nonzero()[1].reshape(-1, count)) % self.size]


def stream(
    system: System,
    log: EventLog,
    *,
    edges: np.ndarray,
    strategy: Strategy,
    first: int = 10,
    pretraining: Strategy | None = None,
    asking: Asking | None = None,
    seed: int = 0,
    checkpoint: Checkpoint | None = None,
) -> Iterator[PeriodReport]:
    """Put a system in service: test it on each period, then let the strategy retrain it on that period.

    The first periods pretrain it; all that follow are tested on. Nothing a model learns, and nothing it is asked,
    depends on a later period; users and items of the whole log have their rows from the beginning, which stay as they
    began until somebody meets them (but :class:`~graphmeta.retrain.transfer.Transfer` transfers all rows).

    Args:
        edges: where the periods begin and the last one ends, see :func:`~graphmeta.data.splits.period_edges`.
        first: so many periods are trained on before the first test, by ``pretraining`` (on all at once if not given).
        checkpoint: where to save after each period; resumed, it goes on bit for bit.

    Raises:
        InputError: a log numbered otherwise than the system, no period left to test on, too few items to draw from.

    Source: Zhang et al. 2020 (SML), section 5.1: periods as test sets, averaged by their rows (:func:`overall`).
    """
    asking = asking or Asking()
    system.check(log, "stream's")
    if not 1 <= first < len(edges) - 1:
        raise InputError(
            f"of {len(edges) - 1} periods, the first {first} are to begin with: that leaves none; make periods shorter"
        )
    asking.check(log, edges, first)
    setting = _setting(system, log, edges, strategy) | {
        "seed": seed,
        "first": first,
        "asking": re.sub(r" at 0x\w+", "", repr(asking)),
    }
    run = _Service(system, setting)
    if checkpoint is not None and checkpoint.resume:
        run.load(checkpoint.folder)
    yield from run.reports
    if run.next < 0:
        period = Period.of(log, edges, first - 1, seed=seed)
        (pretraining or Full()).retrain(system, {}, period)
        run.state, run.next = strategy.begin(system, period), first
    while run.next < len(edges) - 1:
        period = Period.of(log, edges, run.next, seed=seed)
        began = time.perf_counter()
        rows, sampled, full = asking.measure(system, period)
        tested, cpu = time.perf_counter(), time.process_time()
        if period.is_new(period.samples(system)).any():
            run.state = strategy.retrain(system, run.state, period)
        system.eval()
        times = tested - began, time.perf_counter() - tested, time.process_time() - cpu
        run.note(PeriodReport(run.next, period.begin, rows, sampled, full, *times))
        if checkpoint is not None:
            run.save(checkpoint.folder)
        yield run.reports[-1]


def overall(reports: Sequence[PeriodReport], *, since: int = 0) -> dict[str, dict[str, float]]:
    """Means over the periods from number ``since`` on, weighted by their rows, for ``sampled`` and ``full``."""
    chosen = [report for report in reports if report.period >= since and report.rows]
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
    """What a stream depends on."""
    return {
        "log": log.fingerprint(),
        "edges": edges.tolist(),
        "strategy": _named(strategy),
        "system": hashlib.sha256(f"{system}{system.recipe}".encode()).hexdigest()[:16],
        "weights": {name: list(weight.shape) for name, weight in system.named_parameters()},
    }


def _named(thing: object) -> str:
    """What it is, without the places in memory where its functions lie."""
    return re.sub(r" at 0x\w+", "", repr(thing))


class _Service:
    """A system in service: what a checkpoint holds."""

    def __init__(self, system: System, setting: dict[str, Any]) -> None:
        self.system, self.setting = system, setting
        self.state: State = {}
        self.reports: list[PeriodReport] = []
        self.next = -1

    def note(self, report: PeriodReport) -> None:
        """A period is over."""
        self.reports.append(report)
        self.next += 1

    def save(self, folder: Path) -> None:
        """Write everything the next period depends on."""
        tensors = {f"weight/{name}": tensor for name, tensor in self.system.state_dict().items()}
        tensors |= {f"state/{name}": tensor for name, tensor in self.state.items()}
        reports = [asdict(report) for report in self.reports]
        save_state(folder, "stream", tensors, {"setting": self.setting, "next": self.next, "reports": reports})

    def load(self, folder: Path) -> None:
        """Go on from what :meth:`save` wrote; nothing there means from the beginning."""
        if not (folder / "stream.json").is_file():
            return
        tensors, document = load_state(folder, "stream")
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
        self.reports = [PeriodReport(**report) for report in document["reports"]]
        self.next = document["next"]
