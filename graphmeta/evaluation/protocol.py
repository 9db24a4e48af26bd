"""The evaluation protocol: how a log is split and filtered, and which test queries are made of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from graphmeta.data.columns import spelled
from graphmeta.data.events import EventLog
from graphmeta.data.splits import Split, split_by_time
from graphmeta.data.tables import locate
from graphmeta.errors import InputError
from graphmeta.sampling.samples import Samples, last_clicks

KS = (5, 20)


@dataclass(frozen=True)
class Rules:
    """Shares of sessions for test and validation, and the filters of the training part."""

    test: float = 0.1
    valid: float = 0.1
    min_item_support: int = 5
    min_session_length: int = 2


def cut(log: EventLog, rules: Rules) -> Split:
    """Split by time, then filter by the training part alone, so that later events cannot influence the filter.

    Raises:
        InputError: a part without training samples or test queries, or too few items to rank 20 of them.
    """
    if not rules.test > 0:
        raise InputError("--test must be above 0: evaluation needs a test part")
    raw = split_by_time(log, test=rules.test, valid=rules.valid)
    train = raw.train.filter(min_item_support=rules.min_item_support, min_session_length=rules.min_session_length)
    if train.num_items <= max(KS):
        raise InputError(
            f"k={max(KS)} is not below the number of items to train on, {train.num_items}: every model would "
            f"score 1; use a log with more items, or lower --min-item-support"
        )
    valid, test = (part.aligned_to(train.items, train.users) for part in (raw.valid, raw.test))
    for part, share, option in ((valid, rules.valid, "--valid"), (test, rules.test, "--test")):
        if share and len(test_queries(part, rules)) == 0:
            raise InputError(
                f"no session in the share of {option} has {max(rules.min_session_length, 2)} items known from "
                f"training; raise {option}, or use a log with longer sessions"
            )
    lost = raw.valid.num_events + raw.test.num_events - valid.num_events - test.num_events
    return replace(raw, train=train, valid=valid, test=test, unknown=raw.unknown + lost)


def test_queries(log: EventLog, rules: Rules) -> Samples:
    """The last click of each session of at least ``min_session_length`` as target, the clicks before it as context."""
    return last_clicks(log, min_length=rules.min_session_length)


def cuts(log: EventLog, split: Split) -> dict[str, Any]:
    """The cut times (or last session), stored to find later sessions that begin after training and validation."""
    at = int(np.flatnonzero(log.starts < split.test_from)[-1])
    last = log.sessions[at]
    return {
        "has_time": log.has_time,
        "valid_from": split.valid_from,
        "test_from": split.test_from,
        "last_session_before_test": last.item() if hasattr(last, "item") else last,
        "last_session_items": _hash_of(log, at),
        "last_session_length": int(log.lengths[at]),
    }


def unseen(log: EventLog, kept: Mapping[str, Any]) -> EventLog:
    """The sessions that begin after the training and validation of a model with these cuts.

    Without times, the sessions after the last validation session; all of them, if the log does not contain it, or
    contains another session under its id, as where each file counts its sessions from 0.

    Raises:
        InputError: no such session.
    """
    if kept["has_time"]:
        new = log.starts >= kept["test_from"]
    else:
        at = int(locate(log.sessions, np.array([kept["last_session_before_test"]]))[0])
        if at >= 0 and kept.get("last_session_items") not in (None, _hash_of(log, at, kept.get("last_session_length"))):
            at = -1
        new = np.arange(log.num_sessions) > at
    if not new.any():
        raise InputError(
            f"all {log.num_sessions} sessions begin before {when(kept)}, the model's training and validation cut; "
            f"pass later ones"
        )
    return log.of_sessions(new)


def _hash_of(log: EventLog, session: int, length: int | None = None) -> str:
    """A hash of the ids of a session's items, of the first ``length`` ones if given."""
    events = slice(log.ptr[session], log.ptr[session + 1])
    items = [spelled(one) for one in log.items.ids[log.item[events]][:length]]
    return hashlib.sha256(json.dumps(items).encode()).hexdigest()[:16]


def when(kept: Mapping[str, Any]) -> str:
    """The start of the test part as readable text."""
    if not kept["has_time"]:
        return f"the end of session {kept['last_session_before_test']}"
    try:
        return datetime.fromtimestamp(kept["test_from"], UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return f"time {kept['test_from']:.0f}"
