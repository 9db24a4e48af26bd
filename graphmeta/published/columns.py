"""Item columns that a system does not read, and the systems of the catalogue that read them."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence

import numpy as np
import torch

from graphmeta.data.column_types import Column
from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError
from graphmeta.protocols import ReadsColumns
from graphmeta.published.registry import CATALOGUE
from graphmeta.system import System


def warn_unread(system: System, *, stacklevel: int = 3) -> None:
    """Warn if a system has parts that read item columns, but not all of them; names the others and what reads them.

    Warns:
        UserWarning: a column that the system does not read.
    """
    parts = _parts(system)
    left = [name for name, one in system.items.columns.items() if not _reads(parts, name, one)]
    if parts and left:
        named = "the system" if system.spec is None else system.spec.name
        warnings.warn(f"{named} ignores item columns: {_listed(system.items, left)}", stacklevel=stacklevel)


def warn_none_read(name: str, items: EntityTable, *, users: EntityTable | None) -> None:
    """Warn if a system of the catalogue reads no item columns, for a user who has named the columns to read.

    Warns:
        UserWarning: the columns, and what reads them.
    """
    system = skeleton(name, items, users=users)
    if items.columns and system is not None and not _parts(system):
        warnings.warn(f"{name} reads no item columns: {_listed(items, items.columns)}", stacklevel=2)


def _parts(system: System) -> list[ReadsColumns]:
    return [part for part in system.modules() if isinstance(part, ReadsColumns)]


def _listed(items: EntityTable, names: Iterable[str]) -> str:
    """Columns with their type, and the systems that read them."""
    by: dict[str, list[str]] = {}
    for name in names:
        by.setdefault(", ".join(readers(items, name)), []).append(f"{name} ({items.columns[name].kind})")
    return "; ".join(f"{', '.join(names)} (read by {who or 'no system of the catalogue'})" for who, names in by.items())


def readers(items: EntityTable, name: str) -> list[str]:
    """The systems of the catalogue, without wrappers, that read this column of the items."""
    few = items.take(np.arange(min(len(items), 2)))
    found = []
    for system, entry in CATALOGUE.items():
        if entry.base is None and not entry.predicts_ratings and (made := skeleton(system, few, users=few)) is not None:
            found += [system] if _reads(_parts(made), name, items.columns[name]) else []
    return found


def skeleton(name: str, items: EntityTable, *, users: EntityTable | None) -> System | None:
    """The system with its default options on the meta device, without memory; None if it has other requirements."""
    try:
        with torch.device("meta"):
            return CATALOGUE[name].build(items, users=users)
    except InputError:
        return None


def _reads(parts: Sequence[ReadsColumns], name: str, column: Column) -> bool:
    return any(part.reads_column(name, column) for part in parts)
