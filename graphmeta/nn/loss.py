"""How wrong a sample's scores are: ``(head, states, batch, candidates) -> [number of real samples]``."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from graphmeta.batch import real_samples
from graphmeta.nn.head import Dot


class SoftmaxLoss(nn.Module):
    """Cross-entropy of the target against the whole catalogue: ``−log softmax(scores)_target``.

    With a :class:`~graphmeta.nn.head.Dot` head the rows are scored ``rows`` at a time: 100 rows of 43,097 scores
    stay in the cache, 500 do not.

    Shapes: returns one loss for each real sample, in order, ``[S]``.
    """

    def __init__(self, *, rows: int = 128) -> None:
        super().__init__()
        self.rows = rows

    def forward(self, head: nn.Module, states: Tensor, batch: HeteroData, candidates: Tensor) -> Tensor:
        """The losses."""
        target = real_samples(batch, batch["sample"].target)
        if not isinstance(head, Dot) or type(candidates) not in (Tensor, nn.Parameter):
            scores = real_samples(batch, head(states, batch, candidates))
            return F.cross_entropy(scores, target, reduction="none")
        query = real_samples(batch, head.query(states, batch))
        parts = zip(query.split(self.rows), target.split(self.rows), strict=True)
        losses = [F.cross_entropy(F.linear(q, candidates), t, reduction="none") for q, t in parts]
        return losses[0] if len(losses) == 1 else torch.cat(losses)
