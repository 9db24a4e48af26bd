"""Training recipes: epochs, batches, optimizer and loss, with defaults that follow the size of the log."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from graphmeta.errors import check_whole
from graphmeta.nn.losses.sampled import SampledSoftmaxLoss, Uniform
from graphmeta.system import System
from graphmeta.training.optimizers import Adam, Factory, Optimizer, as_optimizer

NEGATIVES = 4096  # sampled per step; smaller catalogues are scored in full
UPDATES = 6000  # optimizer steps that a training aims at


@dataclass(frozen=True)
class TrainingRecipe:
    """How a system is trained. Values that are None are chosen by the size of the log, see :meth:`for_size`.

    Args:
        epochs: passes over the training samples, the most with ``patience``.
        batch_size: samples (or tasks) per step.
        optimizer: as :func:`~graphmeta.training.loop.train` takes it.
        negatives: items sampled uniformly per step, for the sampled softmax; 0 scores all items. In
            meta-training they are those of the query samples. Systems whose own loss is not a softmax over the
            catalogue, and those that adapt the item table, keep their loss.
        patience: stop after so many epochs without improvement on validation; None trains all epochs.
        clicks: clicks per step instead of a number of samples, see
            :class:`~graphmeta.training.settings.TrainOptions`; ``batch_size`` then only sets the defaults of epochs and
            learning rate. None: batches of ``batch_size``. A meta-learner's batches have as many clicks as its
            encoder's.
        refit: after choosing the epoch, train again from the start on all sessions, validation included, for as many
            epochs as were best; see :func:`graphmeta.fit` for None.
        updates: optimizer steps that ``epochs`` aims at where it is None, within 3 to 10 epochs.

    Raises:
        InputError: a number that is not whole or too small, or an optimizer that is already built.

    Differs: the session papers train with the full softmax and batches of 100, as :data:`FULL_SOFTMAX` does.
    """

    epochs: int | None = None
    batch_size: int | None = None
    optimizer: Optimizer | Factory | None = None
    negatives: int | None = None
    patience: int | None = None
    clicks: int | None = None
    updates: int | None = None
    refit: bool | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "negatives", "patience", "clicks", "updates"):
            if (value := getattr(self, name)) is not None:
                check_whole(name, value, 0 if name == "negatives" else 1)
        if self.optimizer is not None:
            object.__setattr__(self, "optimizer", as_optimizer(self.optimizer, Adam()))

    def for_size(self, samples: int, num_items: int) -> TrainingRecipe:
        """The recipe with values for the number of training samples and items where it has None.

        Batches of a 900th of the samples, rounded down to a power of two, 64 to 512; epochs for about ``updates``
        steps (6,000 if not given), 3 to 10; Adam without weight decay, whose rate falls linearly from 4e-3 with sampled
        items, else from 2e-3: a step that scores all items changes all of their vectors. Batches below 128 have at most
        2e-3.

        >>> recipe = TrainingRecipe(epochs=2).for_size(samples=700_000, num_items=40_000)
        >>> recipe.epochs, recipe.batch_size, recipe.optimizer.lr, recipe.negatives
        (2, 512, 0.004, 4096)
        """
        samples = max(samples, 1)
        batch, updates = self.batch_size or _power_of_two(samples / 900, 64, 512), self.updates or UPDATES
        negatives = NEGATIVES if num_items > 2 * NEGATIVES else 0
        rate = 4e-3 if (negatives if self.negatives is None else self.negatives) else 2e-3
        chosen = TrainingRecipe(
            epochs=min(max(round(updates * batch / samples), 3), 10),
            batch_size=batch,
            optimizer=adam_without_decay(min(rate, 4e-3 * batch / 128)),
            negatives=negatives,
        )
        return self.filled_from(chosen)

    def filled_from(self, other: TrainingRecipe | None) -> TrainingRecipe:
        """This recipe, with the values of ``other`` where this one has None."""
        missing = [field.name for field in fields(self) if getattr(self, field.name) is None]
        return self if other is None else replace(self, **{name: getattr(other, name) for name in missing})

    def loss(self, system: System) -> SampledSoftmaxLoss | None:
        """The sampled softmax for a system whose loss it can estimate; None: its own loss."""
        per_task = system.episodic and system.adaptation is not None and bool(system.adaptation.tables)
        if not self.negatives or not system.samples_softmax or per_task:
            return None
        return SampledSoftmaxLoss(Uniform(self.negatives))


def adam_without_decay(lr: float) -> Adam:
    """Adam without weight decay, whose rate falls linearly to a twentieth."""
    return Adam(lr, weight_decay=0.0)


def _power_of_two(value: float, least: int, most: int) -> int:
    """The power of two next below ``value``, within limits."""
    return min(max(1 << max(int(value), 1).bit_length() - 1, least), most)


BY_SIZE = TrainingRecipe()
FULL_OPTIMIZER = Adam(lr=3e-3, weight_decay=1e-6, decay_tables=True)
FULL_SOFTMAX = TrainingRecipe(epochs=5, batch_size=100, optimizer=FULL_OPTIMIZER, negatives=0)
