"""Retraining strategies for a deployed recommender: full retraining, fine-tuning, a reservoir, or learned transfer.

Each system wraps another one of the catalogue (``base``, matrix factorisation by default) and stores a strategy of
:mod:`graphmeta.retrain` as its ``retraining``, which :func:`graphmeta.retrain.stream.stream` uses; a single training
ignores it. A system without a strategy is retrained as under :func:`full_retrain`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial

from graphmeta.data.tables import EntityTable
from graphmeta.nn.encoders.attention import Clicks
from graphmeta.nn.features.tables import ItemFeatures, scaled_normal_
from graphmeta.nn.heads.dot import Dot
from graphmeta.nn.losses.negatives import PerSampleNegatives, UniformSeen
from graphmeta.nn.losses.pairwise import Binary
from graphmeta.nn.readout import UserEmbedding
from graphmeta.protocols import Objective
from graphmeta.published.parts import copied
from graphmeta.published.registry import published
from graphmeta.published.unread import FULL_SOFTMAX
from graphmeta.recommender import Recommender
from graphmeta.retrain.strategy import FineTune, Full, Reservoir, Strategy
from graphmeta.retrain.transfer import Restart, Retrained, Transfer
from graphmeta.retrain.transfer_net import TransferNet
from graphmeta.sampling.histories import every_event
from graphmeta.system import System


@published("Zhang et al. 2020, SML (base)", family="streaming", unread=(FULL_SOFTMAX,))
def mf(
    items: EntityTable, *, users: EntityTable, width: int = 64, loss: Objective = Binary(), negatives: int = 1
) -> System:
    """Matrix factorisation without biases: ``score_i = p_u · q_i``; every click is a target, including a session's
    first.

    ``−log σ(p_u·q_i) − log σ(−p_u·q_j)``, j sampled uniformly from the items seen so far that u has not clicked.

    Args:
        users: whose vectors are learned; unknown users have zero vectors.
        width: d.
        loss: ``Binary()``, ``Bpr()`` or another of :mod:`graphmeta.nn.losses.pairwise`.
        negatives: sampled per click.

    Source: Zhang et al., How to Retrain Recommender System? A Sequential Meta-Learning Method, SIGIR 2020 (its base).
    Differs: no L2 term except a strategy's.
    """
    recommender = Recommender(ItemFeatures(len(items), width), Clicks(), Dot(UserEmbedding(len(users), width)))
    scaled_normal_(recommender)
    one = loss.against(PerSampleNegatives(UniformSeen(), count=negatives))
    return System(recommender, items, users=users, loss=one, samples=every_event, limits={"max_length": 0})


@published("Zhang et al. 2020, SML (baseline)", family="streaming", adapts="nothing; retrained", base="mf")
def full_retrain(
    base: System,
    *,
    epochs: int = 5,
    batch_size: int = 256,
    from_scratch: bool = False,
) -> System:
    """Retrain on all events so far in every period, from the last period's weights or from the pretrained ones.

    Args:
        base: the retrained system, which is not modified; ``mf`` in the paper.
        epochs, batch_size: of each retraining.
        from_scratch: start each time from the pretrained weights, those before the stream.

    Source: Zhang et al. 2020, baseline; :class:`~graphmeta.retrain.strategy.Full`.
    Differs: any base; no L2 term; five epochs by default, not a hundred.
    """
    return _with_strategy(base, Full(epochs, batch_size, from_scratch=from_scratch))


@published("Zhang et al. 2020, SML (baseline)", family="streaming", adapts="nothing; retrained", base="mf")
def fine_tune(
    base: System,
    *,
    epochs: int = 5,
    batch_size: int = 64,
) -> System:
    """Train on the new period's events only, from the last weights.

    Args:
        base: the retrained system, which is not modified; ``mf`` in the paper.
        epochs, batch_size: of each retraining.

    Source: Zhang et al. 2020, baseline; :class:`~graphmeta.retrain.strategy.FineTune`.
    Differs: any base.
    """
    return _with_strategy(base, FineTune(epochs, batch_size))


@published("Wang et al. 2018, SPMF", family="streaming", adapts="nothing; retrained", base="mf")
def spmf(
    base: System,
    *,
    size: int = 7000,
    epochs: int = 5,
    batch_size: int = 64,
) -> System:
    """SPMF: train on the new period's events and a reservoir of earlier ones, sampling low-scored events more often.

    Args:
        base: the retrained system, which is not modified; the original's is ``mf(items, users=users, loss=Bpr())``.
        size: of the reservoir, in samples.
        epochs, batch_size: of each retraining.

    Source: Wang et al., Streaming Ranking Based Recommender Systems, SIGIR 2018, as Zhang et al. 2020 run it;
    :class:`~graphmeta.retrain.strategy.Reservoir`.
    Differs: any base, by default ``mf`` with the loss of the SML study; the plain reservoir algorithm.
    """
    strategy = Reservoir(size, epochs, batch_size)
    return _with_strategy(base, strategy)


@dataclass(frozen=True)
class TransferOptions:
    """See :class:`~graphmeta.retrain.transfer_net.TransferNet`."""

    hidden: int = 512
    detach_dot: bool = True
    residual: bool = False


@published(
    "Zhang et al. 2020, SML",
    family="streaming",
    equations="3-8, Algorithms 1, 2",
    adapts="the tables, by retraining",
    base="mf",
)
def sml(
    base: System,
    *,
    rounds: int = 10,
    epochs: int = 1,
    offline: int = 20,
    warm_up: int = 0,
    restart_from: Restart = Retrained(),
    net: TransferOptions = TransferOptions(),
) -> System:
    """SML: a transfer network per embedding table combines its last weights with those retrained on the new period.

    Args:
        base: the retrained system, which is not modified; ``mf`` in the paper.
        rounds: alternations of the two steps per period.
        epochs: of each step.
        offline: number of first periods that use the offline algorithm.
        warm_up: epochs of the networks on the data before the stream; 0 as in the paper, which does not suffice with
            a few thousand events per period (RESULTS.md).
        restart_from: ``Retrained()`` as in the paper, ``Transferred()`` as in the public code.
        net: options of :class:`~graphmeta.retrain.transfer_net.TransferNet`.

    Source: Zhang et al. 2020, equations 3–8, algorithms 1 and 2; :class:`~graphmeta.retrain.transfer.Transfer`.
    Differs: any base, with one network per embedding table; ``warm_up`` and ``net.residual`` are ours.
    """
    make_net = partial(TransferNet, **asdict(net))
    strategy = Transfer(
        net=make_net, rounds=rounds, epochs=epochs, offline=offline, warm_up=warm_up, restart_from=restart_from
    )
    return _with_strategy(base, strategy)


def _with_strategy(base: System, strategy: Strategy) -> System:
    system = copied(base)
    system.retraining = strategy
    return system
