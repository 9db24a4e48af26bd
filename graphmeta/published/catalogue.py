"""The catalogue: all published systems by name, with their source and what they adapt."""

from __future__ import annotations

import importlib
import pkgutil
import warnings
from typing import Any

from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError
from graphmeta.published import models, registry
from graphmeta.published.columns import warn_unread
from graphmeta.published.names import check_items, check_name
from graphmeta.system import System

# All modules of graphmeta.published.models are imported, so that their systems are registered. Families are listed in
# this order.
_FAMILIES = ("session", "sequence", "asars", "graph", "cold_item", "meta", "cold_user", "streaming", "baseline")
for _module in pkgutil.iter_modules(models.__path__):
    importlib.import_module(f"graphmeta.published.models.{_module.name}")
CATALOGUE: dict[str, registry.Published] = dict(
    sorted(
        registry.CATALOGUE.items(),
        key=lambda row: (*_FAMILIES, row[1].family).index(row[1].family),
    )
)
RANKING = [name for name, row in CATALOGUE.items() if not row.predicts_ratings]
TRAINED = [name for name in RANKING if not CATALOGUE[name].counts]  # those with weights


def build(name: str, items: EntityTable | None = None, *, users: EntityTable | None = None, **arguments: Any) -> System:
    """Build the untrained system of that name for these items, and for these users if it reads them.

    Args:
        items: may be left out if ``base`` is a built system.
        arguments: the system's options by flat names, or its option objects; for a wrapper, ``base`` names the wrapped
            system and ``options`` are the base's: ``build("cbml", items, base="if_san", options={"layers": 1},
            clusters=4)``; or ``base`` is a built system: ``build("cbml", base=system, gate=ClusterGate())``.

    Raises:
        InputError: a name that is not in the catalogue (suggests the nearest one), or a log instead of its item table.

    Warns:
        UserWarning: a column of the items that the system, which reads others, does not read, or an option that it does
            not read.
    """
    check_name(name, CATALOGUE)
    base = arguments.get("base")
    items = base.items if items is None and isinstance(base, System) else items
    if items is None:
        raise InputError(f"{name} is built from items; pass them: build({name!r}, log.items)")
    check_items(name, items)
    system = CATALOGUE[name].build(items, users=users, **arguments)
    warn_unread(system)
    if arguments.get("max_support") is not None and (why := _reads_no_support(name, system)):
        warnings.warn(f"{name} does not read max_support: {why}; leave it out", stacklevel=2)
    return system


def _reads_no_support(name: str, system: System) -> str:
    """Why the limit of the support has no effect; empty if it has one."""
    if system.adaptation is None:
        return "it does not adapt to a support"
    if CATALOGUE[name].predicts_ratings:
        return "the support of rating tasks is given"
    return "" if system.adaptation.steps else "it takes no steps on a support"
