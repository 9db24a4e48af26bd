"""What the code of a recommender must leave alone while a call replaces its weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from graphmeta.adapt.stacked.notes import address, tensors_in
from graphmeta.errors import InputError, Remedy, UnsupportedOp

_KNOWN = "a global, a class attribute, or an object that holds the module"


class Guard:
    """Sees every torch function of a call, and refuses those that would make it wrong without a word.

    Args:
        replaced: the names of the parameters that tasks have their own of, by where the originals' memory begins.
        others: ids of parameters that may share such memory and are used as they are.
        parameters: addresses of all parameters and of their replacements, which nothing may write into.
    """

    def __init__(
        self,
        replaced: Mapping[int, str] | None = None,
        others: frozenset[int] = frozenset(),
        parameters: Iterable[int] = (),
    ) -> None:
        self.replaced, self.others, self.parameters = dict(replaced or {}), others, set(parameters)
        self._read: list[tuple[Tensor, int]] = []
        self._addresses: set[int] = set()

    def read(self, *tensors: Tensor) -> None:
        """Note tensors that a step is taken by, which must stay as they are now."""
        for x in tensors:
            self._read.append((x, x._version))
            self._addresses.add(address(x))

    def unchanged(self) -> None:
        """Raise an UnsupportedOp if a tensor that a step is taken by has been written into."""
        if any(x._version != version for x, version in self._read):
            raise UnsupportedOp("writing into a tensor that a per-task weight has made or met", Remedy.COPY)

    def reach(self, args: Any, kwargs: Any) -> None:
        """Raise an InputError if an original takes part whose place a task's own weight has."""
        for x in tensors_in((args, kwargs)):
            if x.__class__ is Tensor or not isinstance(x, nn.Parameter) or id(x) in self.others or not x.numel():
                continue
            name = self.replaced.get(x.data_ptr())
            if name is not None:
                raise InputError(
                    f"{name} is also read around its module (by {_KNOWN}), where no task can have its own; read it "
                    f"from its module"
                )

    def write(self, name: str, into: Any) -> None:
        """Raise an error if an operation of this name must not write there.

        Raises:
            InputError: a parameter.
            UnsupportedOp: a tensor that a step is taken by.
        """
        if not isinstance(into, Tensor):
            return
        if isinstance(into, nn.Parameter) or (self.parameters and address(into) in self.parameters):
            raise InputError(f"{name} writes into a parameter; write into a copy, or make it a buffer")
        if self._addresses and address(into) in self._addresses:
            raise UnsupportedOp(f"{name} into a tensor that a per-task weight has made or met", Remedy.COPY)
