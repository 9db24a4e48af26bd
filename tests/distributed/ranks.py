"""Runs a function in several gloo ranks, forked from a process that has not computed gradients.

Autograd's threads do not survive a fork, and other tests of this process may have started them.
"""

import multiprocessing
import os
import socket
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from graphmeta.distributed import joined

SECONDS = 400  # importing torch takes minutes on a busy machine
CLEAN = multiprocessing.get_context("forkserver")
CLEAN.set_forkserver_preload(["graphmeta.distributed", "graphmeta.published.fit", "graphmeta.testing"])


def ranks(size: int, folder: Path, work: Callable[[], Any]) -> list[Any]:
    """What ``work()`` returns on each rank, inside ``joined``; tensors and plain values.

    Args:
        work: a function of a module, or a partial of one.

    Raises:
        AssertionError: a rank that failed or did not end.
    """
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        port = place.getsockname()[1]
    children = [CLEAN.Process(target=_rank, args=(rank, size, port, folder, work)) for rank in range(size)]
    for child in children:
        child.start()
    ends = _ends(children)
    errors = [path.read_text() for path in sorted(folder.glob("error-*"))]
    assert not any(ends), (ends, *errors)
    return [torch.load(folder / f"result-{rank}.pt", weights_only=True) for rank in range(size)]


def _rank(rank: int, size: int, port: int, folder: Path, work: Callable[[], Any]) -> None:
    code = 1
    try:
        torch.set_num_threads(1)
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in place.items()})
        with joined():
            result = work()
        torch.save(result, folder / f"result-{rank}.pt")
        code = 0
    except BaseException:
        (folder / f"error-{rank}").write_text(traceback.format_exc())
    finally:
        os._exit(code)


def _ends(children: list[Any]) -> list[int | None]:
    """The exit codes of the children, which are killed if they take too long."""
    until = time.monotonic() + SECONDS
    for child in children:
        child.join(max(until - time.monotonic(), 0))
        if child.is_alive():
            child.kill()
            child.join()
    return [child.exitcode for child in children]
