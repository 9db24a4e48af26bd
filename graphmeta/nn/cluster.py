"""Soft clusters of sessions, and layers that read them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from graphmeta.nn.gate import Gates


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


class Clustered(nn.Linear):
    """A linear layer that reads a session beside its cluster: ``W [S ; C(S)] + b``.

    Shapes: ``[S, width] -> [S, out]``, C of the same size as ``out``. Source: CBML eq 15.
    """

    def __init__(self, width: int, out: int, *, clusters: int = 8) -> None:
        super().__init__(width + out, out)
        self.prototypes = Prototypes(width, out, clusters=clusters)

    def reads(self, session: Tensor) -> Tensor:
        """``[S ; C]``."""
        return torch.cat([session, self.prototypes(session)], 1)

    def forward(self, session: Tensor) -> Tensor:
        """One vector a session."""
        return super().forward(self.reads(session))


class SampleGated(Clustered):
    """:class:`Clustered`, its weights gated anew for every sample: ``(W · o_W(x)) x + b · o_b(x)``, ``x = [S ; C]``.

    Takes as much memory as samples times weights.

    Args:
        gate: empty gates for what of x they see; part: which entries of x these are.
    """

    def __init__(self, width: int, out: int, *, gate: Gates, part: slice, clusters: int = 8) -> None:
        super().__init__(width, out, clusters=clusters)
        self.gate, self.part = gate, part
        gate.add("weight", self.weight)
        gate.add("bias", self.bias)

    def forward(self, session: Tensor) -> Tensor:
        """One vector a sample."""
        x = self.reads(session)
        weight = self.gate.of("weight", self.weight, x[:, self.part])
        return torch.matmul(weight, x[:, :, None]).squeeze(2) + self.gate.of("bias", self.bias, x[:, self.part])
