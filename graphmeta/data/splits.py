"""Splits of a log into training, validation and test: by time, by new users, by new items.

The training part contains no information from the other parts: no events, no vocabulary and no counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from graphmeta.data import show
from graphmeta.data.events import EventLog
from graphmeta.data.merging import Log
from graphmeta.data.scan.log import ScannedLog
from graphmeta.data.user_order import warn_sorted_by_user
from graphmeta.errors import InputError, counted


@dataclass(frozen=True, eq=False, repr=False)
class Split:
    """Three logs with the training vocabulary, and the cut times if split by time.

    Parts are of the type of the log that was split. ``unknown`` counts the dropped events of valid and test: those on
    items not in training.
    """

    train: Any  # EventLog; or ScannedLog, if it was split on disk
    valid: Any
    test: Any
    valid_from: float | None = None
    test_from: float | None = None
    unknown: int = 0

    @property
    def parts(self) -> tuple[Any, Any, Any]:
        """Training, validation and test."""
        return self.train, self.valid, self.test

    def __repr__(self) -> str:
        parts = [f"{name}: {value}" for name, value in self._facts().items()]
        return f"Split, {parts[0]}\n  {parts[1]}\n  {parts[2]}"

    def _repr_html_(self) -> str:
        rows = (f"<tr><th>{name}</th><td>{escape(value)}</td></tr>" for name, value in self._facts().items())
        return f"<table>{''.join(rows)}</table>"

    def _facts(self) -> dict[str, str]:
        """Size and time span of each part."""
        found = {}
        for name, part in (("train", self.train), ("valid", self.valid), ("test", self.test)):
            facts = show.facts(part)
            found[name] = f"{facts['size']}; {facts['time']}" if part.num_events else "no events"
        if self.unknown:
            found["test"] += (
                f" (left out of valid and test, on items not in training: {counted(self.unknown, 'event')})"
            )
        return found


def check_log(name: str, given: Any, *, samples_of: str = "", on_disk: bool = False) -> None:
    """Check that the argument of the function ``name`` is a log.

    Args:
        samples_of: the function that makes samples of a log, for a function that takes samples.
        on_disk: whether it also takes a log on disk.

    Raises:
        InputError: any other type, with the remedy.
    """
    if isinstance(given, EventLog | ScannedLog if on_disk else EventLog) and not samples_of:
        return
    takes = "samples" if samples_of else "a log"
    call = f"{name}({samples_of}({{}}), …)" if samples_of else f"{name}({{}})"
    if isinstance(given, EventLog):
        remedy = f"make them of the log: {call.format('log')}"
    elif isinstance(given, ScannedLog):
        remedy = f"read it into memory: {call.format('log.collect()')}, or one of its shards"
    elif isinstance(given, Split):
        remedy = f"pass one of its parts: {call.format('split.train')}"
    elif isinstance(given, str | Path):
        remedy = f"read it first: {call.format(f'EventLog.read({str(given)!r}, session=…, item=…)')}"
    else:
        remedy = f"pass {call.format('log')}, where log is an EventLog"
    found = "a log" if isinstance(given, EventLog) else f"a {type(given).__name__}"
    raise InputError(f"{name} takes {takes}, not {found}; {remedy}")


def split_by_time(log: EventLog | ScannedLog, *, test: float = 0.1, valid: float = 0.1) -> Split:
    """The last share ``test`` of sessions is the test part, the share ``valid`` before it the validation part.

    Sessions are ordered by their first event. A training session that crosses a cut keeps only earlier events. Warns if
    the log has no times and its rows are sorted by user.

    Raises:
        InputError: shares that leave no training part, or a log too small to split.
    """
    check_log("split_by_time", log, on_disk=True)
    warn_sorted_by_user(log)
    starts = log.starts
    n_test, n_valid = _numbers(len(starts), test, valid, "sessions")
    test_from = starts[len(starts) - n_test] if n_test else np.inf
    valid_from = starts[len(starts) - n_test - n_valid] if n_valid else test_from
    if n_valid and valid_from == test_from:
        raise InputError(
            f"so many sessions begin at one time ({test_from:.0f}) that the validation part is empty; "
            f"change the shares, or use finer times"
        )
    return split_at(log, float(valid_from), float(test_from))


def split_at(log: EventLog | ScannedLog, valid_from: float, test_from: float) -> Split:
    """Split at two times (seconds): training before ``valid_from``, test from ``test_from`` on.

    Raises:
        InputError: no event before ``valid_from``.
    """
    check_log("split_at", log, on_disk=True)
    train = log.before(valid_from)
    if train.num_events == 0:
        raise InputError(
            "no event lies before the validation cut, so there is nothing to train on; the first "
            "session may hold the whole log: lower the shares of validation and test"
        )
    valid_raw, test_raw = log.before(test_from).after(valid_from), log.after(test_from)
    valid, test = (part.aligned_to(train.items, train.users) for part in (valid_raw, test_raw))
    unknown = valid_raw.num_events + test_raw.num_events - valid.num_events - test.num_events
    return Split(train, valid, test, valid_from, test_from, unknown)


def split_by_user(log: EventLog, *, test: float = 0.1, valid: float = 0.1, seed: int = 0) -> Split:
    """Random shares of the *users* are held out with all their sessions: no user is in two parts. A session of an
    unknown user counts as a user.

    All users stay in the user table of each part, so that attributes of new users can be used.

    Args:
        test, valid: shares of the users.
        seed: of the sample.

    Raises:
        InputError: a log without users, or with too few.
    """
    check_log("split_by_user", log)
    if log.session_user is None or log.users is None:
        raise InputError("the log has no user column; name one to split by user")
    unknown = log.session_user < 0
    owner = np.where(unknown, len(log.users) + np.cumsum(unknown) - 1, log.session_user)
    part = _parts(len(log.users) + int(unknown.sum()), test, valid, seed, "users")[owner]
    train = log.of_sessions(part == 0)
    train = train.aligned_to(train.items, log.users)
    held = [log.of_sessions(part == k) for k in (1, 2)]
    known = [h.aligned_to(train.items, log.users) for h in held]
    unknown = sum(h.num_events - k.num_events for h, k in zip(held, known, strict=True))
    return Split(train, known[0], known[1], unknown=unknown)


def split_by_item(log: EventLog, *, test: float = 0.1, valid: float = 0.1, seed: int = 0) -> Split:
    """Random shares of the *items* are new: training has none of their events.

    All items stay in the vocabulary, so new items can be ranked by their attributes. Sessions with a new test item form
    the test part, other sessions with a new validation item the validation part, the rest the training part: no
    session is in two parts. With long sessions, few have no new item; use smaller shares then.

    Args:
        test, valid: shares of the items.
        seed: of the sample.

    Raises:
        InputError: a part without sessions.
    """
    check_log("split_by_item", log)
    of_session = np.zeros(log.num_sessions, dtype=np.int64)
    np.maximum.at(of_session, log.session, _parts(log.num_items, test, valid, seed, "items")[log.item])
    parts = [log.of_sessions(of_session == k) for k in range(3)]
    for part, share, name in zip(parts, (1.0, valid, test), ("train", "validate", "test"), strict=True):
        if share and part.num_events == 0:
            raise InputError(f"no session is left to {name} on; change the shares of new items, or the seed")
    train, valid_log, test_log = (part.aligned_to(log.items, log.users) for part in parts)
    return Split(train, valid_log, test_log)


def split_users(log: EventLog, *, shares: tuple[float, ...] = (1, 2, 1), seed: int = 0) -> tuple[EventLog, ...]:
    """Random parts of the log with disjoint users, with sizes proportional to ``shares``; item indices stay the same.

    For example to pretrain factors on the first part, meta-train on the second and test on the third. A user is a user
    id with all its sessions, or one session if its user is unknown. Each part has its own user indices.

    Raises:
        InputError: shares that are not positive, or a part without users.
    """
    check_log("split_users", log)
    owner = np.arange(log.num_sessions) if log.session_user is None else log.session_user
    users, owner = np.unique(np.where(owner < 0, -1 - np.arange(len(owner)), owner), return_inverse=True)
    if min(shares, default=0) <= 0 or len(users) < len(shares):
        raise InputError(f"{len(users)} users in shares {shares}: shares must be positive, with a user in each part")
    ends = np.round(np.cumsum(shares) / sum(shares) * len(users)).astype(np.int64)
    part = np.empty(len(users), dtype=np.int64)
    part[np.random.default_rng(seed).permutation(len(users))] = np.searchsorted(ends, np.arange(len(users)), "right")
    logs = [log.of_sessions(part[owner] == number) for number in range(len(shares))]
    return tuple(one.aligned_to(log.items, one.users) for one in logs)


def last_sessions(log: Log, count: int) -> tuple[Log, Log]:
    """The log without its last ``count`` sessions, and those sessions; item and user indices stay the same. Warns as
    :func:`split_by_time`."""
    check_log("last_sessions", log, on_disk=True)
    warn_sorted_by_user(log)
    last = np.arange(log.num_sessions) >= log.num_sessions - count
    before, after = (log.of_sessions(part).aligned_to(log.items, log.users) for part in (~last, last))
    return before, after


def period_edges(log: EventLog, *, seconds: float | None = None, events: int | None = None) -> np.ndarray:
    """Time edges of the periods of a log: period p has times in ``[edges[p], edges[p + 1])``.

    By time, a period lasts ``seconds``, counted from the first event; periods without events are dropped. By count, it
    has ``events`` events and all others with the time of its last one; the last period may have fewer.

    Shapes: ``[periods + 1]`` increasing seconds; each but the last is the time of a period's first event.

    Raises:
        InputError: neither or both of ``seconds`` and ``events``, one that is not positive, or a log without events.
    """
    if (seconds is None) == (events is None) or not (seconds or events or 0) > 0 or log.num_events == 0:
        raise InputError("periods need a log with events, and either seconds= or events= above 0")
    times = np.sort(log.time)
    if seconds is not None:
        begins = np.unique(np.floor((times - times[0]) / seconds), return_index=True)[1].tolist()
    else:
        begins = [0]
        while (end := begins[-1] + (events or 0)) < len(times):
            begins.append(int(np.searchsorted(times, times[end - 1], "right")))
    inside = [at for at in begins if at < len(times)]
    return np.append(times[inside], np.nextafter(times[-1], np.inf))


def _numbers(count: int, test: float, valid: float, things: str) -> tuple[int, int]:
    """The numbers of test and validation entries among ``count``."""
    if not (0 <= test < 1 and 0 <= valid < 1 and test + valid < 1):
        raise InputError(
            f"the shares of test, {test}, and validation, {valid}, must be in [0, 1) and leave some {things} to train "
            f"on"
        )
    n_test, n_valid = round(count * test), round(count * valid)
    if n_test + n_valid >= count or (test and not n_test) or (valid and not n_valid):
        raise InputError(
            f"too few {things}, {count:,}, for shares of {valid} and {test}; use more data, or "
            f"other shares: valid= (--valid), test= (--test)"
        )
    return n_test, n_valid


def _parts(count: int, test: float, valid: float, seed: int, things: str) -> np.ndarray:
    """0 train, 1 valid, 2 test for each of ``count`` entries, at random."""
    n_test, n_valid = _numbers(count, test, valid, things)
    order = np.random.default_rng(seed).permutation(count)
    part = np.zeros(count, dtype=np.int64)
    part[order[:n_test]] = 2
    part[order[n_test : n_test + n_valid]] = 1
    return part
