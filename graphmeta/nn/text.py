"""Texts as vectors: a convolution over words, aspects read out of it by gates, and one vector for each aspect.

Word 0 is padding. It is a zero beside a word at the end of a document and takes no part in anything else.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class WordVectors(nn.Module):
    """A vector for each word, 0 for padding; trained further unless ``frozen``.

    Args:
        words: of the vocabulary; width: of a vector, where none are given.
        vectors: ``[words + 1, D]`` to begin with, see :func:`graphmeta.reviews.read_vectors`; noise if not given.
    """

    def __init__(self, words: int, width: int, *, vectors: Tensor | None = None, frozen: bool = False) -> None:
        super().__init__()
        start = 0.1 * torch.randn(words + 1, width) if vectors is None else vectors.to(torch.get_default_dtype())
        start = torch.cat([torch.zeros_like(start[:1]), start[1:]])
        self.weight = nn.Parameter(start, requires_grad=not frozen)
        self.width = start.shape[1]

    def forward(self, word: Tensor) -> Tensor:
        """``[…] -> […, D]``."""
        return F.embedding(word, self.weight, padding_idx=0)

    def mean(self, word: Tensor) -> Tensor:
        """The mean vector of each document's words, 0 for an empty one: ``[N, L] -> [N, D]``."""
        return self(word).sum(1) / (word > 0).sum(1, keepdim=True).clamp(min=1)


class WordConvolution(nn.Module):
    """``c_j = ReLU(Σ_o W_o e_{j+o} + b)``, o = −(window−1)/2 … (window−1)/2, 0 at padding.

    A word's part in its neighbours, ``W_o e``, depends on the word alone; it is computed once for each word of the
    vocabulary and looked up, instead of once for each place of a text: the same sum, less work for long texts.

    Shapes: word ``[N, L]`` -> ``[N, L, filters]``.
    Source: CATN, text convolution.
    """

    def __init__(self, width: int, filters: int, *, window: int = 3) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(window, width, filters))
        self.bias = nn.Parameter(torch.zeros(filters))
        for one in self.weight.data:
            nn.init.xavier_uniform_(one)

    def forward(self, word: Tensor, vectors: WordVectors) -> Tensor:
        """The states of the words."""
        window = len(self.weight)
        parts = vectors.weight @ self.weight
        around = F.pad(word, (window // 2, (window - 1) // 2)).unfold(1, window, 1)  # [N, L, window]
        total = self.bias + sum(F.embedding(around[:, :, o], part, padding_idx=0) for o, part in enumerate(parts))
        return total.relu() * (word > 0).unsqueeze(2)


class StateConvolution(nn.Module):
    """A further convolution, over states: ``ReLU(Σ_o W_o c_{j+o} + b)``, 0 at padding; ``[N, L, F] -> [N, L, F]``."""

    def __init__(self, filters: int, *, window: int = 3) -> None:
        super().__init__()
        self.layer = nn.Conv1d(filters, filters, window, padding="same")

    def forward(self, states: Tensor, word: Tensor) -> Tensor:
        """The new states."""
        return self.layer(states.transpose(1, 2)).transpose(1, 2).relu() * (word > 0).unsqueeze(2)


class AspectGate(nn.Module):
    """What each word says about each aspect: ``g_{m,j} = (W_m c_j + b_m) ⊙ σ(W^g_m c_j + b^g_m)``.

    Shapes: ``[N, L, F] -> [N, L, aspects, width]``.
    Source: CATN, aspect gate control.
    """

    def __init__(self, filters: int, *, aspects: int, width: int) -> None:
        super().__init__()
        self.value, self.gate = nn.Linear(filters, aspects * width), nn.Linear(filters, aspects * width)
        self.shape = (aspects, width)

    def forward(self, states: Tensor) -> Tensor:
        """The words' parts."""
        return (self.value(states) * self.gate(states).sigmoid()).unflatten(2, self.shape)


def attention(said: Tensor, ask: Tensor, word: Tensor) -> Tensor:
    """How much each word counts for each aspect: ``β_{m,j} = softmax_j(g_{m,j} · v_m)`` over the words there are.

    Shapes: said ``[N, L, M, D]``, ask ``[M, D]``, word ``[N, L]`` -> ``[N, L, M]``; all 0 for an empty document.
    """
    there = (word > 0).unsqueeze(2)
    scores = (said * ask).sum(3).masked_fill(~there, torch.finfo(said.dtype).min)
    return scores.softmax(1) * there


def uniform(word: Tensor, aspects: int) -> Tensor:
    """The same weight for all words of a document, 0 for padding: ``[N, L] -> [N, L, aspects]``."""
    there = (word > 0).to(torch.get_default_dtype())
    return (there / there.sum(1, keepdim=True).clamp(min=1)).unsqueeze(2).expand(-1, -1, aspects)


def pooled(said: Tensor, weights: Tensor) -> Tensor:
    """``a_m = Σ_j β_{m,j} g_{m,j}``: ``[N, L, M, D], [N, L, M] -> [N, M, D]``."""
    return torch.einsum("nlmd,nlm->nmd", said, weights)
