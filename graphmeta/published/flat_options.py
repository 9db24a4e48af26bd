"""Flat forms of option objects: of each kind, the object of values by name, and its values.

``make(values, default)`` keeps the default's values for names that are not given; ``flat(object)`` raises an
:class:`~graphmeta.errors.InputError` if the object has no flat form.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from graphmeta.adapt.inner import InnerLoop, MultiStep, OrderSchedule
from graphmeta.adapt.scope import Scope
from graphmeta.adapt.step import Gradient, GroupRates, LearnedRates, SerializableStep, Step
from graphmeta.errors import InputError
from graphmeta.nn.conditioning.gate import granularity_by_name
from graphmeta.published.option_types import to_json
from graphmeta.published.options import SCOPES, Anchor, ClusterGate, UserTasks

_OLD_SCOPES = {"attention": "encoder_head"}  # an earlier name, in build specs and commands


def make_scope(values: Mapping[str, Any], default: Scope) -> Scope:
    scope, without = values.get("scope"), values.get("without")
    scope = _OLD_SCOPES.get(scope, scope) if isinstance(scope, str) else scope
    if isinstance(scope, str) and scope not in SCOPES:
        raise InputError(f"no scope is called {scope!r}; there are {', '.join(SCOPES)}, or give a list of names")
    chosen = SCOPES[scope] if isinstance(scope, str) else default if scope is None else Scope(*scope)
    return chosen if without is None else Scope(*chosen.prefixes, without=without)


def flat_scope(scope: Scope) -> dict[str, Any]:
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


def make_step(values: Mapping[str, Any], default: Step | float) -> Step | float:
    flat = {**flat_step(default), **values}
    lr, learned = flat["lr"], _OLD_STEPS.get(flat["learned"], flat["learned"])
    if learned not in _STEPS:
        known = ", ".join(repr(kind) for kind in _STEPS if isinstance(kind, str))
        raise InputError(f"learned={learned!r} must be False, True or one of {known}")
    return lr if learned is False else _STEPS[learned](lr)


def flat_step(step: Step | float) -> dict[str, Any]:
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


def make_loop(values: Mapping[str, Any], default: InnerLoop) -> InnerLoop:
    flat = {**flat_loop(default), **values}
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


def flat_loop(loop: InnerLoop) -> dict[str, Any]:
    inner: dict[str, float] = {} if loop.clip is None else {"clip": loop.clip}
    if loop.proximal:
        inner["proximal"] = loop.proximal
    if loop.multi_step is not None:
        inner["multi_step"] = loop.multi_step.anneal_until
    if isinstance(loop.order, OrderSchedule):
        inner["first_order"] = loop.order.first_order_until
    return {"steps": loop.steps, "order": loop.order_at(1.0), "inner": inner or None}


_READS = {"both": (True, True), "session": (True, False), "cluster": (False, True), "none": (False, False)}


def make_gate(values: Mapping[str, Any], default: ClusterGate | None) -> ClusterGate | None:
    flat = {**flat_gate(default), **values}
    gate, scope = flat["gate"], flat["gate_scope"]
    if gate not in _READS or scope not in ("session", "sample"):
        raise InputError(
            f"gate={gate!r} must be one of {', '.join(_READS)}, and gate_scope={scope!r} session or sample"
        )
    granularity = granularity_by_name(flat["granularity"])
    if gate != "none":
        return ClusterGate(*_READS[gate], granularity, per_sample=scope == "sample")
    unread = [name for name, usual in flat_gate(None).items() if name != "gate" and values.get(name, usual) != usual]
    if unread:
        warnings.warn(f"options that are not read without a gate: {', '.join(unread)}; leave them out", stacklevel=2)
    return None


def flat_gate(gate: ClusterGate | None) -> dict[str, Any]:
    one = ClusterGate() if gate is None else gate
    reads = (False, False) if gate is None else (one.session, one.cluster)
    name = next(name for name, known in _READS.items() if known == reads)
    scope = "sample" if one.per_sample else "session"
    return {"gate": name, "granularity": to_json(one.granularity), "gate_scope": scope}


_OF_USERS = {"history": "sessions", "history_events": "max_support", "decay": "decay", "item_bias": "item_bias"}
_OF_USERS |= {"bias_rate": "bias_rate"}  # flat names of the fields of UserTasks


def make_anchor(values: Mapping[str, Any], default: Anchor) -> Anchor:
    anchor = values.get("anchor", "session" if default is None else "user")
    if anchor not in ("session", "user"):
        raise InputError(f"anchor={anchor!r} must be session or user")
    given = {own: values[name] for name, own in _OF_USERS.items() if values.get(name) is not None}
    if anchor == "session":
        if given:
            raise InputError(f"{' and '.join(given)} belong to tasks of users; pass anchor='user' with them")
        return None
    return replace(default or UserTasks(), **given)


def flat_anchor(anchor: Anchor) -> dict[str, Any]:
    names = {name: None if anchor is None else getattr(anchor, own) for name, own in _OF_USERS.items()}
    return {"anchor": "session" if anchor is None else "user", **names}
