"""TaskWeight: one parameter in a different version for each task, inside modules that know nothing of tasks.

A parameter adapted by T tasks is a tensor ``[T, *shape]``. Wrapped as a :class:`TaskWeight` it reports the shape
``shape`` that its module expects, and takes over each operation it meets. The rows of every activation are laid
out task-major (:mod:`graphmeta.batch`), so a product with it is one ``bmm`` over ``[T, rows, …]``, an addition a
broadcast over the same view; linear layers that begin alike do better (:mod:`graphmeta.adapt.matrix`). No vmap, no
loop, no copy of the module; autograd sees ordinary tensors, to any order.

An operation that is not listed here raises :class:`~graphmeta.errors.UnsupportedOp`; the adaptation then falls
back to the per-task loop. What belongs to which task is read off the number of rows: an encoder that reorders rows
across tasks is the one thing that cannot be seen here, and :func:`graphmeta.testing.check_encoder` looks for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from graphmeta.errors import UnsupportedOp


@dataclass
class TaskLayout:
    """How activation rows belong to tasks: ``num_tasks`` blocks of one of the sizes in ``rows``.

    ``edge_task`` is set while a PyG convolution works on its edges, which may be in any order (self-loops come
    last): the task of each. ``shared`` holds the addresses of the module's own parameters and buffers, which have no
    rows of tasks whatever their size.
    """

    num_tasks: int
    rows: frozenset[int]
    edge_task: Tensor | None = field(default=None)
    shared: frozenset[int] = frozenset()

    def blocks(self, x: Tensor) -> Tensor:
        """``[T·R, …]`` as ``[T, R, …]``."""
        if self.on_edges(x) or not self.has_rows(x):
            raise UnsupportedOp(
                f"a per-task weight met a tensor of shape {tuple(x.shape)}, whose rows are not laid out by task"
            )
        return x.reshape(self.num_tasks, x.shape[0] // self.num_tasks, *x.shape[1:])

    def has_rows(self, x: Tensor) -> bool:
        """Whether the first dimension of ``x`` runs over rows of tasks."""
        if self.on_edges(x):
            return True
        fits = x.dim() > 0 and x.shape[0] in {self.num_tasks * r for r in self.rows}
        return fits and address(x) not in self.shared

    def on_edges(self, x: Tensor) -> bool:
        """Whether ``x`` has one row for each edge that a convolution works on just now."""
        return self.edge_task is not None and x.dim() > 0 and x.shape[0] == len(self.edge_task)


def address(x: Tensor) -> int:
    """Where a tensor's memory begins: the same for a parameter, its detached twin and views of it."""
    return x.untyped_storage().data_ptr()


class TaskWeight(Tensor):
    """A parameter ``[T, *shape]`` that reports ``shape``; see the module's docstring.

    Args:
        stacked: the T versions, ``[T, *shape]``.
        layout: how the rows of activations belong to the T tasks.
    """

    stacked: Tensor
    tasks: TaskLayout
    used: bool

    @staticmethod
    def __new__(cls, stacked: Tensor, layout: TaskLayout) -> TaskWeight:
        weight = stacked.detach()[0].as_subclass(cls)
        weight.stacked, weight.tasks, weight.used = stacked, layout, False
        return weight

    def __repr__(self) -> str:  # pyright: ignore[reportIncompatibleMethodOverride]
        return f"TaskWeight({self.stacked.shape[0]} tasks, shape={tuple(self.stacked.shape[1:])})"

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        handler = HANDLERS.get(func)
        if handler is not None:
            for value in (*args, *kwargs.values()):
                if isinstance(value, TaskWeight):
                    value.used = True
            try:
                return handler(func, *args, **kwargs)
            except (TypeError, AttributeError, RecursionError) as error:
                raise UnsupportedOp(f"{func.__name__} in this form on a per-task weight ({error})") from None
        if func in _HARMLESS:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        raise UnsupportedOp(f"{getattr(func, '__name__', func)} on a per-task weight")


_PROPERTIES = ("shape", "dtype", "device", "layout", "ndim", "requires_grad", "is_leaf", "is_cuda", "is_sparse")
# What a property tells about a tensor is passed on; what it makes of its values (.T, .data) is not.
GETTERS = frozenset(getattr(Tensor, name).__get__ for name in _PROPERTIES)
Handler = Callable[..., Any]
HANDLERS: dict[Callable[..., Any], Handler] = {}
_HARMLESS: set[Callable[..., Any]] = {
    Tensor.size, Tensor.dim, Tensor.numel, Tensor.__len__, Tensor.stride, Tensor.is_contiguous, Tensor.element_size,
    Tensor.is_floating_point, torch.is_floating_point, Tensor.is_complex, torch.is_complex, Tensor.__hash__,
    Tensor.storage_offset, torch.numel, Tensor.nelement, Tensor.get_device, *GETTERS,
}  # fmt: skip


def handles(*functions: Callable[..., Any]) -> Callable[[Handler], Handler]:
    """Register a handler ``(func, *args, **kwargs)`` for these torch functions."""

    def register(handler: Handler) -> Handler:
        HANDLERS.update(dict.fromkeys(functions, handler))
        return handler

    return register


def product(x: Tensor, weight: Tensor, tasks: TaskLayout) -> Tensor:
    """``x @ weight[t]`` for the rows of each task t: ``[T·R, …, in]`` and ``[T, in, out]`` (or ``[T, in]``)."""
    if tasks.on_edges(x):
        return _product_on_edges(x, weight, tasks)
    blocks = tasks.blocks(x)
    if weight.dim() == 2:
        return torch.bmm(blocks.flatten(1, -2), weight[:, :, None]).reshape(x.shape[:-1])
    if weight.dim() != 3:
        raise UnsupportedOp(f"a product with a per-task weight of {weight.dim() - 1} dimensions")
    return torch.bmm(blocks.flatten(1, -2), weight).reshape(*x.shape[:-1], weight.shape[-1])


def _product_on_edges(x: Tensor, weight: Tensor, tasks: TaskLayout) -> Tensor:
    """The same for rows that are edges: dealt into equal blocks by task, multiplied, and put back in order."""
    assert tasks.edge_task is not None
    order = torch.argsort(tasks.edge_task, stable=True)
    counts = torch.bincount(tasks.edge_task, minlength=tasks.num_tasks)
    owner, size = tasks.edge_task[order], int(counts.max()) if len(order) else 1
    place = torch.empty_like(order)
    place[order] = owner * size + torch.arange(len(order), device=x.device) - (counts.cumsum(0) - counts)[owner]
    blocks = x.new_zeros(tasks.num_tasks * size, *x.shape[1:]).index_copy(0, place, x)
    inner = TaskLayout(tasks.num_tasks, frozenset({size}))
    return product(blocks, weight, inner).index_select(0, place)


def align(w: Tensor, x: Tensor, tasks: TaskLayout) -> tuple[Tensor, Tensor]:
    """``x`` as ``[T, R, …]`` (or as it is, on edges), and ``w`` ``[T, …]`` shaped to broadcast against it."""
    trailing, own = x.dim() - 1, w.dim() - 1
    if own == x.dim() and w.shape[1] == 1:
        w, own = w.squeeze(1), own - 1
    if own > trailing:
        raise UnsupportedOp(f"a per-task weight {tuple(w.shape[1:])} against {tuple(x.shape)}")
    if tasks.on_edges(x):
        assert tasks.edge_task is not None
        w = w.index_select(0, tasks.edge_task)
        return w.reshape(w.shape[0], *(1,) * (trailing - own), *w.shape[1:]), x
    return w.reshape(w.shape[0], *(1,) * (trailing - own + 1), *w.shape[1:]), tasks.blocks(x)
