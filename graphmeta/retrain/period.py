"""A period of a stream: all events until its end, and which of them are new."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import Tensor

from graphmeta.data.events import EventLog
from graphmeta.errors import InputError
from graphmeta.sampling.samples import Samples
from graphmeta.system import System

State = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Period:
    """Number ``number`` of a stream, starting at ``begin`` (seconds).

    Args:
        past: all events before its end; items and users are numbered as in the whole stream, so that later ones have
            table rows already.
        seed: of the stream; all randomness derives from it and the period's number.
    """

    number: int
    past: EventLog
    begin: float
    seed: int = 0

    @classmethod
    def of(cls, log: EventLog, edges: np.ndarray, number: int, *, seed: int = 0) -> Period:
        """The period ``[edges[number], edges[number + 1])`` of a log."""
        past = log.before(float(edges[number + 1])).aligned_to(log.items, log.users)
        return cls(number, past, float(edges[number]), seed)

    @cached_property
    def order(self) -> np.ndarray:
        """Index of each event in the stream, by time; unaffected by later periods. ``[N]``."""
        number = np.empty(self.past.num_events, dtype=np.int64)
        number[np.argsort(self.past.time, kind="stable")] = np.arange(self.past.num_events)
        return number

    def is_new(self, samples: Samples, begin: float | None = None, end: float = np.inf) -> np.ndarray:
        """Mask of past samples whose target lies in this period (or between the given times), ``[S]``."""
        time = self.past.time[samples.end]
        return (time >= (self.begin if begin is None else begin)) & (time < end)

    def samples(self, system: System) -> Samples:
        """All training samples of the past for the system.

        Raises:
            InputError: a system whose training samples do not have one target each.
        """
        found = system.training_samples(self.past)
        if not isinstance(found, Samples):
            raise InputError(
                "a system trained on sampled tasks has no samples per period; it cannot be retrained in a stream"
            )
        return found

    def seed_for(self, *purpose: int) -> int:
        """A seed for one purpose within this period."""
        return int(np.random.SeedSequence([self.seed, self.number, *purpose]).generate_state(1)[0])
