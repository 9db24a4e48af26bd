"""Optimizers and their learning-rate schedules; any ``torch.optim`` class or factory works as well."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from graphmeta.errors import InputError, check_flag
from graphmeta.nn.features.tables import table_weights
from graphmeta.training.rowwise_adam import RowwiseAdam
from graphmeta.training.scheduled import Optimizer as Optimizer
from graphmeta.training.scheduled import Scheduled as Scheduled
from graphmeta.training.scheduled import TableOptimizer as TableOptimizer

Factory = Callable[[Iterable[Tensor]], torch.optim.Optimizer]


@dataclass(frozen=True)
class Adam(Scheduled):
    """Fused Adam, whose rate decays to a twentieth and whose weight decay leaves out embedding tables.

    Args:
        rowwise: one second moment per row of an embedding table instead of one per entry, which saves almost half of
            the state, not time; see :class:`~graphmeta.training.rowwise_adam.RowwiseAdam`.

    The other options are those of :class:`~graphmeta.training.scheduled.Scheduled`.

    >>> Adam(lr=0.01).rate(0.5)
    0.00525
    >>> Adam(lr=0.01, warmup=0.2, final=0.0).rate(0.1)
    0.005
    """

    weight_decay: float = 1e-5
    final: float = 0.05
    rowwise: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_flag("rowwise", self.rowwise)

    def _table_options(self) -> dict[str, Any]:
        return {"rowwise": True, "fused": False} if self.rowwise else {}

    def _of(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        if self.rowwise:
            return RowwiseAdam(groups, lr=self.lr, weight_decay=self.weight_decay)
        return torch.optim.Adam(groups, lr=self.lr, weight_decay=self.weight_decay, fused=True)


@dataclass(frozen=True)
class Adagrad(Scheduled):
    """Adagrad with a constant learning rate, unless ``final`` is below 1."""

    lr: float = 0.1

    def _of(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        return torch.optim.Adagrad(groups, lr=self.lr, weight_decay=self.weight_decay, fused=True)


@dataclass(frozen=True)
class Sgd(Scheduled):
    """Plain gradient descent at a constant rate, unless ``final`` is below 1."""

    lr: float = 0.1

    def _of(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        return torch.optim.SGD(groups, lr=self.lr, weight_decay=self.weight_decay)


@dataclass(frozen=True)
class FromFactory:
    """Any ``torch.optim`` factory, with its own learning rates.

    Raises:
        InputError: (from :meth:`build`) the factory does not return an optimizer.
    """

    make: Factory

    def build(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        """The optimizer of these parameters."""
        try:
            made = self.make(list(parameters))
        except (RuntimeError, ValueError, TypeError) as error:
            raise InputError(f"the optimizer cannot be made of these parameters ({error}); choose another") from None
        if isinstance(made, torch.optim.LBFGS | torch.optim.SparseAdam):
            raise InputError(f"{type(made).__name__} needs a closure or sparse gradients; choose another optimizer")
        if not isinstance(made, torch.optim.Optimizer):
            raise InputError(f"optimizer= made a {type(made).__name__}; it must return a torch.optim.Optimizer")
        return made

    def rate(self, progress: float) -> None:
        """None: the optimizer sets its own learning rates."""


@dataclass(frozen=True)
class DividedRate:
    """An optimizer with its learning rates divided by ``by``."""

    of: Optimizer
    by: float

    def build(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        """The optimizer of these parameters."""
        return self.build_with_tables(parameters, ())

    def build_with_tables(self, parameters: Iterable[Tensor], tables: Iterable[Tensor]) -> torch.optim.Optimizer:
        """The optimizer of these parameters."""
        built = build_optimizer(self.of, parameters, tables)
        for group in built.param_groups:
            group["lr"] = group["lr"] / self.by
        return built

    def rate(self, progress: float) -> float | None:
        """The learning rate at this training progress."""
        rate = self.of.rate(progress)
        return None if rate is None else rate / self.by


def build_optimizer(
    optimizer: Optimizer, parameters: Iterable[Tensor], tables: Iterable[Tensor]
) -> torch.optim.Optimizer:
    """The optimizer of these parameters, of which ``tables`` are embedding tables."""
    if isinstance(optimizer, TableOptimizer):
        return optimizer.build_with_tables(parameters, tables)
    return optimizer.build(parameters)


def optimizer_of(optimizer: Optimizer, module: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of a module's parameters and embedding tables."""
    return build_optimizer(optimizer, module.parameters(), table_weights(module))


def as_optimizer(given: Optimizer | Factory | None, default: Optimizer) -> Optimizer:
    """The optimizer for ``optimizer=``: one of this module, a ``torch.optim`` class, or a callable that returns one.

    Raises:
        InputError: an optimizer that is already built, or any other value.

    >>> as_optimizer(torch.optim.SGD, Adam()).build([torch.zeros(1, requires_grad=True)]).defaults["lr"]
    0.001
    """
    if given is None:
        return default
    if isinstance(given, torch.optim.Optimizer):
        name = type(given).__name__
        raise InputError(
            f"optimizer=torch.optim.{name}(…) is already bound to its parameters; pass a factory: "
            f"optimizer=torch.optim.{name}, or functools.partial(torch.optim.{name}, lr=…)"
        )
    if isinstance(given, Optimizer) and not isinstance(given, type):
        return given
    if not callable(given) or given in (Adam, Adagrad, Sgd):
        raise InputError(
            f"optimizer={_named(given)} does not make an optimizer; pass graphmeta.Adam(lr=…), a class such as "
            f"torch.optim.SGD, or a function of the parameters"
        )
    return FromFactory(given)


def set_rate(built: torch.optim.Optimizer, optimizer: Optimizer, progress: float) -> None:
    """Set the learning rate for this training progress, unless the optimizer has its own."""
    if (rate := optimizer.rate(progress)) is not None:
        for group in built.param_groups:
            group["lr"] = rate


def described(optimizer: Optimizer, built: torch.optim.Optimizer) -> dict[str, Any]:
    """The optimizer settings that a checkpoint must match."""
    if is_dataclass(optimizer) and optimizer.rate(0.0) is not None:
        return settings_of(optimizer)
    groups = [{key: value for key, value in group.items() if key != "params"} for group in built.param_groups]
    return {"optimizer": type(built).__name__, "optimizer options": repr(groups)}


def settings_of(optimizer: Any) -> dict[str, Any]:
    """The optimizer's class and, for a dataclass, its fields, as JSON values.

    >>> settings_of(DividedRate(FromFactory(torch.optim.SGD), by=10))
    {'optimizer': 'DividedRate', 'of': {'optimizer': 'FromFactory', 'make': 'SGD'}, 'by': 10}
    """
    values = {f.name: getattr(optimizer, f.name) for f in fields(optimizer)} if is_dataclass(optimizer) else {}
    return {"optimizer": type(optimizer).__name__, **{name: _plain(value) for name, value in values.items()}}


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return settings_of(value)
    return _named(value) if callable(value) else value


def _named(given: Any) -> str:
    given = given.func if isinstance(given, partial) else given
    return getattr(given, "__name__", None) or repr(given)[:40]
