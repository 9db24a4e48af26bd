"""Base class of heads with their own cross-entropy."""

from __future__ import annotations

from torch import nn

from graphmeta.protocols import NotProducts


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
