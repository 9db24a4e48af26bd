"""Notes on tensors: the task of each row, see :mod:`graphmeta.adapt.stacked.stack`."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from torch import Tensor

from graphmeta.errors import Remedy

if TYPE_CHECKING:
    from graphmeta.adapt.stacked.ownership import Ownership
    from graphmeta.adapt.stacked.stack import Stack

NOTE = "_graphmeta_owner"
MET = "_graphmeta_met"  # set on tensors that depend on per-task weights
DATA = "_graphmeta_data"  # set on memory: the version up to which only data was written into it


class Term:
    """A condition on the batch under which a note is correct; its check is recorded at most once, on first use."""

    def __init__(self, ask: Callable[[], None]) -> None:
        self._ask: Callable[[], None] | None = ask

    def use(self) -> None:
        """Record the check, unless it was recorded before."""
        ask, self._ask = self._ask, None
        if ask is not None:
            ask()


class Owner:
    """The task of each of n rows, computed on first access, and the conditions under which it is correct.

    Args:
        make: ``() -> [n]`` int64; None if the rows are T equal blocks.
        terms: the conditions.
    """

    def __init__(self, make: Callable[[], Tensor] | None, terms: tuple[Term, ...] = ()) -> None:
        self._make, self.blocks, self.terms = make, make is None, terms
        self._task: Tensor | None = None
        self.dealt: tuple[Tensor, int] | None = None  # see graphmeta.adapt.stacked.operations.products.in_blocks

    @property
    def task(self) -> Tensor:
        """``[n]`` int64."""
        if self._task is None:
            assert self._make is not None
            self._task, self._make = self._make(), None
        return self._task


@dataclass(frozen=True, eq=False)
class Rows:
    """Dimension ``dim`` runs over rows of tasks: T equal blocks, or rows of the tasks in ``owner``.

    ``points``: the values are row indices into a store with this many rows per task, each within the block of its own
    task.
    """

    stack: Ownership
    dim: int = 0
    owner: Owner | None = None
    points: int | None = None

    @property
    def in_blocks(self) -> bool:
        """Whether the rows are T equal blocks."""
        return self.owner is None or self.owner.blocks

    @property
    def terms(self) -> tuple[Term, ...]:
        """The conditions under which the note is correct."""
        return () if self.owner is None else self.owner.terms


@dataclass(frozen=True, eq=False)
class Shared:
    """The same for every task."""


@dataclass(frozen=True, eq=False)
class Lost:
    """The tasks of the rows are unknown, because of ``reason``."""

    reason: str
    remedy: Remedy = Remedy.BATCH


@dataclass(frozen=True, eq=False)
class Fence:
    """The pointer from samples to events, ``[S + 1]``: one entry more than there are samples."""

    stack: Ownership


@dataclass(frozen=True, eq=False)
class Tailed:
    """Rows of tasks in blocks along the first dimension, followed by one row of no task (a waste slot)."""

    stack: Ownership
    owner: Owner | None


Note = Rows | Shared | Lost | Fence | Tailed
Rule = Callable[["Stack", str, tuple[Any, ...], dict[str, Any], Any], Note | tuple[Note, ...]]
RULES: dict[str, Rule] = {}  # filled by graphmeta.adapt.stacked.rules: how notes of plain tensors propagate
Handler = Callable[["Stack", Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]
HANDLERS: dict[str, Handler] = {}  # filled by graphmeta.adapt.stacked.operations: operations on per-task values
ALWAYS: dict[str, Handler] = {}  # operations replaced for all tensors, with or without per-task values

FOREIGN = Lost("a tensor that no torch function of this call has made", Remedy.BUFFER)


def address(x: Tensor) -> int:
    """The address of a tensor's storage, the same for a parameter, its detached copy and its views; -1 without any."""
    try:
        return x.untyped_storage().data_ptr()
    except (NotImplementedError, RuntimeError):  # sparse, or wrapped by torch.func
        return -1


@cache
def name_of(func: Callable[..., Any]) -> str:
    """The plain name of a torch function: ``add`` for ``torch.add``, ``Tensor.__radd__``; ``add_`` in place; ``.T``."""
    name = getattr(func, "__name__", None) or str(func)
    if isinstance(func, types.FunctionType) and func.__module__.split(".")[0] not in _KNOWN:
        return f"{func.__module__}:{func.__qualname__}"  # a user's function, whatever its name
    if name in ("__get__", "__set__"):
        return ("." if name == "__get__" else "=.") + func.__self__.__name__  # pyright: ignore[reportFunctionMemberAccess]
    if not (name.startswith("__") and name.endswith("__")):
        return name
    name = name[2:-2]
    if name in _PYTHON:  # bool(x) is not x.bool()
        return f"__{name}__"
    if name in _DUNDER:
        return _DUNDER[name]
    if name[1:] in _ARITHMETIC and name[0] == "r":
        return _DUNDER.get(name[1:], name[1:])
    if name[1:] in _ARITHMETIC and name[0] == "i":
        return _DUNDER.get(name[1:], name[1:]) + "_"
    return name


@cache
def writes(name: str) -> bool:
    """Whether an operation of this name writes into its first argument."""
    return name == "setitem" or (name.endswith("_") and not name.startswith("__"))


_PYTHON = frozenset({"bool", "float", "int", "index", "complex"})
_KNOWN = ("torch", "graphmeta", "torch_geometric", "torch_scatter")
_ARITHMETIC = {
    "add", "sub", "mul", "div", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor", "lshift", "rshift",
}  # fmt: skip
_DUNDER = {
    "truediv": "div", "floordiv": "floor_divide", "mod": "remainder", "and": "bitwise_and", "or": "bitwise_or",
    "xor": "bitwise_xor", "invert": "bitwise_not",
}  # fmt: skip


def tensors_in(values: Any) -> Iterator[Tensor]:
    """The tensors among arguments, also within lists, tuples and slices."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from tensors_in(value)
        elif isinstance(value, slice):
            yield from tensors_in((value.start, value.stop, value.step))
        elif isinstance(value, dict):
            yield from tensors_in(value.values())


# Functions that read properties of a tensor and return no tensor.
PASSED = frozenset(
    {
        *(f".{name}" for name in ("shape", "dtype", "device", "layout", "ndim", "requires_grad", "is_leaf", "is_cuda",
          "is_sparse", "grad_fn", "is_meta", "is_cpu", "is_mps", "is_xpu", "is_quantized", "is_nested", "names",
          "itemsize", "nbytes", "output_nr", "_version", "_backward_hooks", "retains_grad", "is_mkldnn", "_base",
          "is_xla", "is_mtia", "is_ipu", "is_maia", "is_vulkan", "name")),
        "size", "dim", "numel", "len", "stride", "is_contiguous", "element_size", "is_floating_point", "is_complex",
        "hash", "storage_offset", "nelement", "get_device", "ndimension", "untyped_storage", "data_ptr", "is_signed",
        "is_inference", "is_same_size", "result_type", "can_cast", "promote_types", "_is_view", "is_conj", "is_neg",
        "is_pinned", "is_shared",
    }
)  # fmt: skip
