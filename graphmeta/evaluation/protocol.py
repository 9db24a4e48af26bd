"""The evaluation protocol: how a log is split and filtered, and which test queries are made of it."""

from __future__ import annotations

import hashlib
import itertools
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from graphmeta.data.columns import spelled
from graphmeta.data.events import EventLog
from graphmeta.data.scan.log import ScannedLog
from graphmeta.data.splits import Split, split_by_time
from graphmeta.data.tables import locate
from graphmeta.errors import InputError
from graphmeta.sampling.samples import Samples, last_clicks


@dataclass(frozen=True)
class Rules:
    """Shares of sessions for test and validation, and the filters of the training part."""

    test: float = 0.1
    valid: float = 0.1
    min_item_support: int = 5
    min_session_length: int = 2


def cut(log: EventLog | ScannedLog, rules: Rules) -> Split:
    """Split by time, then filter by the training part alone, so that later events cannot influence the filter.

    Raises:
        InputError: a part without training samples or test queries, or a single item.
    """
    raw = split_by_time(log, test=rules.test, valid=rules.valid)
    train = raw.train.filter(min_item_support=rules.min_item_support, min_session_length=rules.min_session_length)
    if train.num_items < 2:
        raise InputError(
            f"there is only {train.num_items} item to train on, which every model ranks first; use a log with more "
            f"items, or lower --min-item-support"
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


def whole_log(log: EventLog | ScannedLog, rules: Rules) -> Split:
    """The whole log as the training part, filtered as in :func:`cut`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the first cut of the log has warned
        return cut(log, replace(rules, test=0.0, valid=0.0))


def test_queries(log: EventLog | ScannedLog, rules: Rules) -> Samples:
    """The last click of each session of at least ``min_session_length`` as target, the clicks before it as context."""
    log = log.collect() if isinstance(log, ScannedLog) else log
    return last_clicks(log, min_length=rules.min_session_length)


def cuts(log: EventLog | ScannedLog, split: Split) -> dict[str, Any]:
    """The cut times (or last session), stored to find later sessions that begin after training and validation.

    Without a test part, they are just after the begin of the last session.
    """
    end = float(np.nextafter(log.starts.max(), np.inf))
    valid_from, test_from = (
        end if cut is None or np.isinf(cut) else cut for cut in (split.valid_from, split.test_from)
    )
    number = int(np.flatnonzero(log.starts < test_from)[-1])
    last = log.session_id(number)
    return {
        "has_time": log.has_time,
        "valid_from": valid_from,
        "test_from": test_from,
        # An id may have that of its user, so it is stored only where there is no time to cut by.
        "last_session_before_test": None if log.has_time else last.item() if hasattr(last, "item") else last,
        "digests_before_test": [] if log.has_time or isinstance(log, ScannedLog) else _digests(log, number),
    }


_COMPARED = 10  # sessions before the cut that identify a log without times


def _digests(log: EventLog, number: int) -> list[str]:
    """Hashes of ids and items of this session and those before it, the last ones, latest first."""
    clicks = ((log.sessions[n], log.items.ids[log.item[log.ptr[n] : log.ptr[n + 1]]]) for n in range(number, -1, -1))
    return [
        hashlib.sha256(repr((spelled(session), [spelled(item) for item in items])).encode()).hexdigest()[:16]
        for session, items in itertools.islice(clicks, _COMPARED)
    ]


def unseen(log: EventLog, kept: Mapping[str, Any]) -> EventLog:
    """The sessions that begin after the training and validation of a model with these cuts.

    Without times, the sessions after the last validation session; all of them, if the log does not contain it, or has
    its id for other clicks (the numbering begins anew).

    Warns:
        UserWarning: ids of a log without times that begin anew.

    Raises:
        InputError: no such session.
    """
    if kept["has_time"]:
        new = log.starts >= kept["test_from"]
    else:
        at = locate(log.sessions, np.array([kept["last_session_before_test"]]))
        begins_anew = at[0] >= 0 and not _continues(log, int(at[0]), kept.get("digests_before_test", []))
        new = np.arange(log.num_sessions) > (-1 if begins_anew else at[0])
        if begins_anew:
            warnings.warn(
                f"session {kept['last_session_before_test']} has other clicks than in the model's training log, so "
                f"session ids begin anew and all {log.num_sessions:,} of them count as new; if some were trained on, "
                f"pass the others only",
                stacklevel=2,
            )
    if not new.any():
        whole = kept["valid_from"] == kept["test_from"]
        cut = "when the log of the model ends" if whole else "the model's training and validation cut"
        remedy = ", or fit with --no-refit to evaluate the model that was measured" if whole else ""
        raise InputError(
            f"no session of {log.num_sessions:,} begins after {when(kept)}, {cut}; pass later ones{remedy}"
        )
    return log.of_sessions(new)


def _continues(log: EventLog, number: int, digests: list[str]) -> bool:
    """Whether most sessions up to this one are those of the training log, as far as either has them."""
    same = [one == other for one, other in zip(_digests(log, number), digests, strict=False)]
    return 2 * sum(same) >= len(same)


def when(kept: Mapping[str, Any]) -> str:
    """The start of the test part as readable text."""
    if not kept["has_time"]:
        return f"the end of session {kept['last_session_before_test']}"
    try:
        return datetime.fromtimestamp(kept["test_from"], UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return f"time {kept['test_from']:.0f}"
