"""Results of encoder checks, and the test samples."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from graphmeta.data.events import EventLog
from graphmeta.data.tables import EntityTable
from graphmeta.protocols import ReadsSubgraph
from graphmeta.sampling.samples import Samples, sessions_without_target
from graphmeta.sampling.session_batch import session_batch
from graphmeta.sampling.subgraph import SubgraphSampler
from graphmeta.sampling.tasks import MakesBatches, TaskBatch, task_batch

ITEMS, TOLERANCE = 23, 1e-9


@dataclass(frozen=True)
class Check:
    """One property of an encoder: whether it holds, and details.

    ``on_purpose``: it does not hold, which may be intended (stop-gradient, padding, dropout).
    """

    name: str
    ok: bool
    found: str
    on_purpose: bool = False


@dataclass(frozen=True)
class CheckReport:
    """All checks of an encoder; ``ok`` if none failed. ``print`` it to read it."""

    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether every check holds, or fails in a way that may be intended."""
        return all(check.ok or check.on_purpose for check in self.checks)

    def __str__(self) -> str:
        sign = {(True, False): "ok  ", (False, True): "note", (False, False): "FAIL"}
        return "\n".join(f"{sign[c.ok, c.on_purpose]} {c.name}: {c.found}" for c in self.checks)


@dataclass(frozen=True)
class Found:
    """The result of a check: whether the property holds, and the cause in one line if it does not."""

    ok: bool
    text: str
    on_purpose: bool = False


def check_log() -> EventLog:
    """The log whose graph the checks of an encoder with a ``neighbourhood`` read: 3 users, 23 items with a ``category``
    and ``tags`` (several), sessions before and after the test samples.

    >>> check_log().graph.node_types
    ['session', 'item', 'user', 'category', 'tags']
    """
    random = np.random.default_rng(11)
    session = np.repeat(np.arange(24), random.integers(2, 6, 24))
    begin = 1.7e9 + np.sort(random.choice([-1, 1], 24, p=[0.7, 0.3]) * random.integers(1000, 90_000, 24))
    click = np.append(np.arange(ITEMS), random.integers(0, ITEMS, len(session)))[: len(session)]
    frame = {"s": session, "i": click, "t": begin[session] + np.arange(len(session)) * 0.1, "u": session % 3}
    items = pd.DataFrame({"i": np.arange(ITEMS), "category": [f"c{n % 4}" for n in range(ITEMS)]})
    items["tags"] = ["|".join(f"t{n % k}" for k in (3, 5) if n % 6) for n in range(ITEMS)]
    table = EntityTable.read(items, key="i", several={"tags": "|"})
    return EventLog.read(pd.DataFrame(frame), session="s", item="i", time="t", user="u", items=table)


def maker(encoder: nn.Module) -> MakesBatches:
    """What makes the batches of this encoder."""
    if isinstance(encoder, ReadsSubgraph):
        return SubgraphSampler(check_log(), **vars(encoder.neighbourhood))
    return session_batch


def batch_of(encoder: nn.Module, samples: Samples, **task: Any) -> HeteroData:
    """The batch of these samples that the encoder reads."""
    return maker(encoder)(samples, num_items=ITEMS, **task)


def tasks_for(encoder: nn.Module, samples: Samples, *, max_support: int | None = None) -> TaskBatch:
    """The tasks of these samples that the encoder reads."""
    return task_batch(samples, num_items=ITEMS, max_support=max_support, make=maker(encoder))


def query_samples(*, even: bool = False, count: int = 6) -> Samples:
    """Samples of several lengths, including one click and repeated items (or, if ``even``, all of equal size), with
    times, users (one unknown) and targets."""
    random = np.random.default_rng(7)
    sessions = [random.integers(0, ITEMS, n) for n in (5, 3, 6, 4)] + [np.array([4, 4, 9, 4])]
    sessions.insert(2, np.array([7, 11]))  # neither the first row of a batch nor the last
    sessions += [random.integers(0, ITEMS, 2 + n % 4) for n in range(count - len(sessions))]
    if even:
        sessions = [random.permutation(ITEMS)[:4] for _ in range(max(count, 5))]
    sessions = sessions[:count]
    times = [1.7e9 + np.cumsum(random.integers(1, 90, len(session) - 1)) for session in sessions]
    users = np.array([0, 2, -1, 1, 0, 1])[np.arange(len(sessions)) % 6]
    known = sessions_without_target([session[:-1] for session in sessions], times=times, users=users)
    return replace(known, target=np.array([session[-1] for session in sessions]))


def table(width: int) -> Tensor:
    return torch.randn(ITEMS, width, generator=torch.Generator().manual_seed(1))


def states_of(encoder: nn.Module, batch, width: int) -> Tensor:  # noqa: ANN001
    return encoder(table(width)[batch["item"].n_id], batch)


def difference(one: Tensor, other: Tensor) -> float:
    return float((one - other).detach().abs().max()) if one.numel() else 0.0


def compared(one: Tensor, other: Tensor, cause: str) -> Found:
    error = difference(one, other)
    return Found(error < TOLERANCE, f"largest difference {error:.1e}" + (f": {cause}" if error >= TOLERANCE else ""))
