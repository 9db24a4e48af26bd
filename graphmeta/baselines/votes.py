"""Who votes for an item in a baseline of neighbours: sessions, clicked items or users, with shares of its score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from graphmeta.protocols.members import ReadsMembers
from graphmeta.sampling.samples import Samples

OWN = -1  # the number of the user's own items


@dataclass(frozen=True)
class Votes:
    """The neighbours that vote for one item in one sample.

    Args:
        kind: "session", "item" or "user".
        number: which session, item or user of the training log, ``[V]``; ``OWN``: the sample's user itself.
        weight: what each adds to the score, ``[V]`` float64; their sum is the score.
        items: the items of each neighbour that stand for it: of a session in order, of a user the most frequent first.
    """

    kind: str
    number: np.ndarray
    weight: np.ndarray
    items: list[np.ndarray]


@runtime_checkable
class HasVotes(Protocol, metaclass=ReadsMembers):
    """A baseline of neighbours."""

    def votes(self, samples: Samples, item: int) -> Votes:
        """Who votes for an item in the only sample."""
        ...
