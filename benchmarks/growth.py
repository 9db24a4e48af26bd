"""Time and memory against the size of what is computed, on synthetic logs with Zipf-distributed items.

    python -m benchmarks.growth synthetic --systems events --sizes 100000,1000000,5000000 --minutes 20

Each size is measured in a process of its own, whose peak memory is reported; what takes longer than ``--minutes`` is
not measured, and its row states that. Written: ``results/synthetic/growth/<what>/<sizes>-seed0.json`` and a picture
beside it, with the line of proportional growth through the first size.

* ``events``: a log in Parquet files is scanned with ``--memory``; a shard is read, its graph and a batch of 512 samples
  are made; the log is filtered and cut, and all shards of it are read.
* ``in_memory``: the same files with :meth:`EventLog.read <graphmeta.data.events.EventLog.read>`, graph and batch.
* ``collected``: scanned, collected into memory, graph and batch.
* ``training``: an epoch from shards of ``sr_gnn`` (width 32, sampled softmax), by events.
* ``items``: a training step of ``sr_gnn`` (width 64, 4,096 sampled items, batch 512), the ten best items of a session
  by the exact product, and beyond a million by the index, with its recall.
* ``tasks``: a meta-update of ``maml`` (5,000 items, width 32) with so many tasks.
* ``history``: a batch of 512 samples with so many earlier sessions of each user.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import graphmeta as gm
from benchmarks import synthetic
from benchmarks.growth_report import draw
from benchmarks.rows import path_of, provenance
from graphmeta.adapt.adaptation import Adaptation
from graphmeta.data.events import EventLog
from graphmeta.inference import retrieval
from graphmeta.nn.losses.sampled import SampledSoftmaxLoss, Uniform
from graphmeta.sampling.samples import Samples, prefixes
from graphmeta.sampling.session_batch import session_batch
from graphmeta.sampling.subgraph import SubgraphSampler
from graphmeta.storage import write_json
from graphmeta.testing import fake_log
from graphmeta.training.loop import gradients

ITEMS = 200_000  # of logs that grow in events
COLUMNS = {"session": "session", "item": "item", "time": "time"}
BATCH = 512
Figures = dict[str, float]


class Clock:
    """Seconds of named stages."""

    def __init__(self) -> None:
        self.found: Figures = {}
        self._last = time.perf_counter(), time.process_time()

    def done(self, name: str) -> None:
        """The stage since the last call ends here."""
        now = time.perf_counter(), time.process_time()
        self.found[f"{name}_s"] = round(now[0] - self._last[0], 2)
        self.found[f"{name}_cpu_s"] = round(now[1] - self._last[1], 2)
        self._last = now
        print(json.dumps(self.found | peak()), flush=True)  # what is known if the time ends


def peak() -> Figures:
    """The peak memory of this process."""
    return {"peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)}


def _files(events: int) -> str:
    """The files of a log of so many events, which are kept in the folder of temporary files."""
    return synthetic.write(Path(tempfile.gettempdir()) / "graphmeta-synthetic" / f"{events}", events, ITEMS)


def _graph_and_batch(log: EventLog, clock: Clock) -> None:
    log.graph  # noqa: B018 - it is cached
    clock.done("graph")
    samples = prefixes(log)
    rows = np.random.default_rng(0).permutation(len(samples))[:BATCH]
    session_batch(samples.take(rows), num_items=log.num_items)
    clock.done("batch")


def events(size: int, memory: str) -> Figures:
    """Scan, filter, cut and shards of a log on disk."""
    files, clock = _files(size), Clock()
    log = EventLog.scan(files, memory=memory, **COLUMNS)
    clock.done("scan")
    clock.found |= {"shards": log.num_shards, "sessions": log.num_sessions}
    shard = log.shard(0)
    clock.done("shard")
    _graph_and_batch(shard, clock)
    del shard
    kept = log.filter(min_item_support=5, min_session_length=2)
    clock.done("filter")
    train = kept.before(float(kept.starts[int(0.9 * kept.num_sessions)]))
    clock.done("cut")
    clock.found["train_events"] = sum(part.num_events for part in train.shards())
    clock.done("all_shards")
    return clock.found


def in_memory(size: int, memory: str) -> Figures:
    """The files read at once with pandas."""
    files, clock = _files(size), Clock()
    import pandas as pd

    frame = pd.concat(
        [pd.read_parquet(path) for path in sorted(Path(files).parent.glob("*.parquet"))], ignore_index=True
    )
    log = EventLog.read(frame, **COLUMNS)
    del frame
    clock.done("read")
    _graph_and_batch(log, clock)
    return clock.found


def collected(size: int, memory: str) -> Figures:
    """A scan that is collected."""
    files, clock = _files(size), Clock()
    log = EventLog.scan(files, memory=memory, **COLUMNS).collect()
    clock.done("read")
    _graph_and_batch(log, clock)
    return clock.found


def training(size: int, memory: str) -> Figures:
    """An epoch from shards."""
    log = EventLog.scan(_files(size), memory=memory, **COLUMNS).filter(min_item_support=5, min_session_length=2)
    torch.manual_seed(0)
    system, clock = gm.build("sr_gnn", log.items, width=32), Clock()
    options = gm.TrainOptions(loss=SampledSoftmaxLoss(Uniform(4096)))
    report = next(iter(gm.train(system, log, epochs=1, batch_size=BATCH, options=options)))
    clock.done("epoch")
    return clock.found | {"shards": log.num_shards, "loss": round(report.loss, 4), "events": log.num_events}


def items(size: int, memory: str) -> Figures:
    """A training step, and the ten best items."""
    torch.manual_seed(0)
    table = gm.EntityTable(np.arange(size), {})
    system, found = gm.build("sr_gnn", table, width=64), dict[str, float]()
    random = np.random.default_rng(0)
    lengths = np.minimum(random.geometric(0.24, BATCH), 50)
    ends = np.cumsum(lengths)
    clicks = synthetic.zipf(random, int(ends[-1]), size)
    target, rows = synthetic.zipf(random, BATCH, size), np.arange(BATCH)
    samples = Samples(clicks, ends - lengths, ends, target, rows, items=table)
    loss = SampledSoftmaxLoss(Uniform(4096))
    optimizer = torch.optim.SGD(system.parameters(), lr=0.01)
    seconds = []
    for _ in range(7):
        began = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        gradients(system, samples, objective=loss)
        optimizer.step()
        seconds.append(time.perf_counter() - began)
    found["step_ms"] = round(1000 * float(np.median(seconds[2:])), 2)
    system.eval()
    few = samples.take(slice(0, 16))
    began = time.perf_counter()
    query, vectors = retrieval.products(system, few)
    assert query is not None
    began = time.perf_counter()
    retrieval.exact_best(vectors, query, 10)
    found["exact_ms"] = round(1000 * (time.perf_counter() - began) / len(few), 3)
    if size > retrieval.EXACT_UP_TO:
        found |= _by_index(system, samples)
    return found


def _by_index(system: gm.System, samples: Samples) -> Figures:
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        index = retrieval.index_of(system, samples)
    built = time.perf_counter() - began
    query, _ = retrieval.products(system, samples.take(slice(0, 16)))
    assert query is not None
    began = time.perf_counter()
    index.search(query, 10)
    spent = time.perf_counter() - began
    return {
        "build_s": round(built, 1),
        "approximate_ms": round(1000 * spent / 16, 3),
        f"recall@{index.k}": round(index.recall, 4),
        "probes": index.probes,
        "lists": index.lists,
    }


def tasks(size: int, memory: str) -> Figures:
    """A meta-update of so many tasks."""
    log = fake_log(sessions=size, items=5_000, length=8)
    torch.manual_seed(0)
    system = gm.build("maml", log.items, width=32)
    assert isinstance(system.adaptation, Adaptation)
    samples, seconds = system.training_samples(log), []
    for _ in range(4):
        began = time.perf_counter()
        system.zero_grad(set_to_none=True)
        gradients(system, samples)
        seconds.append(time.perf_counter() - began)
    return {"update_s": round(float(np.median(seconds[1:])), 4), "tasks": len(samples)}


def history(size: int, memory: str) -> Figures:
    """A batch with the earlier sessions of its users."""
    log = fake_log(sessions=200 * (size + 1), items=5_000, length=6)
    users = gm.EntityTable(np.arange(200), {})
    log = replace(log, users=users, session_user=np.arange(log.num_sessions) % 200)
    samples = gm.last_clicks(log)
    samples = samples.take(np.arange(len(samples) - min(BATCH, 200), len(samples)))
    sampler, seconds = SubgraphSampler(log, history=size), []
    for _ in range(9):
        began = time.perf_counter()
        sampler(samples)
        seconds.append(time.perf_counter() - began)
    return {"batch_ms": round(1000 * float(np.median(seconds[2:])), 2), "samples": len(samples)}


KINDS: dict[str, Callable[[int, str], Figures]] = {
    "events": events,
    "in_memory": in_memory,
    "collected": collected,
    "training": training,
    "items": items,
    "tasks": tasks,
    "history": history,
}
SIZES = {
    "events": (10**5, 10**6, 5 * 10**6, 10**7, 5 * 10**7),
    "in_memory": (10**5, 10**6, 5 * 10**6),
    "collected": (10**5, 10**6, 5 * 10**6),
    "training": (10**5, 10**6),
    "items": (10**3, 10**4, 10**5, 10**6, 2 * 10**6, 10**7),
    "tasks": (16, 64, 256, 1024, 4096),
    "history": (1, 4, 16, 64),
}


def parser() -> argparse.ArgumentParser:
    """The arguments of the command."""
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("dataset", choices=["synthetic"])
    found.add_argument("--systems", choices=KINDS, required=True, dest="system", help="what grows")
    found.add_argument("--sizes", help="comma-separated; a list for each kind if not given")
    found.add_argument("--memory", default="1GB", help="of scans")
    found.add_argument("--minutes", type=float, default=20.0, help="for each size")
    found.add_argument("--seed", type=int, default=0)
    found.add_argument("--one", type=int, help=argparse.SUPPRESS)
    return found


def main() -> None:
    """Measure all sizes of one kind, and write figures and picture."""
    options = parser().parse_args()
    if options.one is not None:
        print(json.dumps(KINDS[options.system](options.one, options.memory) | peak()))
        return
    sizes = SIZES[options.system] if options.sizes is None else [int(float(one)) for one in options.sizes.split(",")]
    base, rows = _imports(), []
    for size in sizes:
        rows.append({"size": size, **measured(options, size)})
        print(json.dumps(rows[-1]), flush=True)
    document = {
        "dataset": "synthetic",
        "protocol": "growth",
        "system": options.system,
        "seed": options.seed,
        "memory": options.memory,
        "imports_mb": base,
        "threads": torch.get_num_threads(),
        "rows": rows,
        **provenance("benchmarks.growth"),
    }
    variant = "" if options.sizes is None else options.sizes.replace(",", "-")
    write_json(path_of(document, variant), document)
    draw(document)


def measured(options: argparse.Namespace, size: int) -> dict[str, Any]:
    """The figures of one size, in a process of its own; or why there are none."""
    command = [sys.executable, "-m", "benchmarks.growth", "synthetic", "--systems", options.system]
    if options.system in ("events", "in_memory", "collected", "training"):
        _files(size)  # written before the clock starts
    try:
        done = subprocess.run(
            [*command, "--memory", options.memory, "--one", str(size)],
            capture_output=True, text=True, check=False, timeout=60 * options.minutes,
        )  # fmt: skip
    except subprocess.TimeoutExpired as late:
        lines = (late.stdout or b"").decode().splitlines()
        known = json.loads(lines[-1]) if lines else {}
        rest = "what is missing" if known else "it"
        return known | {"not_measured": f"{rest} takes more than {options.minutes:g} minutes here"}
    if done.returncode:
        return {"not_measured": (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def _imports() -> int:
    """Peak memory of a process that only imports the library, in MB."""
    code = "import benchmarks.growth, resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)"
    return int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


if __name__ == "__main__":
    main()
