"""Popular items: what a session of which nothing is known gets, by the model's own counts of training events."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from graphmeta.data.events import EventLog
from graphmeta.data.scan.log import ScannedLog
from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError
from graphmeta.sampling.best import POPULAR, Recommendation, best_of
from graphmeta.storage import load_state


def events_of(log: EventLog | ScannedLog, items: EntityTable) -> np.ndarray | None:
    """The number of events of each item, ``[num_items]``; None for a log of another number of items."""
    return log.support.astype(np.int64) if log.num_items == len(items) else None


def stored_events(stored: Any, folder: Path, items: EntityTable) -> np.ndarray | None:
    """The number of training events of each item of a saved model.

    Models that were saved without it have it in the training sequences that ``fit`` stores beside them (``history``);
    None if there are none.

    Raises:
        InputError: damaged counts.
    """
    if stored is not None:
        whole = isinstance(stored, list) and all(type(one) is int and one >= 0 for one in stored)
        if not whole or len(stored) != len(items):
            raise InputError(f"{folder}: its numbers of training events are damaged; restore it from a copy")
        return np.array(stored, dtype=np.int64)
    if not (folder / "history.json").is_file():
        return None
    tensors, _ = load_state(folder, "history")
    item = tensors["item"].numpy()
    known = len(item) == 0 or (item.min() >= 0 and item.max() < len(items))
    return np.bincount(item, minlength=len(items)).astype(np.int64) if known else None


def popular(
    events: np.ndarray, k: int, items: EntityTable, seen: Iterable[np.ndarray], allowed: np.ndarray | None
) -> list[list[Recommendation]]:
    """The k items with the most training events for each session, without its ``seen`` ones.

    Args:
        events: the number of training events of each item, ``[num_items]``.
    """
    found, same = list[list[Recommendation]](), dict[bytes, list[Recommendation]]()
    for row in seen:
        if (key := np.unique(row).tobytes()) not in same:
            scores = torch.from_numpy(events.astype(np.float64))[None]
            same[key] = best_of(scores, k, items, [row], allowed=allowed, why=[POPULAR])[0]
        found.append(list(same[key]))
    return found
