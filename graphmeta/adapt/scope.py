"""Scope: the adapted parameters, selected by name prefixes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from graphmeta.errors import InputError
from graphmeta.protocols import NotAdapted


@dataclass(frozen=True)
class Scope:
    """The weights that a task adapts, by name prefixes: ``Scope("head")`` includes ``head.project.weight``.

    ``Scope("")`` is every parameter. MeLU: ``Scope("head.project")``, ANIL: ``Scope("head")``, CBML: ``Scope("")``.
    Parameters at or below a prefix in ``without`` are excluded, and those of parts that declare that they are
    not adapted (:class:`~graphmeta.protocols.NotAdapted`): prototypes, gates and memory keys, which identify a task,
    and the re-ranker.
    """

    prefixes: tuple[str, ...]
    without: tuple[str, ...]

    def __init__(self, *prefixes: str, without: Sequence[str] = ()) -> None:
        object.__setattr__(self, "prefixes", prefixes)
        object.__setattr__(self, "without", tuple(without))

    def names(self, module: nn.Module) -> list[str]:
        """Names of the selected parameters, in the module's order.

        Raises:
            InputError: no selected parameter; the message lists all parameters, or the excluded ones.
        """
        every = [name for name, _ in module.named_parameters()]
        below = [name for name in every if self._among(self.prefixes, name)]
        without = [*self.without, *_not_adapted(module)]
        chosen = [name for name in below if not self._among(without, name)]
        if below and not chosen:
            raise InputError(
                f"all parameters that the scope {self.prefixes} selects are excluded from adaptation: "
                f"{', '.join(below)}; name others"
            )
        if not chosen:
            raise InputError(f"the scope {self.prefixes} selects no parameter; there are: {', '.join(every)}")
        return chosen

    def holds(self, name: str) -> bool:
        """Whether the parameter of that name is selected."""
        return self._among(self.prefixes, name) and not self._among(self.without, name)

    @staticmethod
    def _among(prefixes: Sequence[str], name: str) -> bool:
        return any(prefix == "" or name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


def _not_adapted(module: nn.Module) -> list[str]:
    """The prefixes of the parameters that parts of the module exclude from adaptation."""
    return [
        ".".join(filter(None, (place, name)))
        for place, part in module.named_modules()
        if isinstance(part, NotAdapted)
        for name in part.not_adapted
    ]
