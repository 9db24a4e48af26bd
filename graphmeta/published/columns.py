"""Item columns that a system does not read, and the systems of the catalogue that read them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

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
    parts = [part for part in system.modules() if isinstance(part, ReadsColumns)]
    left = {name: one for name, one in system.items.columns.items() if not _reads(parts, name, one)}
    if not parts or not left:
        return
    by: dict[str, list[str]] = {}
    for name, column in left.items():
        by.setdefault(", ".join(readers(system.items, name)), []).append(f"{name} ({column.kind})")
    listed = "; ".join(
        f"{', '.join(names)} (read by {who or 'no system of the catalogue'})" for who, names in by.items()
    )
    named = "the system" if system.spec is None else system.spec.name
    warnings.warn(f"{named} ignores item columns: {listed}", stacklevel=stacklevel)


def readers(items: EntityTable, name: str) -> list[str]:
    """The systems of the catalogue, without wrappers, that read this column of the items."""
    few = items.take(np.arange(min(len(items), 2)))
    found = []
    for system, entry in CATALOGUE.items():
        if entry.base is None and not entry.predicts_ratings and (made := skeleton(system, few, users=few)) is not None:
            parts = [part for part in made.modules() if isinstance(part, ReadsColumns)]
            found += [system] if _reads(parts, name, items.columns[name]) else []
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
