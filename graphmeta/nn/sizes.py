"""Operations whose output size depends on values: on a GPU these synchronise with the host, on a CPU they do not.

No operation within an adaptation's steps may synchronise. Where the fastest CPU form has a value-dependent size, other
devices use a second form with a fixed size and slightly more work.
"""

from __future__ import annotations

import torch
from torch import Tensor


def needs_sync(x: Tensor) -> bool:
    """Whether a size that depends on the values of ``x`` would synchronise with the device."""
    return x.device.type != "cpu"


def counts(index: Tensor, size: int) -> Tensor:
    """Number of occurrences of each index below ``size``, ``[N] -> [size]``; unlike ``bincount``, without
    synchronising.

    >>> counts(torch.tensor([2, 0, 2]), 4).tolist()
    [1, 0, 2, 0]
    """
    ones = torch.ones(len(index), dtype=torch.int64, device=index.device)
    return torch.zeros(size, dtype=torch.int64, device=index.device).index_add(0, index, ones)
