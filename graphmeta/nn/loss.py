"""How wrong a sample's scores are: ``(head, states, batch, candidates) -> [number of real samples]``."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from graphmeta.batch import real_samples


class SoftmaxLoss(nn.Module):
    """Cross-entropy of the target against the whole catalogue: ``−log softmax(scores)_target``.

    A head that has a ``cross_entropy`` of its own (:class:`~graphmeta.nn.head.Dot`,
    :class:`~graphmeta.nn.target.TargetAttention`) is asked for it: it need not write all scores down.

    Shapes: returns one loss for each real sample, in order, ``[S]``.
    """

    def forward(self, head: nn.Module, states: Tensor, batch: HeteroData, candidates: Tensor) -> Tensor:
        """The losses."""
        if _has_cross_entropy(head) and type(candidates) in (Tensor, nn.Parameter):
            return head.cross_entropy(states, batch, candidates)  # pyright: ignore[reportCallIssue]
        scores = real_samples(batch, head(states, batch, candidates))
        return F.cross_entropy(scores, real_samples(batch, batch["sample"].target), reduction="none")


def _has_cross_entropy(head: nn.Module) -> bool:
    """Whether the class that says how the head scores also says what their cross-entropy is."""
    scorer = next(cls for cls in type(head).__mro__ if "forward" in vars(cls))
    return "cross_entropy" in vars(scorer)
