"""Test queries for a model: samples numbered by its items, or the last clicks of a log brought to them."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphmeta.data.events import EventLog
from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError
from graphmeta.sampling.samples import Samples, last_clicks
from graphmeta.sampling.tasks import Tasks


def queries_of(model: Any, given: EventLog | Samples) -> Samples:
    """The samples to rank: those given, or of a log the last click of each session of two known items and more.

    A log is numbered by the model's items first (``log.aligned_to``), so that events on others are left out.

    Raises:
        InputError: a log without a session of two items that the model knows, samples numbered by other items or
            users, tasks, or anything else.
    """
    if isinstance(given, EventLog):
        samples = last_clicks(aligned(model, given), max_length=getattr(model, "max_length", 50))
        if len(samples) == 0:
            raise InputError(
                f"no session of the log has two items that the model knows ({given.num_sessions:,} sessions, "
                f"{given.num_items:,} items); bring a log with the ids that it was trained on"
            )
        return samples
    if isinstance(given, Tasks):
        raise InputError(
            "these are tasks, not samples; evaluate_tasks ranks what tasks ask, evaluate_ratings compares its ratings"
        )
    if not isinstance(given, Samples):
        raise InputError(f"a {type(given).__name__} cannot be evaluated on; pass a log, or last_clicks(log)")
    given.check_items(getattr(model, "items", None))
    if given.user is not None and not _same(getattr(model, "users", None), given.users):
        raise InputError(
            "the samples are numbered by other users than the model's; pass the log itself, or number it like the "
            "model: log.aligned_to(model.items, model.users)"
        )
    return given


def aligned(model: Any, log: EventLog) -> EventLog:
    """The log numbered by the model's items, and by its users if it knows any.

    Raises:
        InputError: of a model that keeps no ids (a baseline), a log of another number of items.
    """
    items, users = getattr(model, "items", None), getattr(model, "users", None)
    if items is None:
        log.must_have(model.num_items)
        return log
    return log if _same(items, log.items) and _same(users, log.users) else log.aligned_to(items, users)


def _same(own: EntityTable | None, other: EntityTable | None) -> bool:
    """Whether two tables number alike, as far as both are known."""
    return own is None or other is None or own is other or np.array_equal(own.ids, other.ids)
