"""The training sequences of a model, stored next to it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from graphmeta.data.events import EventLog
from graphmeta.data.merging import Log
from graphmeta.data.scan.log import ScannedLog
from graphmeta.data.tables import EntityTable
from graphmeta.storage import load_state, save_state


def save_history(folder: Path, log: EventLog | ScannedLog) -> None:
    """Write the training sequences as ``history``: items by session, without ids, users or times; nothing of a log on
    disk.
    """
    if isinstance(log, ScannedLog):
        return
    tensors = {
        "item": torch.from_numpy(log.item.astype(np.int32)),
        "ptr": torch.from_numpy(log.ptr.astype(np.int64)),
    }
    save_state(folder, "history", tensors, {"sessions": log.num_sessions, "events": log.num_events})


def load_history(folder: Path, items: EntityTable) -> EventLog | None:
    """The training sequences written by :func:`save_history`, as a log without times; None if there are none."""
    if not (folder / "history.json").is_file():
        return None
    tensors, _ = load_state(folder, "history")
    return _sequences(tensors["item"].numpy().astype(np.int64), tensors["ptr"].numpy(), items)


def anonymous(log: Log) -> Log:
    """The log as :func:`load_history` restores it, so that baselines see the same data after training and later."""
    return log if isinstance(log, ScannedLog) else _sequences(log.item, log.ptr, log.items)


def _sequences(item: np.ndarray, ptr: np.ndarray, items: EntityTable) -> EventLog:
    session = np.repeat(np.arange(len(ptr) - 1), np.diff(ptr))
    time = np.arange(len(item), dtype=np.float64)
    return EventLog(session, item, time, np.arange(len(ptr) - 1), items, has_time=False)
