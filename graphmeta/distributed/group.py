"""What the processes of a training are to its parts: sums, maxima and rows over all ranks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:  # torch is not imported here, so that the command line's help is fast
    import torch
    from torch import Tensor


class Group(Protocol):
    """The processes that train together. All ranks must call the same methods in the same order.

    ``rank``: from 0; ``size``: number of ranks; ``local_rank``: the rank on its machine; ``weight``: 1, or 0 if what
    this rank computes is a copy that does not count.
    """

    rank: int
    size: int
    local_rank: int
    weight: int

    def sum(self, x: Tensor) -> Tensor:
        """The sum over ranks, in place."""
        ...

    def maximum(self, x: Tensor) -> Tensor:
        """The maximum over ranks, in place."""
        ...

    def gather(self, x: Tensor) -> Tensor:
        """The rows of all ranks ``[N_r, …]``, in their order: ``[Σ_r N_r, …]``."""
        ...

    def of_first(self, x: Tensor) -> Tensor:
        """Rank 0's tensor, in place."""
        ...

    def value_of_first(self, value: Any) -> Any:
        """Rank 0's value, which JSON can hold."""
        ...


class Alone:
    """A group of one rank, without communication."""

    rank = local_rank = 0
    size = weight = 1

    def sum(self, x: Tensor) -> Tensor:
        """The tensor itself."""
        return x

    def maximum(self, x: Tensor) -> Tensor:
        """The tensor itself."""
        return x

    def gather(self, x: Tensor) -> Tensor:
        """The tensor itself."""
        return x

    def of_first(self, x: Tensor) -> Tensor:
        """The tensor itself."""
        return x

    def value_of_first(self, value: Any) -> Any:
        """The value itself."""
        return value


class FirstCounts:
    """A group in which all ranks compute the same batch and only rank 0's results count.

    For a batch with fewer samples than ranks, so that no rank has an empty part.
    """

    def __init__(self, group: Group) -> None:
        self.group, self.rank, self.size, self.local_rank = group, group.rank, group.size, group.local_rank
        self.weight = int(group.rank == 0)

    def sum(self, x: Tensor) -> Tensor:
        """Rank 0's tensor."""
        return self.group.of_first(x)

    def maximum(self, x: Tensor) -> Tensor:
        """Rank 0's tensor."""
        return self.group.of_first(x)

    def gather(self, x: Tensor) -> Tensor:
        """Rank 0's rows."""
        return self.group.gather(x[: len(x) * self.weight])

    def of_first(self, x: Tensor) -> Tensor:
        """Rank 0's tensor."""
        return self.group.of_first(x)

    def value_of_first(self, value: Any) -> Any:
        """Rank 0's value."""
        return self.group.value_of_first(value)


ALONE = Alone()
_NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # set by torchrun
_CURRENT: ContextVar[Group] = ContextVar("group", default=ALONE)


def current() -> Group:
    """The processes that run this training or evaluation; a group of one outside :func:`joined`.

    >>> current().rank, current().size
    (0, 1)
    """
    return _CURRENT.get()


def launched() -> bool:
    """Whether torchrun started this process."""
    return all(name in os.environ for name in _NEEDED)


@contextmanager
def within(group: Group) -> Iterator[Group]:
    """Within it, :func:`current` is this group."""
    token = _CURRENT.set(group)
    try:
        yield group
    finally:
        _CURRENT.reset(token)


@dataclass(frozen=True)
class Step:
    """A training step in progress: the ranks that share its batch, and the random generator that all ranks have in the
    same state (None: torch's global one, if there is one rank).
    """

    group: Group = ALONE
    generator: torch.Generator | None = None

    @property
    def seed(self) -> int:
        """The seed that all ranks have in common."""
        import torch

        return torch.initial_seed() if self.generator is None else self.generator.initial_seed()


_NO_STEP = Step()
_STEP: ContextVar[Step] = ContextVar("step", default=_NO_STEP)


def step() -> Step:
    """The training step in progress, for losses that sample items for the whole batch and for parts that are updated
    after a step; a group of one elsewhere, evaluation and inner steps included.
    """
    return _STEP.get()


@contextmanager
def stepping(one: Step) -> Iterator[None]:
    """Within it, :func:`step` is this step."""
    token = _STEP.set(one)
    try:
        yield
    finally:
        _STEP.reset(token)
