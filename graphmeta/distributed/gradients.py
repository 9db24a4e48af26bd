"""Gradients summed over ranks in one flat buffer, and the parts of a batch."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable

import numpy as np
import torch
from torch import Tensor, nn

from graphmeta.distributed.group import ALONE, FirstCounts, Group
from graphmeta.errors import InputError


def own_part(group: Group, rows: np.ndarray) -> tuple[np.ndarray, Group]:
    """This rank's rows of a batch, a contiguous part, and the group of the step.

    With fewer rows than ranks, all ranks have all rows and only rank 0's results count.

    >>> own_part(ALONE, np.arange(3))[0].tolist()
    [0, 1, 2]
    """
    if group.size == 1:
        return rows, ALONE
    if len(rows) < group.size:
        return rows, FirstCounts(group)
    begin, end = (len(rows) * at // group.size for at in (group.rank, group.rank + 1))
    return rows[begin:end], group


class FlatGradients:
    """The gradients of a module's parameters, summed over ranks by one all-reduce per kind of number.

    A parameter has a gradient afterwards if it had one on any rank; it is a view of the buffer, which the next step
    overwrites.

    Args:
        parameters: those that all ranks hold; the gradients of others (rows of a sharded table) are not summed.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        by_kind: dict[tuple[torch.dtype, torch.device], list[nn.Parameter]] = {}
        for weight in parameters:
            by_kind.setdefault((weight.dtype, weight.device), []).append(weight)
        self._parts = [_Flat(weights) for weights in by_kind.values()]

    def sum(self, group: Group, *values: float) -> list[float]:
        """Sum the gradients over the group, in place; returns the sums of these numbers, in the same all-reduce."""
        if group.size == 1:
            return list(values)
        found: list[float] = list(values)
        for number, part in enumerate(self._parts):
            sums = part.sum(group, found if number == 0 else [])
            found = sums if number == 0 else found
        return found


class _Flat:
    """The buffer of parameters of one kind: gradients, whether each has one, and further numbers."""

    def __init__(self, weights: list[nn.Parameter]) -> None:
        self.weights, self.sizes = weights, [weight.numel() for weight in weights]
        self.buffer: Tensor | None = None

    @torch.no_grad()
    def sum(self, group: Group, values: list[float]) -> list[float]:
        total, count = sum(self.sizes), len(self.weights)
        size = total + count + len(values)
        if self.buffer is None or len(self.buffer) != size:
            self.buffer = self.weights[0].new_empty(size)
        parts = self.buffer[:total].split(self.sizes)
        for weight, part in zip(self.weights, parts, strict=True):
            if weight.grad is None:
                part.zero_()
            else:
                part.view_as(weight).copy_(weight.grad)
        has = [float(weight.grad is not None) for weight in self.weights]
        self.buffer[total:].copy_(torch.tensor([*has, *values], dtype=torch.float64))
        group.sum(self.buffer)
        (*has,) = self.buffer[total:].tolist()
        for weight, part, any_rank in zip(self.weights, parts, has[:count], strict=True):
            weight.grad = part.view_as(weight) if any_rank else None
        return has[count:]


@torch.no_grad()
def begin_equal(module: nn.Module, group: Group, own: Collection[str] = ()) -> None:
    """Give all ranks rank 0's parameters and buffers, but for those that each has of its ``own``."""
    for name, tensor in module.state_dict().items():
        if tensor.numel() and name not in own:
            group.of_first(tensor)


def check_equal(module: nn.Module, group: Group, when: str, own: Collection[str] = ()) -> None:
    """Check that all ranks have the same parameters and buffers, but for those that each has of its ``own``.

    Raises:
        InputError: one that differs; names it.
    """
    if group.size == 1:
        return
    state = {name: tensor for name, tensor in module.state_dict().items() if name not in own}
    every = group.gather(torch.tensor([[_digest(tensor) for tensor in state.values()]], dtype=torch.int64))
    differs = (every != every[0]).any(0).tolist()
    if any(differs):
        name = next(name for name, other in zip(state, differs, strict=True) if other)
        raise InputError(
            f"{when}, ranks differ in {name}; what a part writes in training must be reduced over ranks: "
            f"graphmeta.distributed.step().group.sum(…)"
        )


def check_same(text: str, group: Group, what: str) -> None:
    """Check that all ranks have the same text, such as a fingerprint.

    Raises:
        InputError: ranks that differ in it.
    """
    if group.size == 1:
        return
    own = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little", signed=True)
    if len(group.gather(torch.tensor([own])).unique()) > 1:
        raise InputError(f"the ranks have different {what}; give all of them the same")


def _digest(tensor: Tensor) -> int:
    """64 bits of the SHA-256 of a tensor's bytes."""
    plain = tensor.detach().cpu().contiguous().reshape(-1)
    content = plain.view(torch.uint8).numpy().tobytes() if plain.numel() else b""
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "little", signed=True)
