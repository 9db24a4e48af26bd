"""torch-scatter's segment sums, computed by index: their second derivative there is silently wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

Mode = TorchFunctionMode


def segment_sum(mode: Mode, x: Tensor, ptr: Tensor, out: Tensor | None = None) -> Tensor:
    """torch-scatter's sum over ``x[ptr[s]:ptr[s + 1]]``, whose own second derivative is wrong: ``[E, …] -> [S, …]``."""
    owner = torch.searchsorted(ptr, torch.arange(len(x), device=x.device), right=True)  # 0 and the last: none
    return torch.zeros(len(ptr) + 1, *x.shape[1:], dtype=x.dtype, device=x.device).index_add(0, owner, x)[1:-1]


def segment_mean(mode: Mode, x: Tensor, ptr: Tensor, out: Tensor | None = None) -> Tensor:
    """The mean of each segment, zero for an empty one."""
    size = ptr.diff().clamp(min=1).to(x.dtype)
    return segment_sum(mode, x, ptr) / size.reshape(-1, *(1,) * (x.dim() - 1))


SEGMENTS: dict[str, Callable[..., Any]] = {"segment_sum_csr": segment_sum, "segment_mean_csr": segment_mean}
