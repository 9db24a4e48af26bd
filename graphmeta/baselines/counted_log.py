"""The events that a baseline has counted, as the state of a module."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from graphmeta.data.events import EventLog
from graphmeta.data.tables import EntityTable


class CountedLog(nn.Module):
    """The events that were counted, as buffers: items by session, without ids of sessions and users.

    Shapes: item ``[N]`` int32, ptr ``[S + 1]`` int64, time ``[N]`` float64 (``[0]`` without times), owner ``[S]``
    int32, the number of each session's user, -1 if unknown (``[0]`` for a log without users). Empty until a log is
    counted.
    """

    item: Tensor
    ptr: Tensor
    time: Tensor
    owner: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("item", torch.zeros(0, dtype=torch.int32))
        self.register_buffer("ptr", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("time", torch.zeros(0, dtype=torch.float64))
        self.register_buffer("owner", torch.zeros(0, dtype=torch.int32))

    @property
    def is_empty(self) -> bool:
        """Whether no log was counted yet."""
        return len(self.ptr) == 0

    def store(self, log: EventLog, *, times: bool, owners: bool) -> None:
        """Replace the stored events by those of a log.

        Args:
            times, owners: whether to store the times of the events and the numbers of the sessions' users.
        """
        nothing = np.zeros(0)
        columns = {
            "item": log.item.astype(np.int32),
            "ptr": log.ptr.astype(np.int64),
            "time": log.time if log.has_time and times else nothing,
            "owner": (log.session_user if log.session_user is not None and owners else nothing).astype(np.int32),
        }
        for name, column in columns.items():
            setattr(self, name, torch.tensor(column).to(getattr(self, name).device))

    def log(self, items: EntityTable, users: EntityTable | None = None) -> EventLog:
        """The stored events as a log whose sessions are numbered.

        Args:
            items: the vocabulary.
            users: the ids of its users by number, if they are known. Users are else numbered by ids that no file can
                have.
        """
        item, ptr, time, owner = (getattr(self, name).cpu().numpy() for name in ("item", "ptr", "time", "owner"))
        has_time, has_users = len(time) == len(item), len(owner) == len(ptr) - 1 and len(owner) > 0
        if has_users and users is None:
            users = EntityTable(np.array([f"\0{n}" for n in range(int(owner.max()) + 1)], dtype=object), {})
        return EventLog(
            np.repeat(np.arange(len(ptr) - 1), np.diff(ptr)),
            item.astype(np.int64),
            time if has_time else np.arange(len(item), dtype=np.float64),
            np.arange(len(ptr) - 1),
            items,
            users=users if has_users else None,
            session_user=owner.astype(np.int64) if has_users else None,
            has_time=has_time,
        )

    def check(self, num_items: int) -> None:
        """Check that the events are those of a log.

        Raises:
            ValueError: they are not.
        """
        item, ptr = self.item.cpu().numpy(), self.ptr.cpu().numpy()
        sorted_ptr = len(ptr) > 0 and ptr[0] == 0 and ptr[-1] == len(item) and bool((np.diff(ptr) >= 0).all())
        sizes = len(self.time) in (0, len(item)) and len(self.owner) in (0, len(ptr) - 1)
        known = len(item) == 0 or (item.min() >= 0 and item.max() < num_items)
        owned = len(self.owner) == 0 or -1 <= int(self.owner.min()) <= int(self.owner.max()) < len(ptr)
        if not (sorted_ptr and sizes and known and owned):
            raise ValueError("events that no log has")

    def reads_only(self) -> None:
        """No part of it reads users alone."""

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        for name, buffer in self.named_buffers():  # their sizes depend on the log
            setattr(self, name, torch.empty_like(state_dict.get(f"{prefix}{name}", buffer)))
        super()._load_from_state_dict(state_dict, prefix, *rest)
