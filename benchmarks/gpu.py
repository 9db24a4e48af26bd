"""Meta-training and inference on a GPU, at Diginetica's size; one command, within six minutes.

    python -m benchmarks.gpu [--out FILE] [--seconds N]
    python -m benchmarks.gpu --cpu              # the same with tiny sizes on a CPU: a test of the script

JSON on stdout or in FILE, one row per measurement; without a GPU it prints a message and exits.

* ``same as the CPU``: the largest relative difference of losses and meta-gradients from those of the CPU, in 32 and 64
  bits; above ``most`` a row is not ``ok``, and the exit status is 1.
* ``meta-update``: CBML over 43,097 items, all tasks at once, of 64, 256, 1,024 and 4,096 sessions, first and second
  order, the item table in scope or not: tasks/s of adapting, backward pass and fused Adam on a batch that is on the GPU
  already (``prepare_ms`` is the time to transfer it), the peak of the GPU's memory, and the same
  over the per-task loop. The loop is measured on 64 tasks; its time per task is assumed to be the same for more
  (``loop_scaled``). ``at_once`` is how many tasks are adapted at a time: all, unless memory does not allow it.
* ``sr_gnn step``: a training step over that of the floor: the product with all item vectors, cross-entropy, their
  backward pass and fused Adam on the table, batch 100.
* ``adapt_one``: milliseconds from a new session's clicks to its ten best items; ``adapt_many``: the same for sessions
  that are adapted together, per session.
* ``waits``: how often the program waits for the GPU in a meta-update, by ``torch.cuda.set_sync_debug_mode``.
* ``time to accuracy``: NISER trained by the default recipe on Diginetica (``GRAPHMETA_DATA``): seconds of training and
  Hit@20 and MRR@20 on every test prefix after three epochs.

Medians of a few rounds, synchronised before and after each. Measurements beyond the time limit are skipped and listed.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.timing import sessions
from graphmeta import datasets
from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError
from graphmeta.evaluation.ranking import evaluate
from graphmeta.nn.features.tables import row_gradients
from graphmeta.published.catalogue import build
from graphmeta.sampling.samples import Samples, prefixes
from graphmeta.sampling.tasks import TaskBatch
from graphmeta.system import System
from graphmeta.testing import fake_log
from graphmeta.training.loop import gradients, train
from graphmeta.training.recipes import TrainingRecipe
from graphmeta.training.settings import TrainOptions

Row = dict[str, Any]
TABLE, LAYERS = ("features.item", "encoder", "head.project.weight", "head.project.bias"), ("encoder", "head.project")
MOST = {torch.float32: 1e-3, torch.float64: 1e-9}


@dataclass(frozen=True)
class Sizes:
    """The sizes of the measurements."""

    items: int = 43_097
    width: int = 100
    batch: int = 100
    tasks: tuple[int, ...] = (64, 256, 1024, 4096)
    rounds: int = 7
    sessions: int = 200
    together: tuple[int, ...] = (16, 256)


TINY = Sizes(items=60, width=8, batch=5, tasks=(2, 4), rounds=1, sessions=3, together=(2,))


@dataclass(frozen=True)
class Place:
    """A device, the sizes to measure on it, and the time limit."""

    device: torch.device
    sizes: Sizes
    until: float

    def wait(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def seconds(self, arm: Callable[[], Any], *, rounds: int = 0) -> float:
        """Median seconds of a run after two warm-up runs; fewer rounds for slow runs."""
        found: list[float] = []
        begin = time.perf_counter()
        for at in range(2 + (rounds or self.sizes.rounds)):
            self.wait()
            began = time.perf_counter()
            arm()
            self.wait()
            if at >= 2:
                found.append(time.perf_counter() - began)
            if found and time.perf_counter() - begin > 8:
                break
        return float(np.median(found))

    def peak_mb(self, arm: Callable[[], Any]) -> float:
        """Peak device memory of a run in MB; 0 on a CPU."""
        if self.device.type != "cuda":
            arm()
            return 0.0
        torch.cuda.reset_peak_memory_stats(self.device)
        arm()
        self.wait()
        return round(torch.cuda.max_memory_allocated(self.device) / 2**20, 1)


def table(items: int) -> EntityTable:
    """Items without attributes."""
    return EntityTable(np.arange(items), {})


def cbml(place: Place, *, order: int, scope: tuple[str, ...], items: int = 0) -> System:
    """CBML, untrained, on the CPU."""
    torch.manual_seed(0)
    return build("cbml", table(items or place.sizes.items), width=place.sizes.width, scope=scope, order=order)


def random_sessions(count: int, items: int, seed: int = 0) -> Samples:
    """Random sessions of 2 to 11 clicks, so that each has a support."""
    samples = sessions(4 * count + 20, items, seed=seed)
    return samples.take(np.flatnonzero(samples.lengths >= 2)[:count]).latest(11)


def same(place: Place) -> Iterator[Row]:
    """Losses and meta-gradients against the CPU's."""
    items = min(place.sizes.items, 500)
    samples = random_sessions(8, items)
    for order in (1, 2):
        for name, scope in (("layers", LAYERS), ("layers and table", TABLE)):
            for dtype, most in MOST.items():
                ours, theirs = cbml(place, order=order, scope=scope, items=items).to(dtype).eval(), []
                for system in (copy.deepcopy(ours).to(place.device), ours):
                    losses = system.losses(samples)
                    losses.mean().backward()
                    own = {key: p.grad for key, p in system.named_parameters() if p.grad is not None}
                    theirs.append({key: x.detach().cpu() for key, x in (own | {"losses": losses}).items()})
                worst = max(
                    float((theirs[0][key] - right).abs().max() / right.abs().max().clamp(min=1e-3))
                    for key, right in theirs[1].items()
                )
                label = f"same as the CPU, order {order}, {name}, {str(dtype).removeprefix('torch.')}"
                yield {"name": label, "difference": worst, "most": most, "ok": worst <= most}


def updates(place: Place) -> Iterator[Row]:
    """Meta-updates, stacked and by the loop."""
    for name, scope in (("layers", LAYERS), ("layers and table", TABLE)):
        for order in (1, 2):
            system = cbml(place, order=order, scope=scope).to(place.device)
            assert system.adaptation is not None
            system.adaptation.stacked, first = False, min(place.sizes.tasks)
            loop = place.seconds(meta_update(system, random_sessions(first, place.sizes.items), first)[0], rounds=2)
            system.adaptation.stacked = True
            for tasks in place.sizes.tasks:
                yield {
                    "name": f"meta-update, {tasks} tasks, order {order}, {name}",
                    "unit": "tasks/s",
                    **measured(place, system, tasks),
                    "loop": round(first / loop, 1),
                    "loop_scaled": tasks != first,
                }


def measured(place: Place, system: System, tasks: int) -> Row:
    """Pace and peak of a meta-update on so many tasks; as many at a time as memory allows."""
    samples, at_once = random_sessions(tasks, place.sizes.items), tasks
    while True:
        try:
            step, prepare = meta_update(system, samples, at_once)
            peak = place.peak_mb(step)
            pace = round(tasks / place.seconds(step), 1)
        except torch.OutOfMemoryError:
            system.zero_grad()
            torch.cuda.empty_cache()
            if at_once == 1:
                raise
            at_once = -(-at_once // 2)
            continue
        unsupported = system.adaptation.fallback.unsupported if system.adaptation is not None else {}
        return {
            "stacked": pace,
            "peak_mb": peak,
            "at_once": at_once,
            "prepare_ms": prepare,
            "refused": [*unsupported.values()],
        }


def meta_update(system: System, samples: Samples, at_once: int) -> tuple[Callable[[], None], float]:
    """A closure that takes one meta-update on these sessions, and the milliseconds to get them onto the device."""
    optimizer, adaptation = torch.optim.Adam(system.parameters(), lr=1e-3, fused=True), system.adaptation
    assert adaptation is not None
    began = time.perf_counter()
    parts = [samples.take(np.arange(at, min(at + at_once, len(samples)))) for at in range(0, len(samples), at_once)]
    batches: list[TaskBatch] = [system._tasks(part) for part in parts]
    prepared = round(1e3 * (time.perf_counter() - began), 1)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with row_gradients(system):
            for batch in batches:
                (adaptation.run(system.recommender, batch, system.loss).sum() / len(samples)).backward()
        optimizer.step()

    return step, prepared


def sr_gnn_step(place: Place) -> Iterator[Row]:
    """SR-GNN's training step over the floor's, sessions taken from the program's memory as in training."""
    sizes = place.sizes
    torch.manual_seed(0)
    system = build("sr_gnn", table(sizes.items), width=sizes.width).to(place.device)
    optimizer = torch.optim.Adam(system.parameters(), lr=1e-3, fused=True)
    samples, random = sessions(2_000, sizes.items), np.random.default_rng(1)
    vectors = nn.Parameter(torch.randn(sizes.items, sizes.width, device=place.device))
    of_floor = torch.optim.Adam([vectors], lr=1e-3, fused=True)

    def ours() -> None:
        optimizer.zero_grad(set_to_none=True)
        gradients(system, samples.take(random.integers(0, len(samples), sizes.batch)))
        optimizer.step()

    def floor() -> None:
        query = torch.randn(sizes.batch, sizes.width, device=place.device, requires_grad=True)
        target = torch.randint(0, sizes.items, (sizes.batch,), device=place.device)
        of_floor.zero_grad(set_to_none=True)
        F.cross_entropy(query @ vectors.t(), target).backward()
        of_floor.step()

    own, bound = (1e3 * place.seconds(arm, rounds=5 * sizes.rounds) for arm in (ours, floor))
    yield {"name": "sr_gnn step", "unit": "ms", "ours": own, "floor": bound, "ratio": own / bound}


def adapt_one(place: Place) -> Iterator[Row]:
    """Adapt to one new session, score all items, bring the ten best back."""
    system = cbml(place, order=1, scope=LAYERS).to(place.device).eval()
    samples, times = random_sessions(place.sizes.sessions, place.sizes.items, seed=1), []
    for at in range(len(samples)):
        began = time.perf_counter()
        system.scores(samples.take(slice(at, at + 1))).topk(10).indices.tolist()
        times.append(1e3 * (time.perf_counter() - began))
    kept = times[len(times) // 4 :]
    yield {"name": "adapt_one", "unit": "ms", "median": np.median(kept), "95th percentile": np.percentile(kept, 95)}
    for together in place.sizes.together:
        queries = random_sessions(together, place.sizes.items, seed=2)
        spent = place.seconds(partial(best_ten, system, queries))
        yield {"name": f"adapt_many, {together} at once", "unit": "ms/session", "median": 1e3 * spent / together}


def best_ten(system: System, queries: Samples) -> list[list[int]]:
    """The ten best items of each session."""
    return system.scores(queries).topk(10).indices.tolist()


def waits(place: Place) -> Iterator[Row]:
    """How often a meta-update whose batch is on the GPU waits for it; unknown (None) without a GPU."""
    tasks = min(place.sizes.tasks)
    for order in (1, 2):
        system = cbml(place, order=order, scope=TABLE).to(place.device)
        step, _ = meta_update(system, random_sessions(tasks, place.sizes.items), tasks)
        step()
        found = None
        if place.device.type == "cuda":
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                torch.cuda.set_sync_debug_mode("warn")
                try:
                    step()
                finally:
                    torch.cuda.set_sync_debug_mode("default")
            found = sum("synchroniz" in str(one.message) for one in told)
        yield {"name": f"waits, order {order}", "unit": "per meta-update", "waits": found}


def time_to_accuracy(place: Place) -> Iterator[Row]:
    """NISER by the default recipe, and its accuracy on the test."""
    if place.device.type == "cuda":
        try:
            log, test = datasets.diginetica()
        except InputError as error:
            yield {"name": f"time to accuracy is not measured: {error}"}
            return
    else:
        log = test = fake_log(sessions=60, items=place.sizes.items)
    system = build("niser", log.items, width=place.sizes.width).to(place.device)
    samples = prefixes(log)
    recipe = TrainingRecipe(epochs=3).for_size(len(samples), len(log.items))
    options = TrainOptions(loss=recipe.loss(system))
    began = time.perf_counter()
    reports = train(
        system, log, epochs=3, optimizer=recipe.optimizer, batch_size=recipe.batch_size or 1, options=options
    )
    spent = sum(report.seconds for report in reports)
    place.wait()
    found = evaluate(system, prefixes(test), ks=(20,)).metrics
    yield {
        "name": "time to accuracy, niser",
        "unit": "s",
        "training": spent,
        "with preparation": time.perf_counter() - began,
        **found,
    }


PARTS = (same, sr_gnn_step, adapt_one, waits, updates, time_to_accuracy)


def rows(place: Place) -> Iterator[Row]:
    """All measurements that there is time for."""
    for part in PARTS:
        for row in part(place):
            yield row
            if time.perf_counter() > place.until:
                yield {"name": f"time limit reached in {part.__name__}; the rest is skipped"}
                return


def main(arguments: list[str] | None = None) -> int:
    """Measure, and print or write JSON; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu", action="store_true", help="tiny sizes on the CPU")
    parser.add_argument("--out", type=Path, help="a file for the JSON; stdout if not given")
    parser.add_argument("--seconds", type=float, default=300, help="time limit, after which no measurement is started")
    options = parser.parse_args(arguments)
    if not options.cpu and not torch.cuda.is_available():
        print("no measurement: PyTorch sees no GPU (--cpu tries the script with tiny sizes)")
        return 0
    device, sizes = (torch.device("cpu"), TINY) if options.cpu else (torch.device("cuda"), Sizes())
    found = []
    for row in rows(Place(device, sizes, time.perf_counter() + options.seconds)):
        found.append(
            {
                key: round(x, 12 if key in ("difference", "most") else 3) if isinstance(x, float) else x
                for key, x in row.items()
            }
        )
        print(found[-1]["name"], file=sys.stderr, flush=True)
    name = "cpu" if options.cpu else torch.cuda.get_device_name()
    document = {"date": date.today().isoformat(), "device": name, "torch": torch.__version__, "rows": found}
    if options.out is None:
        print(json.dumps(document, indent=1))
    else:
        options.out.write_text(json.dumps(document, indent=1) + "\n")
    return int(not all(row.get("ok", True) for row in found))


if __name__ == "__main__":
    sys.exit(main())
