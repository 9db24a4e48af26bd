"""Base class of heads with their own cross-entropy."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphmeta.protocols import LearnsItemBias, NotProducts


class ScoringHead(nn.Module):
    """A head with ``forward`` and ``cross_entropy``; a subclass that changes the scores alone has no cross-entropy.

    :class:`~graphmeta.nn.losses.losses.SoftmaxLoss` then takes the cross-entropy of the scores.
    """

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "forward" in vars(cls) and "cross_entropy" not in vars(cls):
            cls.cross_entropy = None


def named(head: nn.Module) -> str:
    """A head's class for a message about heads that score by products, with the reason why its scores are none."""
    return f"{type(head).__name__}{f': {head.no_products}' if isinstance(head, NotProducts) else ''}"


def with_item_bias(head: nn.Module, query: Tensor, *vectors: tuple[Tensor, Tensor]) -> list[Tensor]:
    """The query vectors and vectors of items, whose products include the head's item bias: ``[q ; 1] · [v ; b_i]``.

    Without an item bias they are returned as they are.

    Args:
        vectors: pairs of vectors ``[…, D]`` and their items ``[…]``.

    Shapes: query ``[S, D]`` -> ``[S, D + 1]``, vectors likewise.
    """
    if not isinstance(head, LearnsItemBias) or head.item_bias is None:
        return [query, *(own for own, _ in vectors)]
    bias = head.item_bias
    return [F.pad(query, (0, 1), value=1.0), *(torch.cat([own, bias[items][..., None]], -1) for own, items in vectors)]
