"""Example recommendations for sessions of the test log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from graphmeta.data.events import EventLog
from graphmeta.evaluation.metrics import ranks
from graphmeta.sampling.samples import last_clicks
from graphmeta.system import Recommendation, System


@dataclass(frozen=True)
class Example:
    """A session, its recommendations, and the true next item with its rank."""

    known: list[str]
    offered: list[Recommendation]
    next_item: Any
    next_name: str
    rank: int


def examples(system: System, test: EventLog, *, number: int = 3, k: int = 5) -> list[Example]:
    """Recommendations for sessions with a context length of 2 to 6, evenly spaced in the test log."""
    queries, items = last_clicks(test), system.items
    fitting = np.flatnonzero((queries.lengths >= 2) & (queries.lengths <= 6))
    chosen = queries.take(fitting[np.linspace(0, len(fitting), number + 2)[1:-1].astype(int)])
    sessions = [queries.item[b:e] for b, e in zip(chosen.begin, chosen.end, strict=True)]
    times, users = chosen.time, system.users
    offers = system.recommend_many(
        [items.ids[s] for s in sessions],
        k,
        times=None if times is None else [times[b:e].tolist() for b, e in zip(chosen.begin, chosen.end, strict=True)],
        users=None if users is None or chosen.user is None else [users.ids[u] if u >= 0 else None for u in chosen.user],
        exclude_seen=True,
    )
    found = ranks(system.scores(chosen), torch.from_numpy(chosen.target)).ceil().int().tolist()
    rows = zip(sessions, offers, chosen.target, found, strict=True)
    return [
        Example([items.describe(i) for i in known], offer, items.ids[true], items.describe(true), rank)
        for known, offer, true, rank in rows
    ]
