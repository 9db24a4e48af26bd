"""The options of all commands that load a model: what it reads beside its folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from graphmeta.cli.options import versioned_folder

if TYPE_CHECKING:
    from graphmeta.published.source import Source
    from graphmeta.system import System


@dataclass(frozen=True)
class GivenModel:
    """What a model reads beside its folder."""

    graph: Annotated[
        Path | None,
        typer.Option(
            "--graph",
            help="For a system that reads its log's graph or its users' sessions: the log, in the columns that fit has "
            "read, or a folder written by `graph`.",
        ),
    ] = None
    build: Annotated[
        str | None,
        typer.Option("--build", help="For a system of your own: MODULE:FUNCTION, which makes it from the items."),
    ] = None

    def source(self) -> Source:
        """The same for the library; the graph as an absolute path."""
        from graphmeta.published.source import Source

        return Source(None if self.graph is None else str(self.graph.absolute()), self.build)

    def load(self, folder: Path) -> System:
        """The model of a folder.

        Raises:
            InputError: a model that cannot be loaded, or without what it needs.
        """
        return self.source().load(versioned_folder(folder))
