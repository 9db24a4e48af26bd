"""Periodic retraining: SML's protocol on available streams.

    python -m benchmarks.streams complete_journey --seeds 0,1,2
    GRAPHMETA_DATA=… python -m benchmarks.streams movielens1m --systems full_retrain,fine_tune,spmf,sml
    GRAPHMETA_DATA=… python -m benchmarks.streams amazon_beauty

Each click of a period is a test query, ranked before the system trains on the period, among 999 sampled items and among
all items that have appeared; the context is the user's earlier clicks. The first periods are for pretraining; the next
are trained on (SML: offline) but not reported; the rest are reported. All retraining strategies of matrix factorisation
start from the same pretrained weights per seed: "frozen" keeps them, "popular" counts clicks instead. The number of
pretraining epochs (2, 4, 8, 14 or 20) is the best for the period after pretraining (seed 0), which is not reported.
MovieLens-1M is cut to its first 300,000 ratings, Amazon Beauty ends in June 2013. Smaller than in the paper: width 32
(64), a hidden layer of 128 (512), 3 rounds of SML (7–10) in batches of 256 (1,024 in step 1), 2 epochs of full
retraining from the last weights (up to 100), larger batches. ``sml_long`` has 10 rounds and trains the transfer
networks in batches of 16: nearly as many offline steps as the paper's (about 60,000 on Yelp: 20 periods of 75,000
clicks, 10 rounds, batches of 256); "theta_steps" of a row counts them. GRU4Rec and Caser are retrained on all past
data, for one epoch per period. Rows also have the metrics of users with clicks before the period and of new ones.
"""

from __future__ import annotations

import argparse
import copy
import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import rows
from benchmarks.rows import cost, provenance, some_of
from graphmeta.data.events import EventLog
from graphmeta.data.splits import period_edges
from graphmeta.datasets import session_logs as datasets
from graphmeta.published.catalogue import build
from graphmeta.retrain.period import Period, State
from graphmeta.retrain.strategy import FineTune, Full, Reservoir, Strategy
from graphmeta.retrain.stream import PeriodReport, Pretraining, overall, stream
from graphmeta.retrain.testing import Measures, StreamEvaluation
from graphmeta.retrain.transfer import Transfer
from graphmeta.retrain.transfer_net import TransferNet
from graphmeta.sampling.histories import sessions_by_user
from graphmeta.system import System
from graphmeta.training.optimizers import Adam
from graphmeta.training.run import Checkpoint


@dataclass(frozen=True)
class Reported(StreamEvaluation):
    """Evaluates the reported periods only."""

    since: int = 0

    def measure(self, system: System, period: Period) -> Measures:
        """No evaluation of earlier periods."""
        return super().measure(system, period) if period.number >= self.since else Measures(0, {}, {})


WIDTH, EVALUATION = 32, Reported(max_length=20)


@dataclass(frozen=True)
class Stream:
    """A log in periods.

    Args:
        first: number of pretraining periods.
        since: first reported period.
        until: the end of the reported periods; None for all.
        epochs: of pretraining of matrix factorisation.
    """

    load: Callable[[], EventLog]
    edges: Callable[[EventLog], np.ndarray]
    first: int
    since: int
    until: int | None = None
    epochs: int = 20

    def brief(self, periods: int) -> Stream:
        """A trial of a few periods: one epoch of pretraining on the first, results of the last."""
        return replace(self, first=1, since=periods - 1, until=periods, epochs=1)


@dataclass(frozen=True)
class Served:
    """A system, its pretraining and its retraining strategy."""

    base: str
    strategy: Callable[[int], Strategy]
    pretraining: Full | None = None  # None: that of the stream


def months(log: EventLog, *, since: str) -> np.ndarray:
    """The edges of one period before a month and of each month after it."""
    last = np.datetime64(int(log.time.max()), "s").astype("datetime64[M]") + 1
    begins = np.arange(np.datetime64(since, "M"), last).astype("datetime64[s]").astype(np.float64)
    return np.concatenate([[log.time.min()], begins, np.nextafter(log.time.max(keepdims=True), np.inf)])


def beauty() -> EventLog:
    """Every user's reviews."""
    return datasets.amazon_histories("Beauty")


STREAMS = {
    "complete_journey": Stream(datasets.complete_journey, partial(period_edges, seconds=7 * 86400), 10, 30),
    "movielens1m": Stream(datasets.movielens_1m, partial(period_edges, events=10_000), 10, 20, 30, epochs=2),
    "amazon_beauty": Stream(beauty, partial(months, since="2012-01"), 1, 13, 19, epochs=8),
}
NET = partial(TransferNet, hidden=128)


def transfer(
    net: Callable[[int], TransferNet], lr: float, offline: int, *, warm_up: int = 0, long: bool = False
) -> Transfer:
    """SML with batch sizes for periods of a few thousand clicks; ``lr`` is the rate of its transfer networks."""
    theta = Adam(lr=lr, weight_decay=1e-4, final=1.0)
    sizes = (256, 16 if long else 64 if warm_up else 256)
    rounds = 10 if long else 3
    return Transfer(net=net, rounds=rounds, offline=offline, warm_up=warm_up, theta=theta, batch_sizes=sizes)


def theta_steps(strategy: Transfer, clicks: Sequence[int]) -> dict[str, int]:
    """Steps of the transfer networks on the retrained periods with these numbers of clicks, without the warm-up."""
    steps = {"offline": 0, "online": 0}
    for number, count in enumerate(clicks):
        online = number >= strategy.offline
        rounds = strategy.rounds + online if number else 0  # the first period has no predecessor
        steps["online" if online else "offline"] += (
            rounds * strategy.epochs * math.ceil(count / strategy.batch_sizes[1])
        )
    return steps


class Frozen(Full):
    """Keeps the weights as they are."""

    def retrain(self, system: System, state: State, period: Period) -> State:
        """The unchanged state."""
        return state


class Popular(Frozen):
    """Popularity in the last period, ties by popularity in all periods; no training."""

    def begin(self, system: System, period: Period) -> State:
        """Count the first period."""
        return self.retrain(system, {}, period)

    @torch.no_grad()
    def retrain(self, system: System, state: State, period: Period) -> State:
        """Store the counts in the first dimension of the item vectors, which is 1 for all users."""
        past, size = period.past, system.num_items
        count = np.bincount(past.item[past.time >= period.begin], minlength=size)
        items, users = (
            system.get_parameter(f"recommender.{name}.weight") for name in ("features.item", "head.readout.user")
        )
        items[:, 0], items[:, 1:] = torch.from_numpy(count + past.support / (1 + past.support.max())), 0
        users.fill_(1.0)
        return state


MATRIX = {
    "popular": Served("mf", lambda offline: Popular()),  # noqa: ARG005
    "frozen": Served("mf", lambda offline: Frozen()),  # noqa: ARG005
    "full_retrain": Served("mf", lambda offline: Full(2, 1024)),  # noqa: ARG005
    "full_retrain_8": Served("mf", lambda offline: Full(8, 1024)),  # noqa: ARG005
    "fine_tune": Served("mf", lambda offline: FineTune(5, 128)),  # noqa: ARG005
    "spmf": Served("mf", lambda offline: Reservoir(7000, 2, 256)),  # noqa: ARG005
    "sml": Served("mf", partial(transfer, NET, 1e-3)),
    "sml_long": Served("mf", partial(transfer, NET, 1e-3, long=True)),
    "sml_warm": Served("mf", partial(transfer, NET, 1e-3, warm_up=8)),
    "sml_residual": Served("mf", partial(transfer, partial(NET, residual=True), 1e-4)),
}
SLOWER = Adam(lr=5e-3, weight_decay=0.0, final=1.0)
SEQUENCE = {
    name: Served(name, lambda offline: Full(1, 64, SLOWER), Full(5, 64, SLOWER))  # noqa: ARG005
    for name in ("gru4rec", "caser")
}
SYSTEMS = MATRIX | SEQUENCE


def main() -> None:
    """Run rows from the command line."""
    options = parser().parse_args()
    special = f" --periods {options.periods}" if options.periods else ""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # denormal second moments make Adam many times slower
    of = STREAMS[options.dataset] if options.periods is None else STREAMS[options.dataset].brief(options.periods)
    log = sessions_by_user(of.load())
    edges = of.edges(log)[: None if of.until is None else of.until + 1]
    print(f"{log.num_events:,} events, {len(log.users or [])} users, {len(edges) - 1} periods", flush=True)
    for seed in map(int, options.seeds.split(",")):
        begun: dict[str, System] = {}
        for name in options.systems:
            began = time.perf_counter()
            system = pretrained(name, log, edges, begun, of=of, seed=seed)
            reports = served(name, system, log, edges, of=of, seed=seed, state=options.state)
            seconds = time.perf_counter() - began
            facts = settings(name, of, np.histogram(log.time, edges)[0][of.first :]) | cost(seconds)
            write(options.dataset, name, reports, seed=seed, since=of.since, facts=facts, special=special)


def parser() -> argparse.ArgumentParser:
    """The command-line options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=STREAMS)
    parser.add_argument("--systems", type=some_of(SYSTEMS), default=list(SYSTEMS))
    parser.add_argument("--seeds", default="0")
    parser.add_argument(
        "--periods", type=int, help="a trial of this many periods: pretraining on the first, results of the last"
    )
    parser.add_argument("--state", type=Path, help="folder to save every period in and to resume from")
    return parser


def pretrained(
    name: str, log: EventLog, edges: np.ndarray, begun: dict[str, System], *, of: Stream, seed: int
) -> System:
    """The system after pretraining, trained once for all its retraining strategies."""
    one = SYSTEMS[name]
    if one.base not in begun:
        torch.manual_seed(seed)
        system = build(one.base, log.items, users=log.users, width=WIDTH)
        pretraining = one.pretraining or Full(of.epochs, 1024)
        pretraining.retrain(system, {}, Period.of(log, edges, of.first - 1, seed=seed))
        begun[one.base] = system
    return copy.deepcopy(begun[one.base])


def served(
    name: str, system: System, log: EventLog, edges: np.ndarray, *, of: Stream, seed: int, state: Path | None
) -> list[PeriodReport]:
    """The reports of all periods; prints a line for each."""
    found: list[PeriodReport] = []
    checkpoint = None if state is None else Checkpoint(state / f"{name}-{seed}", resume=True)
    for report in stream(
        system,
        log,
        edges=edges,
        strategy=SYSTEMS[name].strategy(of.since - of.first),
        begin=Pretraining(of.first, Frozen()),
        evaluation=replace(EVALUATION, since=of.since),
        seed=seed,
        checkpoint=checkpoint,
    ):
        found.append(report)
        shown = f"{100 * report.sampled['hit@20']:.2f} / {100 * report.full['hit@20']:.2f}" if report.rows else "-"
        print(f"  {name} {seed} {report.period} {report.rows} {shown} {report.train_cpu_seconds:.2f} s", flush=True)
    return found


def settings(name: str, of: Stream, clicks: np.ndarray) -> dict[str, Any]:
    """The strategy, and the steps of its transfer networks, if it has some, on periods of these numbers of clicks."""
    strategy = SYSTEMS[name].strategy(of.since - of.first)
    found: dict[str, Any] = {"arguments": {"width": WIDTH, "strategy": re.sub(r" at 0x\w+", "", repr(strategy))}}
    return found | ({"theta_steps": theta_steps(strategy, clicks.tolist())} if isinstance(strategy, Transfer) else {})


def by_users(reports: list[PeriodReport], *, since: int) -> dict[str, Any]:
    """The clicks and the metrics of known and of new users."""
    rows = {
        name: sum(report.users[name].rows for report in reports if report.period >= since and name in report.users)
        for name in ("known", "new")
    }
    found = {name: overall(reports, since=since, users=name) for name, count in rows.items() if count}
    return {
        name: {"samples": rows[name], "metrics": each["sampled"], "full": each["full"]} for name, each in found.items()
    }


def write(
    dataset: str,
    name: str,
    reports: list[PeriodReport],
    *,
    seed: int,
    since: int,
    facts: dict[str, Any],
    special: str = "",
) -> None:
    """Write the row's file; ``facts`` are further entries."""
    means, chosen = overall(reports, since=since), [report for report in reports if report.period >= since]
    periods = {
        str(r.period): {
            "rows": r.rows,
            "hit@20": r.sampled.get("hit@20"),
            "full hit@20": r.full.get("hit@20"),
            "train_cpu_s": round(r.train_cpu_seconds, 3),
        }
        for r in reports
    }
    document = {
        "dataset": dataset,
        "protocol": "stream",
        "system": name,
        "metrics": means["sampled"],
        "full": means["full"],
        "users": by_users(reports, since=since),
        "samples": sum(report.rows for report in chosen),
        "candidates": EVALUATION.negatives + 1,
        "periods": periods,
        "since": since,
        "train_cpu_s": round(float(np.mean([report.train_cpu_seconds for report in chosen])), 3),
        "seed": seed,
        "epochs": 0,
        "history": [],
        **facts,
        **provenance("benchmarks.streams"),
        "command": f"python -m benchmarks.streams {dataset} --systems {name}{special} --seeds {seed}",
    }
    rows.write(document)


if __name__ == "__main__":
    main()
