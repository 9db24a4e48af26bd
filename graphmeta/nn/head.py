"""From the states of clicks to scores of candidates: ``(states [E, D], batch, candidates [C, D']) -> [S, C]``."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from graphmeta.batch import real_samples
from graphmeta.nn.scoring import score_cross_entropy


class Dot(nn.Module):
    """Score = inner product of the sample's query vector with the candidate: ``project(readout(h)) · e_i``.

    Shapes: states ``[E, D]``, candidates ``[C, D']`` -> ``[S, C]``.
    """

    def __init__(self, readout: nn.Module, project: nn.Module | None = None) -> None:
        super().__init__()
        self.readout = readout
        self.project = nn.Identity() if project is None else project

    def query(self, states: Tensor, batch: HeteroData) -> Tensor:
        """The query vectors ``[S, D']``."""
        return self.project(self.readout(states, batch))

    def forward(self, states: Tensor, batch: HeteroData, candidates: Tensor) -> Tensor:
        """Scores of all candidates for all samples."""
        return F.linear(self.query(states, batch), candidates)

    def cross_entropy(self, states: Tensor, batch: HeteroData, candidates: Tensor) -> Tensor:
        """``cross_entropy(scores, target)`` of the real samples."""
        query = real_samples(batch, self.query(states, batch))
        return score_cross_entropy(query, candidates, real_samples(batch, batch["sample"].target))
