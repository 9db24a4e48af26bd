"""Recommenders in service, retrained every period: on everything, on what is new, with a reservoir, or by transfer.

Each is another system of the catalogue (``base``, matrix factors if nothing is said) with a strategy of
:mod:`graphmeta.retrain` as its ``retraining``, for :func:`graphmeta.retrain.stream.stream`; a training by itself does
not look at it. Any system goes through a stream so: without a strategy of its own, as under :func:`full_retrain`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial

from graphmeta.data.tables import EntityTable
from graphmeta.nn.encoders.attention import Clicks
from graphmeta.nn.features.tables import ItemFeatures, scaled_normal_
from graphmeta.nn.heads.dot import Dot
from graphmeta.nn.losses.negatives import PerSampleNegatives, UniformSeen
from graphmeta.nn.readout import UserEmbedding
from graphmeta.published.parts import copied, loss_by_name
from graphmeta.published.registry import published
from graphmeta.recommender import Recommender
from graphmeta.retrain.strategy import FineTune, Full, Reservoir, Strategy
from graphmeta.retrain.transfer import Transfer
from graphmeta.retrain.transfer_net import TransferNet
from graphmeta.sampling.histories import all_positions
from graphmeta.system import System


@published("Zhang et al. 2020, SML (base)", family="streaming")
def mf(items: EntityTable, *, users: EntityTable, width: int = 64, loss: str = "binary", negatives: int = 1) -> System:
    """Matrix factors without biases: ``score_i = p_u · q_i``; every click is a target, the first of a session too.

    ``−log σ(p_u·q_i) − log σ(−p_u·q_j)``, j drawn uniformly among the items that have appeared and u has not clicked.

    Args:
        users: whose vectors are learned; unknown ones are zeros. width: d.
        loss: ``binary``, ``bpr`` or another of :data:`~graphmeta.nn.losses.pairwise.RANKING`; negatives: drawn for each
            click.

    Source: Zhang et al., How to Retrain Recommender System? A Sequential Meta-Learning Method, SIGIR 2020 (its base).
    Differs: no L2 term but that of a strategy.
    """
    recommender = Recommender(ItemFeatures(len(items), width), Clicks(), Dot(UserEmbedding(len(users), width)))
    scaled_normal_(recommender)
    one = loss_by_name(loss, PerSampleNegatives(UniformSeen(), count=negatives))
    return System(recommender, items, users=users, loss=one, samples=all_positions, limits={"max_length": 0})


@published("Zhang et al. 2020, SML (baseline)", family="streaming", adapts="nothing; retrained", base="mf")
def full_retrain(
    base: System,
    *,
    epochs: int = 5,
    batch_size: int = 256,
    from_scratch: bool = False,
) -> System:
    """All events so far, every period, from the last weights or from scratch.

    Args:
        base: what is retrained, which stays as it is; ``mf`` in the paper.

    Source: Zhang et al. 2020, baseline; :class:`~graphmeta.retrain.strategy.Full`.
    """
    return _served(base, Full(epochs, batch_size, from_scratch=from_scratch))


@published("Zhang et al. 2020, SML (baseline)", family="streaming", adapts="nothing; retrained", base="mf")
def fine_tune(
    base: System,
    *,
    epochs: int = 5,
    batch_size: int = 64,
) -> System:
    """The new period's events alone, from the last weights.

    Args:
        base: what is retrained, which stays as it is; ``mf`` in the paper.

    Source: Zhang et al. 2020, baseline; :class:`~graphmeta.retrain.strategy.FineTune`.
    """
    return _served(base, FineTune(epochs, batch_size))


@published("Wang et al. 2018, SPMF", family="streaming", adapts="nothing; retrained", base="mf")
def spmf(
    base: System,
    *,
    size: int = 7000,
    epochs: int = 5,
    batch_size: int = 64,
) -> System:
    """SPMF: the new period's events and a reservoir of earlier ones, those most often that the model finds unlikely.

    Args:
        base: what is retrained, which stays as it is; ``mf(items, users=users, loss="bpr")`` is the original's.
        size: of the reservoir.

    Source: Wang et al., Streaming Ranking Based Recommender Systems, SIGIR 2018, as Zhang et al. 2020 run it;
    :class:`~graphmeta.retrain.strategy.Reservoir`.
    """
    strategy = Reservoir(size, epochs, batch_size)
    return _served(base, strategy)


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
    restart_from: str = "retrained",
    net: TransferOptions = TransferOptions(),
) -> System:
    """SML: a network for each table of vectors, learned on the way, combines the last weights with the new period's.

    Args:
        base: what is retrained, which stays as it is; ``mf`` in the paper.
        rounds: steps of both kinds a period; epochs: of each; offline: periods of the stream taken in offline.
        warm_up: epochs of the networks on what came before the stream; as printed there is none, which takes far more
            than some thousand events a period: see RESULTS.md.
        restart_from: ``hat`` as printed, ``transferred`` as in the public code.
        net: options of :class:`~graphmeta.retrain.transfer_net.TransferNet`.

    Source: Zhang et al. 2020, equations 3–8, algorithms 1 and 2; :class:`~graphmeta.retrain.transfer.Transfer`.
    """
    made = partial(TransferNet, **asdict(net))
    strategy = Transfer(
        net=made, rounds=rounds, epochs=epochs, offline=offline, warm_up=warm_up, restart_from=restart_from
    )
    return _served(base, strategy)


def _served(base: System, strategy: Strategy) -> System:
    system = copied(base)
    system.retraining = strategy
    return system
