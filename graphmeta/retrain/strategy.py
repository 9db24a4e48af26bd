"""Retraining strategies without learned transfer: full retraining, fine-tuning on the new period, or a reservoir.

A strategy is stateless; its state between periods is a dict of tensors that it receives and returns, so that a stream
can be interrupted and resumed after any period.
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
from graphmeta.training.optimizers import Adam, Factory, Optimizer

ADAM = Adam(lr=1e-2, weight_decay=0.0, final=1.0)


class Strategy(Protocol):
    """How a deployed system is retrained on a new period."""

    def begin(self, system: System, period: Period) -> State:
        """The initial state, after pretraining on the past of ``period``."""
        ...

    def retrain(self, system: System, state: State, period: Period) -> State:
        """Update the system's weights for the next period; returns the new state."""
        ...


def exhaust(reports: Iterable[object]) -> None:
    """Run a training to its end."""
    for _ in reports:
        pass


def restricted_to(system: System, samples: Samples, batches: Batches | None = None) -> System:
    """A view of the system with shared weights that trains on these samples only."""
    view = copy.copy(system)
    view.samples = lambda log, max_length: samples  # noqa: ARG005
    view.batches = batches or system.batches
    return view


@dataclass(frozen=True)
class Full:
    """Retrain on all events so far: ``W_t`` from ``D_0 … D_t``.

    Args:
        from_scratch: start each time from the pretrained weights, those before the stream, not from the last period's.

    Each training uses a fresh optimiser.

    Source: the baseline of Zhang et al. 2020 (SML), whose code continues from the last weights.
    Differs: no L2 term (its 1e-7 has no noticeable effect); five epochs, not a hundred.
    """

    epochs: int = 5
    batch_size: int = 256
    optimizer: Optimizer | Factory = ADAM
    from_scratch: bool = False

    def begin(self, system: System, period: Period) -> State:
        """The initial weights, if training starts from scratch."""
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
    """Train on the new period only, from the last weights: ``W_t`` from ``W_{t-1}`` and ``D_t``.

    Statistics (user histories, seen items) are counted over all of the past. Each training uses a fresh optimiser.

    Source: the baseline of Zhang et al. 2020 (SML).
    """

    epochs: int = 5
    batch_size: int = 64
    optimizer: Optimizer | Factory = ADAM

    def begin(self, system: System, period: Period) -> State:
        """No state."""
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
    """Train on the new period and a uniform reservoir of the past, sampling low-scored samples more often.

    Of ``N`` samples, the one with the r-th best target score has sampling weight ``exp(r / N)``, with replacement,
    ``N`` per epoch. After training, sample number n of the stream enters the reservoir with probability ``size / n``
    and replaces a random one, which keeps it uniform.

    Args:
        size: of the reservoir, in samples; samples before the stream are offered to it too.

    A sample is identified by its target. A system trained on whole sessions identifies a session by its last click: a
    session that has grown since it entered is not found again.

    Source: Wang et al., Streaming Ranking Based Recommender Systems, SIGIR 2018 (SPMF), as Zhang et al. 2020 run it.
    Differs: the plain reservoir algorithm; the public code counts twice while it fills.
    """

    size: int = 7000
    epochs: int = 5
    batch_size: int = 64
    optimizer: Optimizer | Factory = ADAM

    def begin(self, system: System, period: Period) -> State:
        """The reservoir after the events before the stream."""
        empty = {"pool": torch.full((self.size,), -1), "offered": torch.tensor(0)}
        return self._offer(empty, period, _targets(period, period.samples(system)))

    def retrain(self, system: System, state: State, period: Period) -> State:
        """Train on the reservoir and the new samples, then offer the new samples to the reservoir."""
        samples = period.samples(system)
        target, new = period.order[samples.end], period.is_new(samples)
        used = samples.take((new | np.isin(target, state["pool"].numpy())).nonzero()[0])
        view = restricted_to(system, used, partial(_weighted, weight=_sampling_weights(system, used)))
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


def fill(pool: np.ndarray, offered: int, values: np.ndarray, random: np.random.Generator) -> None:
    """Reservoir sampling: offer these values after ``offered`` earlier ones; all are kept with equal probability."""
    number = offered + np.arange(len(values))
    place = np.where(number < len(pool), number, random.integers(0, number + 1))
    for at in (place < len(pool)).nonzero()[0]:  # sequential, since a later value may replace an earlier one
        pool[place[at]] = values[at]


def _targets(period: Period, samples: Samples) -> np.ndarray:
    return np.sort(period.order[samples.end])


def _sampling_weights(system: System, samples: Samples, size: int = 512) -> np.ndarray:
    """Sampling probability of each sample: ∝ ``exp(r / N)``, r = 1 for the best-scored target."""
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
