"""Names of systems: those outside of the catalogue, and the nearest match of an unknown name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar

from graphmeta.baselines import BASELINES
from graphmeta.data.events import EventLog
from graphmeta.data.splits import Split
from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError, nearest, plain


@dataclass(frozen=True)
class Row:
    """One system: its name, kind, source, adapted parameters, and the function or class that builds it.

    ``kind`` is ``next item`` (:func:`graphmeta.build`, :func:`graphmeta.fit`), ``rating`` (``graphmeta.build``),
    ``cross-domain`` (ratings of cold users, :mod:`graphmeta.published.models.cross_domain`) or ``rating baseline``
    (:mod:`graphmeta.baselines`). Systems of the family ``baseline`` have no weights and are fitted by counting.
    """

    name: str
    kind: str
    family: str
    paper: str
    equations: str
    adapts: str
    where: str


RATING_MODELS: dict[str, Row] = {}  # cross-domain models; filled by the decorator
Function = TypeVar("Function", bound=Callable[..., Any])


def rating_model(
    paper: str, *, equations: str = "-", variants: Mapping[str, tuple[str, str]] = MappingProxyType({})
) -> Callable[[Function], Function]:
    """List the decorated function as a cross-domain rating model of its name.

    Args:
        paper, equations: its source.
        variants: paper and arguments of its variants, by their names.
    """

    def register(function: Function) -> Function:
        name, where = function.__name__, f"{function.__module__}.{function.__name__}"
        rows = [(name, paper, equations, where)]
        rows += [(other, source, "-", f"{where}({given})") for other, (source, given) in variants.items()]
        for one, source, numbers, place in rows:
            RATING_MODELS[one] = Row(one, "cross-domain", "cross-domain", source, numbers, "nothing", place)
        return function

    return register


def others() -> dict[str, Row]:
    """What is not in the catalogue, by name: cross-domain models, then rating baselines."""
    baselines = {
        one.name: Row(
            one.name,
            "rating baseline",
            "baseline",
            one.paper,
            one.equations,
            "nothing",
            f"graphmeta.baselines.{one.fit.__name__}",
        )
        for one in BASELINES.values()
    }
    return RATING_MODELS | baselines


def check_name(name: Any, known: Iterable[str]) -> None:
    """Check that a name is one of the known ones.

    Raises:
        InputError: any other name; suggests the nearest, or what builds a system outside of the catalogue.
    """
    known = list(known)
    if name in known:
        return
    if not isinstance(name, str):
        raise InputError(f"{name!r} is not the name of a system; {_LIST}")
    rest = others()
    if name in rest:
        raise InputError(f"{name} is not in the catalogue: it is a {_KINDS[rest[name].kind]}; {_how(rest[name])}")
    near = nearest(name, [*known, *rest])
    below = [one for one in known if plain(name) and plain(one).startswith(plain(name))]
    meant = f"did you mean {near!r}? " if near else ""
    if near is None and below:
        meant = f"did you mean one of {', '.join(below)}? "
    raise InputError(f"no system is called {name!r}; {meant}{_LIST}")


_LIST = "gm.systems() (`graphmeta systems`) lists all"
_KINDS = {"cross-domain": "cross-domain rating model", "rating baseline": "rating baseline"}


def _how(row: Row) -> str:
    what = "fit it with {}(log)" if row.kind == "rating baseline" else "see {}"
    return what.format(row.where)


def check_items(name: str, items: Any) -> None:
    """Check that the argument for the item table is one.

    Raises:
        InputError: a log or a split, whose item table the message names, or any other type.
    """
    if isinstance(items, EntityTable):
        return
    holders: Mapping[type, str] = {EventLog: "log", Split: "split.train"}
    for kind, place in holders.items():
        if isinstance(items, kind):
            raise InputError(
                f"a system is built from items, not from a log or a split; pass "
                f"build({name!r}, {place}.items, users={place}.users)"
            )
    raise InputError(
        f"a system is built from an EntityTable of items, not from a {type(items).__name__}; read a log with "
        f"EventLog.read and pass build({name!r}, log.items)"
    )
