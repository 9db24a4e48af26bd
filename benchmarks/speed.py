"""Speed, as ratios against a bound or a reference that is measured beside it, in one run.

    python -m benchmarks.speed [--only NAME] [--json] [--threads N]

* ``batching``: sessions/s of :func:`graphmeta.sampling.session_batch.session_batch` over PyG's ``Data`` +
``Batch.from_data_list``.
* ``subgraph``: sessions/s of ``session_batch`` over those of :class:`graphmeta.sampling.subgraph.SubgraphSampler`
  without a neighbourhood (a ratio of time, at most 1.1), and with attributes, earlier sessions, followers; with these
  (``per_row``) over ``session_batch`` of as many clicks as the batch has item rows and edges.
* ``sr_gnn_step``, ``gc_san_step``, ``gru4rec_step``, ``tagnn_step``: time of a training step over that of the floor:
  the product with all item vectors, cross-entropy, their backward pass and fused Adam on the item table (43,097 × 100,
  batch 100), all by PyTorch; for TAGNN also the factorised attention over the dense formula. ``sr_gnn_bf16`` takes
  the products in 16 bits.
* ``asars_prefix_attention``: attention over all prefixes at once over one softmax for each prefix.
* ``session_knn``: queries/s against 180,000 sessions.
* ``inner_loop_head``, ``inner_loop_all``: tasks/s of the stacked engine over the per-task loop, meta-update
  included (64 tasks of 3 support and 1 query prefixes, a two-block attention encoder, 10,000 items), for first and
  second order, 1 and 3 steps; "head" adapts a 100 × 100 layer, "all" the encoder too. ``inner_loop_100_items``: "all"
  with 100 items instead of 10,000.
* ``cbml_table``: a meta-update of CBML (64 tasks, 43,097 items) that adapts everything, the item table too, over one
  that adapts the prediction layer alone, and the peak memory of either with 16, 64 and 256 tasks, each in a process of
  its own. ``adapt_one``: milliseconds from a new session's clicks to its ten best items.
* ``user_tasks``: tasks/s of the stacked engine over the loop with users as tasks (10 earlier sessions, 70 support
  samples, 43,097 items; item bias and head adapt), and the peak memory of 128 users over that of 16. ``user_bias``: the
  item bias alone, in second order, of 32 users and of 4 users with 8 sessions each; over the loop, and over the lower
  bound of an exact step (all scores of each distinct support sample).
* ``recommend_many``: MB above the model for 10,000 sessions over 40,000 items.

The arms of a pair take turns, step by step, so that a busy machine slows both; medians are reported. Each job runs in
a separate process, whose peak memory is reported with it.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from collections.abc import Callable
from datetime import date

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data, HeteroData

from benchmarks import adapting, steps
from benchmarks.timing import Row, paired, peak_mb, row, sessions
from graphmeta.adapt.adaptation import Adaptation
from graphmeta.adapt.scope import Scope
from graphmeta.adapt.step import Gradient
from graphmeta.nn.encoders.attention import from_dense, to_dense
from graphmeta.nn.features.tables import ItemFeatures, row_gradients
from graphmeta.nn.heads.dot import Dot
from graphmeta.nn.losses.losses import SoftmaxLoss
from graphmeta.nn.readout import Last
from graphmeta.recommender import Recommender
from graphmeta.sampling.samples import Samples, prefixes, sessions_without_target
from graphmeta.sampling.session_batch import session_batch
from graphmeta.sampling.subgraph import SubgraphSampler
from graphmeta.sampling.tasks import task_batch
from graphmeta.testing import fake_log


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


def subgraph() -> list[Row]:
    """Batches of 512 prefixes, with parts of the graph around them."""
    log = fake_log(sessions=30_000, items=5_000)
    samples = prefixes(log)
    random = np.random.default_rng(0)
    samples = samples.take(random.permutation(len(samples))[:512])
    found = []
    for name, parts in {
        "none": {},
        "attributes": {"attributes": True},
        "history": {"history": 3},
        "follows": {"follows": 5},
        "all": {"attributes": True, "history": 3, "follows": 5},
    }.items():
        sampler = SubgraphSampler(log, **parts)
        ours, other = paired(
            lambda sampler=sampler: [sampler(samples) for _ in range(20)],
            lambda: [session_batch(samples, num_items=log.num_items) for _ in range(20)],
            rounds=7,
        )
        rates = {"ours": 20 * 512 / ours, "other": 20 * 512 / other, "unit": "sessions/s"}
        found.append(row(f"subgraph_{name}", ours / other, "x time of session_batch", **rates))
        batch = sampler(samples)
        stores = [batch[kind].edge_index.shape[1] for kind in batch.edge_types if kind[1] not in ("next", "of", "owns")]
        rows = int(batch["item"].num_nodes or 0) + sum(stores)
        equal = sessions_without_target([random.integers(0, log.num_items, rows // 512) for _ in range(512)])
        ours, other = paired(
            lambda sampler=sampler: [sampler(samples) for _ in range(20)],
            lambda equal=equal: [session_batch(equal, num_items=log.num_items) for _ in range(20)],
            rounds=7,
        )
        found.append(
            row(
                f"subgraph_{name}_per_row",
                ours / other,
                "x session_batch of as many clicks",
                ours=20 * rows / ours,
                other=20 * rows / other,
                unit="rows/s",
            )
        )
    return found


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
    known = sessions_without_target([random.integers(0, items, n) for n in random.integers(4, 10, 64)])
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
        for count in (1, 3):
            arms = [meta_step(scope, order=order, steps=count, stacked=s, items=items) for s in (True, False)]
            ours, other = paired(arms[0], arms[1], rounds=7)
            label = f"{name} order {order}, {count} step{'s' if count > 1 else ''}"
            rows.append(row(label, other / ours, "x per-task loop", ours=64 / ours, other=64 / other, unit="tasks/s"))
    return rows


JOBS: dict[str, Callable[[], list[Row]]] = {
    "batching": batching,
    "subgraph": subgraph,
    "sr_gnn_step": steps.sr_gnn_step,
    "sr_gnn_bf16": steps.sr_gnn_bf16,
    "gc_san_step": steps.gc_san_step,
    "gru4rec_step": steps.gru4rec_step,
    "tagnn_step": steps.tagnn_step,
    "asars_prefix_attention": steps.asars_prefix_attention,
    "session_knn": steps.session_knn,
    "inner_loop_head": lambda: inner_loop("inner_loop_head", ("head",)),
    "inner_loop_all": lambda: inner_loop("inner_loop_all", ("encoder", "head")),
    "inner_loop_100_items": lambda: inner_loop("inner_loop_all, 100 items", ("encoder", "head"), items=100),
    "cbml_table": adapting.cbml_table,
    "user_tasks": adapting.user_tasks,
    "user_bias": adapting.user_bias,
    "adapt_one": adapting.adapt_one,
    "recommend_many": adapting.recommend_many,
}


_LINE = "{name:44s} {ratio:9.2f} {against:28s} {ours:12,.1f} vs {other:10,.1f} {unit:10s} {peak_mb:6,d} MB"


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
        found = measured(name) if options.only else apart(name, options.threads)
        rows += found
        for line in () if options.json else found:
            print(_LINE.format(**line), flush=True)
    if options.json:
        machine = {"threads": torch.get_num_threads(), "torch": torch.__version__, "machine": platform.machine()}
        print(json.dumps({"date": date.today().isoformat(), **machine, "rows": rows}, indent=1))


def measured(name: str) -> list[Row]:
    """A job's rows, with the peak memory of this process unless a row reports that of another."""
    found = JOBS[name]()
    return [{"peak_mb": round(peak_mb()), **line} for line in found]


def apart(name: str, threads: int) -> list[Row]:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.speed", "--only", name, "--json", "--threads", str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr}")
    return json.loads(done.stdout)["rows"]


if __name__ == "__main__":
    main()
