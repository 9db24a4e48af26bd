"""The command ``graphmeta``, also as ``python -m graphmeta``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec

import graphmeta

_NEEDED = ("typer", "rich")  # of the extra `cli`


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. Without the packages of the command line, prints how to install them."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given == ["--version"]:
        print(f"graphmeta {graphmeta.__version__}")
        return 0
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        print(
            f"error: the command line needs {' and '.join(missing)}: pip install 'graphmeta[cli]'; the library works "
            f"without: import graphmeta as gm",
            file=sys.stderr,
        )
        return 2
    from graphmeta.cli.commands import main as run

    return run(given)


if __name__ == "__main__":
    sys.exit(main())
