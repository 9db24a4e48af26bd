"""The metaclass of protocols whose members may be submodules or parameters."""

from __future__ import annotations

from typing import Any, Protocol

_MISSING = object()


class ReadsMembers(type(Protocol)):
    """``isinstance`` for protocols of ``nn.Module``, equal on every version of Python.

    From Python 3.12 on ``isinstance`` looks members up by ``inspect.getattr_static``, which does not find the
    submodules, parameters and buffers of a module.
    """

    def __instancecheck__(cls, instance: Any) -> bool:
        if super().__instancecheck__(instance):
            return True
        protocol = vars(cls).get("_is_protocol", False)  # not a class that inherits from one
        names = getattr(cls, "__protocol_attrs__", ())  # from 3.12 on
        return protocol and bool(names) and has_members(instance, cls, names)


def has_members(instance: Any, protocol: type, names: Any) -> bool:
    """Whether an object has these members of the protocol; a method that is None does not count, as in Python."""
    for name in names:
        found = getattr(instance, name, _MISSING)
        if found is _MISSING or (found is None and callable(getattr(protocol, name, None))):
            return False
    return True
