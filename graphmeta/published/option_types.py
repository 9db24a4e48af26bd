"""JSON values of options, and their types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import UnionType
from typing import Any, Union, get_args, get_origin

import numpy as np

from graphmeta.errors import InputError
from graphmeta.nn.conditioning.gate import GRANULARITIES


def to_json(value: Any) -> Any:
    """The value as JSON stores it: numbers, strings, lists, mappings, and the names of granularities.

    Raises:
        InputError: a value without a name in the library, which could not be loaded again.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(key): to_json(one) for key, one in value.items()}
    if isinstance(value, Sequence):
        return [to_json(one) for one in value]
    name = getattr(value, "__name__", None)
    if type(GRANULARITIES.get(str(name))) is type(value):
        return name
    what = name or f"a {type(value).__name__}"
    raise InputError(f"{what} cannot be stored in a build spec: it has no name in this library")


def check_types(name: str, hints: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Check JSON values against types.

    Raises:
        InputError: a value of the wrong type; the message begins with ``name``.
    """
    for key, value in values.items():
        if key in hints and not _accepts(hints[key], value):
            wanted = getattr(hints[key], "__name__", None) or str(hints[key])
            wanted = wanted.replace("collections.abc.", "").replace("typing.", "")
            raise InputError(f"{name} takes no {key}={str(value)[:40]!r}; it must be {wanted}")


def _accepts(hint: Any, value: Any) -> bool:
    """Whether a JSON value has this type; False for types that JSON cannot express."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_accepts(one, value) for one in inner)
    if origin is Sequence:
        return isinstance(value, list) and all(_accepts(inner[0], one) for one in value)
    if hint in (int, float):
        return isinstance(value, int if hint is int else int | float) and not isinstance(value, bool)
    if hint in (str, bool, type(None)) or origin in (dict, Mapping):
        return isinstance(value, dict if origin is Mapping else origin or hint)
    return False
