"""Example recommendations for sessions of the test log."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from graphmeta.data.events import EventLog
from graphmeta.data.splits import Split
from graphmeta.evaluation.metrics import ranks
from graphmeta.sampling.best import best_of
from graphmeta.sampling.samples import last_clicks
from graphmeta.sampling.user_histories import UserHistories
from graphmeta.system import Recommendation, System


@dataclass(frozen=True)
class Past:
    """How often the user's earlier sessions contain an item, and when they last did."""

    count: int
    sessions_ago: int
    days: float | None

    def __str__(self) -> str:
        times = "once" if self.count == 1 else f"{self.count} times"
        ago = f"{self.sessions_ago} session{'s' * (self.sessions_ago > 1)} ago"
        days = "" if self.days is None else f" ({self.days:.0f} day{'s' * (round(self.days) != 1)})"
        return f"{times}, last {ago}{days}"


@dataclass(frozen=True)
class Example:
    """A session, its recommendations, and the true next item with its rank.

    For a system that reads users' earlier sessions also the recommendations and the rank without them, the number of
    known sessions, and what they contain of the recommended items (by original id).
    """

    known: list[str]
    offered: list[Recommendation]
    next_item: Any
    next_name: str
    rank: int
    sessions: int = 0
    without: list[Recommendation] | None = None
    rank_without: int | None = None
    past: dict[Any, Past] = field(default_factory=dict)


def examples(
    system: System, test: EventLog, *, history: Split | None = None, number: int = 3, k: int = 5
) -> list[Example]:
    """Recommendations for sessions with a context length of 2 to 6, evenly spaced in the test log.

    Args:
        history: a split with the users' earlier sessions; a system that reads these is also shown without them.
    """
    if system.reads_history and history is not None and test.users is not None:
        return _personal(system, test, history, number=number, k=k)
    queries, items = last_clicks(test), system.items
    fitting = np.flatnonzero((queries.lengths >= 2) & (queries.lengths <= 6))
    number = min(number, len(fitting))
    if number == 0:
        return []
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
    found = ranks(system.scores(chosen), torch.from_numpy(chosen.target)).mean.ceil().int().tolist()
    rows = zip(sessions, offers, chosen.target, found, strict=True)
    return [
        Example([items.describe(i) for i in known], offer, items.ids[true], items.describe(true), rank)
        for known, offer, true, rank in rows
    ]


def _personal(system: System, test: EventLog, history: Split, *, number: int, k: int) -> list[Example]:
    """Examples with and without the users' earlier sessions."""
    items = system.items
    queries = UserHistories.of(*history.parts).attached(last_clicks(test), test)
    assert queries.earlier is not None
    fitting = np.flatnonzero((queries.lengths >= 2) & (queries.lengths <= 6) & (queries.earlier.sessions >= 3))
    number = min(number, len(fitting))
    if number == 0:
        return []
    chosen = queries.take(fitting[np.linspace(0, len(fitting), number + 2)[1:-1].astype(int)])
    target = torch.from_numpy(chosen.target)
    scores = [system.scores(samples) for samples in (chosen, replace(chosen, earlier=None))]
    rank = [ranks(one, target).mean.ceil().int().tolist() for one in scores]
    seen = [chosen.item[b:e] for b, e in zip(chosen.begin, chosen.end, strict=True)]
    best = [best_of(one.clone(), k, items, seen) for one in scores]
    found = []
    for at in range(len(chosen)):
        own = chosen.take(np.array([at])).earlier
        assert own is not None
        columns, past = own.columns(), {}
        for item in {offered.item for offers in (best[0][at], best[1][at]) for offered in offers}:
            rows = np.flatnonzero(columns.n_id == items.rows_of(np.array([item], dtype=object))[0])
            if len(rows):
                days = float(columns.days[rows].min()) if own.histories.has_time else None
                past[item] = Past(len(rows), int(columns.age[rows].min()), days)
        true = int(chosen.target[at])
        found.append(
            Example(
                [items.describe(i) for i in seen[at]],
                best[0][at],
                items.ids[true],
                items.describe(true),
                rank[0][at],
                int(own.sessions[0]),
                best[1][at],
                rank[1][at],
                past,
            )
        )
    return found
