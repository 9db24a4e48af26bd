"""Training settings: everything besides the system and the log."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypedDict

from graphmeta.data.events import EventLog
from graphmeta.errors import InputError
from graphmeta.sampling.samples import Samples
from graphmeta.system import System
from graphmeta.training.optimizers import Optimizer
from graphmeta.training.run import Checkpoint

Valid = EventLog | Samples | Callable[[System], dict[str, float]]


class More(TypedDict, total=False):
    """Rarely used settings, see :func:`train`."""

    statistics_log: EventLog | None
    patience: int | None
    checkpoint: Checkpoint | None
    precision: str


@dataclass(frozen=True)
class Settings:
    """All settings of a training besides system and log."""

    epochs: int
    optimizer: Optimizer
    batch_size: int
    valid: Valid | None
    seed: int
    progress: Callable[[Iterable[Any]], Iterable[Any]]
    statistics_log: EventLog | None = None
    patience: int | None = None
    checkpoint: Checkpoint | None = None
    precision: str = "fp32"

    def check(self) -> None:
        """Check that the settings are consistent.

        Raises:
            InputError: inconsistent settings.
        """
        if self.patience is not None and (self.valid is None or self.patience < 1):
            raise InputError(
                "patience is a number of epochs without improvement, at least 1; pass valid= to measure it on"
            )
        if not 0 <= self.seed < 2**32:
            raise InputError(f"seed must be at least 0 and below 2**32, not {self.seed}")
