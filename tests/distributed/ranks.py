"""Runs a function in several gloo ranks, forked from this process."""

import os
import socket
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from graphmeta.distributed import joined

SECONDS = 120


def ranks(size: int, folder: Path, work: Callable[[], Any]) -> list[Any]:
    """What ``work()`` returns on each rank, inside ``joined``; tensors and plain values.

    Raises:
        AssertionError: a rank that failed or did not end.
    """
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        port = place.getsockname()[1]
    children = [_fork(rank, size, port, folder, work) for rank in range(size)]
    ends = _ends(children)
    errors = [path.read_text() for path in sorted(folder.glob("error-*"))]
    assert not any(ends), (ends, *errors)
    return [torch.load(folder / f"result-{rank}.pt", weights_only=True) for rank in range(size)]


def _fork(rank: int, size: int, port: int, folder: Path, work: Callable[[], Any]) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a fork of a process with threads; the child uses none of them
        child = os.fork()
    if child:
        return child
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


def _ends(children: list[int]) -> list[int]:
    """The exit codes of the children, which are killed if they take too long."""
    ends, until = dict.fromkeys(children, None), time.monotonic() + SECONDS
    while None in ends.values():
        for child in [child for child, end in ends.items() if end is None]:
            found, status = os.waitpid(child, os.WNOHANG)
            if found:
                ends[child] = status
        if time.monotonic() > until:
            for child in [child for child, end in ends.items() if end is None]:
                os.kill(child, 9)
                ends[child] = os.waitpid(child, 0)[1]
        time.sleep(0.01)
    return list(ends.values())
