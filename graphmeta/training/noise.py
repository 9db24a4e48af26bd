"""Random numbers of an epoch, by seed, epoch and rank."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from graphmeta.distributed.group import Group


@contextmanager
def noise(seed: int, epoch: int, group: Group) -> Iterator[torch.Generator | None]:
    """Within it, torch's global generator depends only on seed, epoch and rank; yields what all ranks sample from.

    One rank samples everything from the global generator, and the result is None. Of several ranks, each has a global
    generator of its own (dropout and other noise per sample), and what is sampled for a whole batch comes from a
    generator that is the same on all ranks and begins as that of one rank does.
    """
    begin = 1_000_003 * seed + epoch
    with torch.random.fork_rng():
        if group.size == 1:
            torch.manual_seed(begin)
            yield None
        else:
            torch.manual_seed(int(np.random.SeedSequence([seed, epoch, group.rank]).generate_state(1)[0]))
            yield torch.Generator().manual_seed(begin)
