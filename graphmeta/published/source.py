"""A model folder with what the model does not store: its log or graph, and the function that builds a custom system."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from torch_geometric.data import HeteroData

from graphmeta.data.events import EventLog
from graphmeta.data.graph_files import load_graph
from graphmeta.data.stored_columns import Columns
from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError
from graphmeta.published.load import give_graph, load
from graphmeta.system import System


@dataclass(frozen=True)
class Source:
    """What a model is loaded with.

    Args:
        graph: the log that it reads, with its users' sessions: a file in the columns of the log that ``graphmeta fit``
            has read, or a folder written by ``graphmeta graph``; for systems that read the graph around a session or
            earlier sessions.
        build: ``module:function``, which makes a custom system from the items (``load(build=)``); it is imported from
            the current folder or what is installed.
    """

    graph: str | None = None
    build: str | None = None

    def load(self, folder: str | Path) -> System:
        """The model of a folder.

        Raises:
            InputError: see :func:`~graphmeta.published.load.load`; a graph that cannot be read, or a function that does
                not exist.
        """
        system = load(folder, build=None if self.build is None else named_function(self.build))
        if self.graph is not None:
            give_graph(system, read_graph(system.notes, Path(self.graph)))
        return system


ALONE = Source()


def read_graph(notes: dict[str, Any], place: Path) -> EventLog | HeteroData:
    """The log in a file, in the columns that a model's notes name, or the graph in a folder.

    Raises:
        InputError: a place that cannot be read, or a file for a model without stored columns.
    """
    if place.is_dir():
        return load_graph(place)
    columns = notes.get("columns")
    if columns is None:
        raise InputError(
            f"{place}: the model was not written by fit or run, so the columns of a log are unknown; write the graph "
            f"of the log once (`graphmeta graph`), and name its folder"
        )
    return Columns.from_json(columns).read_again(place)


def named_function(name: str) -> Callable[[EntityTable], System]:
    """The function ``module:function``.

    Raises:
        InputError: another form, or a module or function that does not exist.
    """
    module, mark, function = name.partition(":")
    if not (module and mark and function):
        raise InputError(f"{name!r} must be module:function, such as my_models:build")
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"{name}: cannot be imported ({error}); name a function of a module in this folder") from None
    return partial(_built, found, name)


def _built(function: Callable[[EntityTable], System], name: str, items: EntityTable) -> System:
    system = function(items)
    if not isinstance(system, System):
        raise InputError(f"{name}: gives {type(system).__name__}, not a System; return the system of these items")
    return system
