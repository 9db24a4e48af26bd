"""Training in several processes: ``torchrun --nproc-per-node 2 -m graphmeta fit …``, or in Python :func:`joined`.

Each process (rank) computes a part of every batch and of every evaluation; gradients are summed, so all ranks hold the
same weights. docs/distributed.md has the commands, what is exact and what differs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphmeta.distributed.group import Group as Group
from graphmeta.distributed.group import current as current
from graphmeta.distributed.group import step as step

if TYPE_CHECKING:
    from graphmeta.distributed.processes import joined as joined


def __getattr__(name: str) -> Any:
    if name == "joined":  # imports torch, which the command line's help does not
        from graphmeta.distributed.processes import joined

        return joined
    raise AttributeError(f"module 'graphmeta.distributed' has no attribute {name!r}")
