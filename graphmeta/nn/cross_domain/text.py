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
        vectors: ``[words + 1, D]`` to begin with, see :func:`graphmeta.data.reviews.read_vectors`; noise if not given.
    """

    def __init__(self, words: int, width: int, *, vectors: Tensor | None = None, frozen: bool = False) -> None:
        super().__init__()
        start = torch.randn(words + 1, width) if vectors is None else vectors.to(torch.get_default_dtype())
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
        total = self.bias + in_windows(word, vectors.weight @ self.weight)
        return total.relu() * (word > 0).unsqueeze(2)


def in_windows(word: Tensor, parts: Tensor) -> Tensor:
    """Sum over the places of a window of what the word there adds: ``Σ_o parts[o, word_{j+o}]``, padding adds nothing.

    Shapes: word ``[N, L]``, parts ``[window, words + 1, F]`` -> ``[N, L, F]``.
    """
    window = len(parts)
    around = F.pad(word, (window // 2, (window - 1) // 2))
    looked = [F.embedding(around[:, o : o + word.shape[1]], part, padding_idx=0) for o, part in enumerate(parts)]
    return sum(looked[1:], looked[0])


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

    Shapes: ``[N, L, F] -> [N, L, aspects · width]``, aspect after aspect.
    Source: CATN, aspect gate control.
    """

    def __init__(self, filters: int, *, aspects: int, width: int) -> None:
        super().__init__()
        self.layer, self.shape = nn.Linear(filters, 2 * aspects * width), (aspects, width)

    def forward(self, states: Tensor) -> Tensor:
        """The words' parts."""
        return F.glu(self.layer(states))


def aspect_scores(said: Tensor, query: Tensor) -> Tensor:
    """``g_{m,j} · v_m``: ``[N, L, M · D], [M, D] -> [N, L, M]``, without a product of the size of ``said``."""
    return said @ torch.block_diag(*query.unsqueeze(2))


def attention(scores: Tensor, word: Tensor) -> Tensor:
    """How much each word counts for each aspect: a softmax over the words there are, all 0 for an empty document.

    Shapes: scores ``[N, L, M]``, word ``[N, L]`` -> ``[N, L, M]``.
    """
    there = (word > 0).unsqueeze(2)
    return scores.masked_fill(~there, torch.finfo(scores.dtype).min).softmax(1) * there


def uniform(word: Tensor, aspects: int) -> Tensor:
    """The same weight for all words of a document, 0 for padding: ``[N, L] -> [N, L, aspects]``."""
    there = (word > 0).to(torch.get_default_dtype())
    return (there / there.sum(1, keepdim=True).clamp(min=1)).unsqueeze(2).expand(-1, -1, aspects)


def pooled(said: Tensor, weights: Tensor) -> Tensor:
    """``a_m = Σ_j β_{m,j} g_{m,j}``: ``[N, L, M · D], [N, L, M] -> [N, M, D]``.

    Every aspect is pooled with the weights of every other and the right ones are taken: few words of work more, and no
    copy of ``said``, which is what costs time.
    """
    aspects = weights.shape[2]
    every = (weights.transpose(1, 2) @ said).unflatten(2, (aspects, -1))  # [N, M, M, D]
    return every.diagonal(dim1=1, dim2=2).transpose(1, 2)
