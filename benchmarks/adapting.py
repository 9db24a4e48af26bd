"""Cost of adaptation at Diginetica's size: with the item table in scope, and for a single new session.

    python -m benchmarks.adapting everything 256    # peak MB of three meta-updates on 256 tasks
    python -m benchmarks.adapting inference maml    # MB that recommend_many needs above the model

Each figure of memory is the peak of a process of its own.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.steps import FLOOR, ITEMS, WIDTH, update
from benchmarks.timing import Row, paired, peak_mb, row, sessions
from graphmeta.data.events import EventLog
from graphmeta.data.tables import EntityTable
from graphmeta.published.catalogue import build
from graphmeta.sampling.samples import last_clicks
from graphmeta.sampling.user_histories import UserHistories
from graphmeta.system import System

TASKS, SIZES = 64, (64, 256, 1024)
SCOPES = {
    "everything": ("features.item", "encoder", "head.project.weight", "head.project.bias"),
    "predictor": "predictor",
}


def cbml(scope: Sequence[str] | str) -> System:
    """CBML over 43,097 items without attributes, untrained."""
    torch.manual_seed(0)
    return build("cbml", EntityTable(np.arange(ITEMS), {}), width=WIDTH, scope=scope)


def meta_step(system: System, *, tasks: int = TASKS) -> Callable[[], None]:
    """A closure that takes one meta-update on ``tasks`` sessions of similar length, other ones at each call."""
    optimizer = torch.optim.Adam(system.parameters(), lr=1e-3, fused=True)
    samples = sessions(20_000, ITEMS)
    samples = samples.take(np.flatnonzero(samples.lengths >= 2))
    batches = iter(list(system.batches(samples, batch_size=tasks, seed=0, epoch=0)))

    def step() -> None:
        update(system, optimizer, samples.take(next(batches)))

    return step


def cbml_table() -> list[Row]:
    """A step of CBML that adapts everything, the item table too, over one that adapts the prediction layer alone."""
    against = "x predictor only (lower is better)"
    peaks = [cbml_memory(tasks) for tasks in SIZES]
    ours, other = paired(*(meta_step(cbml(scope)) for scope in SCOPES.values()), rounds=15)
    return [row("cbml_table", ours / other, against, ours=TASKS / ours, other=TASKS / other, unit="tasks/s"), *peaks]


def cbml_memory(tasks: int) -> Row:
    """Peak memory of the same arms, each in a process of its own.

    The table in scope costs a few numbers per row, task and support sample, where a copied row would have a hundred.
    Training adapts as many tasks at once as fit into 256 MB, so larger batches do not raise the peak.
    """
    ours, other = (peak_of(arm, tasks) for arm in SCOPES)
    name = f"cbml_table, peak with {tasks} tasks"
    return {**row(name, ours / other, "x predictor only", ours=ours, other=other, unit="MB"), "peak_mb": round(ours)}


def user_tasks() -> list[Row]:
    """Meta-updates on users (10 earlier sessions, 70 support samples): all tasks at once over one by one, and peak
    memory. An item bias and the head adapt, in first order.
    """
    rows = [_stacked_over_loop("user_tasks", {"scope": ["head"]}, rounds=5)]
    few, many = (peak_of("users", tasks) for tasks in (16, 128))
    return [*rows, row("user_tasks, peak of 128 tasks", many / few, "x of 16 tasks", ours=many, other=few, unit="MB")]


def user_bias() -> list[Row]:
    """Meta-updates on 32 users' sessions of which the item bias alone adapts, in second order: of one session each, and
    of eight sessions each of four users, as training takes them; over one by one, and over the lower bound of an exact
    step: all scores of every distinct support sample and their softmax, three products each, in plain PyTorch.
    """
    rows = []
    for queries in (1, 8):
        given = {"scope": "item_bias", "order": 2, "queries": queries}
        name = f"user_bias, {queries} session{'s' * (queries > 1)} of a user"
        rows.append(_stacked_over_loop(name, given, rounds=3))
        stacked, floor = user_step(tasks=32, **given), bias_floor(samples=32 // queries * 7 * (9 + queries))
        ours, other = paired(stacked, floor, rounds=5)
        rows.append(row(name, ours / other, FLOOR, ours=1e3 * ours, other=1e3 * other, unit="ms"))
    few, many = (peak_of("bias", tasks) for tasks in (16, 128))
    return [*rows, row("user_bias, peak of 128 tasks", many / few, "x of 16 tasks", ours=many, other=few, unit="MB")]


def _stacked_over_loop(name: str, given: dict[str, Any], *, rounds: int) -> Row:
    """Tasks per second of both arms."""
    stacked, loop = (user_step(tasks=32, stacked=stacked, **given) for stacked in (True, False))
    loop()
    ours, other = paired(stacked, loop, rounds=rounds, warm_up=1)
    rates = {"ours": 32 / ours, "other": 32 / other, "unit": "tasks/s"}
    return row(name, other / ours, "x one task at a time (higher is better)", **rates)


def bias_floor(*, samples: int) -> Callable[[], None]:
    """The support part of an exact step in second order: scores, softmax, and the products of the backward pass."""
    query, table = torch.randn(samples, WIDTH), torch.randn(ITEMS, WIDTH)

    def step() -> None:
        to_table = torch.zeros_like(table)
        for part in query.split(128):
            p = torch.softmax(part @ table.t(), 1)
            p @ table
            to_table.addmm_(p.t(), part)

    return step


def user_step(
    *, tasks: int, stacked: bool = True, scope: str | list[str], order: int = 1, queries: int = 1
) -> Callable[[], None]:
    """A closure that takes one meta-update of NISER on ``tasks`` sessions of users over 43,097 items.

    Args:
        queries: sessions of each user, each with ten earlier ones.
    """
    torch.manual_seed(0)
    users, known = tasks // queries, 10 + queries
    events = pd.DataFrame({"user": np.repeat(np.arange(users), known * 7)})
    events["session"] = np.repeat(np.arange(users * known), 7)
    events["item"] = np.random.default_rng(0).integers(0, ITEMS, len(events))
    events["time"] = events.session * 1000.0 + np.tile(np.arange(7), users * known)
    log = EventLog.read(events, user="user", session="session", item="item", time="time")
    log = log.aligned_to(EntityTable(np.arange(ITEMS), {}), log.users)
    base = build("niser", log.items, width=WIDTH)
    options = {"scope": scope, "order": order, "history_events": 70}
    system = build("maml", log.items, base=base, anchor="user", **options)
    assert system.adaptation is not None
    system.adaptation.stacked = stacked
    queries_of = np.arange(log.num_sessions) % known >= 10
    samples = UserHistories.of(log).attached(last_clicks(log), log).take(queries_of)
    optimizer = torch.optim.Adam(system.parameters(), lr=1e-3, fused=True)
    return lambda: update(system, optimizer, samples)


def recommend_many() -> list[Row]:
    """Memory of 10,000 sessions over 40,000 items: ``maml`` (each session adapts) and ``sr_gnn`` (none does)."""
    ours, other = (peak_of("inference", name) for name in ("maml", "sr_gnn"))
    name = "recommend_many, above the model"
    return [{**row(name, ours / other, "x sr_gnn", ours=ours, other=other, unit="MB"), "peak_mb": round(ours)}]


def peak_of(arm: str, of: int | str) -> float:
    """MB of a process that takes a few meta-updates on ``of`` tasks, or recommends with the system named ``of``."""
    command = [sys.executable, "-m", "benchmarks.adapting", arm, str(of)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def inference(name: str) -> float:
    """MB that ``recommend_many`` takes above the model and the sessions."""
    torch.manual_seed(0)
    system = build(name, EntityTable(np.arange(40_000), {}), width=100).eval()
    queries = sessions(10_000, 40_000)
    items, ptr = queries.flat()
    clicks = [items[begin:end].tolist() for begin, end in pairwise(ptr)]
    system.recommend_many(clicks[:1], 10)  # lazy imports do not count
    before = peak_mb()
    system.recommend_many(clicks, 10)
    return peak_mb() - before


def adapt_one() -> list[Row]:
    """Adapt to one new session and score 43,097 items, over scoring alone; median, then 95th percentile."""
    system, queries = cbml("predictor").eval(), sessions(300, ITEMS, seed=1)
    times: dict[int, list[float]] = {1: [], 0: []}
    for at in range(len(queries)):
        for steps, kept in times.items():
            began = time.perf_counter()
            system.scores(queries.take(slice(at, at + 1)), steps=steps).topk(10)
            kept.append(1e3 * (time.perf_counter() - began))
    found = {}
    for name, share in (("median", 50), ("95th percentile", 95)):
        found[name] = [float(np.percentile(times[steps][20:], share)) for steps in (1, 0)]
    against = "x without the step"
    return [
        row(f"adapt_one, {name}", a / b, against, ours=a, other=b, unit="ms/session") for name, (a, b) in found.items()
    ]


def main() -> None:
    """Print the memory of one arm, in MB."""
    if sys.argv[1] == "inference":
        print(inference(sys.argv[2]))
        return
    arm, tasks = sys.argv[1], int(sys.argv[2])
    of_users = {"users": {"scope": ["head"]}, "bias": {"scope": "item_bias", "order": 2, "queries": 8}}
    step = user_step(tasks=tasks, **of_users[arm]) if arm in of_users else meta_step(cbml(SCOPES[arm]), tasks=tasks)
    for _ in range(3):
        step()
    print(peak_mb())


if __name__ == "__main__":
    main()
