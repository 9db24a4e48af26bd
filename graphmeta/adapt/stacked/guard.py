"""Guard: refuses reads and writes that would be silently wrong while a call replaces weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from graphmeta.adapt.stacked.arguments import given
from graphmeta.adapt.stacked.notes import address, tensors_in
from graphmeta.errors import InputError, Remedy, UnsupportedOp

_WRITTEN = "writes into a parameter; write into a copy, or make it a buffer"
_FROZEN = "inside of the recommender changes which parameters learn; freeze them before they are adapted, or detach"
_INSTEAD = {
    "requires_grad_": _FROZEN,
    "an assignment to a tensor's requires_grad": _FROZEN,
    **dict.fromkeys(
        ("embedding with max_norm", "embedding_bag with max_norm"),
        "rescales the rows of a parameter; divide the rows that are read by their norms instead",
    ),
}
LOOK_UPS = frozenset({"embedding", "embedding_bag"})
_KNOWN = "a global, a class attribute, or an object that holds the module"


class Guard:
    """Checks every torch function of a call, and raises for those that would make its result silently wrong.

    Args:
        replaced: names of the parameters with per-task weights, by the address of the original's memory.
        shared_parameters: ids of parameters that may share such memory and are not replaced.
        parameters: addresses of all parameters and their replacements, which must not be written into.
    """

    def __init__(
        self,
        replaced: Mapping[int, str] | None = None,
        shared_parameters: frozenset[int] = frozenset(),
        parameters: Iterable[int] = (),
    ) -> None:
        self.replaced, self.parameters = dict(replaced or {}), set(parameters)
        self.shared_parameters = shared_parameters
        self._read: list[tuple[Tensor, int]] = []
        self._addresses: set[int] = set()

    def read(self, *tensors: Tensor) -> None:
        """Record tensors that an inner step differentiates, which must not be modified from now on."""
        for x in tensors:
            self._read.append((x, x._version))
            self._addresses.add(address(x))

    def release(self) -> None:
        """Forget the recorded tensors."""
        self._read.clear()
        self._addresses.clear()

    def unchanged(self) -> None:
        """Raise an UnsupportedOp if a recorded tensor has been written into."""
        if any(x._version != version for x, version in self._read):
            raise UnsupportedOp("writing into a tensor that a per-task weight has made or met", Remedy.COPY)

    def reach(self, args: Any, kwargs: Any) -> None:
        """Raise an InputError if an operation reads an original parameter that per-task weights replace."""
        for x in tensors_in((args, kwargs)):
            if x.__class__ is Tensor or not isinstance(x, nn.Parameter):
                continue
            if id(x) in self.shared_parameters or not x.numel():
                continue
            name = self.replaced.get(x.data_ptr())
            if name is not None:
                raise InputError(
                    f"{name} is also read around its module (by {_KNOWN}), where no task can have its own; read it "
                    f"from its module"
                )

    def renormalised(self, name: str, args: Any, kwargs: Any) -> None:
        """Raise an InputError if a look-up by ``torch.nn.functional`` rescales the rows of a parameter in place."""
        if given(args, kwargs, 3, "max_norm") is not None:
            self.write(f"{name} with max_norm", given(args, kwargs, 1, "weight"))

    def write(self, name: str, into: Any) -> None:
        """Check that an operation of this name may write into a tensor.

        Raises:
            InputError: a parameter.
            UnsupportedOp: a tensor that an inner step differentiates.
        """
        if not isinstance(into, Tensor):
            return
        if isinstance(into, nn.Parameter) or (self.parameters and address(into) in self.parameters):
            raise InputError(f"{name} {_INSTEAD.get(name, _WRITTEN)}")
        if self._addresses and address(into) in self._addresses:
            raise UnsupportedOp(f"{name} into a tensor that a per-task weight has made or met", Remedy.COPY)
