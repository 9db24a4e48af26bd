"""What adaptation costs at Diginetica's size: with the item table in scope, and for one new session alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from benchmarks.steps import ITEMS, WIDTH, update
from benchmarks.timing import Row, paired, row, sessions
from graphmeta.published import build
from graphmeta.system import System
from graphmeta.tables import EntityTable

TASKS = 64
TABLE = ("features.item", "encoder", "head.project.weight", "head.project.bias")


def cbml(scope: Sequence[str] | str) -> System:
    """CBML over 43,097 items without attributes, untrained."""
    torch.manual_seed(0)
    return build("cbml", EntityTable(np.arange(ITEMS), {}), width=WIDTH, scope=scope)


def meta_step(system: System) -> Callable[[], None]:
    """A closure that takes one meta-update on 64 sessions, each time others, of like length as in training."""
    optimizer = torch.optim.Adam(system.parameters(), lr=1e-3, fused=True)
    samples = sessions(20_000, ITEMS)
    samples = samples.take(np.flatnonzero(samples.lengths >= 2))
    batches = iter(list(system.batches(samples, batch_size=TASKS, seed=0, epoch=0)))

    def step() -> None:
        update(system, optimizer, samples.take(next(batches)))

    return step


def cbml_table() -> list[Row]:
    """A step of CBML that adapts everything, the item table too, over one that adapts the prediction layer alone."""
    everything, predictor = (meta_step(cbml(scope)) for scope in (TABLE, "predictor"))
    ours, other = paired(everything, predictor, rounds=15)
    against = "x predictor only (lower is better)"
    return [row("cbml_table", ours / other, against, ours=TASKS / ours, other=TASKS / other, unit="tasks/s")]


def adapt_one() -> list[Row]:
    """Adapt to one new session and score 43,097 items, over scoring alone; median, then 95th percentile."""
    system, asked = cbml("predictor").eval(), sessions(300, ITEMS, seed=1)
    assert system.adaptation is not None
    times: dict[int, list[float]] = {1: [], 0: []}
    for at in range(len(asked)):
        for steps, kept in times.items():
            system.adaptation.steps = steps
            began = time.perf_counter()
            system.scores(asked.take(slice(at, at + 1))).topk(10)
            kept.append(1e3 * (time.perf_counter() - began))
    found = {}
    for name, share in (("median", 50), ("95th percentile", 95)):
        found[name] = [float(np.percentile(times[steps][20:], share)) for steps in (1, 0)]
    against = "x without the step"
    return [
        row(f"adapt_one, {name}", a / b, against, ours=a, other=b, unit="ms a session")
        for name, (a, b) in found.items()
    ]
