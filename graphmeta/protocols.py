"""Contracts between the parts of a system: a class that has the methods is the part, whatever it inherits from.

A recommender is built of features, an :class:`Encoder` and a :class:`Head`. Further protocols say what else a part
does; code asks ``isinstance(part, Settles)`` and never for a class of the library.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol, TypedDict, runtime_checkable

from torch import Tensor, nn

if TYPE_CHECKING:
    from torch_geometric.data import HeteroData

    from graphmeta.data.events import EventLog
    from graphmeta.sampling.samples import Samples

Bar = Callable[[Iterable[Any], str], Iterable[Any]]  # (batches, name) -> batches, shown as progress


class Scorer(Protocol):
    """Anything that scores all items for samples: a :class:`~graphmeta.system.System` or a baseline."""

    @property
    def num_items(self) -> int:
        """Number of candidates."""
        ...

    def scores(self, samples: Samples) -> Tensor:
        """``[S, num_items]``."""
        ...


@runtime_checkable
class Encoder(Protocol):
    """Item vectors to states of clicks."""

    def forward(self, x: Tensor, batch: HeteroData) -> Tensor:
        """``[I, D]`` (a row an item of a session) -> ``[E, D']`` (a row a click)."""
        ...


@runtime_checkable
class Head(Protocol):
    """States of clicks to scores of candidates."""

    def forward(self, states: Tensor, batch: HeteroData, candidates: Tensor) -> Tensor:
        """``[E, D]``, ``[C, D']`` -> ``[S, C]``."""
        ...


@runtime_checkable
class ProductHead(Protocol):
    """A head whose scores are products: ``query · vectorsᵀ``, and score terms added to single scores.

    Ranking losses, score terms and bf16 work with any such head.
    """

    score_terms: nn.ModuleDict

    def query(self, states: Tensor, batch: HeteroData) -> Tensor:
        """The query vectors ``[S, D']``."""
        ...

    def vectors(self, candidates: Tensor) -> Tensor:
        """What a query is multiplied with, ``[…, D'] -> […, D']``."""
        ...

    def learn_temperature(self) -> None:
        """Make the scale of the products a parameter."""
        ...


@runtime_checkable
class ProjectedHead(Protocol):
    """A head whose last layer before the product is ``project``, which may be replaced."""

    project: nn.Module
    bias: bool  # whether the last column of a candidate is a number added to its score


@runtime_checkable
class ItemScorer(Protocol):
    """A head that scores chosen items without scoring the catalogue."""

    def of_items(self, states: Tensor, batch: HeteroData, candidates: Tensor, items: Tensor) -> Tensor:
        """Scores of items ``[S, N]`` -> ``[S, N]``."""
        ...


@runtime_checkable
class CatalogueLoss(Protocol):
    """A head with a cross-entropy over the catalogue of its own, which need not write all scores down.

    A subclass that changes ``forward`` alone sets ``cross_entropy = None``, as Python does with ``__hash__``.
    """

    def cross_entropy(self, states: Tensor, batch: HeteroData, candidates: Tensor) -> Tensor:
        """``cross_entropy(scores, target)`` of the real samples."""
        ...


@runtime_checkable
class ScoresCatalogue(Protocol):
    """A loss over the scores of the whole catalogue, whose products may be taken in bf16."""

    scores_catalogue: bool


@runtime_checkable
class PositionLoss(Protocol):
    """A loss for each position of a session, and not for each session."""

    def check(self, recommender: nn.Module, samples: Samples, *, num_items: int) -> None:
        """Raise an InputError if the recommender cannot be asked at every position."""
        ...


@runtime_checkable
class ReadsLastClick(Protocol):
    """A readout that is the state of the last click: it can be asked at every position of a session."""

    reads_last_click: bool


@runtime_checkable
class ReadsTimes(Protocol):
    """A part that reads when clicks were."""

    reads_times: bool


@runtime_checkable
class TiedItems(Protocol):
    """Features with one table of item vectors, read and scored, which may be replaced."""

    tied_items: bool
    item: Any


@runtime_checkable
class ComposesItems(Protocol):
    """A table whose rows are composed of attributes, so that new items have vectors."""

    composes_items: bool


@runtime_checkable
class FitsStatistics(Protocol):
    """A part that counts something in the training log before gradients are taken: popularity, neighbours, bins."""

    def fit_statistics(self, log: EventLog) -> None:
        """Count."""
        ...


@runtime_checkable
class HeldOutStatistics(FitsStatistics, Protocol):
    """A part that learns how reliable its statistics are, and so must be trained on sessions they do not count."""

    needs_held_out_statistics: bool


@runtime_checkable
class Settles(Protocol):
    """A part that learns by other means than gradients (a memory): what it changes must be in its ``state_dict``."""

    def settle(self) -> None:
        """Take in what was noted since the last step; called after each training step."""
        ...


class Adapting(TypedDict, total=False):
    """How a system adapts in one call, see :meth:`System.scores <graphmeta.system.System.scores>`; its own if None."""

    steps: int | None
    max_support: int | None
