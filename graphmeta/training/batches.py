"""Batches of an epoch, by a number of samples or of clicks, and the learning rate that follows their size."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch

from graphmeta.data.scan.log import ScannedLog
from graphmeta.distributed.gradients import own_part
from graphmeta.distributed.group import Group, current
from graphmeta.errors import InputError
from graphmeta.sampling.order import ClickBudget
from graphmeta.sampling.samples import Samples
from graphmeta.sampling.tasks import Tasks
from graphmeta.system import System
from graphmeta.training.run import digest
from graphmeta.training.settings import Settings

NO_SAMPLE = "no session is long enough to train on; sessions need two clicks (three for meta-training)"


def rows_of_batches(system: System, samples: Samples | Tasks, settings: Settings, epoch: int) -> list[np.ndarray]:
    """Rows of each batch of an epoch.

    Raises:
        InputError: a number of clicks for a system whose batch sampler only counts samples.
    """
    budget = settings.options.clicks
    if budget is None:
        return list(system.batches(samples, batch_size=settings.batch_size, seed=settings.seed, epoch=epoch))
    if not isinstance(system.batches, ClickBudget):
        raise InputError(
            "options.clicks needs a batch sampler with by_clicks, which this system's has not; leave it out, or set "
            "system.batches = Shuffled() (of graphmeta.sampling.order)"
        )
    return list(system.batches.by_clicks(system.clicks(samples), budget=budget, seed=settings.seed, epoch=epoch))


@dataclass(frozen=True)
class Batch:
    """A rank's part of a batch of ``size`` samples (or tasks), and the ranks that share it."""

    samples: Samples | Tasks
    size: int
    group: Group

    @classmethod
    def of(cls, samples: Samples | Tasks, rows: np.ndarray, group: Group) -> Batch:
        """The part of the batch with these rows."""
        own, sharing = own_part(group, rows)
        return cls(samples.take(own), len(rows), sharing)

    def __len__(self) -> int:
        return self.size


class Share(NamedTuple):
    """Batches of an epoch: the share of the epoch before them and their own."""

    before: float
    own: float
    batches: list[Batch]


class Source(Protocol):
    """Where the batches of an epoch come from."""

    def shares(self, system: System, settings: Settings, epoch: int) -> Iterator[Share]:
        """The batches of an epoch, in one or several parts."""
        ...

    def digest(self) -> str:
        """A hash of what is trained on."""
        ...


@dataclass(frozen=True)
class InMemory:
    """All samples of the training log."""

    samples: Samples | Tasks

    def shares(self, system: System, settings: Settings, epoch: int) -> Iterator[Share]:
        """All batches of an epoch."""
        rows = rows_of_batches(system, self.samples, settings, epoch)
        yield Share(0.0, 1.0, [Batch.of(self.samples, one, current()) for one in rows])

    def digest(self) -> str:
        """A hash over the samples."""
        return digest(self.samples)


@dataclass(frozen=True)
class InShards:
    """The samples of a log on disk, a shard at a time.

    Sessions are distributed anew, and the shards ordered at random, in each epoch; both depend on ``(seed, epoch)``.
    """

    log: ScannedLog

    def shares(self, system: System, settings: Settings, epoch: int) -> Iterator[Share]:
        """The batches of an epoch, shard by shard.

        Raises:
            InputError: no session is long enough.
        """
        random = np.random.default_rng([settings.seed, epoch])
        salt, done, found = int(random.integers(0, 2**16)), 0, False
        sizes = self.log.shard_sizes(seed=salt)
        for number in random.permutation(len(sizes)).tolist():
            samples = system.training_samples(self.log.shard(number, seed=salt))
            if len(samples):
                found = True
                rows = rows_of_batches(system, samples, settings, epoch)
                batches = [Batch.of(samples, one, current()) for one in rows]
                share = Share(done / sizes.sum(), sizes[number] / sizes.sum(), batches)
                del samples, batches
                yield share
            done += int(sizes[number])
        if not found:
            raise InputError(NO_SAMPLE)

    def digest(self) -> str:
        """A hash over the log."""
        return self.log.fingerprint()


@contextmanager
def scaled_rate(optimizer: torch.optim.Optimizer, factor: float) -> Iterator[None]:
    """Within it, all learning rates are multiplied by ``factor``."""
    rates = [group["lr"] for group in optimizer.param_groups] if factor != 1 else []
    for group, rate in zip(optimizer.param_groups, rates, strict=False):
        group["lr"] = rate * factor
    yield
    for group, rate in zip(optimizer.param_groups, rates, strict=False):
        group["lr"] = rate
