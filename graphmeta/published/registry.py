"""Registry of published systems: ``@published(…)`` decorates the functions that build them.

A system's function takes an item table, ``sr_gnn(items, width=100)``, or a built system that it wraps,
``cbml(if_san(items), clusters=8)``. The decorator adds the function to the catalogue and stores on each built system
the arguments it was built with, so that the system can be saved and loaded.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property, partial, wraps
from typing import Any, ParamSpec, get_type_hints

import numpy as np

from graphmeta.build_spec import LIMITS, BuildSpec
from graphmeta.data.events import EventLog
from graphmeta.data.tables import EntityTable, same_ids
from graphmeta.errors import InputError, nearest
from graphmeta.published.names import check_name
from graphmeta.published.option_codecs import OptionCodec, check_object, codec_of
from graphmeta.published.option_types import check_types, to_json
from graphmeta.published.options import UserTasks
from graphmeta.published.unread import Unread, warn_unread_options
from graphmeta.system import System
from graphmeta.training.recipes import TrainingRecipe

P = ParamSpec("P")
_ENTITIES = ("items", "users", "base")  # arguments that a build spec omits, or stores by name
_SIZES = frozenset({"width", "user_width", "time_width", "hidden", "layers", "length", "kernel", "clusters", "slots"})
_WRAPPER_OPTIONS: dict[str, Any] = {"base": str, "options": Mapping[str, Any] | None, "width": int | None}


@dataclass(frozen=True)
class Published:
    """A row of the catalogue.

    Args:
        base: name of the system that it wraps by default; None for a system that is built from items.
        encoder: name of the stored system whose trained weights initialise its training.
        predicts_ratings: predicts ratings instead of ranking next items.
        held_out: the share of sessions, the last ones, that it is trained on, while its co-occurrence statistics count
            those before; 0: its statistics may count the sessions that it is trained on.
        items_only: its base is built without the items' attributes.
        counts: it has no weights and is fitted by counting.
        recipe: how it is trained; values that are None follow the log.
        unread: options that are not read where others have certain values.
    """

    name: str
    family: str
    paper: str
    equations: str
    adapts: str
    function: Callable[..., System] = field(repr=False)
    base: str | None = None
    encoder: str | None = None
    predicts_ratings: bool = False
    held_out: float = 0.0
    items_only: bool = False
    counts: bool = False
    recipe: TrainingRecipe = TrainingRecipe()
    unread: tuple[Unread, ...] = ()

    @property
    def needs_users(self) -> bool:
        """Whether it requires a user table, and so a log with a user column."""
        users = self._parameters.get("users")
        return users is not None and users.default is inspect.Parameter.empty

    @cached_property
    def options(self) -> dict[str, Any]:
        """Flat names and types of its options."""
        own = _flat_hints(self.function)
        return {**(_WRAPPER_OPTIONS if self.base is not None else {}), **own, **dict.fromkeys(LIMITS, int | None)}

    @cached_property
    def defaults(self) -> dict[str, Any]:
        """The default of each of its own options, by flat name."""
        return _flat(self.function, {name: p.default for name, p in self._parameters.items()})

    @property
    def _parameters(self) -> Mapping[str, inspect.Parameter]:
        return inspect.signature(self.function).parameters

    def build(self, items: EntityTable, *, users: EntityTable | None = None, **arguments: Any) -> System:
        """Build the untrained system for these items (and users, if it reads them), with options by flat names.

        Args:
            arguments: see :attr:`options`, or the function's own option objects; for a wrapper also ``base`` (a name of
                the catalogue, or a built system), ``options`` (of the base) and ``width`` (of the base).

        Raises:
            InputError: missing users, an unknown argument, or an argument that could not be stored for loading.
        """
        built = arguments.pop("base") if isinstance(arguments.get("base"), System) and self.base is not None else None
        try:
            arguments = self._flat_arguments(arguments)
        except InputError as error:
            raise InputError(f"{self.name}: {error}; {self._by_function}") from None
        unknown = next((name for name in arguments if name not in self.options), None)
        if unknown is not None:
            raise InputError(f"{self.name} {_unknown(unknown, self.options)}")
        self.check_users(users is not None)
        try:
            stored = to_json(arguments)
        except InputError as error:
            raise InputError(f"{self.name}: {error}; {self._by_function}") from None
        self.check_types(stored)
        limits = {name: stored.pop(name, None) for name in LIMITS}
        system = self._around(built, items, stored) if built is not None else self._unlimited(items, users, stored)
        _limit(system, **limits)
        return system

    def _unlimited(self, items: EntityTable, users: EntityTable | None, stored: dict[str, Any]) -> System:
        """The system, with its own limits."""
        if self.base is None:
            known_users = {"users": users} if "users" in self._parameters and users is not None else {}
            return self.function(items, **known_users, **_objects(self.function, stored))
        base = self._base(items, users, {name: stored.pop(name) for name in _WRAPPER_OPTIONS if name in stored})
        system = self.function(base, **_objects(self.function, stored))
        system.items = items  # with the attributes, for display
        return system

    @property
    def _by_function(self) -> str:
        """The remedy for an argument that cannot be stored."""
        function = f"{self.function.__module__}.{self.function.__name__}"
        return f"pass a name of the catalogue (gm.systems()), or call {function} and load its result with build="

    def _flat_arguments(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments with option objects in their flat form."""
        flat: dict[str, Any] = {}
        codecs = _codecs(self.function)
        for name, value in arguments.items():
            codec = codecs.get(name)
            objects = codec is not None and codec.takes(value)
            found = codec.flat(value) if codec is not None and objects else {name: value}
            twice = next((key for key in found if key in arguments and key != name), None)
            if twice is not None:
                raise InputError(f"{twice}= is given twice, also as a part of {name}=; pass one of them")
            flat |= found
        return flat

    def _around(self, base: System, items: EntityTable, stored: dict[str, Any]) -> System:
        """The wrapper of a built system.

        Raises:
            InputError: options of a base that is not built here, or other items than the base's.
        """
        extra = next((name for name in ("options", "width") if stored.get(name) is not None), None)
        if extra is not None:
            raise InputError(f"{self.name}: the base is already built; pass {extra}= to the function that built it")
        if not base.has_weights:
            raise InputError(f"{self.name} wraps a system with weights, and its base only counts; pass another base")
        if not same_ids(items, base.items):
            raise InputError(f"{self.name}: the base has other items; pass its own: build({self.name!r}, base=system)")
        return self.function(base, **_objects(self.function, stored))

    def _base(self, items: EntityTable, users: EntityTable | None, given: dict[str, Any]) -> System:
        """Build the system that it wraps."""
        name = given.get("base", self.base)
        check_name(name, CATALOGUE)
        if CATALOGUE[name].counts:
            raise InputError(f"{self.name} wraps a system with weights, and {name} only counts; name another base")
        base_items = items.without("categorical", "several") if self.items_only else items
        width = {} if given.get("width") is None else {"width": given["width"]}
        return CATALOGUE[name].build(base_items, users=users, **{**(given.get("options") or {}), **width})

    def check_types(self, arguments: Mapping[str, Any]) -> None:
        """Raise an InputError if a JSON argument has another type than the system's option."""
        check_types(self.name, self.options, arguments)

    def check_users(self, known: bool) -> None:
        """Raise an InputError if the system needs users and the log has none."""
        if self.needs_users and not known:
            raise InputError(f"{self.name} needs users; name the log's user column (user=, --user)")


CATALOGUE: dict[str, Published] = {}  # filled by the decorator when a module of systems is imported


def published(
    paper: str, *, family: str, equations: str = "-", adapts: str = "nothing", **about: Any
) -> Callable[[Callable[P, System]], Callable[P, System]]:
    """Add the decorated function to the catalogue under its own name; the systems it builds can be saved and loaded.

    :func:`~graphmeta.published.catalogue.build` and the command line take two more options: ``max_support``, the last
    support samples per task, and ``max_length``, the last clicks read per session; None keeps the system's own limit. A
    system with a custom base, or with an argument that cannot be stored in a file, has no build spec (a warning names
    it); loading it requires ``build=``.

    Args:
        paper, equations: the source.
        adapts: what a task adapts, in words.
        about: see :class:`Published`.

    Raises:
        InputError: (when the function is called) an argument of the wrong type.

    Warns:
        UserWarning: (when the function is called) an option that is not read, see
            :class:`~graphmeta.published.unread.Unread`, or a system without a build spec.
    """

    def register(function: Callable[P, System]) -> Callable[P, System]:
        name = function.__name__
        spec, only = partial(_spec, family, name), about.get("items_only", False)
        built = _recorded(function, spec, items_only=only, unread=about.get("unread", ()))
        CATALOGUE[name] = Published(name, family, paper, equations, adapts, built, **about)
        return built

    return register


def variant(name: str, function: Callable[..., System], **defaults: Any) -> Callable[..., System]:
    """A published function under another name with other defaults; to be decorated with :func:`published` again."""
    inner = inspect.unwrap(function)

    @wraps(inner)
    def chosen(*given: Any, **named: Any) -> System:
        return inner(*given, **{**defaults, **named})

    chosen.__name__ = chosen.__qualname__ = name
    takes = inspect.signature(inner)
    parameters = [p.replace(default=defaults.get(p.name, p.default)) for p in takes.parameters.values()]
    chosen.__dict__["__signature__"] = takes.replace(parameters=parameters)
    return chosen


def _recorded(
    function: Callable[..., System],
    spec: Callable[..., BuildSpec | None],
    *,
    items_only: bool,
    unread: Iterable[Unread],
) -> Callable[..., System]:
    """Wrap the function so that each system it builds stores its build spec."""
    inner = inspect.signature(function)
    defaults = {name: parameter.default for name, parameter in inner.parameters.items()}
    first = next(iter(inner.parameters))

    @wraps(function)
    def built(*given: Any, **named: Any) -> System:
        try:
            bound = inner.bind(*given, **named)
        except TypeError as error:
            unknown = next((name for name in named if name not in inner.parameters), None)
            why = str(error) if unknown is None else _unknown(unknown, inner.parameters)
            if unknown in LIMITS:
                why = f"takes no {unknown!r}; pass it to build({function.__name__!r}, …), or set system.{unknown}"
            raise InputError(f"{function.__name__} {why}" if unknown else f"{function.__name__}: {why}") from None
        bound.apply_defaults()
        _check_first(function.__name__, first, bound.arguments[first])
        if items_only and bound.arguments[first].items.categories:
            raise InputError(
                f"{function.__name__} reads items without attributes; build its base from items without attributes: "
                f"items.without('categorical', 'several')"
            )
        _check_objects(function, bound.arguments)
        try:
            flat = _flat(function, bound.arguments)
        except InputError as error:
            flat = None
            warnings.warn(f"{function.__name__}: {error}; what is saved is loaded with build=", stacklevel=2)
        else:
            check_types(function.__name__, _flat_hints(function), flat)
            _check_sizes(function.__name__, flat)
            warn_unread_options(function.__name__, flat, _flat(function, _with_user_tasks(defaults, flat)), unread)
        system = function(*bound.args, **bound.kwargs)
        system.spec = None if flat is None else spec(flat, bound.arguments.get("base"))
        return system

    return built


def _with_user_tasks(defaults: Mapping[str, Any], flat: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults of a function, with those of tasks of users where they are taken."""
    return {**defaults, "anchor": UserTasks()} if flat.get("anchor") == "user" else dict(defaults)


def _unknown(name: str, known: Iterable[str]) -> str:
    """The message for an option that a system does not take."""
    near = nearest(name, known)
    meant = f"did you mean {near!r}? " if near else ""
    return f"takes no {name!r}; {meant}it takes {', '.join(sorted(known))}"


def _check_objects(function: Callable[..., System], arguments: Mapping[str, Any]) -> None:
    """Raise an InputError for a value in the place of an option object."""
    for option, codec in _codecs(function).items():
        if codec is not None:
            check_object(function.__name__, option, codec, arguments[option])


def _check_first(name: str, first: str, given: Any) -> None:
    """Check that ``items`` is an item table and ``base`` a system."""
    if first == "items" and not isinstance(given, EntityTable):
        hint = f"; pass its items: {name}(log.items)" if isinstance(given, EventLog | System) else ""
        raise InputError(f"{name} is built from an EntityTable of items, not from {type(given).__name__}{hint}")
    if first == "base" and not isinstance(given, System):
        raise InputError(
            f"{name} wraps a built system, not {type(given).__name__}; pass one, as in "
            f"{name}(sr_gnn(items)), or name it: build({name!r}, items, base='sr_gnn')"
        )


def _spec(family: str, name: str, flat: dict[str, Any], base: System | None) -> BuildSpec | None:
    """The build spec of a system; None if its base has none."""
    if base is None:
        return BuildSpec(family, name, flat)
    if base.spec is None:
        return None
    options = dict(base.spec.arguments)
    return BuildSpec(
        family, name, {"base": base.spec.name, "width": options.pop("width", None), "options": options, **flat}
    )


@cache
def _codecs(function: Callable[..., System]) -> dict[str, OptionCodec | None]:
    """The function's options, with the codec of those that are objects."""
    hints = get_type_hints(inspect.unwrap(function))
    names = [name for name in inspect.signature(function).parameters if name not in _ENTITIES]
    return {name: codec_of(name, hints[name]) for name in names}


@cache
def _flat_hints(function: Callable[..., System]) -> dict[str, Any]:
    hints = get_type_hints(inspect.unwrap(function))
    flat: dict[str, Any] = {}
    for name, codec in _codecs(function).items():
        flat |= {name: hints[name]} if codec is None else dict(codec.hints)
    return flat


def _flat(function: Callable[..., System], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The function's arguments by flat names."""
    flat: dict[str, Any] = {}
    for name, codec in _codecs(function).items():
        if name in arguments:
            flat |= {name: to_json(arguments[name])} if codec is None else codec.flat(arguments[name])
    return flat


def _objects(function: Callable[..., System], flat: Mapping[str, Any]) -> dict[str, Any]:
    """The function's arguments from values by flat names."""
    made, left = {}, dict(flat)
    parameters = inspect.signature(function).parameters
    for name, codec in _codecs(function).items():
        given = {} if codec is None else {key: left.pop(key) for key in codec.hints if key in left}
        if codec is not None and given:
            made[name] = codec.make(given, parameters[name].default)
    return made | left


def _check_sizes(name: str, flat: Mapping[str, Any]) -> None:
    """Raise an InputError for a size of vectors below 1."""
    for option in _SIZES & flat.keys():
        if isinstance(size := flat[option], int | float) and size < 1:
            raise InputError(f"{name} takes no {option}={size}; it must be 1 or more")


def _limit(system: System, *, max_support: int | None, max_length: int | None) -> None:
    """Set the limits that are given; ``max_length`` may be 0 only for systems that read no clicks."""
    for name, value, least in (("max_support", max_support, 0), ("max_length", max_length, min(system.max_length, 1))):
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise InputError(f"{name}={value!r} must be a whole number, at least {least}")
        setattr(system, name, int(value))
