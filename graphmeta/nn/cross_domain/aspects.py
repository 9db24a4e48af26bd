"""Aspects of users and items from documents: extraction, fusion with auxiliary documents, and matching."""

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
    """Aspects of documents ``[N, M, D]``, and the attention of each aspect over words ``[N, L, M]``."""

    aspects: Tensor
    weights: Tensor


class AspectExtractor(nn.Module):
    """Aspects of documents by convolution, gate and attention; auxiliary documents pass one more convolution.

    Args:
        attend: attention over words; if False, uniform weights.
        deep: add the convolution for auxiliary documents.

    Shapes: word ``[N, L]``, query ``[M, width]`` -> aspects ``[N, M, width]``.
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
        values = self.gate(states)
        weights = attention(aspect_scores(values, query), word) if self.attend else uniform(word, len(query))
        return DocumentAspects(pooled(values, weights), weights)


class Fusion(nn.Module):
    """Fuses a user's aspects with those of the auxiliary document: ``g = σ([A − A'; A ⊙ A'] W_1 + b_1)``, then
    ``tanh([A; g ⊙ A'] W_2 + b_2)``.

    Initialised to ``W_2 = [1; 0]``, ``b_2 = 0``, i.e. the user's own aspects.

    Shapes: own, others ``[N, M, D]`` -> ``[N, M, D]``.
    Source: CATN, auxiliary reviews.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate, self.join = nn.Linear(2 * width, width), nn.Linear(2 * width, width)
        nn.init.eye_(self.join.weight)
        nn.init.zeros_(self.join.bias)

    def forward(self, own: Tensor, others: Tensor) -> Tensor:
        """The fused aspects."""
        gate = self.gate(torch.cat([own - others, own * others], 2)).sigmoid()
        return self.join(torch.cat([own, gate * others], 2)).tanh()


class Matching(nn.Module):
    """Similarity of a user's aspects in one domain and an item's in the other, weighted by the correlation of the
    aspects.

    ``S = LeakyReLU(V_s W V_tᵀ)`` is global, ``S_{u,i} = A_u W A_iᵀ`` is that of user and item, and the sum of their
    product is the match; for a user of the target domain and an item of the source, ``Wᵀ`` and ``Sᵀ``.

    Args:
        related: weight by ``S``; if False, all pairs of aspects have equal weight.

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
        """Terms of the match, ``S ⊙ S_{u,i}``: ``[N, M, D], [N, M, D] -> [N, M, M]``, user by item."""
        weight, correlation = (self.weight.T, correlation.T) if backwards else (self.weight, correlation)
        return correlation * (user @ weight @ item.transpose(1, 2))


class WindowAspects(nn.Module):
    """Aspects by projection: word j is ``x_j W_m`` for aspect m, with attention from its window of words.

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
        values = vectors.weight @ self.project  # for each word of the vocabulary
        scores = torch.stack([aspect_scores(values.unsqueeze(0), one).squeeze(0) for one in self.query])
        weights = attention(in_windows(word, scores), word)
        return DocumentAspects(pooled(F.embedding(word, values, padding_idx=0), weights), weights)


class CoAttention(nn.Module):
    """Importance of each aspect for this user and item, and the weighted match.

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
