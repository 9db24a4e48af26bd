"""The neighbours that voted for an item, by name, with shares that add up to its score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from graphmeta.baselines.votes import OWN, Votes
from graphmeta.errors import counted
from graphmeta.protocols import NamesVoters
from graphmeta.sampling.samples import Samples

if TYPE_CHECKING:
    from graphmeta.data.tables import EntityTable
    from graphmeta.system import System

NEIGHBOURS = 10  # with a share of their own; the others have one together
_ITEMS = 4  # that name a session or a user


@dataclass(frozen=True)
class Neighbour:
    """A session, item or user of the training log that voted for an item.

    ``id``: of an item; of a user only if the model stores users' ids (``keep_histories``), else None; sessions have
    none. ``name``: the item's, or the items of the session or user; ``value``: what it adds to the score.
    """

    kind: str
    id: Any
    name: str
    value: float


def neighbours_of(system: System, samples: Samples, item: int) -> tuple[Neighbour, ...]:
    """The neighbours that voted for an item in the only sample, the largest shares first; none for other systems."""
    found = system.votes(samples, item) if isinstance(system, NamesVoters) else None
    if found is None:
        return ()
    votes, ids = found
    order = np.argsort(-np.abs(votes.weight), kind="stable")
    named = [_neighbour(votes, at, system.items, ids) for at in order[:NEIGHBOURS].tolist()]
    rest = order[NEIGHBOURS:]
    if len(rest):
        name = f"({counted(len(rest), f'further {votes.kind}')})"
        named.append(Neighbour(votes.kind, None, name, float(votes.weight[rest].sum())))
    return tuple(named)


def _neighbour(votes: Votes, at: int, items: EntityTable, ids: Sequence[Any] | None) -> Neighbour:
    number, value = int(votes.number[at]), float(votes.weight[at])
    if votes.kind == "item":
        return Neighbour("item", items.ids[number : number + 1].tolist()[0], items.describe(number), value)
    if number == OWN:
        return Neighbour("user", None, "(the user's own items)", value)
    if votes.kind == "user" and ids is not None:
        return Neighbour("user", ids[number], f"user {ids[number]}", value)
    own = votes.items[at]
    names = [items.describe(int(one)) for one in own[:_ITEMS]]
    more = f" and {counted(len(own) - _ITEMS, 'more item')}" if len(own) > _ITEMS else ""
    return Neighbour(votes.kind, None, f"a {votes.kind} with {', '.join(names)}{more}", value)
