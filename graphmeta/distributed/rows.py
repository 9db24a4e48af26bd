"""A table whose rows are divided over ranks: look-ups, products and the softmax over all rows.

Rank r of N holds the rows ``⌊C r / N⌋ … ⌊C (r + 1) / N⌋ − 1`` and their gradients; no rank holds another's. All ranks
must call the same operations in the same order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from graphmeta.distributed.group import Group
from graphmeta.errors import InputError

BLOCK = 128  # queries that are scored at once


@dataclass(frozen=True)
class RowRange:
    """The rows ``begin … end − 1`` of a table of ``total`` rows, which this rank of a group holds."""

    total: int
    group: Group

    @property
    def begin(self) -> int:
        """The first row."""
        return self.total * self.group.rank // self.group.size

    @property
    def end(self) -> int:
        """The row after the last one."""
        return self.total * (self.group.rank + 1) // self.group.size

    def own(self, whole: Tensor) -> Tensor:
        """This rank's rows of a whole table, as a tensor of its own."""
        return whole[self.begin : self.end].clone()

    def is_part(self, tensor: Tensor) -> bool:
        """Whether a tensor has these rows (a moment of the optimizer), and is not a number such as its step count."""
        return tensor.dim() > 0 and len(tensor) == self.end - self.begin

    def place(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """The place of each row among this rank's, and whether it is among them."""
        here = (index >= self.begin) & (index < self.end)
        return torch.where(here, index - self.begin, 0), here


class ShardedRows:
    """All rows ``[C, D]`` of a divided table, as heads score against them; this rank's are ``local``.

    It replaces a tensor in look-ups, products with queries, the normalisation of rows, and operations that a module
    registers with :meth:`supports`.

    Raises:
        InputError: (from an operation that it does not support) the operation.
    """

    _SUPPORTED: dict[Callable[..., Any], Callable[..., Any]] = {}

    def __init__(self, local: Tensor, rows: RowRange) -> None:
        self.local, self.rows = local, rows

    def __len__(self) -> int:
        return self.rows.total

    @property
    def shape(self) -> torch.Size:
        """That of the whole table."""
        return torch.Size((self.rows.total, *self.local.shape[1:]))

    @property
    def dtype(self) -> torch.dtype:
        """The type of its numbers."""
        return self.local.dtype

    @property
    def device(self) -> torch.device:
        """The device of this rank's rows."""
        return self.local.device

    @property
    def requires_grad(self) -> bool:
        """Whether this rank's rows are trained."""
        return self.local.requires_grad

    @classmethod
    def supports(cls, function: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Registers the implementation of a function, which gets the same arguments."""

        def register(implementation: Callable[..., Any]) -> Callable[..., Any]:
            cls._SUPPORTED[function] = implementation
            return implementation

        return register

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func not in cls._SUPPORTED:
            name = getattr(func, "__name__", str(func))
            raise InputError(
                f"a part of this system calls {name} on all item vectors, which are divided over processes; leave out "
                f"shard_items"
            )
        return cls._SUPPORTED[func](*args, **(kwargs or {}))


@ShardedRows.supports(F.embedding)
def _embedding(index: Tensor, table: ShardedRows, **options: Any) -> Tensor:
    """``F.embedding`` without padding, a largest norm or sparse gradients."""
    if options.get("padding_idx") is not None or options.get("max_norm") is not None or options.get("sparse"):
        raise InputError("look-ups of divided rows have no options; leave out shard_items")
    return look_up(index, table)


def look_up(index: Tensor, table: ShardedRows) -> Tensor:
    """Rows of the table, wherever they are: ``[…]`` -> ``[…, D]``; ranks may look up different numbers of rows."""
    return _LookUp.apply(table.local, index.reshape(-1), table.rows).unflatten(0, index.shape)


@ShardedRows.supports(F.normalize)
def _normalised(
    table: ShardedRows, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: Tensor | None = None
) -> ShardedRows:
    """Each row divided by its norm."""
    if dim not in (1, -1) or out is not None:
        raise InputError("divided rows are normalised along dim=1, without out=; leave out shard_items")
    return ShardedRows(F.normalize(table.local, p=p, dim=1, eps=eps), table.rows)


@ShardedRows.supports(F.linear)
def _products(query: Tensor, table: ShardedRows) -> Tensor:
    """``query @ tableᵀ`` of all rows, ``[S, D] -> [S, C]``, without gradients; queries are the same on all ranks."""
    with torch.no_grad():
        return table.rows.group.gather((query @ table.local.t()).t()).t()


def sharded_cross_entropy(query: Tensor, table: ShardedRows, target: Tensor) -> Tensor:
    """``cross_entropy(query @ tableᵀ, target)`` per row, of this rank's queries.

    Every rank scores the queries of all ranks against its own rows, in blocks of 128; the maximum of each query's
    scores and the sum of their exponentials are reduced over ranks. The backward pass computes the scores again, so
    that no matrix of all queries is kept. Differentiable once; ranks may have different numbers of queries.

    Shapes: query ``[S, D]``, target ``[S]`` -> ``[S]``.
    """
    return _CrossEntropy.apply(query.to(table.dtype), table.local, target, table.rows)


def _of_own(group: Group, x: Tensor, size: int) -> Tensor:
    """This rank's part of the rows of all ranks."""
    sizes = group.gather(torch.tensor([size])).tolist()
    begin = sum(sizes[: group.rank])
    return x[begin : begin + size]


class _LookUp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, local: Tensor, index: Tensor, rows: RowRange) -> Tensor:
        place, here = rows.place(rows.group.gather(index))
        ctx.save_for_backward(place, here)
        ctx.rows, ctx.shape = rows, local.shape
        found = local.index_select(0, place) * here[:, None]
        return _of_own(rows.group, rows.group.sum(found), len(index))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        place, here = ctx.saved_tensors
        every = ctx.rows.group.gather(grad.contiguous())
        to_local = grad.new_zeros(ctx.shape)
        return to_local.index_add_(0, place[here], every[here]), None, None


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, local: Tensor, target: Tensor, rows: RowRange) -> Tensor:
        group, size = rows.group, len(query)
        every, (place, here) = group.gather(query), rows.place(group.gather(target))
        top, sums = every.new_empty(len(every)), every.new_zeros(2, len(every))
        for part in torch.arange(len(every), device=every.device).split(BLOCK):
            scores = every[part] @ local.t()
            top[part] = scores.amax(1)
            sums[0, part] = scores.sub_(top[part, None]).exp_().sum(1)
        own_top = top.clone()
        sums[0] *= (own_top - group.maximum(top)).exp_()
        sums[1, here] = (every[here] * local[place[here]]).sum(1)
        total, own = group.sum(sums)
        ctx.save_for_backward(every, local, place, here, top, total)
        ctx.group, ctx.size = group, size
        return _of_own(group, total.log() + top - own, size)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        every, local, place, here, top, total = ctx.saved_tensors
        grad = ctx.group.gather(grad.contiguous())
        to_query, to_local = torch.zeros_like(every), torch.zeros_like(local)
        for part in torch.arange(len(every), device=every.device).split(BLOCK):
            weight = (every[part] @ local.t()).sub_(top[part, None]).exp_().mul_((grad[part] / total[part])[:, None])
            hit = here[part]
            weight[hit, place[part][hit]] -= grad[part][hit]
            to_query[part] = weight @ local
            to_local.addmm_(weight.t(), every[part])
        return _of_own(ctx.group, ctx.group.sum(to_query), ctx.size), to_local, None, None
