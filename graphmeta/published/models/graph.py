"""Systems whose graph extends beyond a session's clicks, NISER+, and the re-ranker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial

from torch import nn

from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError
from graphmeta.nn.encoders.gated_graph import GatedSessionGraph
from graphmeta.nn.encoders.global_context import GlobalContext, PositionAttention
from graphmeta.nn.encoders.hetero import HeteroSession, Messages, mean_messages
from graphmeta.nn.encoders.positions import Positions
from graphmeta.nn.features.tables import ItemFeatures, uniform_
from graphmeta.nn.features.transitions import TransitionFeatures
from graphmeta.nn.features.unit_norm import UnitFeatures
from graphmeta.nn.heads.dot import Cosine, Dot
from graphmeta.nn.losses.proposed import ProposedSoftmaxLoss
from graphmeta.nn.readout import SoftAttention
from graphmeta.protocols import IgnoresEmptySessions, ProductHead
from graphmeta.published.parts import copied, with_score_terms
from graphmeta.published.registry import published
from graphmeta.published.unread import NO_COSINE, NO_MESSAGES
from graphmeta.recommender import Recommender
from graphmeta.sampling.baskets import next_items, validation_mix
from graphmeta.system import System
from graphmeta.system.blend import Blend
from graphmeta.training.recipes import TrainingRecipe, adam_without_decay


@published(
    "Schlichtkrull et al. 2018, R-GCN (on sessions)", family="graph", equations="2", unread=(NO_COSINE, NO_MESSAGES)
)
def hetero_gnn(
    items: EntityTable,
    *,
    width: int = 100,
    steps: int = 1,
    messages: Messages = mean_messages,
    normalised: bool = False,
    scale: float = 12.0,
) -> System:
    """Relational message passing over session, items and their attributes; SR-GNN's readout.

    Args:
        width: d.
        steps: rounds of message passing.
        normalised: item and session vectors of unit length, their products multiplied by ``scale``, and positions, as
            in NISER+ (not in the paper).
        messages: message function of a round: one of :data:`~graphmeta.nn.encoders.hetero.MESSAGES`, or a custom one as
            in :class:`~graphmeta.nn.encoders.hetero.HeteroSession` (without a build spec).

    Source: Schlichtkrull et al., Modeling Relational Data with Graph Convolutional Networks, ESWC 2018, eq 2, with
    SR-GNN's gate and readout; ``attention_messages`` are GAT's for each relation, ``transformer_messages`` HGT's (Hu et
    al. 2020).
    Differs: the graph is a session's with its items' attributes, see :mod:`graphmeta.nn.encoders.hetero`.
    """
    encoder = HeteroSession(width, items.categories, steps=steps, messages=messages)
    features, readout = ItemFeatures(len(items), width), SoftAttention(width)
    if normalised:
        head = Cosine(readout, nn.Linear(2 * width, width), scale=scale)
        recommender = Recommender(UnitFeatures(features, dropout=0.1), Positions(encoder, width), head)
    else:
        head = Dot(readout, nn.Linear(2 * width, width, bias=False))
        recommender = Recommender(features, encoder, head)
    return System(recommender, items)


@dataclass(frozen=True)
class Transitions:
    """See :class:`~graphmeta.nn.features.transitions.TransitionFeatures`."""

    neighbours: int = 12
    window: int = 3
    discount: int = 1


@dataclass(frozen=True)
class Dropout:
    """Rates for the vectors from the graph of all sessions, and for item vectors."""

    context_dropout: float = 0.5
    item_dropout: float = 0.0


@published("Wang et al. 2020, GCE-GNN", family="graph", equations="2–15", unread=(NO_COSINE,))
def global_gnn(
    items: EntityTable,
    *,
    width: int = 100,
    transitions: Transitions = Transitions(),
    dropout: Dropout = Dropout(),
    normalised: bool = False,
    scale: float = 12.0,
) -> System:
    """GCE-GNN: attention over typed session edges, and over co-click neighbours counted over all training sessions.

    Args:
        width: d.
        transitions: of :class:`~graphmeta.nn.features.transitions.TransitionFeatures`.
        dropout: of item vectors and of those from the graph of all sessions.
        normalised: item and session vectors of unit length, their products multiplied by ``scale`` (as NISER; not in
            the paper).

    Source: Wang et al., Global Context Enhanced Graph Neural Networks for Session-based Recommendation, SIGIR 2020.
    Differs: one hop, as in the paper's best setting on Diginetica; for the counts see
    :class:`~graphmeta.nn.features.transitions.TransitionFeatures`.
    """
    graph = asdict(transitions)
    features = TransitionFeatures(len(items), width, normalised=normalised, dropout=dropout.item_dropout, **graph)
    encoder = GlobalContext(width, neighbours=transitions.neighbours, dropout=dropout.context_dropout)
    readout = PositionAttention(width)
    head = Cosine(readout, scale=scale) if normalised else Dot(readout)
    recommender = Recommender(features, encoder, head)
    uniform_(recommender, width)
    return System(recommender, items)


# It has few weights and few sessions to learn from: a tenth of the log.
_RERANKING = TrainingRecipe(epochs=4, batch_size=100, optimizer=adam_without_decay(1e-2), negatives=0)


@published("ours, on NISER+", family="graph", base="niser", encoder="niser", held_out=0.1, recipe=_RERANKING)
def reranker(base: System) -> System:
    """Re-ranks a trained recommender's scores with an MLP over co-occurrence, recency and popularity features.

    ``score_i = σ q · e_i + a_i + f(x_i)``, a for the session's own items
    (:class:`~graphmeta.nn.score_terms.repeat.RepeatBias`), f and x those of
    :class:`~graphmeta.nn.score_terms.reranker.Reranker`; σ, a and f are trained, the base's weights are frozen. Train
    the base without the last sessions, initialise the re-ranker with it, and train on the last sessions; then replace
    the base by one trained on all sessions::

        earlier, later = last_sessions(log, log.num_sessions // 10)
        list(train(base := build("niser", log.items), earlier, epochs=4))
        list(train(whole := build("niser", log.items), log, epochs=4))
        system = build("reranker", log.items)
        system.load_matching(base)
        list(train(system, later, epochs=4, optimizer=Adam(lr=1e-2), options=TrainOptions(statistics_log=earlier)))
        system.load_matching(whole, frozen_only=True)
        system.fit_statistics(log)

    ``gm.fit`` and ``graphmeta fit`` then choose on validation whether a baseline's scores are added, and with what
    weight (:class:`~graphmeta.system.blend.Blend`).

    Args:
        base: a system that scores by inner products; it is not modified.

    Source: ours; stacked generalisation (Wolpert 1992) inside the softmax of NISER+ (Gupta et al. 2019).
    """
    return _reranked(base, "reranker")


def _reranked(base: System, term: str) -> System:
    """A copy of the base with frozen weights, a repeat bias and this re-ranker."""
    system = copied(base)
    system.requires_grad_(False)
    head = system.recommender.head
    known = list(head.score_terms) if isinstance(head, ProductHead) else []
    system = with_score_terms(system, [name for name in ("repeat_bias", term) if name not in known])
    assert isinstance(head, ProductHead)  # others have no score terms
    head.score_terms.requires_grad_(True)
    head.learn_temperature()
    system.blend = Blend()
    return system


_PERSONAL = TrainingRecipe(epochs=3, batch_size=64, optimizer=adam_without_decay(4e-3), negatives=0)


@published("ours, on NISER+", family="graph", base="niser", encoder="niser", held_out=0.25, recipe=_PERSONAL)
def personal_reranker(base: System, *, empty: float = 0.1) -> System:
    """Re-ranks a trained recommender's scores with an MLP over co-occurrence with the session and the user's history.

    ``score_i = σ q · e_i + a_i + f(x_i)`` as :func:`reranker`, f and x those of
    :class:`~graphmeta.nn.score_terms.personal.PersonalReranker`, trained on the last quarter of the sessions by
    :class:`~graphmeta.nn.losses.proposed.ProposedSoftmaxLoss`. For a user without earlier sessions it re-ranks by the
    session alone. Where the clicks of a session have no order (baskets), any of them is a target. A baseline is blended
    in as for :func:`reranker`.

    Args:
        base: a system that scores by inner products; it is not modified.
        empty: how much of the training is to predict the items of a session before its first click, from 0 to 1, see
            :func:`~graphmeta.sampling.baskets.next_items`; 1 for next baskets. If it is more than half, the epoch
            is chosen by as large a share of such queries (:func:`~graphmeta.sampling.baskets.validation_mix`), else by
            last clicks. Such a session is ranked by f alone, since the base was trained on clicks.

    Raises:
        InputError: a share outside [0, 1], or a base that does not score by inner products.

    Source: ours; stacked generalisation (Wolpert 1992) inside the softmax of NISER+ (Gupta et al. 2019), with counts of
    personal frequency (Li et al. 2023).
    """
    if not 0 <= empty <= 1:
        raise InputError(f"empty={empty!r} must be a share of the training samples, from 0 to 1")
    system = _reranked(base, "personal")
    head = system.recommender.head
    if isinstance(head, IgnoresEmptySessions):
        head.ignore_empty_sessions()
    system.samples, system.loss = partial(next_items, empty=empty), ProposedSoftmaxLoss()
    if empty > 0.5:
        system.queries = partial(validation_mix, empty=empty)
    return system


@published("Gupta et al. 2019, NISER+", family="graph")
def niser(
    items: EntityTable,
    *,
    width: int = 100,
    steps: int = 1,
    scale: float = 12.0,
    dropout: float = 0.1,
    score_terms: Sequence[str | nn.Module] = (),
) -> System:
    """NISER+: SR-GNN on unit vectors with positions, scored by scaled cosine.

    ``score_i = σ s/‖s‖ · e_i/‖e_i‖``.

    Args:
        width: d.
        steps: rounds of message passing.
        scale: σ.
        dropout: of item vectors.
        score_terms: additive score terms, see :func:`~graphmeta.published.parts.with_score_terms` (not in the paper).

    Source: Gupta et al., NISER: Normalized Item and Session Representations to Handle Popularity Bias, 2019.
    Differs: positions are counted from the last click; vectors are normalised after dropout; σ = 12 is our choice.
    """
    features = UnitFeatures(ItemFeatures(len(items), width), dropout=dropout)
    encoder = Positions(GatedSessionGraph(width, steps=steps), width)
    head = Cosine(SoftAttention(width), nn.Linear(2 * width, width), scale=scale)
    recommender = Recommender(features, encoder, head)
    uniform_(recommender, width)
    return with_score_terms(System(recommender, items), score_terms)
