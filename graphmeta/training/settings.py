"""Training settings: everything besides the system and the log."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from graphmeta.data.events import EventLog
from graphmeta.errors import InputError
from graphmeta.sampling.samples import Samples
from graphmeta.system import System
from graphmeta.training.optimizers import Optimizer
from graphmeta.training.run import Checkpoint

Valid = EventLog | Samples | Callable[[System], dict[str, float]]


@dataclass(frozen=True)
class TrainOptions:
    """Rarely used options of :func:`~graphmeta.training.loop.train`.

    Args:
        statistics_log: the log for statistics (neighbours, transitions, means); the training log if not given. A model
            that learns how reliable counts are must be trained on sessions that were not counted (held-out statistics).
        patience: stop after this many epochs without improvement.
        checkpoint: the folder in which the state is saved after each epoch.
        precision: ``bf16`` computes the products with the item table in 16 bits, see
            :func:`graphmeta.nn.catalogue_softmax.precision`.
        progress: wraps the list of an epoch's batches, e.g. ``tqdm``.
    """

    statistics_log: EventLog | None = None
    patience: int | None = None
    checkpoint: Checkpoint | None = None
    precision: str = "fp32"
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter


@dataclass(frozen=True)
class Settings:
    """All settings of a training besides system and log."""

    epochs: int
    optimizer: Optimizer
    batch_size: int
    valid: Valid | None
    seed: int
    options: TrainOptions

    def check(self) -> None:
        """Check that the settings are consistent.

        Raises:
            InputError: inconsistent settings.
        """
        patience = self.options.patience
        if patience is not None and (self.valid is None or patience < 1):
            raise InputError(
                "patience is a number of epochs without improvement, at least 1; pass valid= to measure it on"
            )
        if not 0 <= self.seed < 2**32:
            raise InputError(f"seed must be at least 0 and below 2**32, not {self.seed}")
