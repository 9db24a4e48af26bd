"""Conversion of options between objects and flat names.

A function of :mod:`graphmeta.published.models` takes objects: ``cbml(base, step=LearnedRates(0.01, per_step=True),
inner=InnerLoop(order=2))``. The command line and stored build specs use numbers, strings and lists:
``lr=0.01, learned="per entry", order=2``. This module converts between the two;
:func:`~graphmeta.published.catalogue.build` takes either.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, get_type_hints

from graphmeta.adapt.inner import InnerLoop
from graphmeta.adapt.scope import Scope
from graphmeta.adapt.step import Step
from graphmeta.errors import InputError
from graphmeta.nn.encoders.hetero import MESSAGES, Messages
from graphmeta.nn.encoders.recurrent import CELLS, Cell
from graphmeta.nn.heads.target_attention import COMBINATIONS, Combination
from graphmeta.nn.losses.pairwise import OBJECTIVES
from graphmeta.protocols import Objective
from graphmeta.published.flat_options import (
    flat_anchor,
    flat_gate,
    flat_loop,
    flat_scope,
    flat_step,
    make_anchor,
    make_gate,
    make_loop,
    make_scope,
    make_step,
)
from graphmeta.published.option_types import to_json
from graphmeta.published.options import Anchor, ClusterGate, UserTasks
from graphmeta.retrain.transfer import RESTARTS, Restart


@dataclass(frozen=True)
class OptionCodec:
    """Converts an option object to values by flat names and back.

    Args:
        expected: what the object may be, for messages.
        takes: whether a value is such an object.
        hints: type of each flat name.
        make: ``(values, default object) -> object``; names that are not given keep the default's values.
        flat: ``object -> {name: value}``; raises :class:`~graphmeta.errors.InputError` if the object has no flat form.
    """

    expected: str
    takes: Callable[[Any], bool]
    hints: Mapping[str, Any]
    make: Callable[[Mapping[str, Any], Any], Any]
    flat: Callable[[Any], dict[str, Any]]


def codec_of(name: str, hint: Any) -> OptionCodec | None:
    """The codec of the option of this name and type; None for plain values."""
    if hint in _CODECS:
        return _CODECS[hint]
    if hint in _NAMED:
        return _of_named(name, _NAMED[hint])
    return _of_dataclass(hint) if is_dataclass(hint) and isinstance(hint, type) else None


def check_object(name: str, option: str, codec: OptionCodec, value: Any) -> None:
    """Check that the value of an option is such an object.

    Args:
        name: of the system, or of the options that hold it.

    Raises:
        InputError: any other value, a string for example.
    """
    if not codec.takes(value):
        raise InputError(f"{name} takes no {option}={str(value)[:40]!r}; pass {codec.expected}")


# Types whose objects have names: on the command line, and in build specs.
_NAMED: dict[Any, Mapping[str, Any]] = {
    Cell: CELLS,
    Combination: COMBINATIONS,
    Messages: MESSAGES,
    Objective: OBJECTIVES,
    Restart: RESTARTS,
}


def _of_named(option: str, objects: Mapping[str, Any]) -> OptionCodec:
    """The codec of objects that are stored by their names."""

    def make(values: Mapping[str, Any], default: Any) -> Any:
        name = values.get(option)
        if name is not None and name not in objects:
            raise InputError(f"{option}={name!r} must be one of {', '.join(objects)}")
        return default if name is None else objects[name]

    def flat(value: Any) -> dict[str, Any]:
        known = (name for name, one in objects.items() if type(one) is type(value) and one == value)
        name = next(known, None)
        if name is None:
            shown = getattr(value, "__name__", str(value))
            raise InputError(f"{shown} cannot be stored in a build spec: it has no name in this library")
        return {option: name}

    shown = ", ".join(getattr(one, "__name__", str(one)) for one in objects.values())
    plain = (bool, int, float, str, list, tuple, dict, type(None))
    return OptionCodec(
        f"an object, such as {shown}", lambda value: not isinstance(value, plain), {option: str}, make, flat
    )


def _of_dataclass(kind: type) -> OptionCodec:
    """The codec of a dataclass: its fields by name."""
    names = [field.name for field in fields(kind)]
    hints = get_type_hints(kind)
    codecs = {name: codec for name in names if (codec := codec_of(name, hints[name])) is not None}
    plain = {name: hints[name] for name in names if name not in codecs}

    def make(values: Mapping[str, Any], default: Any) -> Any:
        made = {name: values.get(name, getattr(default, name)) for name in plain}
        for name, codec in codecs.items():
            made[name] = codec.make({key: values[key] for key in codec.hints if key in values}, getattr(default, name))
        return kind(**made)

    def flat(value: Any) -> dict[str, Any]:
        found = {name: to_json(getattr(value, name)) for name in plain}
        for name, codec in codecs.items():
            found |= codec.flat(getattr(value, name))
        return found

    def takes(value: Any) -> bool:
        if not isinstance(value, kind):
            return False
        for name, codec in codecs.items():
            check_object(kind.__name__, name, codec, getattr(value, name))
        return True

    hints_of_objects = {key: hint for codec in codecs.values() for key, hint in codec.hints.items()}
    expected = f"{kind.__module__}.{kind.__name__}(…)"
    return OptionCodec(expected, takes, plain | hints_of_objects, make, flat)


def _is_step(value: Any) -> bool:
    return isinstance(value, int | float | Step) and not isinstance(value, bool)


_CODECS: dict[Any, OptionCodec] = {
    Scope: OptionCodec(
        "a Scope, such as graphmeta.published.options.ENCODER_AND_HEAD",
        lambda value: isinstance(value, Scope),
        {"scope": Sequence[str] | str, "without": Sequence[str] | None},
        make_scope,
        flat_scope,
    ),
    Step | float: OptionCodec(
        "a learning rate, or a step such as LearnedRates(0.01)",
        _is_step,
        {"lr": float, "learned": bool | str},
        make_step,
        flat_step,
    ),
    Anchor: OptionCodec(
        "UserTasks(…) of graphmeta.published.options for users as tasks, or None for sessions",
        lambda value: value is None or isinstance(value, UserTasks),
        {
            "anchor": str,
            "history": int | None,
            "history_events": int | None,
            "decay": float | None,
            "item_bias": bool | None,
            "bias_rate": float | None,
        },
        make_anchor,
        flat_anchor,
    ),
    InnerLoop: OptionCodec(
        "an InnerLoop(…)",
        lambda value: isinstance(value, InnerLoop),
        {"steps": int, "order": int, "inner": Mapping[str, Any] | None},
        make_loop,
        flat_loop,
    ),
    ClusterGate | None: OptionCodec(
        "a ClusterGate(…), or None for no gate",
        lambda value: value is None or isinstance(value, ClusterGate),
        {"gate": str, "granularity": str, "gate_scope": str},
        make_gate,
        flat_gate,
    ),
}
