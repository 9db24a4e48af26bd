"""Item vectors of unit length, so that how often an item is clicked does not show in how long its vector is."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class UnitFeatures(nn.Module):
    """Other features, each vector after dropout divided by its length: ``x / ‖x‖``.

    Candidates stay as they are: :class:`~graphmeta.nn.heads.dot.Cosine` divides them by their lengths itself.

    Args:
        features: what gives the vectors; dropout: of their entries.

    Shapes: ``n_id [I] -> (x [I, F], candidates [C, D])``. Source: NISER+ (Gupta et al. 2019).
    Differs: dropout comes first, so that the encoder reads unit vectors in training too.
    """

    def __init__(self, features: nn.Module, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.features, self.dropout = features, nn.Dropout(dropout)

    def forward(self, n_id: Tensor) -> tuple[Tensor, Tensor]:
        """Unit vectors of these items, and the candidates."""
        x, candidates = self.features(n_id)
        return F.normalize(self.dropout(x)), candidates
