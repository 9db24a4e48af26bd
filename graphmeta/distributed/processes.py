"""The ranks of ``torch.distributed`` as a group: gloo between CPUs, nccl between GPUs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from graphmeta.distributed.group import ALONE, Group, current, launched, within
from graphmeta.errors import EndedByOther, InputError, LostProcess


class Processes:
    """The processes that torchrun started, one rank each.

    Raises:
        LostProcess: (from all methods) another process has ended.
    """

    weight = 1

    def __init__(self, store: Store | None = None) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.local_rank = int(os.environ.get("LOCAL_RANK", self.rank))
        self._store = store

    def __deepcopy__(self, memo: object) -> Processes:
        """The group itself: a copy of a system with divided rows is held by the same ranks."""
        return self

    def sum(self, x: Tensor) -> Tensor:
        """The sum over ranks, in place; the same bits on all ranks."""
        self._run(dist.all_reduce, x)
        return x

    def maximum(self, x: Tensor) -> Tensor:
        """The maximum over ranks, in place."""
        self._run(dist.all_reduce, x, dist.ReduceOp.MAX)
        return x

    def gather(self, x: Tensor) -> Tensor:
        """The rows of all ranks, in their order."""
        own = torch.tensor([len(x)], device=x.device)
        sizes = [torch.empty_like(own) for _ in range(self.size)]
        self._run(dist.all_gather, sizes, own)
        rows = [int(size) for size in sizes]
        padded = x.new_zeros(max(rows), *x.shape[1:])
        padded[: len(x)] = x
        parts = [torch.empty_like(padded) for _ in rows]
        self._run(dist.all_gather, parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, rows, strict=True)])

    def of_first(self, x: Tensor) -> Tensor:
        """Rank 0's tensor, in place, of any kind of number."""
        plain = x.detach().contiguous()
        self._run(dist.broadcast, plain.reshape(-1).view(torch.uint8), 0)
        if plain.data_ptr() != x.data_ptr():
            x.detach().copy_(plain)
        return x

    def value_of_first(self, value: Any) -> Any:
        """Rank 0's value, which JSON can hold."""
        text = np.frombuffer(json.dumps(value).encode(), dtype=np.uint8).copy()
        size = torch.tensor([len(text)])
        self._run(dist.broadcast, size, 0)
        sent = torch.from_numpy(text) if self.rank == 0 else torch.empty(int(size), dtype=torch.uint8)
        self._run(dist.broadcast, sent, 0)
        return json.loads(sent.numpy().tobytes())

    def fails_first(self) -> bool:
        """Whether no other rank has called this before; true if that cannot be found out."""
        try:
            return self._store is None or self._store.add("failed", 1) == 1
        except RuntimeError:  # the process with the store has ended
            return True

    def _run(self, collective: Callable[..., Any], *given: Any) -> None:
        try:
            collective(*given)
        except RuntimeError as error:
            # Of "[file:line] Connection reset by peer. This is …" the middle.
            reason = str(error).strip().splitlines()[0].removeprefix("[").partition("] ")
            shown = (reason[2] or reason[0]).partition(". ")[0]
            raise LostProcess(f"another process of this training has ended, or cannot be reached ({shown})") from None


@contextmanager
def joined(*, minutes: float = 30) -> Iterator[Group]:
    """Within it, the processes that torchrun started train and evaluate together; yields their group.

    All ranks must run the same calls of :func:`graphmeta.fit`, :func:`graphmeta.train` and :func:`graphmeta.evaluate`
    on the same data. Inside another ``joined`` it is the same group; a process group that is already initialised is
    used and left as it is.

    Args:
        minutes: a rank that waits longer for another one ends.

    Raises:
        InputError: a process that torchrun did not start.
        LostProcess: another process has ended.
        EndedByOther: (instead of the rank's own error) another rank failed before.
    """
    if current() is not ALONE:
        yield current()
        return
    own, store = not dist.is_initialized(), None
    if own:
        if not launched():
            raise InputError(
                "distributed=True needs the processes of torchrun, and this one was started without; run it as "
                "torchrun --nproc-per-node 2 script.py"
            )
        store = _begin(timedelta(minutes=minutes))
    group = Processes(store)
    try:
        with within(group):
            yield group
    except BaseException as error:
        if not group.fails_first():
            raise EndedByOther("another process of this training failed first; its error is printed there") from error
        raise
    if own:
        dist.destroy_process_group()


def _begin(timeout: timedelta) -> Store:
    """Initialise ``torch.distributed``: gloo for CPU tensors, nccl for GPU tensors if each rank has a GPU."""
    local = int(os.environ.get("LOCAL_RANK", os.environ["RANK"]))
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ["WORLD_SIZE"]))
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus:
        torch.cuda.set_device(local % gpus)
    store, rank, size = next(rendezvous("env://", timeout=timeout))
    store.set_timeout(timeout)
    backend = "cpu:gloo,cuda:nccl" if gpus >= ranks else "gloo"
    dist.init_process_group(backend, store=PrefixStore("group", store), rank=rank, world_size=size, timeout=timeout)
    return PrefixStore("graphmeta", store)
