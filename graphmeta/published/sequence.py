"""Recommenders that read clicks in order, or only whose they are: the baselines of the session papers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise

from torch import nn

from graphmeta.data.tables import EntityTable
from graphmeta.nn.encoders.convolution import CausalConvStack, RecentPatterns
from graphmeta.nn.encoders.pooling import ConcatenatedEncoders, RunningMean, UserStates
from graphmeta.nn.features.tables import ItemFeatures, UntiedFeatures, scaled_normal_
from graphmeta.nn.heads.dot import Dot
from graphmeta.nn.losses.losses import AllPositions, RankingLoss
from graphmeta.nn.losses.negatives import PerSampleNegatives, in_batch_targets, uniform
from graphmeta.nn.losses.pairwise import Binary
from graphmeta.nn.readout import Last
from graphmeta.published.parts import loss_by_name
from graphmeta.published.registry import published
from graphmeta.recommender import Recommender
from graphmeta.sampling.samples import whole_sessions
from graphmeta.system import System


@published("Covington et al. 2016, YouTube DNN", family="sequence", equations="section 3")
def youtube_dnn(
    items: EntityTable,
    *,
    width: int = 64,
    tower: Sequence[int] = (),
    loss: str = "hinge",
    negatives: int = 1,
) -> System:
    """YouTube DNN: the mean of the clicks so far, by itself or through a tower of ReLU layers; dot product.

    ``u_t = Σ_{i ≤ t} e_i / (t + 1)``, score_i = u_t · e_i + b_i.

    Args:
        width: of item vectors; tower: widths of the ReLU layers; the last one is scored against a table of its own.
        loss: ``cross_entropy`` over the whole catalogue, or one of :data:`~graphmeta.nn.losses.pairwise.RANKING`
            against ``negatives`` of the batch's targets, drawn for each click outside its user's history.

    Source: Covington, Adams & Sargin 2016, Deep Neural Networks for YouTube Recommendations, section 3; without a
    tower as the session papers run it, with Spotlight.
    Differs: clicks alone, no searches, geography or age of the example.
    """
    layers = [part for sizes in pairwise((width, *tower)) for part in (nn.Linear(*sizes), nn.ReLU())]
    head = Dot(Last(), nn.Sequential(*layers), bias=True)
    features = (
        UntiedFeatures(len(items), width, scored=tower[-1], bias=True)
        if tower
        else ItemFeatures(len(items), width, bias=True)
    )
    return _at_every_click(Recommender(features, RunningMean(), head), items, loss=loss, negatives=negatives)


@dataclass(frozen=True)
class Convolutions:
    """See :class:`~graphmeta.nn.encoders.convolution.CausalConvStack`."""

    layers: int = 1
    kernel: int = 3
    multiplier: int = 1
    residual: bool = True
    activation: str = "tanh"
    gated: bool = False


@published("van den Oord et al. 2016, WaveNet", family="sequence", equations="section 2")
def wavenet(
    items: EntityTable,
    *,
    width: int = 64,
    convolutions: Convolutions = Convolutions(),
    loss: str = "hinge",
    negatives: int = 1,
) -> System:
    """WaveNet CNN: causal, dilated convolutions over the clicks; dot product with the state of the last.

    ``h_t = act(Σ_j W_j x_{t − j·dilation} + b) + x_t`` a layer, score_i = h_t · e_i + b_i.

    Args:
        width: of items and states; convolutions: of :class:`~graphmeta.nn.encoders.convolution.CausalConvStack`.
        loss, negatives: see :func:`youtube_dnn`.

    Source: van den Oord et al. 2016, WaveNet; as a recommender in Spotlight (Kula 2017).
    Differs: what lies before the first click is zero in every layer.
    """
    encoder = CausalConvStack(width, **asdict(convolutions))
    recommender = Recommender(ItemFeatures(len(items), width, bias=True), encoder, Dot(Last(), bias=True))
    return _at_every_click(recommender, items, loss=loss, negatives=negatives)


def _at_every_click(recommender: Recommender, items: EntityTable, *, loss: str, negatives: int) -> System:
    """The system that learns the next click after every click."""
    scaled_normal_(recommender)
    one = loss_by_name(loss, PerSampleNegatives(in_batch_targets, count=negatives))
    return System(recommender, items, loss=AllPositions(one), samples=whole_sessions)


@dataclass(frozen=True)
class Filters:
    """See :class:`~graphmeta.nn.encoders.convolution.RecentPatterns`."""

    length: int = 5
    horizontal: int = 16
    vertical: int = 4
    dropout: float = 0.5


@published("Tang & Wang 2018, Caser", family="sequence", equations="3-10")
def caser(
    items: EntityTable,
    *,
    users: EntityTable | None = None,
    width: int = 50,
    filters: Filters = Filters(),
    ahead: int = 3,
    negatives: int = 3,
) -> System:
    """Caser: filters across the last clicks as an image, beside the user's vector; each item has a second vector.

    ``score_i = [z ; P_u] · W'_i + b'_i``, or ``z · W'_i + b'_i`` if users are not known.

    Args:
        users: whose vectors P_u are learned; unknown ones are zeros.
        width: d; filters: of :class:`~graphmeta.nn.encoders.convolution.RecentPatterns`.
        ahead: T, how many of the following clicks are targets; negatives: items drawn against each of them.

    Source: Tang & Wang, Personalized Top-N Sequential Recommendation via Convolutional Sequence Embedding, WSDM
    2018, eqs 3–10.
    Differs: sessions in place of a user's whole history, so that a session's first clicks are targets too, with
    fewer clicks known; the public code draws its three negatives for all targets of a window together.
    """
    patterns = RecentPatterns(width, **asdict(filters))
    encoder = patterns if users is None else ConcatenatedEncoders(patterns, UserStates(len(users), width))
    features = UntiedFeatures(len(items), width, scored=width if users is None else 2 * width, bias=True)
    recommender = Recommender(features, encoder, Dot(Last(), bias=True))
    scaled_normal_(recommender)
    loss = AllPositions(RankingLoss(Binary(), PerSampleNegatives(uniform, count=negatives)), ahead=ahead)
    return System(recommender, items, users=users, loss=loss, samples=whole_sessions)


@published("Rendle et al. 2009, BPR-MF", family="sequence", equations="section 4")
def bpr_mf(items: EntityTable, *, users: EntityTable, width: int = 32, negatives: int = 1) -> System:
    """BPR-MF: a user's vector against the items'; what was clicked just now has no say.

    ``score_i = p_u · q_i + b_i``; a user whom nobody knows is a vector of zeros, so the biases alone rank.

    Args:
        width: of users and items; negatives: items drawn for each click, uniformly outside the user's history.

    Source: Rendle et al., BPR: Bayesian Personalized Ranking from Implicit Feedback, UAI 2009.
    Differs: the user's own bias is left out, which neither ranking nor loss would notice; a session's first click
    is no target, as for every system here.
    """
    recommender = Recommender(
        ItemFeatures(len(items), width, bias=True), UserStates(len(users), width), Dot(Last(), bias=True)
    )
    scaled_normal_(recommender)
    one = loss_by_name("bpr", PerSampleNegatives(uniform, count=negatives))
    return System(recommender, items, users=users, loss=AllPositions(one), samples=whole_sessions)
