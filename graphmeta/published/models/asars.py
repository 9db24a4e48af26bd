"""The ASARS family: recurrent session models that read the user, the dwell times between clicks, or both.

The default training differs from the paper, which compares each click with one in-batch negative (hinge loss), in
user-parallel batches, with Adagrad at rate 0.2; on MovieLens-1M that is about as good as popularity. Here the loss is
cross-entropy over the whole catalogue at every click, in shuffled batches. The paper's setting is ``loss=Hinge()`` and
``system.batches = user_parallel`` (:func:`~graphmeta.sampling.order.user_parallel`); RESULTS.md has both.

ASARS: Wang, Li, Yan, Time-weighted Attentional Session-Aware Recommender System, 2019, arXiv 1909.05414.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError
from graphmeta.nn.encoders.dwell_time import DwellBins, DwellEmbedding, DwellRecurrent
from graphmeta.nn.encoders.prefix_attention import DwellAttention, PrefixAttention, WithUser
from graphmeta.nn.encoders.recurrent import Cell, Recurrent
from graphmeta.nn.features.tables import ItemFeatures, UserFeatures
from graphmeta.nn.heads.dot import Dot
from graphmeta.nn.heads.temporal import TemporalDot, TemporalItems
from graphmeta.nn.losses.losses import AllPositions
from graphmeta.nn.losses.negatives import PerSampleNegatives, in_batch_targets
from graphmeta.nn.losses.pairwise import CrossEntropy
from graphmeta.nn.readout import Last
from graphmeta.protocols import Objective
from graphmeta.published.registry import published
from graphmeta.published.unread import FULL_SOFTMAX
from graphmeta.recommender import Recommender
from graphmeta.sampling.histories import user_histories
from graphmeta.sampling.samples import whole_sessions
from graphmeta.system import System

_LENGTH = 200


@dataclass(frozen=True)
class States:
    """The recurrent network: size of its states; ``nn.LSTM`` or ``nn.GRU``; dropout on its inputs."""

    hidden: int = 100
    cell: Cell = nn.LSTM
    dropout: float = 0.5


@dataclass(frozen=True)
class DwellOptions:
    """How the dwell times between clicks are encoded.

    Args:
        time_width: width of a dwell-time embedding.
        dwell_lag: 1 reads the dwell time before each click; 0 the one after it, as in the paper. That leaks the time of
            the next click, which is unknown at inference; published figures are those of 0.
    """

    time_width: int = 16
    dwell_lag: int = 1


@dataclass(frozen=True)
class Learning:
    """Loss and samples of a variant.

    Args:
        loss: ``CrossEntropy()`` over the whole catalogue; or another of :mod:`graphmeta.nn.losses.pairwise`
            against ``negatives`` in-batch targets outside the user's history (the max losses need several, e.g. 5).
        carry_state: carry the recurrent state over a user's sessions, up to 200 clicks, instead of resetting it at each
            session (:func:`~graphmeta.sampling.histories.with_history` makes such samples for evaluation; to recommend,
            pass the user's earlier clicks before the session's).
    """

    loss: Objective = CrossEntropy()
    negatives: int = 1
    carry_state: bool = False


@published("ASARS, user concatenated", family="asars", equations="20", unread=(FULL_SOFTMAX,))
def asars_user_cat(
    items: EntityTable,
    *,
    users: EntityTable,
    width: int = 64,
    user_width: int = 32,
    states: States = States(),
    learning: Learning = Learning(),
    temporal: bool = False,
) -> System:
    """ASARS with the user vector concatenated to the state: ``z_t = FC [h_t ; e_u]``, score_k = z_t · e_k + b_k.

    Args:
        width: of items.
        user_width: of users.
        states: the recurrent network.
        learning: loss and samples.
        temporal: score with user drift and item biases per period, :class:`~graphmeta.nn.heads.temporal.TemporalDot`.

    Source: ASARS, sections 3.1–3.4 (user, concatenated).
    Differs: loss and batches, see the module. The paper gives the item width as 64 and as 32; the 32 is taken as the
    user's. Users that training did not see have zero vectors.
    """
    encoder = WithUser(
        Recurrent(width, states.hidden, cell=states.cell, dropout=states.dropout), UserFeatures(len(users), user_width)
    )
    return _system(learning, encoder, items, sizes=(states.hidden + user_width, width), users=users, temporal=temporal)


@published("ASARS, user attention", family="asars", equations="15-20", unread=(FULL_SOFTMAX,))
def asars_user_att(
    items: EntityTable,
    *,
    users: EntityTable,
    width: int = 64,
    user_width: int = 32,
    states: States = States(),
    learning: Learning = Learning(),
    temporal: bool = False,
) -> System:
    """ASARS with user attention over the clicks so far: ``z_t = FC [q_t ; e_u]``, ``s_i = tanh(h_i W + b) · e_u``.

    ``q_t = Σ_{i≤t} softmax(s_1 … s_t)_i h_i`` (:class:`~graphmeta.nn.encoders.prefix_attention.PrefixAttention`).

    Args:
        width, user_width, states, learning, temporal: as :func:`asars_user_cat`.

    Source: ASARS, eqs 15–20 (user, attention).
    Differs: loss and batches; see :class:`~graphmeta.nn.encoders.prefix_attention.PrefixAttention`; the keys of eq 19,
    which the paper defines for dwell times only, are computed from item states.
    """
    network, attention = (
        Recurrent(width, states.hidden, cell=states.cell, dropout=states.dropout),
        PrefixAttention(states.hidden, user_width),
    )
    encoder = WithUser(network, UserFeatures(len(users), user_width), attention)
    return _system(learning, encoder, items, sizes=(states.hidden + user_width, width), users=users, temporal=temporal)


@published("ASARS, time concatenated", family="asars", equations="8, 20", unread=(FULL_SOFTMAX,))
def asars_time_cat(
    items: EntityTable,
    *,
    width: int = 64,
    dwell: DwellOptions = DwellOptions(),
    states: States = States(),
    learning: Learning = Learning(),
) -> System:
    """ASARS with a dwell-time embedding concatenated to each item: LSTM over ``[e_i ; d_i]``, ``z_t = FC h_t``.

    Args:
        dwell: how dwell times are encoded.
        width, states, learning: as :func:`asars_user_cat`.

    Source: ASARS, sections 3.1–3.4 (time, concatenated).
    Differs: loss and batches; ``dwell_lag``; between sessions that ``carry_state`` joins, the dwell time falls in the
    last bin.
    """
    table = DwellEmbedding(DwellBins(lag=dwell.dwell_lag), dwell.time_width)
    encoder = DwellRecurrent(
        table, Recurrent(width + dwell.time_width, states.hidden, cell=states.cell, dropout=states.dropout)
    )
    return _system(learning, encoder, items, sizes=(states.hidden, width))


@published("ASARS, time attention", family="asars", equations="8, 15-20", unread=(FULL_SOFTMAX,))
def asars_time_att(
    items: EntityTable,
    *,
    width: int = 64,
    dwell: DwellOptions = DwellOptions(),
    states: States = States(),
    learning: Learning = Learning(),
) -> System:
    """ASARS with dwell-time attention over the clicks so far: ``z_t = FC q_t``, ``s_i = tanh(h^time_i W + b) · h_i``.

    h^time is the state of a second LSTM over the dwell times.

    Args:
        width, states, dwell, learning: as :func:`asars_time_cat`.

    Source: ASARS, eqs 15–20 (time, attention).
    Differs: loss and batches; ``dwell_lag``; see :class:`~graphmeta.nn.encoders.prefix_attention.PrefixAttention`.
    """
    encoder = _dwell_attention(width, states, dwell)
    return _system(learning, encoder, items, sizes=(states.hidden, width))


@published("ASARS, time and user", family="asars", equations="8, 15-20", unread=(FULL_SOFTMAX,))
def asars_time_user(
    items: EntityTable,
    *,
    users: EntityTable,
    width: int = 64,
    user_width: int = 32,
    dwell: DwellOptions = DwellOptions(),
    states: States = States(),
    learning: Learning = Learning(),
    temporal: bool = False,
) -> System:
    """ASARS with both: :func:`asars_time_att` with the user vector concatenated, ``z_t = FC [q_t ; e_u]``.

    Args:
        width, user_width, states, dwell, learning, temporal: as :func:`asars_time_cat` and :func:`asars_user_cat`.

    Source: ASARS, eqs 15–20 (time and user).
    Differs: as those two.
    """
    attended = _dwell_attention(width, states, dwell)
    encoder = WithUser(attended, UserFeatures(len(users), user_width))
    return _system(learning, encoder, items, sizes=(states.hidden + user_width, width), users=users, temporal=temporal)


def _dwell_attention(width: int, states: States, dwell: DwellOptions) -> DwellAttention:
    """Attention over item states, with keys from a second network over dwell times."""
    return DwellAttention(
        Recurrent(width, states.hidden, cell=states.cell, dropout=states.dropout),
        DwellEmbedding(DwellBins(lag=dwell.dwell_lag), dwell.time_width),
        Recurrent(dwell.time_width, states.hidden, cell=states.cell, dropout=states.dropout),
        PrefixAttention(states.hidden, states.hidden),
    )


def _system(
    learning: Learning,
    encoder: nn.Module,
    items: EntityTable,
    *,
    sizes: tuple[int, int],
    users: EntityTable | None = None,
    temporal: bool = False,
) -> System:
    """A linear layer from states to item vectors (``sizes``) and a bias per item; every click is a target."""
    if learning.negatives < learning.loss.least_negatives:
        raise InputError(f"loss={learning.loss} needs several negatives to take the hardest of; pass negatives=5 or so")
    read, width = sizes
    project = nn.Linear(read, width)
    if users is not None and temporal:
        features = TemporalItems(len(items), width)
        head = TemporalDot(Last(), project, num_users=len(users), width=width)
    else:
        features, head = ItemFeatures(len(items), width, bias=True), Dot(Last(), project, bias=True)
    return System(
        Recommender(features, encoder, head),
        items,
        users=users,
        loss=AllPositions(learning.loss.against(PerSampleNegatives(in_batch_targets, count=learning.negatives))),
        samples=user_histories if learning.carry_state else whole_sessions,
        limits={"max_length": _LENGTH},
    )
