"""Aspects of a user against aspects of an item: how they are read, joined with what others wrote, and matched."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphmeta.nn.cross_domain.text import (
    AspectGate,
    StateConvolution,
    WordConvolution,
    WordVectors,
    aspect_scores,
    attention,
    in_windows,
    pooled,
    uniform,
)


class DocumentAspects(NamedTuple):
    """Aspects of documents ``[N, M, D]``, and how much each word counts for each of them ``[N, L, M]``."""

    aspects: Tensor
    weights: Tensor


class AspectExtractor(nn.Module):
    """Documents to aspects: convolution, gate, attention; auxiliary documents go through one convolution more.

    Args:
        attend: weigh words by attention; if not, all alike. deep: has the convolution for auxiliary documents.

    Shapes: word ``[N, L]``, ask ``[M, width]`` -> aspects ``[N, M, width]``.
    Source: CATN, aspect extraction.
    """

    def __init__(
        self, width: int, *, filters: int, aspects: int, size: int, attend: bool = True, deep: bool = False
    ) -> None:
        super().__init__()
        self.convolution = WordConvolution(width, filters)
        self.gate = AspectGate(filters, aspects=aspects, width=size)
        self.deeper = StateConvolution(filters) if deep else None
        self.attend, self.dropout = attend, nn.Dropout(0.2)

    def forward(self, word: Tensor, vectors: WordVectors, query: Tensor, *, auxiliary: bool = False) -> DocumentAspects:
        """The aspects of these documents."""
        states = self.dropout(self.convolution(word, vectors))
        if auxiliary and self.deeper is not None:
            states = self.deeper(states, word)
        said = self.gate(states)
        weights = attention(aspect_scores(said, query), word) if self.attend else uniform(word, len(query))
        return DocumentAspects(pooled(said, weights), weights)


class Fusion(nn.Module):
    """What a user wrote with what others wrote instead: ``g = σ([A − A'; A ⊙ A'] W_1 + b_1)``, then
    ``tanh([A; g ⊙ A'] W_2 + b_2)``.

    It begins with ``W_2 = [1; 0]``, ``b_2 = 0``, the user's own aspects: what others wrote comes in as far as it helps.

    Shapes: own, others ``[N, M, D]`` -> ``[N, M, D]``.
    Source: CATN, auxiliary reviews.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate, self.join = nn.Linear(2 * width, width), nn.Linear(2 * width, width)
        nn.init.eye_(self.join.weight)
        nn.init.zeros_(self.join.bias)

    def forward(self, own: Tensor, others: Tensor) -> Tensor:
        """The aspects of both."""
        gate = self.gate(torch.cat([own - others, own * others], 2)).sigmoid()
        return self.join(torch.cat([own, gate * others], 2)).tanh()


class Matching(nn.Module):
    """How well a user's aspects in one domain fit an item's in the other, and how the aspects of the domains belong.

    ``S = LeakyReLU(V_s W V_tᵀ)`` for all, ``S_{u,i} = A_u W A_iᵀ`` for these two, and the sum of their product is the
    match; for a user of the target domain and an item of the source, ``Wᵀ`` and ``Sᵀ``.

    Args:
        related: weigh by ``S``; without, all pairs of aspects count alike.

    Source: CATN, cross-domain aspect correlation.
    """

    def __init__(self, width: int, *, related: bool = True) -> None:
        super().__init__()
        self.weight, self.related = nn.Parameter(torch.empty(width, width)), related
        nn.init.xavier_uniform_(self.weight)

    def correlation(self, source: Tensor, target: Tensor) -> Tensor:
        """``S``: aspects of the source by aspects of the target, ``[M, D], [M, D] -> [M, M]``."""
        found = F.leaky_relu(source @ self.weight @ target.T)
        return found if self.related else torch.ones_like(found)

    def forward(self, user: Tensor, item: Tensor, correlation: Tensor, *, backwards: bool) -> Tensor:
        """The parts of the match, ``S ⊙ S_{u,i}``: ``[N, M, D], [N, M, D] -> [N, M, M]``, user by item."""
        weight, correlation = (self.weight.T, correlation.T) if backwards else (self.weight, correlation)
        return correlation * (user @ weight @ item.transpose(1, 2))


class WindowAspects(nn.Module):
    """Aspects by projection: word j is ``x_j W_m`` for aspect m, and counts by its window of words.

    ``β_{m,j} = softmax_j(v_m · [x_{j−1} W_m; x_j W_m; x_{j+1} W_m])``, ``a_m = Σ_j β_{m,j} x_j W_m``.

    Shapes: word ``[N, L]`` -> aspects ``[N, M, size]``.
    Source: Chin et al. 2018 (ANR), aspect-based representations.
    """

    def __init__(self, width: int, *, aspects: int, size: int, window: int = 3) -> None:
        super().__init__()
        self.project = nn.Parameter(torch.empty(width, aspects * size).uniform_(-0.01, 0.01))
        self.query = nn.Parameter(torch.empty(window, aspects, size).uniform_(-0.01, 0.01))

    def forward(self, word: Tensor, vectors: WordVectors) -> DocumentAspects:
        """The aspects of these documents."""
        said = vectors.weight @ self.project  # of each word of the vocabulary
        scores = torch.stack([aspect_scores(said.unsqueeze(0), one).squeeze(0) for one in self.query])
        weights = attention(in_windows(word, scores), word)
        return DocumentAspects(pooled(F.embedding(word, said, padding_idx=0), weights), weights)


class CoAttention(nn.Module):
    """Which aspects matter to this user about this item, and the other way round.

    ``F = ReLU(A_u W_s A_iᵀ)``, ``H_u = ReLU(A_u W_x + F A_i W_y)``, ``H_i = ReLU(A_i W_y + Fᵀ A_u W_x)``, importance
    ``softmax_m(H w)``; the match is ``Σ_m p_{u,m} p_{i,m} a_{u,m} · a_{i,m}``.

    Shapes: user, item ``[N, M, D]`` -> ``[N]``.
    Source: Chin et al. 2018 (ANR), aspect importance.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.affinity = nn.Linear(width, width, bias=False)
        self.of_user, self.of_item = nn.Linear(width, hidden, bias=False), nn.Linear(width, hidden, bias=False)
        self.user, self.item = nn.Linear(hidden, 1, bias=False), nn.Linear(hidden, 1, bias=False)
        for weight in self.parameters():
            nn.init.uniform_(weight, -0.01, 0.01)

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        """The match."""
        affinity = (self.affinity(user) @ item.transpose(1, 2)).relu()
        one, other = self.of_user(user), self.of_item(item)
        of_user = self.user((one + affinity @ other).relu()).softmax(1)
        of_item = self.item((other + affinity.transpose(1, 2) @ one).relu()).softmax(1)
        return (of_user * of_item * user * item).sum((1, 2))
