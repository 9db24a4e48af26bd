"""The catalogue: every published system by name, with its source and what in it adapts."""

from __future__ import annotations

from typing import Any

from graphmeta.data.tables import EntityTable
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
from graphmeta.published.names import check_items, check_name
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
    """The untrained system of that name for these items, and for these users if it is about them.

    Args:
        arguments: the system's options by flat names; of one that goes around another, ``base`` names that one and
            ``options`` are its own: ``build("cbml", items, base="if_san", options={"layers": 1}, clusters=4)``.

    Raises:
        InputError: a name that is not in the catalogue (says which one is nearest), or a log in the place of its items.
    """
    check_name(name, CATALOGUE)
    check_items(name, items)
    return CATALOGUE[name].build(items, users=users, **arguments)
