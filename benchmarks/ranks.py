"""Training in two processes of one thread each, against one process of one thread, in one run.

    python -m benchmarks.ranks [--only NAME] [--rounds N] [--json]

* ``cbml``, ``maml_second_order``: tasks/s of a training step (inner steps, backward pass, all-reduce of the gradients,
  fused Adam) of 64 tasks, 43,097 items × 100. ``sr_gnn``: samples/s of a step of 512 samples with the sampled softmax
  of the recipes. One rank computes a batch alone while the other waits, then both compute halves of the same batch, in
  turn. ``ratio`` is the median time alone over the median time together. ``by_cpu`` is the same of the processors' time
  of the slower rank, which other jobs on the machine hardly change: the ratio that two free cores would give, without
  the waiting for messages; ``cpu_ms``: the milliseconds of each rank.
* ``memory``: a training step of SR-GNN with the full softmax over 1,000,000 items × 64, batch 64: MB of a process with
  the whole item table and its optimizer state (``whole``), and of each of two processes that hold half of the rows
  (``shards``), after the steps (``mb``) and at most (``peak_mb``; each process builds the whole table once). ``loss``
  is that of the last step: the same numbers, up to rounding.

The load of the machine (jobs that run or wait, before and after) is part of each row.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.timing import sessions
from graphmeta.data.tables import EntityTable
from graphmeta.distributed import current, joined
from graphmeta.distributed.gradients import FlatGradients
from graphmeta.distributed.group import ALONE, Group, Step, stepping
from graphmeta.nn.features.sharded import row_ranges, shard_items
from graphmeta.nn.losses.sampled import SampledSoftmaxLoss, Uniform
from graphmeta.published.catalogue import build
from graphmeta.system import System
from graphmeta.training.batches import Batch
from graphmeta.training.loop import gradients

Row = dict[str, Any]
ITEMS, WIDTH = 43_097, 100
MANY, NARROW = 1_000_000, 64
SPEED: dict[str, tuple[str, dict[str, Any], int]] = {
    "cbml": ("cbml", {"base": "sr_gnn"}, 64),
    "maml_second_order": ("maml", {"base": "sr_gnn", "order": 2}, 64),
    "sr_gnn": ("sr_gnn", {}, 512),
}
JOBS = (*SPEED, "memory")


def stepper(system: System, size: int, objective: torch.nn.Module | None = None) -> Callable[[Group, int], float]:
    """A training step as :mod:`graphmeta.training.loop` takes it: the n-th batch, shared by a group; the loss."""
    samples, optimizer = sessions(20_000, system.num_items), torch.optim.Adam(system.parameters(), lr=1e-3, fused=True)
    flat = FlatGradients(weight for name, weight in system.named_parameters() if name not in row_ranges(system))
    system.train()

    def step(group: Group, number: int) -> float:
        random = np.random.default_rng(number)
        batch = Batch.of(samples, random.integers(0, len(samples), size), group)
        optimizer.zero_grad(set_to_none=True)
        with stepping(Step(batch.group, torch.Generator().manual_seed(number))):
            value, _ = gradients(system, batch.samples, objective=objective)
            (value,) = flat.sum(batch.group, value)
        optimizer.step()
        return value

    return step


def speed(name: str, rounds: int) -> Row:
    """One row, on rank 0; the other rank takes part."""
    system_name, options, size = SPEED[name]
    torch.manual_seed(0)
    system = build(system_name, EntityTable(np.arange(ITEMS), {}), width=WIDTH, **options)
    objective = SampledSoftmaxLoss(Uniform(4096)) if name == "sr_gnn" else None
    step, group = stepper(system, size, objective), current()
    times: dict[str, list[np.ndarray]] = {"alone": [], "together": []}  # wall and CPU seconds of each rank
    for number in range(rounds + 1):
        for kind, own in (("alone", ALONE), ("together", group)):
            group.sum(torch.zeros(1))  # ranks begin together
            began, cpu = time.perf_counter(), time.process_time()
            if kind == "together" or group.rank == 0:
                step(own, number)
            spent = torch.tensor([[time.perf_counter() - began, time.process_time() - cpu]], dtype=torch.float64)
            every = group.gather(spent).numpy()
            if number:
                times[kind].append(every)
    slowest = {kind: np.median(np.stack(each).max(1), 0) for kind, each in times.items()}
    wall, cpu_time = ({kind: each[at] for kind, each in slowest.items()} for at in (0, 1))
    rate = {kind: round(size / seconds, 1) for kind, seconds in wall.items()}
    found = {"ratio": wall["alone"] / wall["together"], "by_cpu": cpu_time["alone"] / cpu_time["together"]}
    of_ranks = {kind: (1e3 * np.median(np.stack(each), 0)[:, 1]).round().tolist() for kind, each in times.items()}
    row = {"name": name, **{key: round(float(value), 3) for key, value in found.items()}}
    return {**row, "per_second": rate, "cpu_ms": of_ranks}


def memory(kind: str) -> Row:
    """The memory of this process, after three steps and at most."""
    torch.manual_seed(0)
    system, group = build("sr_gnn", EntityTable(np.arange(MANY), {}), width=NARROW), current()
    if kind == "shards":
        shard_items(system.recommender.features, system.num_items, group)
    step = stepper(system, 64)
    loss = [step(group, number) for number in range(3)][-1]
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    own = torch.tensor([[float(status[key].split()[0]) / 1024 for key in ("VmRSS", "VmHWM")]])
    every = group.gather(own).round().int().t().tolist()
    return {"name": f"memory, {kind}", "mb": every[0], "peak_mb": every[1], "loss": round(loss, 6)}


def work(job: str, rounds: int) -> None:
    """What each rank does; rank 0 prints the row."""
    torch.set_num_threads(1)
    before = os.getloadavg()[0]
    with joined() as group:
        row = speed(job, rounds) if job in SPEED else memory(job)
        if group.rank == 0:
            print(json.dumps({**row, "load": [round(load, 1) for load in (before, os.getloadavg()[0])]}))


def measured(job: str, ranks: int, rounds: int) -> Row:
    """The row of a job that runs in so many processes."""
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        port = place.getsockname()[1]
    command = [sys.executable, "-m", "benchmarks.ranks", "--work", job, "--rounds", str(rounds)]
    with _started(command, ranks, port) as processes:
        output = processes[0].communicate()[0]
        if any([process.wait() for process in processes]):
            raise SystemExit(f"{job}: a process failed")
    return json.loads(output)


@contextmanager
def _started(command: list[str], ranks: int, port: int) -> Iterator[list[subprocess.Popen[str]]]:
    """The ranks of a command, which are ended at the end."""
    place = {"WORLD_SIZE": ranks, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": 1}
    processes = [
        subprocess.Popen(
            command,
            env=os.environ | {key: str(value) for key, value in {**place, "RANK": rank, "LOCAL_RANK": rank}.items()},
            stdout=subprocess.PIPE if rank == 0 else None,
            text=True,
        )
        for rank in range(ranks)
    ]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


def main() -> None:
    """Run the jobs and print their rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=JOBS)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", action="store_true", help="rows as JSON instead of a table")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        work(given.work, given.rounds)
        return
    for job in (given.only,) if given.only else JOBS:
        kinds = (("whole", 1), ("shards", 2)) if job == "memory" else ((job, 2),)
        for kind, ranks in kinds:
            row = measured(kind, ranks, given.rounds)
            shown = ", ".join(f"{key} {value}" for key, value in row.items() if key != "name")
            print(json.dumps(row) if given.json else f"{row['name']}: {shown}", flush=True)


if __name__ == "__main__":
    main()
