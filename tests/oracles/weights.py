"""What all oracles share: weights by name, one linear layer, the cross-entropy of one sample."""

from collections.abc import Callable

import torch
from torch import Tensor

Weights = dict[str, Tensor]
Reads = Callable[[Weights, list[int]], Tensor]  # weights and the clicks of one sample -> its session vector S

ITEMS = "features.item.weight"


def linear(w: Weights, name: str, x: Tensor) -> Tensor:
    """``W x + b`` of one vector, or of each row of a matrix; ``W x`` if the layer has no bias."""
    y = x @ w[f"{name}.weight"].t()
    return y + w[f"{name}.bias"] if f"{name}.bias" in w else y


def softmax(x: Tensor) -> Tensor:
    """``exp(x_k) / Σ_j exp(x_j)`` of one vector."""
    e = torch.exp(x)
    return e / e.sum()


def cross_entropy(scores: Tensor, target: int) -> Tensor:
    """``−log softmax(scores)_target``, over all items (papers §2.2: the loss that eq 8 leaves out)."""
    return torch.logsumexp(scores, 0) - scores[target]
