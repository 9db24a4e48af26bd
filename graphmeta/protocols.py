"""Contracts between parts of the library."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol, TypedDict

from torch import Tensor

if TYPE_CHECKING:
    from graphmeta.sampling.samples import Samples


class Scorer(Protocol):
    """Anything that scores all items for samples: a :class:`~graphmeta.system.System` or a baseline."""

    @property
    def num_items(self) -> int:
        """Number of candidates."""
        ...

    def scores(self, samples: Samples) -> Tensor:
        """``[S, num_items]``."""
        ...


Bar = Callable[[Iterable[Any], str], Iterable[Any]]


class Adapting(TypedDict, total=False):
    """How a system adapts in one call, see :meth:`System.scores <graphmeta.system.System.scores>`; its own if None."""

    steps: int | None
    max_support: int | None
