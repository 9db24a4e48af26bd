"""Training steps of the session systems at Diginetica's size, and their most expensive parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.timing import Row, paired, row, sessions
from graphmeta.baselines import SessionKNN
from graphmeta.data.events import EventLog
from graphmeta.data.tables import EntityTable
from graphmeta.nn.catalogue_softmax import has_bf16, precision
from graphmeta.nn.encoders.prefix_attention import running_mean
from graphmeta.nn.heads.target_attention import AttentionInputs, attended_cross_entropy
from graphmeta.published.catalogue import build
from graphmeta.sampling.samples import Samples, last_clicks
from graphmeta.sampling.session_batch import session_batch
from graphmeta.system import System
from graphmeta.training.loop import gradients

ITEMS, WIDTH, SIZE = 43_097, 100, 100
FLOOR = "x lower bound (lower is better)"


def update(system: System, optimizer: torch.optim.Optimizer, samples: Samples) -> None:
    """One step of training, as :mod:`graphmeta.training.loop` takes it."""
    optimizer.zero_grad(set_to_none=True)
    gradients(system, samples)
    optimizer.step()


def step_of(name: str, *, size: int = SIZE, products: str = "fp32", **arguments: Any) -> Callable[[], None]:
    """A closure that takes one training step of a system, each time on other samples."""
    torch.manual_seed(0)
    system = build(name, EntityTable(np.arange(ITEMS), {}), width=WIDTH, **arguments)
    optimizer = torch.optim.Adam(system.parameters(), lr=1e-3, weight_decay=1e-5, fused=True)
    samples, random = sessions(20_000, ITEMS), np.random.default_rng(1)

    def step() -> None:
        with precision(products):
            update(system, optimizer, samples.take(random.integers(0, len(samples), size)))

    return step


def floor() -> Callable[[], None]:
    """A closure for the lower bound of an exact step: all scores, cross-entropy, backward, Adam on the item table."""
    table = nn.Parameter(torch.empty(ITEMS, WIDTH).uniform_(-0.1, 0.1))
    optimizer = torch.optim.Adam([table], lr=1e-3, weight_decay=1e-5, fused=True)

    def step() -> None:
        query = torch.randn(SIZE, WIDTH, requires_grad=True)
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(query @ table.t(), torch.randint(0, ITEMS, (SIZE,))).backward()
        optimizer.step()

    return step


def over_floor(label: str, step: Callable[[], None], *, rounds: int = 40) -> list[Row]:
    """A step's time over the floor's."""
    ours, other = paired(step, floor(), rounds=rounds, warm_up=4)
    return [row(label, ours / other, FLOOR, ours=ours * 1e3, other=other * 1e3, unit="ms")]


def sr_gnn_step() -> list[Row]:
    """SR-GNN over its floor."""
    return over_floor("sr_gnn_step", step_of("sr_gnn"))


def sr_gnn_bf16() -> list[Row]:
    """SR-GNN with products in bf16 over the fp32 floor; emulated and slow where the CPU has no bf16."""
    kind = "bf16" if has_bf16(torch.device("cpu")) else "bf16, emulated: this CPU has none"
    return over_floor(f"sr_gnn_step ({kind})", step_of("sr_gnn", products="bf16"), rounds=15)


def gc_san_step() -> list[Row]:
    """GC-SAN over the same floor."""
    return over_floor("gc_san_step", step_of("gc_san"))


def gru4rec_step() -> list[Row]:
    """GRU4Rec, whole sessions of about as many targets as the floor scores."""
    return over_floor("gru4rec_step (24 sessions)", step_of("gru4rec", size=24))


def tagnn_step() -> list[Row]:
    """The factorised target attention over the dense formula where that fits; and a whole step at full size."""
    small = 2_000
    samples = sessions(20, small)
    batch = session_batch(samples, num_items=small)
    ptr, owner = batch["sample"].ptr, batch["event"].batch
    table, query, states = (torch.randn(n, WIDTH, requires_grad=True) for n in (small, 20, len(owner)))
    wanted = torch.from_numpy(samples.target)
    longest = batch.longest
    place = owner * longest + batch["event"].order

    def dense() -> None:
        padded = torch.zeros(20 * longest, WIDTH).index_copy(0, place, states).view(20, longest, WIDTH)
        known = torch.zeros(20 * longest, dtype=torch.bool).index_fill(0, place, True).view(20, 1, longest)
        beta = torch.softmax((table @ padded.transpose(1, 2)).masked_fill(~known, -torch.inf), 2)
        scores = ((query[:, None] + beta @ padded) * table).sum(2)
        F.cross_entropy(scores, wanted).backward()

    def factorised() -> None:
        reading = AttentionInputs(query, states, states, ptr, torch.ones_like(owner))
        attended_cross_entropy(reading, table, wanted).mean().backward()

    ours, other = paired(factorised, dense, rounds=15)
    rows = [
        row(
            "tagnn scores and gradients",
            other / ours,
            "x dense, 20 x 2,000",
            ours=20 / ours,
            other=20 / other,
            unit="prefixes/s",
        )
    ]
    ours, other = paired(step_of("tagnn"), floor(), rounds=12)
    rows.append(row("tagnn_step", ours / other, FLOOR, ours=SIZE / ours, other=SIZE / other, unit="prefixes/s"))
    return rows


def asars_prefix_attention() -> list[Row]:
    """Attention over all prefixes of 64 rows of 200 clicks as cumulative sums, over one softmax for each prefix."""
    count, length, width = 64, 200, 100
    states, score = (torch.randn(count, length, *tail, requires_grad=True) for tail in ((width,), ()))

    def all_prefixes() -> None:
        running_mean(score, states).square().mean().backward()

    def prefix_by_prefix() -> None:
        parts = [(torch.softmax(score[:, : t + 1], 1)[:, :, None] * states[:, : t + 1]).sum(1) for t in range(length)]
        torch.stack(parts, 1).square().mean().backward()

    ours, other = paired(all_prefixes, prefix_by_prefix, rounds=7)
    return [
        row(
            "asars_prefix_attention",
            other / ours,
            "x attention per prefix",
            ours=ours * 1e3,
            other=other * 1e3,
            unit="ms",
        )
    ]


def session_knn() -> list[Row]:
    """Queries of the nearest-neighbour baseline against 180,000 sessions, a hundred at once over one at a time."""
    random = np.random.default_rng(0)
    lengths = np.minimum(random.geometric(1 / 4.8, 180_000) + 1, 50)
    popular = np.minimum(random.zipf(1.3, lengths.sum()) - 1, ITEMS - 1)
    session = np.repeat(np.arange(len(lengths)), lengths)
    log = EventLog(
        session=session,
        item=popular.astype(np.int64),
        time=np.arange(len(session), dtype=np.float64),
        sessions=np.arange(len(lengths)),
        items=EntityTable(np.arange(ITEMS), {}),
    )
    ends = last_clicks(log)
    model, queries = SessionKNN(log), ends.take(random.integers(0, len(ends), 100))

    def together() -> Tensor:
        return model.scores(queries)

    def alone() -> None:
        for at in range(len(queries)):
            model.scores(queries.take(slice(at, at + 1)))

    ours, other = paired(together, alone, rounds=5, warm_up=1)
    return [
        row("session_knn", other / ours, "x one query at a time", ours=100 / ours, other=100 / other, unit="queries/s")
    ]
