"""Protocols of the parts of a system: a class implements one by having its methods, without a base class.

A recommender consists of features, an :class:`Encoder` and a :class:`Head`. Further protocols declare optional
behaviour; code checks ``isinstance(part, UpdatesAfterStep)``, never concrete classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from torch import Tensor, nn

from graphmeta.protocols.members import ReadsMembers
from graphmeta.protocols.scorer import Adapting as Adapting
from graphmeta.protocols.scorer import Adapts as Adapts
from graphmeta.protocols.scorer import AsksQueries as AsksQueries
from graphmeta.protocols.scorer import HasItems as HasItems
from graphmeta.protocols.scorer import HasUsers as HasUsers
from graphmeta.protocols.scorer import KeepsHistories as KeepsHistories
from graphmeta.protocols.scorer import LimitsLength as LimitsLength
from graphmeta.protocols.scorer import ReadsHistory as ReadsHistory
from graphmeta.protocols.scorer import ReadsTasks as ReadsTasks
from graphmeta.protocols.scorer import ReportsMissingUsers as ReportsMissingUsers
from graphmeta.protocols.scorer import Scorer as Scorer

if TYPE_CHECKING:
    from torch_geometric.data import HeteroData

    from graphmeta.data.column_types import Column
    from graphmeta.data.events import EventLog
    from graphmeta.data.tables import EntityTable
    from graphmeta.sampling.neighbourhood import Neighbourhood
    from graphmeta.sampling.samples import Samples

Bar = Callable[[Iterable[Any], str], Iterable[Any]]  # (batches, name) -> batches, shown as progress


class Encoder(Protocol):
    """Maps item vectors to click states."""

    def forward(self, x: Tensor, batch: HeteroData) -> Tensor:
        """``[I, D]`` (per distinct item of each session) -> ``[E, D']`` (per click)."""
        ...


class Head(Protocol):
    """Maps click states to candidate scores."""

    def forward(self, states: Tensor, batch: HeteroData, candidates: Tensor) -> Tensor:
        """``[E, D]``, ``[C, D']`` -> ``[S, C]``."""
        ...


@runtime_checkable
class ProductHead(Protocol, metaclass=ReadsMembers):
    """A head whose scores are products ``query · vectorsᵀ``, plus additive score terms.

    Ranking losses, score terms and bf16 work with any such head.
    """

    score_terms: nn.ModuleDict

    def query(self, states: Tensor, batch: HeteroData) -> Tensor:
        """The query vectors ``[S, D']``."""
        ...

    def vectors(self, candidates: Tensor) -> Tensor:
        """The candidate vectors of the product, ``[…, D'] -> […, D']``."""
        ...

    def extra(self, batch: HeteroData, query: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
        """The sum of ``score_terms``: rows, columns and values, which ``forward`` must add to the products."""
        ...

    def learn_temperature(self) -> None:
        """Make the temperature of the products a trained parameter, also where it is a frozen one."""
        ...


@runtime_checkable
class LearnsItemBias(Protocol, metaclass=ReadsMembers):
    """A head that can add a learned bias of each item, ``item_bias [C]``, to its scores."""

    item_bias: nn.Parameter | None

    def add_item_bias(self, num_items: int) -> None:
        """Add the parameter, zero at first."""
        ...


@runtime_checkable
class IgnoresEmptySessions(Protocol, metaclass=ReadsMembers):
    """A head that can score a session without clicks by its biases and score terms alone."""

    def ignore_empty_sessions(self) -> None:
        """From now on, what it computes from the clicks is zero without any."""
        ...


@runtime_checkable
class ProposesCandidates(Protocol, metaclass=ReadsMembers):
    """A score term that is trained on some candidates of each sample, and can score any pairs."""

    def proposed(self, batch: HeteroData, target: Tensor) -> tuple[Tensor, Tensor]:
        """Candidates as sorted numbers ``sample · C + item``, the targets ``[S]`` among them, and the logarithms of
        their weights: two of ``[N]``.
        """
        ...

    def values_of(self, batch: HeteroData, key: Tensor, product: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """The values of these pairs, ``[N]``."""
        ...


@runtime_checkable
class ScoresInBlocks(Protocol, metaclass=ReadsMembers):
    """A part that scores many pairs of a sample and an item, faster in blocks of samples.

    ``samples_at_once``: samples of a block.
    """

    samples_at_once: int


@runtime_checkable
class NamesColumns(Protocol, metaclass=ReadsMembers):
    """A head of products that names what the columns of its query and candidate vectors stand for."""

    def column_parts(self) -> dict[str, slice]:
        """The columns of each part; ``product`` are those of the item vectors themselves."""
        ...


@runtime_checkable
class CountsOnly(Protocol, metaclass=ReadsMembers):
    """A system without weights, which is fitted by counting."""

    @property
    def excludes_session(self) -> bool:
        """Whether it never recommends an item of the session."""
        ...

    def has_counts(self, samples: Any, scores: Tensor) -> Any:
        """Mask ``[S]`` of the samples for which it has counts."""
        ...


@runtime_checkable
class NamesVoters(Protocol, metaclass=ReadsMembers):
    """A system that may score by the votes of neighbours."""

    def votes(self, samples: Any, item: int) -> Any:
        """The :class:`~graphmeta.baselines.votes.Votes` for an item in the only sample, and the ids of users by number
        (None: not stored); None if it has no neighbours.
        """
        ...


@runtime_checkable
class NotProducts(Protocol, metaclass=ReadsMembers):
    """A head whose scores are not products of a query and an item vector, with the reason for error messages."""

    no_products: str


@runtime_checkable
class HasLastLayer(Protocol, metaclass=ReadsMembers):
    """A head with a last layer ``project`` before the product."""

    project: nn.Module


@runtime_checkable
class ProjectedHead(HasLastLayer, Protocol):
    """A head whose last layer ``project`` may be replaced."""

    bias: bool  # whether the last column of a candidate is a bias added to its score


@runtime_checkable
class AugmentedLayer(Protocol, metaclass=ReadsMembers):
    """A last layer that reads more than the head's readout, such as the session's cluster: ``[S ; C]``."""

    def reads(self, session: Tensor) -> Tensor:
        """``[S, D] -> [S, D']``, the input of its product."""
        ...


@runtime_checkable
class HasReadout(Protocol, metaclass=ReadsMembers):
    """A head with a readout: from the states of a sample's clicks to one vector."""

    readout: nn.Module


@runtime_checkable
class ReadoutHead(HasReadout, Protocol):
    """A head that may read states only through its replaceable ``readout``.

    ``reads_only_readout``: whether it does; a new readout may then expect states with more columns.
    """

    reads_only_readout: bool


@runtime_checkable
class ItemScorer(Protocol, metaclass=ReadsMembers):
    """A head that can score given items without scoring the catalogue."""

    def of_items(self, states: Tensor, batch: HeteroData, candidates: Tensor, items: Tensor) -> Tensor:
        """Scores of items ``[S, N]`` -> ``[S, N]``."""
        ...


@runtime_checkable
class CatalogueLoss(Protocol, metaclass=ReadsMembers):
    """A head with its own cross-entropy over the catalogue, which need not materialise all scores.

    A subclass that overrides only ``forward`` sets ``cross_entropy = None``, as Python does with ``__hash__``.
    """

    def cross_entropy(self, states: Tensor, batch: HeteroData, candidates: Tensor) -> Tensor:
        """``cross_entropy(scores, target)`` of the real samples."""
        ...


@runtime_checkable
class CandidateLoss(Protocol, metaclass=ReadsMembers):
    """A head whose cross-entropy can be computed over chosen candidates, for sampled softmax without products."""

    def cross_entropy_over(
        self, states: Tensor, batch: HeteroData, candidates: Tensor, target: Tensor, bias: Tensor | None = None
    ) -> Tensor:
        """``cross_entropy(scores + bias, target)`` of the real samples; a target's own score has no bias.

        Shapes: candidates ``[C, D']``, target ``[S]`` (rows of the candidates), bias ``[C]``.
        """
        ...


@runtime_checkable
class ScoresCatalogue(Protocol, metaclass=ReadsMembers):
    """A loss over the scores of the whole catalogue, whose products may be computed in bf16."""

    scores_catalogue: bool


@runtime_checkable
class Objective(Protocol, metaclass=ReadsMembers):
    """A loss as an option of a system, without the negatives that the system samples."""

    least_negatives: ClassVar[int]  # per target

    def against(self, negatives: nn.Module) -> nn.Module:
        """The loss against negatives of this sampler."""
        ...


@runtime_checkable
class PositionLoss(Protocol, metaclass=ReadsMembers):
    """A loss with one value per position of a session instead of one per session."""

    def with_loss(self, loss: nn.Module) -> nn.Module:
        """The same with another loss at each position."""
        ...

    def check(self, recommender: nn.Module, samples: Samples, *, num_items: int) -> None:
        """Raise an InputError if the recommender cannot predict at every position."""
        ...


@runtime_checkable
class ReadsLastClick(Protocol, metaclass=ReadsMembers):
    """A readout that is the state of the last click, so it can be used at every position of a session."""

    reads_last_click: bool


@runtime_checkable
class ReadsOnlyUsers(Protocol, metaclass=ReadsMembers):
    """An encoder or readout that reads nothing but the sample's user."""

    def knows(self, user: Tensor) -> Tensor:
        """Whether each user has a vector: ``[S]`` (-1: unknown) ``-> [S]`` bool."""
        ...


@runtime_checkable
class ReadsTimes(Protocol, metaclass=ReadsMembers):
    """A part that reads click times."""

    reads_times: bool


@runtime_checkable
class ReadsSubgraph(Protocol, metaclass=ReadsMembers):
    """An encoder whose batches also hold the graph around each session: earlier sessions, followers, attributes.

    A system makes them by :class:`~graphmeta.sampling.subgraph.SubgraphSampler` from the log of ``fit_statistics``; if
    it reads earlier sessions alone and the system has no users, they come with the samples.
    """

    neighbourhood: Neighbourhood


@runtime_checkable
class EncodesItems(Protocol, metaclass=ReadsMembers):
    """An encoder that also has states of all items of a sample's sub-graph, clicked or not."""

    def of_items(self, x: Tensor, batch: HeteroData) -> Tensor:
        """``[I, D]`` -> ``[I, D']``."""
        ...


def reads_earlier_sessions(part: object) -> bool:
    """Whether a part of a system reads the earlier sessions of a sample's user, as columns or in the graph."""
    return (isinstance(part, ReadsHistory) and part.reads_history) or (
        isinstance(part, ReadsSubgraph) and part.neighbourhood.history > 0
    )


@runtime_checkable
class ReadsColumns(Protocol, metaclass=ReadsMembers):
    """A part that reads columns of the item table, such as a category or a price."""

    def reads_column(self, name: str, column: Column) -> bool:
        """Whether it reads the column of this name."""
        ...


@runtime_checkable
class EmbeddingTable(Protocol, metaclass=ReadsMembers):
    """A table of vectors that are looked up by row, such as the items'."""

    weight: nn.Parameter

    def all_rows(self) -> Tensor:
        """All vectors, as heads score against them."""
        ...


@runtime_checkable
class BiasedTable(EmbeddingTable, Protocol):
    """A table of vectors of ``width`` columns; further columns are biases."""

    width: int


@runtime_checkable
class TiedItems(Protocol, metaclass=ReadsMembers):
    """Features with one replaceable table of item vectors, used as input and for scoring (tied)."""

    tied_items: bool
    item: Any


@runtime_checkable
class ComposesItems(Protocol, metaclass=ReadsMembers):
    """A table with attribute-composed embeddings, so that new items have vectors."""

    composes_items: bool


@runtime_checkable
class SplitsItems(Protocol, metaclass=ReadsMembers):
    """A table whose item vectors are sums of vectors: the item's own and those of its attributes."""

    def summands(self, item: int) -> dict[str, Tensor]:
        """The vectors ``[D]`` whose sum is the item's row of the candidates, by name; ``item`` is its own."""
        ...


@runtime_checkable
class ExtendsItems(Protocol, metaclass=ReadsMembers):
    """A part with rows for items to which new items can be added without training."""

    def extend_items(self, items: EntityTable) -> None:
        """Take over a table that begins with the part's own items, in their order."""
        ...


@runtime_checkable
class ExtendsUsers(Protocol, metaclass=ReadsMembers):
    """A part with rows for users to which new users can be added without training."""

    def extend_users(self, users: EntityTable) -> None:
        """Take over a table that begins with the part's own users, in their order."""
        ...


@runtime_checkable
class FitsStatistics(Protocol, metaclass=ReadsMembers):
    """A part with statistics of the training log, computed before training: popularity, neighbours, bins."""

    def fit_statistics(self, log: EventLog) -> None:
        """Compute the statistics."""
        ...


@runtime_checkable
class CountsShards(FitsStatistics, Protocol):
    """A part whose ``fit_statistics`` also takes a log on disk (:class:`~graphmeta.data.scan.log.ScannedLog`), of which
    it reads a shard at a time.
    """

    counts_shards: bool


@runtime_checkable
class SamplesSeenItems(FitsStatistics, Protocol):
    """A sampler of negatives among the items that have appeared by the end of the training log."""

    def seen_since(self, begin: float) -> SamplesSeenItems:
        """The sampler, not yet fitted, of items with an event at this time (seconds) or later."""
        ...


@runtime_checkable
class HeldOutStatistics(FitsStatistics, Protocol):
    """A part that learns how reliable its statistics are: it must be trained on sessions not counted in them."""

    needs_held_out_statistics: bool


@runtime_checkable
class NotAdapted(Protocol, metaclass=ReadsMembers):
    """A part that all tasks share: inner steps do not adapt it, whatever the scope.

    ``not_adapted`` names its own parameters and submodules to which this applies; an empty name is the whole part.
    """

    not_adapted: tuple[str, ...]


@runtime_checkable
class UpdatesAfterStep(Protocol, metaclass=ReadsMembers):
    """A part that is not trained by gradients (a memory); its state must be in its ``state_dict``."""

    def update_after_step(self) -> None:
        """Apply the updates collected since the last step; called after each training step."""
        ...
