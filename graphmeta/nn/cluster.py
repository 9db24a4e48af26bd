"""Soft clusters of sessions."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Prototypes(nn.Module):
    """The mean of learned centres, weighed by how close a session is: ``p = softmax(q·g)``, ``C = Σ_k p_k g_k``.

    Shapes: ``[S, width] -> [S, code]``. Source: CBML eqs 9–11; closeness is the inner product of ``q = W_q S + b_q``
    with a centre, and the centres are ordinary parameters.
    """

    def __init__(self, width: int, code: int, *, clusters: int = 8) -> None:
        super().__init__()
        self.ask = nn.Linear(width, code)
        self.centres = nn.Parameter(torch.randn(clusters, code) / math.sqrt(code))

    def assignment(self, session: Tensor) -> Tensor:
        """How much each session belongs to each cluster, ``[S, clusters]``, rows sum to 1."""
        return torch.softmax(torch.matmul(self.ask(session), self.centres.t()), 1)

    def forward(self, session: Tensor) -> Tensor:
        """The centre of each session."""
        return torch.matmul(self.assignment(session), self.centres)
