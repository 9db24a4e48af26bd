"""Sizes that depend on values: a GPU has to be waited for until the program knows them, a CPU has not.

Within an adaptation's steps nothing waits. Where what is fastest on a CPU needs such a size, there is a second form of
it that does not, a little more work, for every other device.
"""

from __future__ import annotations

import torch
from torch import Tensor


def needs_sync(x: Tensor) -> bool:
    """Whether a size that depends on values of ``x`` is waited for."""
    return x.device.type != "cpu"


def counts(index: Tensor, size: int) -> Tensor:
    """How often each of ``size`` rows is pointed at, ``[N] -> [size]``; unlike ``bincount``, without waiting.

    >>> counts(torch.tensor([2, 0, 2]), 4).tolist()
    [1, 0, 2, 0]
    """
    ones = torch.ones(len(index), dtype=torch.int64, device=index.device)
    return torch.zeros(size, dtype=torch.int64, device=index.device).index_add(0, index, ones)
