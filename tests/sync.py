"""Where a program would wait for the device: ``torch.cuda.set_sync_debug_mode("error")`` for machines without a GPU.

A GPU works through what it is told while the program tells it more. Whatever needs a number or a size that the GPU has
yet to compute (a value as a Python number, how many entries a mask has) stops the program until it is there.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from graphmeta.adapt.adaptation import Adaptation
from graphmeta.adapt.co_adaptation import CoAdaptation

_ROOT = str(Path(__file__).parents[1])
_HERE = tuple(str(Path(__file__).with_name(name)) for name in ("sync.py", "pretend.py"))
_SEES = str(Path(_ROOT, "graphmeta", "adapt", "stacked", "stack.py"))  # which stands between a line and what it calls

# Operations whose result is a Python number, or has a size that depends on values. ``bincount`` has such a size even
# with ``minlength``; ``isin`` sorts out repeated values where there are many.
_WAITING = frozenset(
    {
        "_local_scalar_dense", "item", "is_nonzero", "equal", "nonzero", "nonzero_numpy", "argwhere", "masked_select",
        "bincount", "histc", "unique_dim", "unique_consecutive", "unique_dim_consecutive", "_unique", "_unique2",
        "isin", "multinomial", "allclose",
    }
)  # fmt: skip
# What reads a tensor's memory in Python, which no operation tells of.
_READING = frozenset({"tolist", "numpy", "__array__", "cpu"})


@dataclass(frozen=True)
class Wait:
    """One: the operation, and the line of the project (or the innermost at all) that asked for it."""

    operation: str
    line: str

    def __str__(self) -> str:
        return f"{self.operation} at {self.line}"


class HostWaits:
    """Within it, what would wait for a GPU is noted in ``found``.

    Nothing is raised on the spot, as an adaptation takes what is raised inside of it for a reason to run the loop. A
    copy between devices is seen only where there are two (:mod:`tests.pretend` is a second one), ``.cpu()`` by its
    name.
    """

    def __init__(self) -> None:
        self.found: list[Wait] = []
        self._modes = _Operations(self._note), _Reads(self._note)

    def __enter__(self) -> HostWaits:
        for mode in self._modes:
            mode.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        for mode in reversed(self._modes):
            mode.__exit__(*error)

    def _note(self, operation: str) -> None:
        if (wait := Wait(operation, _line())) not in self.found:
            self.found.append(wait)


class _Operations(TorchDispatchMode):
    def __init__(self, note: Callable[[str], None]) -> None:
        super().__init__()
        self.note = note

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        indexing = name.removesuffix("_") in ("index", "index_put", "_index_put_impl")
        unsized = name == "repeat_interleave" and func._overloadname == "Tensor" and kwargs.get("output_size") is None
        if name in _WAITING or unsized or indexing and _masked(args[1]):
            self.note(name)
        elif name == "_to_copy" and kwargs.get("device", args[0].device) != args[0].device:
            self.note(f"a copy to {kwargs['device']}")
        elif name == "copy_" and args[0].device != args[1].device:
            self.note(f"a copy to {args[0].device}")
        return func(*args, **kwargs)


class _Reads(TorchFunctionMode):
    def __init__(self, note: Callable[[str], None]) -> None:
        super().__init__()
        self.note = note

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in _READING:
            self.note(func.__name__)
        return func(*args, **(kwargs or {}))


def around_steps(monkeypatch: Any, context: Callable[[], Any]) -> None:
    """Have adaptations take their steps, from the first forward pass to the last gradient, within ``context()``."""
    inside: list[Any] = []

    def within(descend: Callable[..., Any]) -> Callable[..., Any]:
        def run(self: Any, *args: Any) -> Any:
            if inside:  # an adaptation within another
                return descend(self, *args)
            inside.append(self)
            try:
                with context():
                    return descend(self, *args)
            finally:
                inside.clear()

        return run

    for kind, name in ((Adaptation, "_trajectory"), (Adaptation, "_descend"), (CoAdaptation, "_descend")):
        monkeypatch.setattr(kind, name, within(getattr(kind, name)))


def _masked(index: Any) -> bool:
    return any(isinstance(part, Tensor) and part.dtype in (torch.bool, torch.uint8) for part in index)


def _line() -> str:
    frames = [frame for frame in traceback.extract_stack() if frame.filename not in (*_HERE, _SEES)]
    own = [frame for frame in frames if frame.filename.startswith(_ROOT) and "site-packages" not in frame.filename]
    frame = (own or frames)[-1]
    return f"{frame.filename.removeprefix(_ROOT + '/')}:{frame.lineno} ({frame.line})"
