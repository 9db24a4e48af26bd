"""The command line in several processes: ``torchrun --nproc-per-node 2 -m graphmeta fit …``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

from graphmeta.distributed.group import launched
from graphmeta.errors import InputError

TRAINING = ("fit", "run")


@contextmanager
def ranks(command: str) -> Iterator[None]:
    """Within it, the processes that torchrun started train together, and only rank 0 prints.

    Raises:
        InputError: a command that does not train.
    """
    if not launched():
        yield
        return
    if command not in TRAINING:
        raise InputError(
            f"torchrun starts {' and '.join(TRAINING)} only; run {command or 'graphmeta'} without torchrun"
        )
    from graphmeta.distributed.processes import joined

    with joined() as group:
        if group.rank == 0:
            yield
            return
        with open(os.devnull, "w") as nothing, redirect_stdout(nothing), redirect_stderr(nothing):
            yield
