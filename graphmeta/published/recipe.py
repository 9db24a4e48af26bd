"""How a published system comes to know how it was built, whichever door it was built through."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial, wraps
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import numpy as np

from graphmeta.errors import InputError
from graphmeta.nn.conditioning.gate import GRANULARITIES
from graphmeta.recipe import LIMITS, Recipe
from graphmeta.system import System

GIVEN = ("items", "users")  # what a document holds besides the recipe


def recorded(function: Callable[..., System]) -> Callable[..., System]:
    """The function, whose systems know how they were built and can be loaded; it takes two options more.

    ``max_support``: support samples a task, the last ones; ``max_length``: clicks of a session that are looked at, the
    last ones; the system's own if None. Where an argument cannot be written to a file (a base that is a function of
    your own), the system has no recipe, and loading it takes ``build=``.

    Raises:
        InputError: (when called) an argument of another type than the function's, or a limit that is too small.
    """
    inner = inspect.signature(function)

    @wraps(function)
    def built(*given: Any, **named: Any) -> System:
        limits = {name: named.pop(name, None) for name in LIMITS}
        bound = inner.bind(*given, **named)
        bound.apply_defaults()
        if "base" in bound.arguments:
            bound.arguments |= _opened(**{name: bound.arguments[name] for name in ("base", "options")})
        arguments = {name: value for name, value in bound.arguments.items() if name not in GIVEN}
        try:
            system = function(*bound.args, **bound.kwargs)
        except InputError:
            raise
        except Exception:
            _recipe(built, arguments)  # if an argument's type is what is wrong, this says so
            raise
        _limit(system, **limits)
        system.recipe = _recipe(built, arguments)
        return system

    own = [inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY, default=None, annotation="int | None") for n in LIMITS]
    built.__signature__ = inner.replace(parameters=[*inner.parameters.values(), *own])  # pyright: ignore
    built.__annotations__ = {**function.__annotations__, **{name: "int | None" for name in LIMITS}}
    return built


def variant(name: str, function: Callable[..., System], **defaults: Any) -> Callable[..., System]:
    """A published system under another name, with these defaults in the place of its own."""
    inner = inspect.unwrap(function)

    @wraps(inner)
    def chosen(*given: Any, **named: Any) -> System:
        return inner(*given, **{**defaults, **named})

    chosen.__name__ = chosen.__qualname__ = name
    takes = inspect.signature(inner)
    parameters = [p.replace(default=defaults.get(p.name, p.default)) for p in takes.parameters.values()]
    chosen.__signature__ = takes.replace(parameters=parameters)  # pyright: ignore[reportAttributeAccessIssue]
    return recorded(chosen)


def written(value: Any) -> Any:
    """The value as a document holds it: numbers, text, lists, and the names of systems and granularities.

    Raises:
        InputError: a value that has no name in the library, which nobody could load again.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(key): written(one) for key, one in value.items()}
    if isinstance(value, Sequence):
        return [written(one) for one in value]
    name = getattr(value, "__name__", None)
    if called(value) is not None or type(GRANULARITIES.get(str(name))) is type(value):
        return name
    raise InputError(f"{name or value!r} cannot be loaded again, for it has no name in this library")


def called(base: Any) -> str | None:
    """The name of a base in the catalogue, if it is there: its name, or its function."""
    from graphmeta.published.catalogue import CATALOGUE  # which imports this module

    name = base if isinstance(base, str) else getattr(base, "__name__", "")
    return name if name in CATALOGUE and (name is base or CATALOGUE[name].function is base) else None


def _opened(base: Any, options: Mapping[str, Any] | None) -> dict[str, Any]:
    """Base and options, where the base is a ``functools.partial``: what it goes around, and its keywords as options."""
    while isinstance(base, partial) and not base.args:
        inside = {name: value for name, value in base.keywords.items() if name != "width"}  # the caller's holds
        base, options = base.func, {**inside, **(options or {})}
    return {"base": base, "options": options}


def _recipe(function: Callable[..., System], arguments: dict[str, Any]) -> Recipe | None:
    """The recipe of a catalogue's function with these arguments; None if it is not in it, or they cannot be written.

    Raises:
        InputError: an argument of another type than the function's.
    """
    from graphmeta.published.catalogue import CATALOGUE

    name = called(function)
    try:
        plain = written(complete(arguments))
    except InputError:
        return None
    check_types(function, plain)
    return None if name is None else Recipe(CATALOGUE[name].family, name, plain)


def check_types(function: Callable[..., System], arguments: Mapping[str, Any]) -> None:
    """Look at the types of arguments as a document holds them.

    Raises:
        InputError: one of another type than the function's.
    """
    hints = get_type_hints(function)
    for name, value in arguments.items():
        if name in hints and not _accepts(hints[name], value):
            wanted = function.__annotations__[name]
            raise InputError(f"{function.__name__} takes no {name}={str(value)[:40]!r}; it must be {wanted}")


def _accepts(hint: Any, value: Any) -> bool:
    """Whether a value as JSON has it is of this type; of functions and objects, none is."""
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


def complete(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments with the base's defaults among its options, so that later defaults change no stored model."""
    from graphmeta.published.catalogue import CATALOGUE

    if "base" not in arguments:
        return dict(arguments)
    opened = _opened(arguments["base"], arguments.get("options"))
    name = called(opened["base"])
    if name is None or not isinstance(opened["options"], Mapping | None):
        return {**arguments, **opened}
    takes = inspect.signature(CATALOGUE[name].function).parameters.values()
    own = {p.name: p.default for p in takes if p.name not in (*GIVEN, "width")}
    return {**arguments, "base": name, "options": complete({**own, **(opened["options"] or {})})}


def _limit(system: System, *, max_support: int | None, max_length: int | None) -> None:
    """Set what is given; a length of 0 is for systems that look at no clicks."""
    for name, value, least in (("max_support", max_support, 0), ("max_length", max_length, min(system.max_length, 1))):
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise InputError(f"{name}={value!r} must be a whole number, at least {least}")
        setattr(system, name, int(value))
