"""Soft clusters of sessions, and layers conditioned on them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral

import torch
from torch import Tensor, nn

from graphmeta.errors import InputError
from graphmeta.nn.conditioning.gate import Gates


def _check(clusters: int) -> None:
    if not isinstance(clusters, Integral) or clusters < 1:
        raise InputError(f"clusters={clusters!r} must be a whole number, 1 or more")


class Prototypes(nn.Module):
    """Mean of learned centres, weighted by their similarity to a session: ``p = softmax(q·g)``, ``C = Σ_k p_k g_k``.

    Shapes: ``[S, width] -> [S, code]``. Source: CBML eqs 9–11; similarity is the inner product of ``q = W_q S + b_q``
    with a centre, and the centres are ordinary parameters.
    """

    not_adapted = ("",)  # they identify a task

    def __init__(self, width: int, code: int, *, clusters: int = 8) -> None:
        super().__init__()
        _check(clusters)
        self.query = nn.Linear(width, code)
        self.centres = nn.Parameter(torch.randn(clusters, code) / math.sqrt(code))

    def assignment(self, session: Tensor) -> Tensor:
        """Soft assignment of each session to clusters, ``[S, clusters]``, rows sum to 1."""
        return torch.softmax(torch.matmul(self.query(session), self.centres.t()), 1)

    def forward(self, session: Tensor) -> Tensor:
        """The cluster vector of each session."""
        return torch.matmul(self.assignment(session), self.centres)


class Clustered(nn.Linear):
    """A linear layer over a session and its cluster: ``W [S ; C(S)] + b``.

    Shapes: ``[S, width] -> [S, out]``, C of the same size as ``out``. Source: CBML eq 15.
    """

    def __init__(self, width: int, out: int, *, clusters: int = 8) -> None:
        super().__init__(width + out, out)
        self.prototypes = Prototypes(width, out, clusters=clusters)

    def reads(self, session: Tensor) -> Tensor:
        """``[S ; C]``."""
        return torch.cat([session, self.prototypes(session)], 1)

    def forward(self, session: Tensor) -> Tensor:
        """One vector per session."""
        return super().forward(self.reads(session))


class SampleGated(Clustered):
    """:class:`Clustered` with weights gated per sample: ``(W · o_W(x)) x + b · o_b(x)``, ``x = [S ; C]``.

    Memory is samples times weights.

    Args:
        gate: gates without weights, of the width of their input.
        part: the entries of x that they read.
    """

    not_adapted = ("gate",)  # it identifies a task

    def __init__(self, width: int, out: int, *, gate: Gates, part: slice, clusters: int = 8) -> None:
        super().__init__(width, out, clusters=clusters)
        self.gate, self.part = gate, part
        gate.add("weight", self.weight)
        gate.add("bias", self.bias)

    def forward(self, session: Tensor) -> Tensor:
        """One vector per sample."""
        x = self.reads(session)
        weight = self.gate.of("weight", self.weight, x[:, self.part])
        return torch.matmul(weight, x[:, :, None]).squeeze(2) + self.gate.of("bias", self.bias, x[:, self.part])


@dataclass(frozen=True, eq=False)
class Assignment:
    """Soft memberships of users in K clusters.

    Args:
        vectors: the user vectors that were clustered, ``[S, width]``.
        membership: ``[S, K]``, rows sum to 1.
        errors: the reconstruction errors ε, ``[S, K]``.
    """

    vectors: Tensor
    membership: Tensor
    errors: Tensor

    @property
    def cluster(self) -> Tensor:
        """The cluster of each user's largest membership, ``[S]``."""
        return self.membership.argmax(1)

    @property
    def sizes(self) -> list[int]:
        """Users by cluster, each in that of their largest membership."""
        return torch.bincount(self.cluster, minlength=self.membership.shape[1]).tolist()

    @property
    def shares(self) -> list[float]:
        """Mean membership by cluster; they sum to 1."""
        return self.membership.mean(0).tolist()

    @property
    def largest_membership(self) -> float:
        """Mean over users of the largest membership: 1 for hard clusters, 1 / K if all clusters are equal."""
        return float(self.membership.amax(1).mean())

    @property
    def distinct(self) -> float:
        """The effective number of clusters: the exponential of the mutual information of users and clusters.

        K if each user belongs to one of K clusters of equal size; 1 if all users are in one cluster, or if all have the
        same memberships.
        """
        mean = self.membership.mean(0)
        return float((_entropy(mean) - _entropy(self.membership).mean()).exp())


def _entropy(share: Tensor) -> Tensor:
    return -torch.special.xlogy(share, share).sum(-1)


class Autoencoders(nn.Module):
    """K autoencoders as clusters: x belongs to the cluster whose autoencoder reconstructs it best.

    ``ε_k = ‖x − AE_k(x)‖² / width``, membership ``p = softmax(−ε / τ)`` (τ = 0: hard assignment), and the code is
    ``Σ_k p_k Enc_k(x)``. AE_k is width → hidden → code → hidden → width with ReLU inside.

    Args:
        code: width of the code.
        clusters: K.
        temperature: τ.

    Shapes: ``[S, width] -> [S, code]``.
    Source: K-autoencoders (Opochinsky et al. 2020) for the membership by error; the soft form is ours.
    """

    def __init__(
        self, width: int, code: int, *, hidden: int | None = None, clusters: int = 5, temperature: float = 0.1
    ) -> None:
        super().__init__()
        _check(clusters)
        hidden = 2 * code if hidden is None else hidden
        self.temperature = temperature
        sizes = [width, hidden, code, hidden, width]
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for one, other in zip(sizes, sizes[1:], strict=False):
            bound = 1 / math.sqrt(one)
            self.weights.append(nn.Parameter(torch.empty(clusters, one, other).uniform_(-bound, bound)))
            self.biases.append(nn.Parameter(torch.empty(clusters, 1, other).uniform_(-bound, bound)))

    def encode(self, x: Tensor) -> Tensor:
        """Codes of all encoders, ``[S, width] -> [K, S, code]``."""
        return self._layer(torch.relu(self._layer(x, 0)), 1)

    def errors(self, x: Tensor, codes: Tensor | None = None) -> Tensor:
        """Reconstruction errors ε, ``[S, K]``."""
        inner = torch.relu(self._layer(self.encode(x) if codes is None else codes, 2))
        return (self._layer(inner, 3) - x).square().mean(2).t()

    def membership(self, errors: Tensor) -> Tensor:
        """Soft cluster membership, ``[S, K]``, rows sum to 1."""
        if self.temperature == 0:
            return torch.zeros_like(errors).scatter(1, errors.argmin(1, keepdim=True), 1.0)
        return torch.softmax(-errors / self.temperature, 1)

    def assigned(self, x: Tensor) -> Assignment:
        """Cluster memberships of the rows of x."""
        errors = self.errors(x)
        return Assignment(x, self.membership(errors), errors)

    def forward(self, x: Tensor) -> Tensor:
        """The codes."""
        codes = self.encode(x)
        return torch.einsum("sk,ksc->sc", self.membership(self.errors(x, codes)), codes)

    def loss(self, x: Tensor, *, balance: float = 0.1) -> Tensor:
        """``mean_u Σ_k p_uk ε_uk + λ KL(mean_u p_u ‖ uniform)``: reconstruction and cluster balance, a scalar.

        Args:
            balance: λ.
        """
        errors = self.errors(x)
        share = self.membership(errors)
        mean = share.mean(0)
        spread = torch.special.xlogy(mean, mean * len(mean)).sum()
        return (share * errors).sum(1).mean() + balance * spread

    def _layer(self, x: Tensor, number: int) -> Tensor:
        return torch.matmul(x, self.weights[number]) + self.biases[number]
