"""Which parameters a task may change: chosen by the beginning of their names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from graphmeta.errors import InputError


@dataclass(frozen=True)
class Scope:
    """Parameters whose name is one of ``prefixes`` or lies below one: ``Scope("head")`` holds ``head.project.weight``.

    ``Scope("")`` is every parameter. MeLU's scope is the last layers, ANIL's the head, CBML's everything. Parameters
    at or below one of ``without`` are left out.
    """

    prefixes: tuple[str, ...]
    without: tuple[str, ...]

    def __init__(self, *prefixes: str, without: Sequence[str] = ()) -> None:
        object.__setattr__(self, "prefixes", prefixes)
        object.__setattr__(self, "without", tuple(without))

    def names(self, module: nn.Module) -> list[str]:
        """Names of the chosen parameters, in the module's order.

        Raises:
            InputError: if there is none; the message lists what there is, or what is left out.
        """
        every = [name for name, _ in module.named_parameters()]
        below = [name for name in every if self._among(self.prefixes, name)]
        chosen = [name for name in below if not self._among(self.without, name)]
        if below and not chosen:
            raise InputError(
                f"all parameters that the scope {self.prefixes} selects are left out of it, as no task changes "
                f"them: {', '.join(below)}; name others"
            )
        if not chosen:
            raise InputError(f"the scope {self.prefixes} selects no parameter; there are: {', '.join(every)}")
        return chosen

    def holds(self, name: str) -> bool:
        """Whether a parameter of that name is chosen."""
        return self._among(self.prefixes, name) and not self._among(self.without, name)

    @staticmethod
    def _among(prefixes: Sequence[str], name: str) -> bool:
        return any(prefix == "" or name == prefix or name.startswith(prefix + ".") for prefix in prefixes)
