"""The catalogue: every published system by name, with its source and what in it adapts."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from graphmeta.errors import InputError
from graphmeta.published import meta, session
from graphmeta.system import Recipe, System
from graphmeta.tables import EntityTable

_GIVEN = {"items", "users"}


@dataclass(frozen=True)
class Entry:
    """One row of the catalogue."""

    name: str
    family: str
    paper: str
    equations: str
    adapts: str
    function: Callable[..., System]

    @property
    def needs_users(self) -> bool:
        """Whether it knows users by name, and so needs a log with a user column."""
        return "users" in inspect.signature(self.function).parameters

    def build(self, items: EntityTable, *, users: EntityTable | None = None, **arguments: Any) -> System:
        """The untrained system for these items (and users, if it needs them); it remembers how it was built.

        Raises:
            InputError: users are needed and not given, or an argument that the system does not take.
        """
        known = inspect.signature(self.function).parameters
        strange = [name for name in arguments if name not in known]
        if strange:
            raise InputError(
                f"{self.name} takes no {strange[0]!r}; it takes {', '.join(sorted(known.keys() - _GIVEN))}"
            )
        if self.needs_users and users is None:
            raise InputError(f"{self.name} needs to know the users; name the log's user column")
        system = self.function(items, **({"users": users} if self.needs_users else {}), **arguments)
        written = {name: getattr(value, "__name__", value) for name, value in arguments.items()}
        system.recipe = Recipe(self.family, self.name, written)
        return system


_ROWS = (
    Entry("sr_gnn", "session", "Wu et al. 2019, SR-GNN", "1-8", "nothing", session.sr_gnn),
    Entry("tagnn", "session", "Yu et al. 2020, TAGNN", "1-10", "nothing", session.tagnn),
    Entry("gc_san", "session", "Xu et al. 2019, GC-SAN", "1-13", "nothing", session.gc_san),
    Entry("gru4rec", "session", "Hidasi et al. 2016/2018, GRU4Rec", "1-10", "nothing", session.gru4rec),
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


def build(name: str, items: EntityTable, *, users: EntityTable | None = None, **arguments: Any) -> System:
    """The untrained system of that name for these items, and for these users if it is about them.

    Raises:
        InputError: a name that is not in the catalogue; says which one is nearest.
    """
    if name not in CATALOGUE:
        near = difflib.get_close_matches(name, CATALOGUE, n=1, cutoff=0.0)
        raise InputError(f"no system is called {name!r}; did you mean {near[0]!r}? (graphmeta systems lists all)")
    return CATALOGUE[name].build(items, users=users, **arguments)
