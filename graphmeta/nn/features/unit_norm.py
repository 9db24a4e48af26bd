"""Unit-norm item vectors, which do not encode item popularity in their length."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class UnitFeatures(nn.Module):
    """L2-normalises the vectors of other features after dropout: ``x / ‖x‖``.

    Candidates are unchanged: :class:`~graphmeta.nn.heads.dot.Cosine` normalises them itself.

    Args:
        features: the wrapped module.
        dropout: of vector entries.

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
