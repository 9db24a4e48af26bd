"""What several published systems are composed with."""

from __future__ import annotations

from torch import nn

from graphmeta.errors import InputError
from graphmeta.nn.loss import RankingLoss, SoftmaxLoss
from graphmeta.nn.ranking import RANKING


def loss_called(name: str, negatives: nn.Module) -> nn.Module:
    """The loss of that name: the full softmax, or a comparison with the negatives.

    Raises:
        InputError: no loss is called so.
    """
    if name == "cross_entropy":
        return SoftmaxLoss()
    if name not in RANKING:
        raise InputError(f"no loss is called {name!r}; there are cross_entropy, {', '.join(RANKING)}")
    return RankingLoss(RANKING[name](), negatives)
