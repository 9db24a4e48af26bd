"""What an optimizer is to a training, and what those of the library share: learning-rate schedule and weight decay."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from graphmeta.errors import check_flag, check_number
from graphmeta.protocols.members import ReadsMembers


@runtime_checkable
class Optimizer(Protocol, metaclass=ReadsMembers):
    """Builds an optimizer and defines its learning-rate schedule."""

    def build(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        """The optimizer of these parameters."""
        ...

    def rate(self, progress: float) -> float | None:
        """The learning rate at this training progress in [0, 1]; None leaves it to the optimizer."""
        ...


@runtime_checkable
class TableOptimizer(Optimizer, Protocol):
    """An optimizer that treats embedding tables differently from other weights."""

    def build_with_tables(self, parameters: Iterable[Tensor], tables: Iterable[Tensor]) -> torch.optim.Optimizer:
        """The optimizer of these parameters, of which ``tables`` are embedding tables ``[rows, width]``."""
        ...


@dataclass(frozen=True)
class Scheduled(ABC):
    """Weight decay, and a learning rate that decays from ``lr`` to ``lr · final`` over the whole training.

    Args:
        weight_decay: the L2 term, as the session papers use it (1e-5 on all weights).
        final: the last rate as a share of the first.
        warmup: share of the training in which the rate rises linearly to ``lr``, before it decays.
        cosine: decay by half a cosine instead of linearly.
        decay_tables: apply the L2 term to embedding tables (:func:`~graphmeta.nn.features.tables.table_weights`) too.
            It reads every row at each step: rows that are not in the batch shrink towards zero.

    Raises:
        InputError: a learning rate that is not a number, or negative; a warm-up that is not a share.

    Differs: the session papers decay tables as well.
    """

    lr: float = 1e-3
    weight_decay: float = 0.0
    final: float = 1.0
    warmup: float = 0.0
    cosine: bool = False
    decay_tables: bool = False

    def __post_init__(self) -> None:
        check_number("warmup", self.warmup, below=1)
        check_number("weight_decay", self.weight_decay)
        check_number("final", self.final)
        check_number("lr", self.lr)
        check_flag("cosine", self.cosine)
        check_flag("decay_tables", self.decay_tables)

    def build(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        """The optimizer of these parameters, none of which is an embedding table."""
        return self.build_with_tables(parameters, ())

    def build_with_tables(self, parameters: Iterable[Tensor], tables: Iterable[Tensor]) -> torch.optim.Optimizer:
        """The optimizer of these parameters; one group, or two if tables have options of their own."""
        parameters, ids = list(parameters), {id(table) for table in tables}
        own = {} if self.decay_tables or not self.weight_decay else {"weight_decay": 0.0}
        own |= self._table_options()
        found = [weight for weight in parameters if id(weight) in ids] if own else []
        if not found:
            return self._of([{"params": parameters}])
        return self._of(
            [{"params": [weight for weight in parameters if id(weight) not in ids]}, {"params": found, **own}]
        )

    def rate(self, progress: float) -> float:
        """The learning rate at this training progress."""
        if progress < self.warmup:
            return self.lr * max(progress / self.warmup, 0.01)
        done = (progress - self.warmup) / (1 - self.warmup)
        done = (1 - math.cos(math.pi * done)) / 2 if self.cosine else done
        return self.lr * (1 - (1 - self.final) * done)

    def _table_options(self) -> dict[str, Any]:
        """Options of the group of tables, besides weight decay."""
        return {}

    @abstractmethod
    def _of(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """The optimizer of these parameter groups."""
