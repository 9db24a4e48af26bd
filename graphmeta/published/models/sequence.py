"""Sequential recommenders and user-based ones: the baselines of the session papers."""

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
from graphmeta.nn.losses.losses import AllPositions
from graphmeta.nn.losses.negatives import PerSampleNegatives, in_batch_targets, uniform
from graphmeta.nn.losses.pairwise import Binary, Bpr, Hinge
from graphmeta.nn.readout import Last
from graphmeta.protocols import Objective
from graphmeta.published.registry import published
from graphmeta.published.unread import FULL_SOFTMAX
from graphmeta.recommender import Recommender
from graphmeta.sampling.samples import whole_sessions
from graphmeta.system import System


@published("Covington et al. 2016, YouTube DNN", family="sequence", equations="section 3", unread=(FULL_SOFTMAX,))
def youtube_dnn(
    items: EntityTable,
    *,
    width: int = 64,
    tower: Sequence[int] = (),
    loss: Objective = Hinge(),
    negatives: int = 1,
) -> System:
    """YouTube DNN: the mean of the clicks so far, optionally through a tower of ReLU layers; dot product.

    ``u_t = Σ_{i ≤ t} e_i / (t + 1)``, score_i = u_t · e_i + b_i.

    Args:
        width: of item vectors.
        tower: widths of the ReLU layers; the last one is scored against a separate item table.
        loss: ``CrossEntropy()`` over the whole catalogue, or another of :mod:`graphmeta.nn.losses.pairwise`
            against ``negatives`` in-batch targets, sampled per click outside the user's history.

    Source: Covington, Adams & Sargin 2016, Deep Neural Networks for YouTube Recommendations, section 3; without a
    tower as the session papers run it, with Spotlight.
    Differs: clicks only, no searches, geography or age of the example.
    """
    layers = [part for sizes in pairwise((width, *tower)) for part in (nn.Linear(*sizes), nn.ReLU())]
    head = Dot(Last(), nn.Sequential(*layers), bias=True)
    features = (
        UntiedFeatures(len(items), width, scored=tower[-1], bias=True)
        if tower
        else ItemFeatures(len(items), width, bias=True)
    )
    return _all_positions_system(Recommender(features, RunningMean(), head), items, loss=loss, negatives=negatives)


@dataclass(frozen=True)
class Convolutions:
    """See :class:`~graphmeta.nn.encoders.convolution.CausalConvStack`."""

    layers: int = 4
    kernel: int = 2
    cycle: int = 4


@published(
    "van den Oord et al. 2016, WaveNet", family="sequence", equations="2, sections 2.1-2.4", unread=(FULL_SOFTMAX,)
)
def wavenet(
    items: EntityTable,
    *,
    width: int = 64,
    convolutions: Convolutions = Convolutions(),
    loss: Objective = Hinge(),
    negatives: int = 1,
) -> System:
    """WaveNet CNN: gated, dilated, causal convolutions over the clicks with skip connections; dot product.

    ``z^l = tanh(V_l * h^l) ⊙ σ(U_l * h^l)``, ``h^{l+1}_t = h^l_t + R_l z^l_t``, ``q_t = ReLU(W ReLU(Σ_l S_l z^l_t))``
    (biases left out), score_i = q_t · e_i + b_i.

    Args:
        width: of items and states.
        convolutions: of :class:`~graphmeta.nn.encoders.convolution.CausalConvStack`.
        loss, negatives: see :func:`youtube_dnn`.

    Source: van den Oord et al. 2016, WaveNet: A Generative Model for Raw Audio, sections 2.1–2.4 and eq 2.
    Differs: items instead of quantised audio, and one table for input and output; four layers reach 16 clicks back,
    where the paper repeats dilations 1 to 512; no conditioning. As a baseline of session papers, Spotlight (Kula 2017)
    has ungated convolutions without skip connections under the same name.
    """
    encoder = CausalConvStack(width, **vars(convolutions))
    recommender = Recommender(ItemFeatures(len(items), width, bias=True), encoder, Dot(Last(), bias=True))
    return _all_positions_system(recommender, items, loss=loss, negatives=negatives)


def _all_positions_system(recommender: Recommender, items: EntityTable, *, loss: Objective, negatives: int) -> System:
    """A system trained to predict the next click at all positions."""
    scaled_normal_(recommender)
    one = loss.against(PerSampleNegatives(in_batch_targets, count=negatives))
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
    """Caser: convolution filters over the last clicks as an image, concatenated with the user vector; untied output
    table.

    ``score_i = [z ; P_u] · W'_i + b'_i``, or ``z · W'_i + b'_i`` without users.

    Args:
        users: whose vectors P_u are learned; unknown users have zero vectors.
        width: d.
        filters: of :class:`~graphmeta.nn.encoders.convolution.RecentPatterns`.
        ahead: T, number of following clicks that are targets.
        negatives: items sampled per target.

    Source: Tang & Wang, Personalized Top-N Sequential Recommendation via Convolutional Sequence Embedding, WSDM
    2018, eqs 3–10.
    Differs: sessions instead of a user's whole history, so that a session's first clicks are targets too, with shorter
    contexts; the public code samples its three negatives for all targets of a window together.
    """
    patterns = RecentPatterns(width, **asdict(filters))
    encoder = patterns if users is None else ConcatenatedEncoders(patterns, UserStates(len(users), width))
    features = UntiedFeatures(len(items), width, scored=width if users is None else 2 * width, bias=True)
    recommender = Recommender(features, encoder, Dot(Last(), bias=True))
    scaled_normal_(recommender)
    loss = AllPositions(Binary().against(PerSampleNegatives(uniform, count=negatives)), ahead=ahead)
    return System(recommender, items, users=users, loss=loss, samples=whole_sessions)


@published("Rendle et al. 2009, BPR-MF", family="sequence", equations="section 4")
def bpr_mf(items: EntityTable, *, users: EntityTable, width: int = 32, negatives: int = 1) -> System:
    """BPR-MF: dot product of user and item vectors; ignores the session's clicks.

    ``score_i = p_u · q_i + b_i``; unknown users have a zero vector, so they are ranked by the biases alone.

    Args:
        width: of users and items.
        negatives: items sampled per click, uniformly outside the user's history.

    Source: Rendle et al., BPR: Bayesian Personalized Ranking from Implicit Feedback, UAI 2009.
    Differs: no user bias, which changes neither ranking nor loss; a session's first click is no target, while the paper
    learns from every event (:func:`~graphmeta.published.models.streaming.mf` does).
    """
    recommender = Recommender(
        ItemFeatures(len(items), width, bias=True), UserStates(len(users), width), Dot(Last(), bias=True)
    )
    scaled_normal_(recommender)
    one = Bpr().against(PerSampleNegatives(uniform, count=negatives))
    return System(recommender, items, users=users, loss=AllPositions(one), samples=whole_sessions)
