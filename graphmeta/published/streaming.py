"""Recommenders in service, retrained every period: on everything, on what is new, with a reservoir, or by transfer.

Each is another system of the catalogue (``base``, matrix factors if nothing is said) with a strategy of
:mod:`graphmeta.retrain` as its ``retraining``, for :func:`graphmeta.retrain.stream.stream`; a training by itself does
not look at it. Any system goes through a stream so: without a strategy of its own, as under :func:`full_retrain`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from graphmeta.data.tables import EntityTable
from graphmeta.nn.encoders.attention import Clicks
from graphmeta.nn.features.tables import ItemFeatures, scaled_normal_
from graphmeta.nn.heads.dot import Dot
from graphmeta.nn.losses.negatives import AmongSeen, OwnNegatives
from graphmeta.nn.readout import OfUser
from graphmeta.published.parts import Base, base_system, loss_called
from graphmeta.published.recipe import recorded
from graphmeta.recommender import Recommender
from graphmeta.retrain.strategy import FineTune, Full, Reservoir, Strategy
from graphmeta.retrain.transfer import Transfer
from graphmeta.retrain.transfer_net import TransferNet
from graphmeta.sampling.histories import all_positions
from graphmeta.system import System


@recorded
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
    recommender = Recommender(ItemFeatures(len(items), width), Clicks(), Dot(OfUser(len(users), width)))
    scaled_normal_(recommender)
    one = loss_called(loss, OwnNegatives(AmongSeen(), count=negatives))
    return System(recommender, items, users=users, loss=one, samples=all_positions, max_length=0)


@recorded
def full_retrain(
    items: EntityTable,
    *,
    users: EntityTable | None = None,
    width: int = 64,
    base: Base = "mf",
    epochs: int = 5,
    batch_size: int = 256,
    from_scratch: bool = False,
    options: dict[str, Any] | None = None,
) -> System:
    """All events so far, every period, from the last weights or from scratch.

    Args:
        users: for bases that know them; base: a name in the catalogue; options: its arguments besides ``width``.

    Source: Zhang et al. 2020, baseline; :class:`~graphmeta.retrain.strategy.Full`.
    """
    return _served(
        base_system(base, items, users=users, width=width, options=options),
        Full(epochs, batch_size, from_scratch=from_scratch),
    )


@recorded
def fine_tune(
    items: EntityTable,
    *,
    users: EntityTable | None = None,
    width: int = 64,
    base: Base = "mf",
    epochs: int = 5,
    batch_size: int = 64,
    options: dict[str, Any] | None = None,
) -> System:
    """The new period's events alone, from the last weights.

    Args:
        users: for bases that know them; base: a name in the catalogue; options: its arguments besides ``width``.

    Source: Zhang et al. 2020, baseline; :class:`~graphmeta.retrain.strategy.FineTune`.
    """
    return _served(base_system(base, items, users=users, width=width, options=options), FineTune(epochs, batch_size))


@recorded
def spmf(
    items: EntityTable,
    *,
    users: EntityTable | None = None,
    width: int = 64,
    base: Base = "mf",
    size: int = 7000,
    epochs: int = 5,
    batch_size: int = 64,
    options: dict[str, Any] | None = None,
) -> System:
    """SPMF: the new period's events and a reservoir of earlier ones, those most often that the model finds unlikely.

    Args:
        users: for bases that know them; base: a name in the catalogue; options: its arguments besides ``width``,
            e.g. ``{"loss": "bpr"}``, which is that of the original.
        size: of the reservoir.

    Source: Wang et al., Streaming Ranking Based Recommender Systems, SIGIR 2018, as Zhang et al. 2020 run it;
    :class:`~graphmeta.retrain.strategy.Reservoir`.
    """
    strategy = Reservoir(size, epochs, batch_size)
    return _served(base_system(base, items, users=users, width=width, options=options), strategy)


@recorded
def sml(
    items: EntityTable,
    *,
    users: EntityTable | None = None,
    width: int = 64,
    base: Base = "mf",
    phases: int = 10,
    epochs: int = 1,
    offline: int = 20,
    warm_up: int = 0,
    hidden: int = 512,
    detach_dot: bool = True,
    residual: bool = False,
    restart_from: str = "hat",
    options: dict[str, Any] | None = None,
) -> System:
    """SML: a network for each table of vectors, learned on the way, combines the last weights with the new period's.

    Args:
        users: for bases that know them; base: a name in the catalogue; options: its arguments besides ``width``.
        phases: steps of both kinds a period; epochs: of each; offline: periods of the stream taken in offline.
        warm_up: epochs of the networks on what came before the stream; as printed there is none, which takes far more
            than some thousand events a period: see RESULTS.md.
        hidden, detach_dot, residual: see :class:`~graphmeta.retrain.transfer_net.TransferNet`.
        restart_from: ``hat`` as printed, ``transferred`` as in the public code.

    Source: Zhang et al. 2020, equations 3–8, algorithms 1 and 2; :class:`~graphmeta.retrain.transfer.Transfer`.
    """
    net = partial(TransferNet, hidden=hidden, detach_dot=detach_dot, residual=residual)
    strategy = Transfer(
        net=net, phases=phases, epochs=epochs, offline=offline, warm_up=warm_up, restart_from=restart_from
    )
    return _served(base_system(base, items, users=users, width=width, options=options), strategy)


def _served(system: System, strategy: Strategy) -> System:
    system.retraining = strategy
    return system
