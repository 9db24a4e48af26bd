"""Test queries for a model: samples with its item indices, or the last clicks of a log aligned to its items."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, cast

from graphmeta.data.events import EventLog
from graphmeta.data.scan.log import ScannedLog
from graphmeta.data.splits import Split
from graphmeta.data.tables import EntityTable, same_ids
from graphmeta.errors import InputError, counted
from graphmeta.evaluation.result import LeftOut
from graphmeta.protocols import AsksQueries, HasItems, HasUsers, KeepsHistories, LimitsLength, ReadsHistory, Scorer
from graphmeta.sampling.samples import Samples, last_clicks
from graphmeta.sampling.tasks import Tasks
from graphmeta.sampling.user_histories import UserHistories


def check_model(model: Any, given: Any, name: str) -> None:
    """Check that the model of ``name(model, given)`` scores items.

    Raises:
        InputError: the name of a system, swapped arguments, or an object without scores.
    """
    if isinstance(model, str):
        raise InputError(f"{name} takes a trained system, not the name {model!r}; train it: fit(split, {model!r})")
    if isinstance(model, EventLog | Samples | Split | Tasks) and isinstance(given, Scorer):
        raise InputError(f"the arguments of {name} are swapped; write {name}(system, log)")
    if isinstance(model, type) or not isinstance(model, Scorer):
        raise InputError(
            f"{name} takes a system or a baseline, not a {type(model).__name__}: it needs num_items and "
            f"scores(samples), see graphmeta.protocols.Scorer"
        )


def queries_of(model: Scorer, given: EventLog | Samples, history: EventLog | Split | None = None) -> Samples:
    """The samples to rank: those given, or for a log the last click of each session with at least two known items.

    A log is first aligned to the model's items (``log.aligned_to``), which drops events on other items. For a model
    that reads users' earlier sessions, the samples get those of ``history``, of the model's own histories and of the
    log itself, see :class:`~graphmeta.sampling.user_histories.UserHistories`.

    Raises:
        InputError: a log without a session of two items known to the model, samples with other item or user
            indices or items that the model lacks, tasks, or any other type.
    """
    if isinstance(given, EventLog):
        samples = last_clicks(
            aligned(model, given), max_length=model.max_length if isinstance(model, LimitsLength) else 50
        )
        if len(samples) == 0:
            raise InputError(
                f"no session of the log has two items known to the model ({counted(given.num_sessions, 'session')}, "
                f"{counted(given.num_items, 'item')}); pass a log with the item ids of the training log"
            )
        return with_history(model, samples, given, history)
    if history is not None:
        raise InputError(
            "history= applies to a log; samples have their own: UserHistories.of(log).attached(samples, log)"
        )
    if isinstance(given, Split):
        raise InputError("evaluate takes one part of a split; pass its test part: split.test")
    if isinstance(given, Tasks):
        raise InputError("these are tasks, not samples; use evaluate_tasks for ranking or evaluate_ratings for ratings")
    if not isinstance(given, Samples):
        raise InputError(f"a {type(given).__name__} is neither a log nor samples; pass a log, or last_clicks(log)")
    given.check_items(items_of(model), size=model.num_items)
    if given.user is not None and not same_ids(users_of(model), given.users):
        raise InputError(
            "the samples have other user indices than the model; pass the log itself, or align it: "
            "log.aligned_to(model.items, model.users)"
        )
    if reads_history(model) and given.user is not None and given.earlier is None:
        warnings.warn(
            "the samples have no earlier sessions of their users, which this model reads; pass the log itself, or "
            "attach them: UserHistories.of(log).attached(samples, log)",
            stacklevel=3,
        )
    return given


def reads_history(model: Any) -> bool:
    """Whether a scorer reads the earlier sessions of a sample's user."""
    return isinstance(model, ReadsHistory) and model.reads_history


def with_history(model: Scorer, samples: Samples, log: EventLog, *known: EventLog | Split | None) -> Samples:
    """The samples of a log with their users' earlier sessions, if the model reads these and the log has users.

    Args:
        log: the log of the samples, whose sessions are known too.
        known: logs or splits with further sessions.
    """
    if not reads_history(model) or log.users is None:
        return samples
    histories, own = known_histories(model, [*known, log], log)
    return histories.attached(samples, own)


def validation_queries(system: LimitsLength, valid: Any, log: EventLog | ScannedLog) -> Any:
    """The queries of a validation log, the same in all epochs, with its users' earlier sessions, those of the training
    log too; anything else than a log as it is.
    """
    valid = valid.collect() if isinstance(valid, ScannedLog) else valid
    if not isinstance(valid, EventLog):
        return valid
    make = system.queries if isinstance(system, AsksQueries) else last_clicks
    queries = make(valid, max_length=system.max_length)
    return with_history(
        cast(Scorer, system), queries, valid, log if isinstance(log, EventLog) and log.users is not None else None
    )


def known_histories(
    model: Scorer, known: Sequence[EventLog | Split | None], log: EventLog
) -> tuple[UserHistories, EventLog]:
    """The users' sessions in these logs and those the model stores, with its item indices; the aligned ``log``."""
    for one in known:
        if not (one is None or isinstance(one, EventLog | Split)):
            raise InputError(f"history= takes a log or a split, not a {type(one).__name__}")
    items = items_of(model)
    parts = [part for one in known if one is not None for part in (one.parts if isinstance(one, Split) else (one,))]
    own = [part if items is None else part.aligned_to(items, part.users) for part in (*parts, log)]
    kept = model.histories if isinstance(model, KeepsHistories) else None
    found, placed = UserHistories.together(kept, *own, stacklevel=5)
    return found, placed[-1]


def left_out(model: Scorer, given: EventLog | Samples, samples: Samples) -> LeftOut:
    """How many clicks and sessions of a log are not among its samples."""
    if not isinstance(given, EventLog):
        return LeftOut()
    items = items_of(model)
    known = given.num_events if items is None else int((items.rows_of(given.items.ids) >= 0)[given.item].sum())
    return LeftOut(given.num_events - known, given.num_sessions - len(samples))


def items_of(model: Scorer) -> EntityTable | None:
    """The model's item table; None if it has none."""
    return model.items if isinstance(model, HasItems) else None


def users_of(model: Scorer) -> EntityTable | None:
    """The model's user table; None if it has none."""
    return model.users if isinstance(model, HasUsers) else None


def aligned(model: Scorer, log: EventLog) -> EventLog:
    """The log with the model's item indices, and its user indices if it has users.

    Raises:
        InputError: for a model without ids (a baseline), a log with another number of items.
    """
    items, users = items_of(model), users_of(model)
    if items is None:
        log.must_have(model.num_items)
        return log
    return log if same_ids(items, log.items) and same_ids(users, log.users) else log.aligned_to(items, users)
