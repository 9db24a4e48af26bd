"""Commands whose options are grouped in dataclasses."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import wraps
from typing import Any, get_type_hints


def _default(field: Field[Any]) -> Any:
    if field.default_factory is not MISSING:
        return field.default_factory()
    return inspect.Parameter.empty if field.default is MISSING else field.default


def flattened(command: Callable[..., None]) -> Callable[..., None]:
    """Replace the command's dataclass parameters by their fields as options, because typer has no option groups."""
    parameters = inspect.signature(command, eval_str=True).parameters
    groups: dict[str, Any] = {n: p.annotation for n, p in parameters.items() if is_dataclass(p.annotation)}
    only = inspect.Parameter.KEYWORD_ONLY
    options: list[inspect.Parameter] = []
    for name, parameter in parameters.items():
        if name not in groups:
            options.append(parameter.replace(kind=only))
            continue
        hints = get_type_hints(groups[name], include_extras=True)
        options += [
            inspect.Parameter(
                field.name,
                only,
                default=_default(field),
                annotation=hints[field.name],
            )
            for field in fields(groups[name])
        ]

    @wraps(command)
    def called(**given: Any) -> None:
        made = {
            name: group(**{field.name: given.pop(field.name) for field in fields(group)})
            for name, group in groups.items()
        }
        command(**made, **given)

    called.__dict__["__signature__"] = inspect.Signature(options)
    return called
