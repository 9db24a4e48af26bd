"""Bench: baselines, an encoder and the default system on one log, with the shipped settings."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from graphmeta.baselines import UPCF, ItemKNN, PersonalFrequency, Popularity, SessionKNN, Stan, TifuKNN, match_repeats
from graphmeta.baselines.registry import MOST_USERS
from graphmeta.data.events import EventLog
from graphmeta.data.merging import merged
from graphmeta.data.splits import Split
from graphmeta.errors import counted
from graphmeta.evaluation.intervals import Interval, Paired, bootstrap_interval, paired, scipy_stats
from graphmeta.evaluation.lists import COMPARED_KS, lists_below, shown
from graphmeta.evaluation.metrics import Ranks, hit, mrr
from graphmeta.evaluation.protocol import Rules, cut, test_queries
from graphmeta.evaluation.queries import reads_history
from graphmeta.evaluation.ranking import evaluate
from graphmeta.protocols import Bar, Scorer
from graphmeta.published.blending import Blended
from graphmeta.published.catalogue import CATALOGUE
from graphmeta.published.fit import default_system
from graphmeta.published.training_plan import Plan, Say, train_plan
from graphmeta.sampling.samples import Samples
from graphmeta.sampling.user_histories import UserHistories
from graphmeta.training.run import Checkpoint

_PLAIN: Mapping[str, Callable[[EventLog], Scorer]] = {
    "popularity": Popularity,
    "item_knn": ItemKNN,
    "session_knn": SessionKNN,
    "stan": Stan,
}
_OF_USERS: Mapping[str, Callable[[EventLog], Scorer]] = {
    "personal_frequency": PersonalFrequency,
    "tifu_knn": TifuKNN,
    "up_cf": UPCF,
}
_OF_NEIGHBOURS = ("tifu_knn", "up_cf")


@dataclass(frozen=True)
class Row:
    """One system: hit rate and MRR of the longest lists with intervals, and the seconds of its fit and test.

    ``ahead`` compares it with the next row, which has a lower MRR; None in the last row.
    """

    name: str
    hit: Interval
    mrr: Interval
    fit_seconds: float
    test_seconds: float
    ahead: dict[str, Paired] | None = None


@dataclass(frozen=True)
class Bench:
    """The rows of one log by falling MRR, and the default system compared with each other row.

    ``against`` has, by row and metric, how much the default system is ahead; negative: it is behind.
    """

    log: str
    default: str
    sizes: dict[str, int]
    k: int
    rows: tuple[Row, ...]
    against: dict[str, dict[str, Paired]]
    blend: Blended | None = None

    def behind(self, errors: float = 1.0) -> dict[str, list[str]]:
        """The rows that are ahead of the default system by more than this many standard errors of the difference, with
        the metrics in which they are.
        """
        found = {
            name: [metric for metric, one in pairs.items() if one.difference < -errors * one.standard_error]
            for name, pairs in self.against.items()
        }
        return {name: metrics for name, metrics in found.items() if metrics}

    def verdict(self) -> str:
        """One line: what the default system is clearly behind, if anything."""
        behind = self.behind()
        if not behind:
            return f"{self.default} is behind no row by more than one standard error of the paired difference"
        parts = []
        for name, metrics in behind.items():
            each = (f"{shown(metric)} {100 * self.against[name][metric].difference:+.2f}" for metric in metrics)
            parts.append(f"{name} ({', '.join(each)})")
        return f"{self.default} is behind {', '.join(parts)} by more than one standard error of the paired difference"

    def blend_line(self) -> str:
        """Which baseline is blended into the default system, in one line."""
        return f"{self.default}: {'no baseline can be blended in' if self.blend is None else self.blend.line()}"

    def document(self) -> dict[str, Any]:
        """The whole result as JSON values."""
        return {**asdict(self), "rows": [asdict(row) for row in self.rows], "behind": self.behind()}


@dataclass(frozen=True)
class BenchOptions:
    """Split and size of a bench.

    Args:
        rules: see :class:`~graphmeta.evaluation.protocol.Rules`.
        seed: of training and resamples.
        most: test sessions, evenly spaced over the test part; None for all.
        width: of item vectors.
        device: see :func:`~graphmeta.training.devices.device_of`.
    """

    rules: Rules = Rules()
    seed: int = 0
    most: int | None = 20_000
    width: int = 64
    device: str = "auto"


def bench(log: EventLog, name: str, *, options: BenchOptions = BenchOptions(), say: Say, bar: Bar) -> Bench:
    """Fit baselines, the encoder and the default system with the shipped settings on the log's first sessions, and test
    them on the last ones.

    Baselines count training and validation sessions, as the default system does after its epoch is chosen. Nothing is
    chosen on the test sessions.

    Args:
        name: of the log.
        say: called with each log line.
        bar: ``(batches, name) -> batches``, shows progress.

    Raises:
        InputError: a log that is too small to split, or scipy is not installed.
    """
    scipy_stats()
    return bench_split(cut(log, options.rules), name, options=options, say=say, bar=bar)


def bench_split(split: Split, name: str, *, options: BenchOptions = BenchOptions(), say: Say, bar: Bar) -> Bench:
    """:func:`bench` on a log that is already split."""
    users = split.train.users is not None
    default = default_system(users=users)
    queries = _queries(split, options)
    known = merged(split.train, split.valid)
    k = lists_below(known.num_items, COMPARED_KS)[-1]
    began = time.perf_counter()
    with TemporaryDirectory(prefix="graphmeta-") as folder:
        plan = Plan(default, options.width, options.seed, device=options.device)
        trained = train_plan(plan, split, Checkpoint(Path(folder)), say=say, bar=bar)
    seconds = {"system": time.perf_counter() - began}
    models: dict[str, Scorer] = {}
    for kind, make in _kinds(known).items():
        say(f"fitting {kind}")
        began = time.perf_counter()
        models[kind] = match_repeats(known, make(known))
        seconds[kind] = time.perf_counter() - began
    encoder = CATALOGUE[default].encoder
    assert trained.base is not None and encoder is not None
    reports = trained.histories
    seconds[encoder] = sum(one.seconds for title, own in reports.items() if title.startswith(encoder) for one in own)
    models |= {encoder: trained.base, default: trained.system}
    seconds[default] = seconds.pop("system")
    say(f"evaluating {', '.join(models)} on {counted(len(queries), 'test session')}")
    positions, tests = {}, {}
    for title, model in models.items():
        own = queries if reads_history(model) else replace(queries, earlier=None)
        found = evaluate(model, own, ks=(k,), progress=lambda rows, title=title: bar(rows, title))
        positions[title], tests[title] = found.positions, found.seconds
    sizes = {
        "training sessions": known.num_sessions,
        "training events": known.num_events,
        "items": known.num_items,
        "users": 0 if known.users is None else len(known.users),
        "test sessions": len(queries),
    }
    return _compared(name, default, sizes, k, positions, (seconds, tests), trained.blend)


def _kinds(known: EventLog) -> dict[str, Callable[[EventLog], Scorer]]:
    """The baselines for a log; those of neighbouring users only for few users."""
    if known.users is None:
        return dict(_PLAIN)
    few = len(known.users) <= MOST_USERS
    return {**_PLAIN, **{name: make for name, make in _OF_USERS.items() if few or name not in _OF_NEIGHBOURS}}


def _queries(split: Split, options: BenchOptions) -> Samples:
    """The last clicks of test sessions, with their users' earlier sessions."""
    queries = test_queries(split.test, options.rules)
    if split.train.users is not None:
        queries = UserHistories.of(*split.parts).attached(queries, split.test)
    if options.most is None or len(queries) <= options.most:
        return queries
    return queries.take(np.linspace(0, len(queries) - 1, options.most).astype(np.int64))


def _compared(
    name: str,
    default: str,
    sizes: dict[str, int],
    k: int,
    positions: Mapping[str, Ranks],
    seconds: tuple[Mapping[str, float], Mapping[str, float]],
    blend: Blended | None,
) -> Bench:
    """Intervals of each row, and the paired tests."""
    metrics = {f"hit@{k}": hit, f"mrr@{k}": mrr}
    values = {
        title: {metric: of(ranks, k).numpy() for metric, of in metrics.items()} for title, ranks in positions.items()
    }
    order = sorted(values, key=lambda title: -values[title][f"mrr@{k}"].mean())

    def difference(one: str, other: str) -> dict[str, Paired]:
        return {metric: paired(values[one][metric], values[other][metric]) for metric in metrics}

    rows = []
    for number, title in enumerate(order):
        one, other = (bootstrap_interval(values[title][metric]) for metric in metrics)
        ahead = difference(title, order[number + 1]) if number + 1 < len(order) else None
        rows.append(Row(title, one, other, seconds[0][title], seconds[1][title], ahead))
    against = {title: difference(default, title) for title in order if title != default}
    return Bench(name, default, sizes, k, tuple(rows), against, blend)


def summary(found: Bench) -> str:
    """The sizes of a log in one line."""
    sizes = found.sizes
    users = f", {counted(sizes['users'], 'user')}" if sizes["users"] else ""
    return (
        f"{found.log}: {counted(sizes['training sessions'], 'training session')}, "
        f"{counted(sizes['items'], 'item')}{users}; {counted(sizes['test sessions'], 'test session')}"
    )
