"""Work that rank 0 does alone, such as writing files, with its result or its error on all ranks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphmeta.distributed.group import ALONE, current, within


def on_first(work: Callable[[], Any]) -> Any:
    """The result of ``work`` (what JSON can hold), which rank 0 runs alone while the other ranks wait.

    Within it, rank 0 is a group of one, so that what it calls does not wait for the others. If it raises, the other
    ranks end with ``LostProcess``.

    >>> on_first(lambda: 3)
    3
    """
    group = current()
    if group.size == 1:
        return work()
    found = None
    if group.rank == 0:
        with within(ALONE):
            found = work()
    return group.value_of_first(found)
