"""The catalogue: every published system by name, with its source and what in it adapts."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from graphmeta.errors import InputError
from graphmeta.published import meta, session
from graphmeta.system import Recipe, System
from graphmeta.tables import EntityTable


@dataclass(frozen=True)
class Entry:
    """One row of the catalogue."""

    name: str
    family: str
    paper: str
    equations: str
    adapts: str
    function: Callable[..., System]

    def build(self, items: EntityTable, **arguments: Any) -> System:
        """The untrained system for these items; it remembers how it was built."""
        system = self.function(items, **arguments)
        written = {name: getattr(value, "__name__", value) for name, value in arguments.items()}
        system.recipe = Recipe(self.family, self.name, written)
        return system


_ROWS = (
    Entry("sr_gnn", "session", "Wu et al. 2019, SR-GNN", "1-8", "nothing", session.sr_gnn),
    Entry("tagnn", "session", "Yu et al. 2020, TAGNN", "1-10", "nothing", session.tagnn),
    Entry("gc_san", "session", "Xu et al. 2019, GC-SAN", "1-13", "nothing", session.gc_san),
    Entry("if_san", "session", "Song et al. 2021, CBML (base)", "1-8", "nothing", session.if_san),
    Entry("maml", "meta", "Finn et al. 2017, MAML", "1", "encoder and head", meta.maml),
    Entry(
        "multi_ft",
        "meta",
        "Song et al. 2021, CBML (baseline)",
        "-",
        "everything, when recommending",
        meta.multi_ft,
    ),
    Entry("melu", "meta", "Lee et al. 2019, MeLU", "Algorithm 1", "the prediction layer", meta.melu),
    Entry("cbml", "meta", "Song et al. 2021, CBML", "9-18", "everything, from a gated start", meta.cbml),
)
CATALOGUE: dict[str, Entry] = {row.name: row for row in _ROWS}


def build(name: str, items: EntityTable, **arguments: Any) -> System:
    """The untrained system of that name for these items.

    Raises:
        InputError: a name that is not in the catalogue; says which one is nearest.
    """
    if name not in CATALOGUE:
        near = difflib.get_close_matches(name, CATALOGUE, n=1, cutoff=0.0)
        raise InputError(f"no system is called {name!r}; did you mean {near[0]!r}? (graphmeta systems lists all)")
    return CATALOGUE[name].build(items, **arguments)
