"""Retraining without learning how: on everything, on the new period alone, or on that and a sample of the past.

A strategy is data; what it must remember from period to period is a dict of tensors, which it is given and gives
back, so that a stream can be put down after any period and taken up again.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import torch

from graphmeta.retrain.period import Period, State
from graphmeta.sampling.order import Batches
from graphmeta.sampling.samples import Samples
from graphmeta.system import System
from graphmeta.training.loop import train
from graphmeta.training.optimizers import Adam

ADAM = Adam(lr=1e-2, weight_decay=0.0, final=1.0)


class Strategy(Protocol):
    """How a system in service takes in a new period."""

    def begin(self, system: System, period: Period) -> State:
        """What there is to remember when the stream begins, after pretraining on the past of ``period``."""
        ...

    def retrain(self, system: System, state: State, period: Period) -> State:
        """Change the system's weights into those for the next period; returns what to remember."""
        ...


def exhaust(reports: Iterable[object]) -> None:
    """Go through a training to its end."""
    for _ in reports:
        pass


def restricted_to(system: System, samples: Samples, batches: Batches | None = None) -> System:
    """The same system, weights and all, that learns from these samples of its log and no others."""
    view = copy.copy(system)
    view.samples = lambda log, max_length: samples  # noqa: ARG005
    view.batches = batches or system.batches
    return view


@dataclass(frozen=True)
class Full:
    """All events so far, in every period: ``W_t`` from ``D_0 … D_t``.

    Args:
        from_scratch: begin with the weights of before the stream each time, and not with the last period's.

    Each training has a fresh optimiser.

    Source: the baseline of Zhang et al. 2020 (SML), whose code goes on from the last weights.
    Differs: no L2 term (its 1e-7 has no effect to speak of); five epochs, not a hundred.
    """

    epochs: int = 5
    batch_size: int = 256
    optimizer: Adam = ADAM
    from_scratch: bool = False

    def begin(self, system: System, period: Period) -> State:
        """The weights to begin with each time, or nothing."""
        return {name: weight.clone() for name, weight in system.state_dict().items()} if self.from_scratch else {}

    def retrain(self, system: System, state: State, period: Period) -> State:
        """Train on the whole past."""
        if state:
            system.load_state_dict(state)
        seed = period.seed_for(0)
        options = {"epochs": self.epochs, "batch_size": self.batch_size, "optimizer": self.optimizer}
        exhaust(train(system, period.past, seed=seed, **options))
        return state


@dataclass(frozen=True)
class FineTune:
    """The events of the new period alone, from the last weights: ``W_t`` from ``W_{t-1}`` and ``D_t``.

    What a system counts and does not learn (who clicked what, which items there are) it counts over all of the past.
    Each training has a fresh optimiser.

    Source: the baseline of Zhang et al. 2020 (SML).
    """

    epochs: int = 5
    batch_size: int = 64
    optimizer: Adam = ADAM

    def begin(self, system: System, period: Period) -> State:
        """Nothing."""
        return {}

    def retrain(self, system: System, state: State, period: Period) -> State:
        """Train on the new samples."""
        samples = period.samples(system)
        view = restricted_to(system, samples.take(period.is_new(samples).nonzero()[0]))
        seed = period.seed_for(0)
        exhaust(
            train(
                view, period.past, epochs=self.epochs, batch_size=self.batch_size, optimizer=self.optimizer, seed=seed
            )
        )
        return state


@dataclass(frozen=True)
class Reservoir:
    """The new period and a uniform sample of all before it; what the model finds unlikely is drawn more often.

    Of ``N`` samples, the one with the r-th best score of its target is drawn with weight ``exp(r / N)``, with
    replacement, ``N`` a pass. After the training, sample number n of the stream enters the reservoir with probability
    ``size / n``, in the place of a random one, which keeps it uniform.

    Args:
        size: of the reservoir, in samples; the ones before the stream have been through it too.

    A sample is known by its target. A system that learns whole sessions at once knows a session by its last click: one
    that went on since it entered is not found again.

    Source: Wang et al., Streaming Ranking Based Recommender Systems, SIGIR 2018 (SPMF), as Zhang et al. 2020 run it.
    Differs: the plain reservoir algorithm; the public code counts twice while it fills.
    """

    size: int = 7000
    epochs: int = 5
    batch_size: int = 64
    optimizer: Adam = ADAM

    def begin(self, system: System, period: Period) -> State:
        """The reservoir, after what came before the stream."""
        empty = {"pool": torch.full((self.size,), -1), "offered": torch.tensor(0)}
        return self._offer(empty, period, _targets(period, period.samples(system)))

    def retrain(self, system: System, state: State, period: Period) -> State:
        """Train on the reservoir and the new samples, then offer it the new ones."""
        samples = period.samples(system)
        target, new = period.order[samples.end], period.is_new(samples)
        used = samples.take((new | np.isin(target, state["pool"].numpy())).nonzero()[0])
        view = restricted_to(system, used, partial(_weighted, weight=_hard_first(system, used)))
        seed = period.seed_for(0)
        exhaust(
            train(
                view, period.past, epochs=self.epochs, batch_size=self.batch_size, optimizer=self.optimizer, seed=seed
            )
        )
        return self._offer(state, period, np.sort(target[new]))

    def _offer(self, state: State, period: Period, targets: np.ndarray) -> State:
        pool, offered = state["pool"].numpy().copy(), int(state["offered"])
        fill(pool, offered, targets, np.random.default_rng(period.seed_for(1)))
        return {"pool": torch.from_numpy(pool), "offered": torch.tensor(offered + len(targets))}


def fill(pool: np.ndarray, offered: int, things: np.ndarray, random: np.random.Generator) -> None:
    """Offer these to a reservoir that has been offered so many before: each ends up in it as likely as any other."""
    number = offered + np.arange(len(things))
    place = np.where(number < len(pool), number, random.integers(0, number + 1))
    for at in (place < len(pool)).nonzero()[0]:  # one after the other: a later one may push out an earlier one
        pool[place[at]] = things[at]


def _targets(period: Period, samples: Samples) -> np.ndarray:
    return np.sort(period.order[samples.end])


def _hard_first(system: System, samples: Samples, size: int = 512) -> np.ndarray:
    """How likely each sample is to be drawn: ``exp(r / N)``, r = 1 for the target that scores best."""
    own = [
        system.scores(part := samples.take(slice(at, at + size))).cpu().numpy()[np.arange(len(part)), part.target]
        for at in range(0, len(samples), size)
    ]
    rank = np.empty(len(samples))
    rank[np.argsort(-np.concatenate(own), kind="stable")] = 1 + np.arange(len(samples))
    weight = np.exp(rank / len(samples))
    return weight / weight.sum()


def _weighted(samples: Samples, *, batch_size: int, seed: int, epoch: int, weight: np.ndarray) -> Iterator[np.ndarray]:
    random = np.random.default_rng([seed, epoch])
    for _ in range(-(-len(samples) // batch_size)):
        yield random.choice(len(samples), min(batch_size, len(samples)), p=weight)
