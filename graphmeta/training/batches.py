"""Batches of an epoch, by a number of samples or of clicks, and the learning rate that follows their size."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from graphmeta.errors import InputError
from graphmeta.sampling.order import ClickBudget
from graphmeta.sampling.samples import Samples
from graphmeta.sampling.tasks import Tasks
from graphmeta.system import System
from graphmeta.training.settings import Settings


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


@contextmanager
def scaled_rate(optimizer: torch.optim.Optimizer, factor: float) -> Iterator[None]:
    """Within it, all learning rates are multiplied by ``factor``."""
    rates = [group["lr"] for group in optimizer.param_groups] if factor != 1 else []
    for group, rate in zip(optimizer.param_groups, rates, strict=False):
        group["lr"] = rate * factor
    yield
    for group, rate in zip(optimizer.param_groups, rates, strict=False):
        group["lr"] = rate
