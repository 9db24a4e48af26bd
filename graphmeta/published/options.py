"""Options of published systems, as objects and by flat names.

A function of :mod:`graphmeta.published.models` takes objects: ``cbml(base, step=LearnedRates(0.01, per_step=True),
inner=InnerLoop(order=2))``. The command line and stored build specs use numbers, strings and lists:
``lr=0.01, learned="per entry", order=2``. This module converts between the two;
:func:`~graphmeta.published.catalogue.build` takes either.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import numpy as np

from graphmeta.adapt.inner import InnerLoop, MultiStep, OrderSchedule
from graphmeta.adapt.scope import Scope
from graphmeta.adapt.step import Gradient, GroupRates, LearnedRates, SerializableStep, Step
from graphmeta.errors import InputError, check_whole
from graphmeta.nn.conditioning.gate import GRANULARITIES, Full, Granularity, granularity_by_name
from graphmeta.nn.encoders.hetero import MESSAGES, Messages
from graphmeta.nn.encoders.recurrent import CELLS, Cell
from graphmeta.nn.heads.target_attention import COMBINATIONS, Combination
from graphmeta.nn.losses.pairwise import OBJECTIVES
from graphmeta.protocols import Objective
from graphmeta.retrain.transfer import RESTARTS, Restart

SCOPES: dict[str, Scope] = {
    "predictor": Scope("head.project", "head.score_terms", "head.scale", "head.item_bias"),
    "encoder_head": Scope("encoder", "head"),
    "all": Scope(""),
    "item_bias": Scope("head.item_bias"),
}
PREDICTOR, ENCODER_AND_HEAD, EVERYTHING, ITEM_BIAS = SCOPES.values()
_OLD_SCOPES = {"attention": "encoder_head"}  # an earlier name, in build specs and commands


@dataclass(frozen=True)
class ClusterGate:
    """What the gate of a session's weights reads in CBML, and its granularity.

    Args:
        session, cluster: whether the gate reads the session vector S and its cluster vector C.
        granularity: how gate values are broadcast over a weight, see :mod:`graphmeta.nn.conditioning.gate`.
        per_sample: a gate for each support sample and for the query, applied in each forward pass; inner steps update
            the ungated weights. If False, one gate per task, from its observed clicks, applied before the inner steps,
            which update the gated weights.
    """

    session: bool = True
    cluster: bool = True
    granularity: Granularity = Full()
    per_sample: bool = False

    def __post_init__(self) -> None:
        if not (self.session or self.cluster):
            raise InputError("a gate reads the session, the cluster or both; pass gate=None for no gate")

    def entries_read(self, session: int) -> slice:
        """The entries of ``[S ; C]`` that the gate reads; ``session`` is the size of S."""
        return slice(None if self.session else session, None if self.cluster else session)


@dataclass(frozen=True)
class UserTasks:
    """A user is a task: the items of the user's earlier sessions are the support, the present session is the query.

    Args:
        sessions: at most the last ``sessions`` sessions of a user; all if not given.
        max_support: at most the last ``max_support`` events of these.
        decay: the initial λ of the support weights ``exp(−λ sessions ago)``, see
            :class:`~graphmeta.adapt.support.UserSupport`.
        item_bias: whether the head gets an item bias, which a task adapts.
        bias_rate: its initial learning rate, if ``step`` is a number; the rates are then learned, one for the item
            bias and one, ``step``, for all other parameters, if there are any in scope.

    Raises:
        InputError: ``sessions`` or ``max_support`` below 1.
    """

    sessions: int | None = None
    max_support: int = 100
    decay: float = 0.05
    item_bias: bool = True
    bias_rate: float = 100.0

    def __post_init__(self) -> None:
        check_whole("max_support", self.max_support, 1)
        if self.sessions is not None:
            check_whole("sessions", self.sessions, 1)


Anchor = UserTasks | None  # what a task is: a user, or if None a session


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


def step_of(step: Step | float) -> Step:
    """The step itself, or plain gradient descent with this learning rate."""
    return Gradient(step) if isinstance(step, int | float) else step


def _make_scope(values: Mapping[str, Any], default: Scope) -> Scope:
    scope, without = values.get("scope"), values.get("without")
    scope = _OLD_SCOPES.get(scope, scope) if isinstance(scope, str) else scope
    if isinstance(scope, str) and scope not in SCOPES:
        raise InputError(f"no scope is called {scope!r}; there are {', '.join(SCOPES)}, or give a list of names")
    chosen = SCOPES[scope] if isinstance(scope, str) else default if scope is None else Scope(*scope)
    return chosen if without is None else Scope(*chosen.prefixes, without=without)


def _flat_scope(scope: Scope) -> dict[str, Any]:
    known = next((name for name, one in SCOPES.items() if one == scope), None)
    return {"scope": known or list(scope.prefixes), "without": list(scope.without) or None}


_STEPS: dict[bool | str, Callable[[float], SerializableStep]] = {
    False: Gradient,
    "per entry": lambda lr: LearnedRates(lr, per_step=True),
    "per entry, shared by steps": lambda lr: LearnedRates(lr, per_step=False),
    "per group, shared by steps": lambda lr: GroupRates(lr, per_step=False),
    "per group": lambda lr: GroupRates(lr, per_step=True),
    True: lambda lr: LearnedRates(lr, per_step=True),
}
# Earlier names of these values, in build specs and commands.
_OLD_STEPS = {"number": "per entry", "number, all steps": "per entry, shared by steps", "group": "per group"}
_OLD_STEPS |= {"group, all steps": "per group, shared by steps"}
LEARNED = tuple(name for name in _STEPS if name is not False)  # values of learned for rates that are learned


def _make_step(values: Mapping[str, Any], default: Step | float) -> Step | float:
    flat = {**_flat_step(default), **values}
    lr, learned = flat["lr"], _OLD_STEPS.get(flat["learned"], flat["learned"])
    if learned not in _STEPS:
        known = ", ".join(repr(kind) for kind in _STEPS if isinstance(kind, str))
        raise InputError(f"learned={learned!r} must be False, True or one of {known}")
    return lr if learned is False else _STEPS[learned](lr)


def _flat_step(step: Step | float) -> dict[str, Any]:
    if isinstance(step, int | float):
        return {"lr": step, "learned": False}
    if isinstance(step, SerializableStep):
        arguments = step.arguments()
        for name, make in _STEPS.items():
            made = make(arguments["lr"])
            if type(made) is type(step) and made.arguments() == arguments:
                return {"lr": arguments["lr"], "learned": name}
    raise InputError(
        f"{' '.join(str(step).split())} cannot be stored in a build spec: these learning rates have no name in this "
        "library"
    )


def _make_loop(values: Mapping[str, Any], default: InnerLoop) -> InnerLoop:
    flat = {**_flat_loop(default), **values}
    options, known = dict(flat["inner"] or {}), ("clip", "proximal", "multi_step", "first_order")
    for name, value in options.items():
        if name not in known:
            raise InputError(f"the inner loop takes no {name!r}; it takes {', '.join(known)}")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InputError(f"inner[{name!r}] must be a number, not {value!r}")
    if "first_order" in options and flat["order"] != 2:
        raise InputError(
            "first_order is the share of training before order 2 begins; pass order=2 with it, or leave it out"
        )
    return InnerLoop(
        steps=flat["steps"],
        order=OrderSchedule(options["first_order"]) if "first_order" in options else flat["order"],
        clip=options.get("clip"),
        proximal=options.get("proximal", 0.0),
        multi_step=MultiStep(options["multi_step"]) if "multi_step" in options else None,
    )


def _flat_loop(loop: InnerLoop) -> dict[str, Any]:
    inner: dict[str, float] = {} if loop.clip is None else {"clip": loop.clip}
    if loop.proximal:
        inner["proximal"] = loop.proximal
    if loop.multi_step is not None:
        inner["multi_step"] = loop.multi_step.anneal_until
    if isinstance(loop.order, OrderSchedule):
        inner["first_order"] = loop.order.first_order_until
    return {"steps": loop.steps, "order": loop.order_at(1.0), "inner": inner or None}


_READS = {"both": (True, True), "session": (True, False), "cluster": (False, True), "none": (False, False)}


def _make_gate(values: Mapping[str, Any], default: ClusterGate | None) -> ClusterGate | None:
    flat = {**_flat_gate(default), **values}
    gate, scope = flat["gate"], flat["gate_scope"]
    if gate not in _READS or scope not in ("session", "sample"):
        raise InputError(
            f"gate={gate!r} must be one of {', '.join(_READS)}, and gate_scope={scope!r} session or sample"
        )
    granularity = granularity_by_name(flat["granularity"])
    if gate != "none":
        return ClusterGate(*_READS[gate], granularity, per_sample=scope == "sample")
    unread = [name for name, usual in _flat_gate(None).items() if name != "gate" and values.get(name, usual) != usual]
    if unread:
        warnings.warn(f"options that are not read without a gate: {', '.join(unread)}; leave them out", stacklevel=2)
    return None


def _flat_gate(gate: ClusterGate | None) -> dict[str, Any]:
    one = ClusterGate() if gate is None else gate
    reads = (False, False) if gate is None else (one.session, one.cluster)
    name = next(name for name, known in _READS.items() if known == reads)
    scope = "sample" if one.per_sample else "session"
    return {"gate": name, "granularity": to_json(one.granularity), "gate_scope": scope}


_OF_USERS = {"history": "sessions", "history_events": "max_support", "decay": "decay", "item_bias": "item_bias"}
_OF_USERS |= {"bias_rate": "bias_rate"}  # flat names of the fields of UserTasks


def _make_anchor(values: Mapping[str, Any], default: Anchor) -> Anchor:
    anchor = values.get("anchor", "session" if default is None else "user")
    if anchor not in ("session", "user"):
        raise InputError(f"anchor={anchor!r} must be session or user")
    given = {own: values[name] for name, own in _OF_USERS.items() if values.get(name) is not None}
    if anchor == "session":
        if given:
            raise InputError(f"{' and '.join(given)} belong to tasks of users; pass anchor='user' with them")
        return None
    return replace(default or UserTasks(), **given)


def _flat_anchor(anchor: Anchor) -> dict[str, Any]:
    names = {name: None if anchor is None else getattr(anchor, own) for name, own in _OF_USERS.items()}
    return {"anchor": "session" if anchor is None else "user", **names}


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
        _make_scope,
        _flat_scope,
    ),
    Step | float: OptionCodec(
        "a learning rate, or a step such as LearnedRates(0.01)",
        _is_step,
        {"lr": float, "learned": bool | str},
        _make_step,
        _flat_step,
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
        _make_anchor,
        _flat_anchor,
    ),
    InnerLoop: OptionCodec(
        "an InnerLoop(…)",
        lambda value: isinstance(value, InnerLoop),
        {"steps": int, "order": int, "inner": Mapping[str, Any] | None},
        _make_loop,
        _flat_loop,
    ),
    ClusterGate | None: OptionCodec(
        "a ClusterGate(…), or None for no gate",
        lambda value: value is None or isinstance(value, ClusterGate),
        {"gate": str, "granularity": str, "gate_scope": str},
        _make_gate,
        _flat_gate,
    ),
}
