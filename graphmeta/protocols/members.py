"""The metaclass of all runtime-checkable protocols: ``isinstance`` by the members that an object has."""

from __future__ import annotations

import typing
from collections.abc import Iterable
from functools import cache
from typing import Any, Protocol

_MISSING = object()


class ReadsMembers(type(Protocol)):
    """``isinstance`` for protocols of ``nn.Module``, equal on every version of Python.

    From Python 3.12 on ``isinstance`` looks members up by ``inspect.getattr_static``, which does not find the
    submodules, parameters and buffers of a module. In 3.11 it lists a protocol's members anew each time, which took a
    sixth of the training of a small model.
    """

    def __instancecheck__(cls, instance: Any) -> bool:
        own = vars(cls)
        if not (own.get("_is_protocol", False) and own.get("_is_runtime_protocol", False)):
            return super().__instancecheck__(instance)  # a class that inherits from one, or no runtime protocol
        return cls in type(instance).__mro__ or has_members(instance, cls, _members(cls))


@cache
def _members(protocol: type) -> tuple[str, ...]:
    """The names of a protocol's members."""
    known = getattr(protocol, "__protocol_attrs__", None)  # from 3.12 on
    return tuple(sorted(vars(typing)["_get_protocol_attrs"](protocol) if known is None else known))


def has_members(instance: Any, protocol: type, names: Iterable[str]) -> bool:
    """Whether an object has these members of the protocol; a method that is None does not count, as in Python."""
    for name in names:
        found = getattr(instance, name, _MISSING)
        if found is _MISSING or (found is None and callable(getattr(protocol, name, None))):
            return False
    return True
