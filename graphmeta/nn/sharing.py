"""Copies of modules over the same weights."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

from torch import nn

Part = TypeVar("Part", bound=nn.Module)


def with_shared_weights(module: Part) -> Part:
    """A copy with its own mode and its own ``requires_grad``, whose weights and buffers share the memory of the
    original's: training it trains the original.
    """
    shared: dict[int, Any] = {id(buffer): buffer for buffer in module.buffers()}
    shared |= {id(own): nn.Parameter(own.detach(), own.requires_grad) for own in module.parameters()}
    return copy.deepcopy(module, shared)
