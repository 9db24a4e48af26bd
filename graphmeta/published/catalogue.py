"""The catalogue: all published systems by name, with their source and what they adapt."""

from __future__ import annotations

import difflib
from typing import Any

from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError
from graphmeta.published import (
    asars,
    cbml,
    cold_item,
    cold_user,
    few_shot,
    graph,
    meta,
    rating,
    registry,
    sequence,
    session,
    streaming,
)
from graphmeta.system import System

_MODULES = (session, sequence, asars, graph, cold_item, meta, cbml, rating, cold_user, few_shot, streaming)
CATALOGUE: dict[str, registry.Published] = {
    name: row
    for module in _MODULES
    for name, row in registry.CATALOGUE.items()
    if row.function.__module__ == module.__name__
}
RANKING = [name for name, row in CATALOGUE.items() if not row.rates]


def build(name: str, items: EntityTable, *, users: EntityTable | None = None, **arguments: Any) -> System:
    """Build the untrained system of that name for these items, and for these users if it reads them.

    Args:
        arguments: the system's options by flat names; for a wrapper, ``base`` names the wrapped system and ``options``
            are the base's: ``build("cbml", items, base="if_san", options={"layers": 1}, clusters=4)``.

    Raises:
        InputError: a name that is not in the catalogue; suggests the nearest one.
    """
    if name not in CATALOGUE:
        near = difflib.get_close_matches(name, CATALOGUE, n=1, cutoff=0.0)
        raise InputError(f"no system is called {name!r}; did you mean {near[0]!r}? (graphmeta systems lists all)")
    return CATALOGUE[name].build(items, users=users, **arguments)
