"""Training settings: everything besides the system and the log."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn

from graphmeta.data.events import EventLog
from graphmeta.data.scan.log import ScannedLog
from graphmeta.data.splits import Split
from graphmeta.errors import InputError, check_whole
from graphmeta.nn.losses.sampled import Proposal
from graphmeta.sampling.samples import Samples
from graphmeta.system import System
from graphmeta.training.optimizers import Optimizer
from graphmeta.training.run import Checkpoint

Valid = EventLog | ScannedLog | Samples | Callable[[System], dict[str, float]]


@dataclass(frozen=True)
class TrainOptions:
    """Rarely used options of :func:`~graphmeta.training.loop.train`.

    Args:
        statistics_log: the log for statistics (neighbours, transitions, means); the training log if not given. A model
            that learns how reliable counts are must be trained on sessions that were not counted (held-out statistics).
        patience: stop after this many epochs without improvement.
        checkpoint: the folder in which the state is saved after each epoch.
        loss: the loss to train with instead of the system's own, e.g. a
            :class:`~graphmeta.nn.losses.sampled.SampledSoftmaxLoss`; inner steps still minimise the system's own.
        precision: ``bf16`` computes the products with the item table in 16 bits, see
            :func:`graphmeta.nn.catalogue_softmax.precision`.
        progress: wraps the list of an epoch's batches, e.g. ``tqdm``.
        clicks: token-budget batches: a batch takes samples in shuffled order until their clicks (of support and query,
            for tasks) would exceed this number, at least one sample; every sample occurs once an epoch. The learning
            rate of a step is multiplied by the batch's number of samples, divided by the epoch's mean (linear scaling
            rule: Goyal et al., Accurate, Large Minibatch SGD, 2017), unless the system sums losses instead of averaging
            them. None: batches of ``batch_size`` samples.
    """

    statistics_log: EventLog | ScannedLog | None = None
    patience: int | None = None
    checkpoint: Checkpoint | None = None
    loss: nn.Module | None = None
    precision: str = "fp32"
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter
    clicks: int | None = None


def check_arguments(system: Any, log: Any, valid: Any, options: Any) -> None:
    """Check the types of the arguments of :func:`~graphmeta.training.loop.train`.

    Raises:
        InputError: another type; names what to pass.
    """
    if not isinstance(system, System):
        if isinstance(system, str):
            raise InputError(f"train takes a built system, not the name {system!r}; write fit(split, {system!r})")
        raise InputError(
            f"train takes a built system, not a {type(system).__name__}; make one with build(name, log.items)"
        )
    if not isinstance(log, EventLog | ScannedLog | Split):
        raise InputError(
            f"train takes a log or a split, not a {type(log).__name__}; read one with EventLog.read(table, session=…, "
            f"item=…)"
        )
    if isinstance(valid, Split):
        raise InputError("valid= takes one part of a split; pass its validation part: split.valid")
    if valid is not None and not isinstance(valid, EventLog | ScannedLog | Samples) and not callable(valid):
        raise InputError(
            f"valid={str(valid)[:40]!r} is neither a log nor samples nor a function; pass split.valid, or leave it out "
            f"with train(system, split)"
        )
    if not isinstance(options, TrainOptions):
        raise InputError(
            f"options= takes TrainOptions(…), not a {type(options).__name__}; write "
            f"options=TrainOptions(precision='bf16')"
        )


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
        check_whole("epochs", self.epochs, 1)
        check_whole("batch_size", self.batch_size, 1)
        check_whole("seed", self.seed, 0)
        if self.seed >= 2**32:
            raise InputError(f"seed={self.seed} must be below 2**32")
        if self.options.clicks is not None:
            check_whole("clicks", self.options.clicks, 1)
        patience, loss = self.options.patience, self.options.loss
        if patience is not None:
            check_whole("patience", patience, 1)
            if self.valid is None:
                raise InputError("patience needs a validation metric; pass valid=, or leave it out")
        of_head = isinstance(loss, nn.Module) and not isinstance(loss, nn.modules.loss._Loss | Proposal)
        if loss is not None and not of_head:
            named = loss.__name__ if isinstance(loss, type) else str(loss)[:40]
            raise InputError(
                f"options.loss={named!r} is not a loss of head, states, batch and candidates; pass one of "
                f"graphmeta.nn, such as SampledSoftmaxLoss(Uniform(4096))"
            )
        for name, kind in {"checkpoint": Checkpoint, "statistics_log": EventLog}.items():
            given = getattr(self.options, name)
            if given is not None and not isinstance(given, kind | ScannedLog if kind is EventLog else kind):
                raise InputError(f"options.{name} takes a {kind.__name__}, not a {type(given).__name__}")
        if not callable(self.options.progress):
            raise InputError("options.progress takes a function of the batches, such as tqdm")
