"""Documents as vectors: word convolution, gated aspects, and one vector per aspect.

Word 0 is padding: a zero vector at the end of a document, masked everywhere else.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class WordVectors(nn.Module):
    """An embedding per word, 0 for padding; trained unless ``frozen``.

    Args:
        words: vocabulary size.
        width: of a vector, if none are given.
        vectors: initial vectors ``[words + 1, D]``, see :func:`graphmeta.data.reviews.read_vectors`; random if not
            given.
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

    ``W_o e`` depends on the word only; it is computed once per vocabulary word and looked up, instead of once per
    position: the same sum, faster for long texts.

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
        """States of the words."""
        total = self.bias + in_windows(word, vectors.weight @ self.weight)
        return total.relu() * (word > 0).unsqueeze(2)


def in_windows(word: Tensor, parts: Tensor) -> Tensor:
    """Sum over a window of per-word terms: ``Σ_o parts[o, word_{j+o}]``; padding adds zero.

    Shapes: word ``[N, L]``, parts ``[window, words + 1, F]`` -> ``[N, L, F]``.
    """
    window = len(parts)
    padded = F.pad(word, (window // 2, (window - 1) // 2))
    parts_at = [F.embedding(padded[:, o : o + word.shape[1]], part, padding_idx=0) for o, part in enumerate(parts)]
    return sum(parts_at[1:], parts_at[0])


class StateConvolution(nn.Module):
    """A further convolution, over states: ``ReLU(Σ_o W_o c_{j+o} + b)``, 0 at padding; ``[N, L, F] -> [N, L, F]``."""

    def __init__(self, filters: int, *, window: int = 3) -> None:
        super().__init__()
        self.layer = nn.Conv1d(filters, filters, window, padding="same")

    def forward(self, states: Tensor, word: Tensor) -> Tensor:
        """The new states."""
        return self.layer(states.transpose(1, 2)).transpose(1, 2).relu() * (word > 0).unsqueeze(2)


class AspectGate(nn.Module):
    """Gated aspect values of each word: ``g_{m,j} = (W_m c_j + b_m) ⊙ σ(W^g_m c_j + b^g_m)``.

    Shapes: ``[N, L, F] -> [N, L, aspects · width]``, aspect after aspect.
    Source: CATN, aspect gate control.
    """

    def __init__(self, filters: int, *, aspects: int, width: int) -> None:
        super().__init__()
        self.layer, self.shape = nn.Linear(filters, 2 * aspects * width), (aspects, width)

    def forward(self, states: Tensor) -> Tensor:
        """The gated values."""
        return F.glu(self.layer(states))


def aspect_scores(values: Tensor, query: Tensor) -> Tensor:
    """``g_{m,j} · v_m``: ``[N, L, M · D], [M, D] -> [N, L, M]``, without an intermediate of the size of ``values``."""
    return values @ torch.block_diag(*query.unsqueeze(2))


def attention(scores: Tensor, word: Tensor) -> Tensor:
    """Attention of each aspect over the words of a document, masked; all 0 for an empty document.

    Shapes: scores ``[N, L, M]``, word ``[N, L]`` -> ``[N, L, M]``.
    """
    mask = (word > 0).unsqueeze(2)
    return scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(1) * mask


def uniform(word: Tensor, aspects: int) -> Tensor:
    """Uniform weights over the words of a document, 0 for padding: ``[N, L] -> [N, L, aspects]``."""
    mask = (word > 0).to(torch.get_default_dtype())
    return (mask / mask.sum(1, keepdim=True).clamp(min=1)).unsqueeze(2).expand(-1, -1, aspects)


def pooled(values: Tensor, weights: Tensor) -> Tensor:
    """``a_m = Σ_j β_{m,j} g_{m,j}``: ``[N, L, M · D], [N, L, M] -> [N, M, D]``.

    Pools every aspect with every aspect's weights and takes the diagonal: slightly more work, but no copy of
    ``values``, which would dominate the time.
    """
    aspects = weights.shape[2]
    every = (weights.transpose(1, 2) @ values).unflatten(2, (aspects, -1))  # [N, M, M, D]
    return every.diagonal(dim1=1, dim2=2).transpose(1, 2)
