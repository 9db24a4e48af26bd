"""Arguments of torch functions in one form: what a function requires is passed by position, in its order."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

from graphmeta.adapt.stacked.notes import name_of, schemas_of


class Form(NamedTuple):
    """One signature: parameters that may be passed by position, the number of required ones, and all names."""

    order: tuple[str, ...]
    required: int
    names: frozenset[str]


def by_position(
    func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The same arguments, with required ones that were passed by keyword at their positions."""
    moved = _moved(func, len(args), tuple(kwargs))
    if not moved:
        return args, kwargs
    rest = {name: value for name, value in kwargs.items() if name not in moved}
    return (*args, *(kwargs[name] for name in moved)), rest


def given(args: tuple[Any, ...], kwargs: dict[str, Any], place: int, name: str, default: Any = None) -> Any:
    """An argument by position or name."""
    return args[place] if len(args) > place else kwargs.get(name, default)


@cache
def _moved(func: Callable[..., Any], count: int, names: tuple[str, ...]) -> tuple[str, ...]:
    """The keywords to pass by position, after ``count`` arguments that already are."""
    own = {_plain(name): name for name in names}
    for form in _forms(func):
        if count <= len(form.order) and own.keys() <= form.names - frozenset(form.order[:count]):
            wanted = form.order[count : form.required]
            given = next((n for n, name in enumerate(wanted) if name not in own), len(wanted))
            return tuple(own[name] for name in wanted[:given])
    return ()


@cache
def _forms(func: Callable[..., Any]) -> tuple[Form, ...]:
    """The signatures of a torch function; none if they are unknown."""
    if ":" in name_of(func) or isinstance(func, types.MethodWrapperType):
        return ()
    if isinstance(func, types.FunctionType):
        return (_of_python(func),)
    return tuple(_of_schema(schema) for schema in schemas_of(func))


def _of_python(func: Callable[..., Any]) -> Form:
    parameters = inspect.signature(func).parameters.values()
    order = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = sum(p.default is p.empty for p in order)
    every = frozenset(_plain(p.name) for p in parameters)
    return Form(tuple(_plain(p.name) for p in order), required, every)


def _of_schema(schema: Any) -> Form:
    order = [one for one in schema.arguments if not one.kwarg_only]
    required = sum(not one.has_default_value() for one in order)
    every = frozenset(_plain(one.name) for one in schema.arguments) | {"out"}
    return Form(tuple(_plain(one.name) for one in order), required, every)


def _plain(name: str) -> str:
    """A parameter's name, by one of those that torch takes for the same."""
    return _ALIASES.get(name, name)


_ALIASES = {
    **dict.fromkeys(("self", "x", "a", "x1"), "input"), "x2": "other", "axis": "dim", "keepdims": "keepdim",
}  # fmt: skip
