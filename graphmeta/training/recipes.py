"""Training recipes: epochs, batches, learning rate and loss, with defaults that follow the size of the log."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from numbers import Integral

from torch import nn

from graphmeta.data.events import EventLog
from graphmeta.errors import InputError
from graphmeta.nn.losses.sampled import Popularity, SampledSoftmaxLoss
from graphmeta.protocols import PositionLoss
from graphmeta.system import System
from graphmeta.training.optimizers import Adam

NEGATIVES = 4096  # drawn per step; smaller catalogues are scored in full
STEPS = 6000  # optimisation steps that a training aims at


@dataclass(frozen=True)
class TrainingRecipe:
    """How a system is trained. Values that are None are chosen by the size of the log, see :meth:`for_log`.

    Args:
        epochs: passes over the training samples, the most with ``patience``.
        batch_size: samples (or tasks) per step.
        lr: the highest learning rate of Adam, which then decays, see :class:`~graphmeta.training.optimizers.Adam`.
        negatives: items drawn uniformly per step for the sampled softmax; 0 scores the whole catalogue. Meta-training,
            and systems whose own loss is not the softmax over products with the catalogue, keep their loss.
        patience: stop after so many epochs without improvement on validation; None trains all epochs.

    Differs: the session papers train with the full softmax, batch 100, lr 1e-3, see :data:`FULL_SOFTMAX`.
    """

    epochs: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    negatives: int | None = None
    weight_decay: float = 0.0
    warmup: float = 0.0
    cosine: bool = False
    patience: int | None = None

    def __post_init__(self) -> None:
        for name, least in {"epochs": 1, "batch_size": 1, "negatives": 0, "patience": 1}.items():
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, Integral) or value < least):
                raise InputError(f"{name}={value!r} must be a whole number, {least} or more")
        if self.lr is not None and (
            isinstance(self.lr, bool) or not isinstance(self.lr, int | float) or not 0 < self.lr < float("inf")
        ):
            raise InputError(f"lr={self.lr!r} must be a number above 0, such as 4e-3")

    def for_log(self, log: EventLog) -> TrainingRecipe:
        """The recipe with all values set: those that are None by the log's number of training samples and items.

        >>> from graphmeta.testing import fake_log
        >>> recipe = TrainingRecipe(epochs=2).for_log(fake_log(sessions=60))
        >>> recipe.epochs, recipe.batch_size, recipe.lr, recipe.negatives
        (2, 64, 0.002, 0)
        """
        samples = max(log.num_events - log.num_sessions, 1)
        batch = self.batch_size or _power_of_two(samples / 1000, 64, 512)
        chosen = {
            "batch_size": batch,
            "epochs": min(max(round(STEPS * batch / samples), 3), 10),
            "lr": 4e-3 * min(batch / 128, 1.0),
            "negatives": NEGATIVES if log.num_items > 2 * NEGATIVES else 0,
        }
        return self.over(TrainingRecipe(**chosen))

    def over(self, other: TrainingRecipe) -> TrainingRecipe:
        """This recipe, with the values of ``other`` where this one has None."""
        missing = [field.name for field in fields(self) if getattr(self, field.name) is None]
        return replace(self, **{name: getattr(other, name) for name in missing})

    @property
    def optimizer(self) -> Adam:
        """The optimizer of a recipe whose learning rate is set."""
        assert self.lr is not None
        return Adam(self.lr, weight_decay=self.weight_decay, warmup=self.warmup, cosine=self.cosine)

    def loss(self, system: System) -> nn.Module | None:
        """The sampled softmax for a system that scores the catalogue by products; None: its own loss."""
        if not self.negatives or not system.scores_by_products or system.episodic:
            return None
        sampled = SampledSoftmaxLoss(Popularity(self.negatives))
        return system.loss.of_each(sampled) if isinstance(system.loss, PositionLoss) else sampled


SIZED = TrainingRecipe()
FULL_SOFTMAX = TrainingRecipe(epochs=5, batch_size=100, lr=3e-3, negatives=0, weight_decay=1e-6)


def _power_of_two(value: float, least: int, most: int) -> int:
    """The power of two next below ``value``, within limits."""
    return min(max(1 << max(int(value), 1).bit_length() - 1, least), most)
