"""Speed, as ratios against a bound or a reference that is measured beside it, in one run.

    python -m benchmarks.speed [--only NAME] [--json] [--threads N]

* ``batching``: sessions/s of :func:`graphmeta.batch.session_batch` over PyG's ``Data`` + ``Batch.from_data_list``.
* ``sr_gnn_step``: time of a training step over that of its floor: the product with all item vectors,
  cross-entropy, their backward pass and fused Adam on the item table (43,097 × 100, batch 100), all by PyTorch.
* ``inner_loop_head``, ``inner_loop_all``: tasks/s of the stacked engine over the per-task loop, meta-update
  included (64 tasks of 3 support and 1 query prefixes, a two-block attention encoder, 10,000 items), for first and
  second order, 1 and 3 steps; "head" adapts a 100 × 100 layer, "all" the encoder too.

The arms of a pair take turns, step by step, so that a busy machine slows both; medians are reported.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from datetime import date
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import Batch, Data, HeteroData

from graphmeta.adapt.adaptation import Adaptation
from graphmeta.adapt.scope import Scope
from graphmeta.adapt.step import Gradient
from graphmeta.batch import Samples, open_sessions, session_batch
from graphmeta.nn.attention import from_dense, to_dense
from graphmeta.nn.features import ItemFeatures, row_gradients
from graphmeta.nn.head import Dot
from graphmeta.nn.loss import SoftmaxLoss
from graphmeta.nn.readout import Last
from graphmeta.published import build
from graphmeta.recommender import Recommender
from graphmeta.tables import EntityTable
from graphmeta.tasks import task_batch

Row = dict[str, Any]


def paired(ours: Callable[[], Any], other: Callable[[], Any], *, rounds: int, warm_up: int = 2) -> tuple[float, float]:
    """Median seconds of each arm, run in turns."""
    times: tuple[list[float], list[float]] = ([], [])
    for at in range(warm_up + rounds):
        for kept, arm in zip(times, (ours, other), strict=True):
            began = time.perf_counter()
            arm()
            if at >= warm_up:
                kept.append(time.perf_counter() - began)
    return float(np.median(times[0])), float(np.median(times[1]))


def sessions(count: int, num_items: int, *, seed: int = 0) -> Samples:
    """Random sessions with Diginetica's mean length (4.1 known clicks, long tail) and a random target."""
    random = np.random.default_rng(seed)
    lengths = np.minimum(random.geometric(1 / 4.13, count), 50)
    known = open_sessions([random.integers(0, num_items, n) for n in lengths])
    return Samples(known.item, known.begin, known.end, random.integers(0, num_items, count), known.session)


def batching() -> list[Row]:
    """50,000 session graphs at once."""
    samples = sessions(50_000, 43_097)
    items, ptr = samples.flat()

    def by_objects() -> Batch:
        graphs = []
        for begin, end in zip(ptr[:-1], ptr[1:], strict=True):
            nodes, row = np.unique(items[begin:end], return_inverse=True)
            edges = np.unique(np.stack([row[:-1], row[1:]]), axis=1)
            graphs.append(
                Data(x=torch.from_numpy(nodes), edge_index=torch.from_numpy(edges), click=torch.from_numpy(row))
            )
        return Batch.from_data_list(graphs)

    ours, other = paired(lambda: session_batch(samples, num_items=43_097), by_objects, rounds=3, warm_up=1)
    return [
        row("batching", other / ours, "x PyG Data + Batch", ours=50_000 / ours, other=50_000 / other, unit="sessions/s")
    ]


def sr_gnn_step() -> list[Row]:
    """One training step at Diginetica's size, over its floor."""
    items, width, size = 43_097, 100, 100
    torch.manual_seed(0)
    system = build("sr_gnn", EntityTable(np.arange(items), {}), width=width)
    optimizer = torch.optim.Adam(system.parameters(), lr=1e-3, weight_decay=1e-5, fused=True)
    samples, random = sessions(20_000, items), np.random.default_rng(1)
    table = nn.Parameter(torch.empty(items, width).uniform_(-0.1, 0.1))
    table_optimizer = torch.optim.Adam([table], lr=1e-3, weight_decay=1e-5, fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with row_gradients(system):
            system.losses(samples.take(random.integers(0, len(samples), size))).mean().backward()
        optimizer.step()

    def floor() -> None:
        query = torch.randn(size, width, requires_grad=True)
        table_optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(query @ table.t(), torch.randint(0, items, (size,))).backward()
        table_optimizer.step()

    ours, other = paired(step, floor, rounds=60, warm_up=5)
    return [
        row("sr_gnn_step", ours / other, "x floor (lower is better)", ours=ours * 1e3, other=other * 1e3, unit="ms")
    ]


class PreNormBlock(nn.Module):
    """Two-head attention and a feed-forward layer, each after a LayerNorm and added to its input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.inner, self.outer = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor, batch: HeteroData) -> Tensor:
        """``[E, D] -> [E, D]``."""
        dense, known = to_dense(self.qkv(self.before(x)), batch)
        q, k, v = dense.unflatten(2, (2, -1)).transpose(1, 2).chunk(3, 3)
        weight = (q @ k.transpose(2, 3) / q.shape[3] ** 0.5).masked_fill(~known[:, None, None, :], -torch.inf)
        x = x + self.out(from_dense((torch.softmax(weight, 3) @ v).transpose(1, 2).flatten(2), batch))
        return x + self.outer(torch.relu(self.inner(self.between(x))))


class Attention(nn.Module):
    """Learned positions and two pre-norm blocks."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.position = nn.Embedding(50, width)
        self.blocks = nn.ModuleList(PreNormBlock(width) for _ in range(2))

    def forward(self, x: Tensor, batch: HeteroData) -> Tensor:
        """``x [I, D] -> [E, D]``."""
        states = x.index_select(0, batch["event"].item) + self.position(batch["event"].order)
        for block in self.blocks:
            states = block(states, batch)
        return states


def meta_step(scope: tuple[str, ...], *, order: int, steps: int, stacked: bool, items: int) -> Callable[[], None]:
    """A closure that adapts 64 tasks and takes one meta-update."""
    random, width = np.random.default_rng(0), 100
    torch.manual_seed(0)
    recommender = Recommender(ItemFeatures(items, width), Attention(width), Dot(Last(), nn.Linear(width, width)))
    adaptation = Adaptation(Scope(*scope), step=Gradient(0.1), steps=steps, order=order, stacked=stacked)
    adaptation.bind(recommender)
    known = open_sessions([random.integers(0, items, n) for n in random.integers(4, 10, 64)])
    query = Samples(known.item, known.begin, known.end, random.integers(0, items, 64), known.session)
    tasks = task_batch(query, num_items=items, max_support=3)
    optimizer, loss = torch.optim.Adam(recommender.parameters(), lr=1e-3, fused=True), SoftmaxLoss()

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with row_gradients(recommender):
            adaptation.run(recommender, tasks, loss).mean().backward()
        optimizer.step()

    return step


def inner_loop(name: str, scope: tuple[str, ...], *, items: int = 10_000) -> list[Row]:
    """The stacked engine over the loop: both orders, 1 and 3 steps."""
    rows = []
    for order in (2, 1):
        for steps in (1, 3):
            arms = [meta_step(scope, order=order, steps=steps, stacked=s, items=items) for s in (True, False)]
            ours, other = paired(arms[0], arms[1], rounds=7)
            label = f"{name} order {order}, {steps} step{'s' if steps > 1 else ''}"
            rows.append(row(label, other / ours, "x per-task loop", ours=64 / ours, other=64 / other, unit="tasks/s"))
    return rows


def row(name: str, ratio: float, against: str, *, ours: float, other: float, unit: str) -> Row:
    """One line of the table."""
    return {
        "name": name,
        "ratio": round(ratio, 3),
        "against": against,
        "ours": round(ours, 1),
        "other": round(other, 1),
        "unit": unit,
    }


JOBS: dict[str, Callable[[], list[Row]]] = {
    "batching": batching,
    "sr_gnn_step": sr_gnn_step,
    "inner_loop_head": lambda: inner_loop("inner_loop_head", ("head",)),
    "inner_loop_all": lambda: inner_loop("inner_loop_all", ("encoder", "head")),
}


def main() -> None:
    """Run the jobs and print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=JOBS)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--threads", type=int, default=0, help="of PyTorch; its own choice if not given")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    rows: list[Row] = []
    for name in [options.only] if options.only else JOBS:
        found = JOBS[name]()
        rows += found
        for line in () if options.json else found:
            print(
                "{name:34s} {ratio:9.2f} {against:28s} {ours:12,.1f} vs {other:10,.1f} {unit}".format(**line),
                flush=True,
            )
    if options.json:
        machine = {"threads": torch.get_num_threads(), "torch": torch.__version__, "machine": platform.machine()}
        print(json.dumps({"date": date.today().isoformat(), **machine, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
