"""Notes on tensors: the task of each row, see :mod:`graphmeta.adapt.stacked.stack`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch._ops import OpOverload, OpOverloadPacket

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
        self.dealt: tuple[Tensor, int] | None = None  # see graphmeta.adapt.stacked.operations.products.split_by_task

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
    task. ``cut``: the owner of all rows but the last, if there is one more than a store has: the last may be a spare
    row of no task, as in PyG's ``to_dense_batch``, which cuts it off.
    """

    stack: Ownership
    dim: int = 0
    owner: Owner | None = None
    points: int | None = None
    cut: Owner | None = None

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
    """The tasks of the rows are unknown, because of ``reason``.

    ``numbers``: the values number distinct values of the batch (``unique``): as indices, they are of no store's rows.
    """

    reason: str
    remedy: Remedy = Remedy.BATCH
    numbers: bool = False


@dataclass(frozen=True, eq=False)
class Fence:
    """The pointer from samples to events, ``[S + 1]``: one entry more than there are samples."""

    stack: Ownership


Note = Rows | Shared | Lost | Fence
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
    """The plain name of a torch function: ``add`` for ``torch.add``, ``Tensor.__radd__``; ``add_`` in place; ``.T``.

    Functions that share a name with these, but not their meaning or arguments, have a name that no rule has.
    """
    if isinstance(func, (OpOverload, OpOverloadPacket)):
        return _name_of_operator(func)
    name, home = getattr(func, "__name__", None) or str(func), getattr(func, "__module__", None)
    if isinstance(home, str) and home.split(".")[0] not in _KNOWN:
        return f"{home}:{getattr(func, '__qualname__', name)}"  # a user's function, whatever its name
    if name in _OTHER_ORDER and func is getattr(torch, name):
        return f"torch.{name}"
    if name in ("__get__", "__set__"):
        return ("." if name == "__get__" else "=.") + func.__self__.__name__  # pyright: ignore[reportFunctionMemberAccess]
    if not (name.startswith("__") and name.endswith("__")):
        return name
    name = name[2:-2]
    if name in _PYTHON:  # bool(x) is not x.bool()
        return f"__{name}__"
    if name in _DUNDER:
        return _DUNDER[name]
    if name[1:] in _ARITHMETIC and name[0] == "r" and name != "rmatmul":  # w.__rmatmul__(x) is x @ w
        return _DUNDER.get(name[1:], name[1:])
    if name[1:] in _ARITHMETIC and name[0] == "i":
        return _DUNDER.get(name[1:], name[1:]) + "_"
    return name


def _name_of_operator(func: OpOverload | OpOverloadPacket) -> str:
    """``torch.ops.mine.relu``, which is not ``relu``; torch-scatter's operators by their plain names."""
    packet = func.overloadpacket if isinstance(func, OpOverload) else func
    space, _, name = str(packet).partition(".")
    return name if space == "torch_scatter" else f"torch.ops.{space}.{name}"


def schemas_of(func: Callable[..., Any]) -> list[Any]:
    """The signatures of a built-in function or operator."""
    if isinstance(func, OpOverload):
        return [func._schema]
    if isinstance(func, OpOverloadPacket):
        return [getattr(func, overload)._schema for overload in func.overloads()]
    return torch._C._jit_get_schemas_for_operator(f"aten::{getattr(func, '__name__', '')}")


@cache
def written_by(func: Callable[..., Any]) -> tuple[int, ...]:
    """The positions of the arguments that a function writes into, apart from ``out``."""
    if isinstance(func, (OpOverload, OpOverloadPacket)):
        every = [enumerate(schema.arguments) for schema in schemas_of(func)]
        places = {n for one in every for n, x in one if x.is_write and not x.kwarg_only}
        return tuple(sorted(places))
    name = name_of(func)
    return (0,) if name in _ASSIGNED or (name.endswith("_") and not name.startswith("__")) else ()


def readable(name: str) -> str:
    """The name of an operation in messages."""
    if name in _READ_OUT:
        return _READ_OUT[name]
    if name.startswith("=."):
        return f"an assignment to a tensor's {name[2:]}"
    return f"a tensor's {name[1:]}" if name.startswith(".") else name


NUMBERS = ("item", "tolist", "numpy", "__float__", "__int__", "__index__")
_READ_OUT = {"__bool__": "control flow (if, while)", **dict.fromkeys(NUMBERS, "reading a Python number")}
_ASSIGNED = frozenset({"setitem", "=.data", "=.real", "=.imag", "=.requires_grad"})
# Of torch itself, not of torch.nn.functional: the same names for other orders of arguments.
_OTHER_ORDER = frozenset({"embedding", "embedding_bag", "batch_norm", "instance_norm"})
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


# What a tensor's shape, kind and device say: the same for a per-task value as for one task's.
METADATA = frozenset(
    {
        *(f".{name}" for name in ("shape", "dtype", "device", "layout", "ndim", "is_cuda", "is_sparse", "is_meta",
          "is_cpu", "is_mps", "is_xpu", "is_quantized", "is_nested", "names", "itemsize", "nbytes", "retains_grad",
          "is_mkldnn", "is_xla", "is_mtia", "is_ipu", "is_maia", "is_vulkan", "requires_grad")),
        "size", "dim", "numel", "len", "element_size", "is_floating_point", "is_complex", "hash", "nelement",
        "get_device", "ndimension", "is_signed", "is_same_size", "result_type", "can_cast", "promote_types", "is_conj",
        "is_neg", "is_inference",
    }
)  # fmt: skip
# Functions that read properties of a tensor and return no tensor.
PASSED = METADATA | frozenset(
    {
        *(f".{name}" for name in ("is_leaf", "grad_fn", "output_nr", "_version", "_backward_hooks", "_base", "name")),
        "stride", "is_contiguous", "storage_offset", "untyped_storage", "data_ptr", "_is_view", "is_pinned",
        "is_shared",
    }
)  # fmt: skip
