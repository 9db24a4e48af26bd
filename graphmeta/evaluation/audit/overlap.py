"""Checks of a split for sessions, users and items that its parts share, and for labels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from graphmeta.data.events import EventLog
from graphmeta.errors import counted
from graphmeta.evaluation.audit.findings import Finding, Verdict, percent
from graphmeta.evaluation.audit.given import LabelledSessions, Part, clicks_of, sessions_of

_MOST = 20_000  # samples whose labels are compared with their sessions
_LINKED = 0.5  # more samples than this share with another prefix in training: the parts were cut inside sessions
SPLIT = "split"


def session_overlap(parts: Mapping[str, Part]) -> Iterator[Finding]:
    """Sessions of which two parts have clicks, by their ids."""
    check = "sessions in two parts"
    without = [name for name, part in parts.items() if isinstance(part, LabelledSessions) and part.session is None]
    if without:
        yield _linked(parts)
        return
    found = {}
    for one, other in combinations(parts, 2):
        shared = np.intersect1d(sessions_of(parts[one]).astype(str), sessions_of(parts[other]).astype(str))
        found[f"{one}, {other}"] = len(shared)
    if not any(found.values()):
        yield Finding(SPLIT, check, Verdict.OK, "no session has clicks in two parts", found)
        return
    worst = max(found, key=lambda pair: found[pair])
    prefix = any(isinstance(part, LabelledSessions) for part in parts.values())
    what = "prefixes of one session are in both: a training target is in a context of the other part" if prefix else ""
    text = f"{counted(found[worst], 'session')} in two parts ({worst})" + (f"; {what}" if what else "")
    yield Finding(SPLIT, check, Verdict.FAULT, f"{text}; split by whole sessions", found)


def _linked(parts: Mapping[str, Part]) -> Finding:
    """Without session ids: the share of samples of which a training sample is the prefix before or after."""
    check, train = "sessions in two parts", parts["train"]
    if not isinstance(train, LabelledSessions):
        return Finding(SPLIT, check, Verdict.WARNING, "not checked: the samples have no session ids; pass session=")
    known = {(*map(str, context), str(target)) for context, target in zip(train.contexts, train.targets, strict=True)}
    known |= {row[:-1] for row in known}
    found = {}
    for name, part in parts.items():
        if name == "train" or not isinstance(part, LabelledSessions):
            continue
        rows = [(*map(str, c), str(t)) for c, t in zip(part.contexts, part.targets, strict=True) if len(c) >= 2]
        found[name] = float(np.mean([row in known or row[:-1] in known for row in rows])) if rows else 0.0
    if not found:
        return Finding(SPLIT, check, Verdict.WARNING, "not checked: there is no other part of samples")
    worst = max(found, key=lambda name: found[name])
    text = (
        f"{percent(found[worst])} of the samples of {worst} with two or more clicks continue, or are continued by, a "
        f"training sample"
    )
    if found[worst] > _LINKED:
        remedy = "prefixes of one session are in both; split by whole sessions"
        return Finding(SPLIT, check, Verdict.FAULT, f"{text}: {remedy}", found)
    verdict = Verdict.WARNING if found[worst] > _LINKED / 2 else Verdict.OK
    return Finding(SPLIT, check, verdict, f"{text} (by content: the samples have no session ids)", found)


def labels(parts: Mapping[str, Part], source: EventLog | None) -> Iterator[Finding]:
    """Whether each target is the click after its context, in the source log or among the samples of a session."""
    check, own = "labels", {name: part for name, part in parts.items() if isinstance(part, LabelledSessions)}
    if not own:
        yield Finding(SPLIT, check, Verdict.OK, "targets are clicks of the logs themselves")
        return
    for name, part in own.items():
        if part.session is None:
            yield Finding(SPLIT, check, Verdict.WARNING, f"{name}: not checked: the samples have no session ids")
            continue
        wrong, checked = _wrong_labels(part, source) if source is not None else _contradictions(part)
        share = wrong / max(checked, 1)
        values: dict[str, Any] = {"part": name, "wrong": wrong, "checked": checked}
        where = "in its session" if source is not None else "in another sample of its session"
        text = f"{name}: {percent(share)} of {counted(checked, 'target')} are not the click after the context {where}"
        if share > (0.0 if source is not None else 0.01):
            reason = "contexts were cut after the targets were taken; cut the session first, then take the next click"
            yield Finding(SPLIT, check, Verdict.FAULT, f"{text}: {reason}", values)
        else:
            yield Finding(SPLIT, check, Verdict.OK, text, values)


def _wrong_labels(part: LabelledSessions, source: EventLog) -> tuple[int, int]:
    """Samples whose target does not follow their context anywhere in their session, and those checked."""
    assert part.session is not None
    number = {str(one): at for at, one in enumerate(source.sessions)}
    clicks, wrong, checked = source.items.ids[source.item].astype(str), 0, 0
    for at in _spread(len(part)):
        session = number.get(str(part.session[at]))
        if session is None:
            continue
        whole = list(clicks[source.ptr[session] : source.ptr[session + 1]])
        row = [*map(str, part.contexts[at]), str(part.targets[at])]
        checked += 1
        wrong += not any(whole[a : a + len(row)] == row for a in range(len(whole) - len(row) + 1))
    return wrong, checked


def _contradictions(part: LabelledSessions) -> tuple[int, int]:
    """Samples of one session with the same context and different targets, and those checked."""
    assert part.session is not None
    found: dict[tuple[str, ...], set[str]] = defaultdict(set)
    size: dict[tuple[str, ...], int] = defaultdict(int)
    for context, target, session in zip(part.contexts, part.targets, part.session, strict=True):
        key = (str(session), *map(str, context))
        found[key].add(str(target))
        size[key] += 1
    return sum(size[key] for key, targets in found.items() if len(targets) > 1), len(part)


def _spread(size: int) -> np.ndarray:
    """At most ``_MOST`` row numbers, evenly spaced."""
    return np.unique(np.linspace(0, size - 1, min(size, _MOST)).astype(np.int64)) if size else np.zeros(0, np.int64)


def user_overlap(parts: Mapping[str, Part]) -> Iterator[Finding]:
    """Users with sessions in training and test, and test users without."""
    logs = {name: part for name, part in parts.items() if isinstance(part, EventLog) and part.session_user is not None}
    if "train" not in logs or "test" not in logs:
        return
    users = {name: _users(log) for name, log in logs.items()}
    old = float(np.isin(users["test"], users["train"]).mean()) if len(users["test"]) else 0.0
    values = {"users of the test": len(users["test"]), "share with training sessions": old}
    text = f"{percent(old)} of {counted(len(users['test']), 'test user')} have training sessions"
    meaning = "results are for returning users" if old > 0.5 else "results are mostly for new users"
    yield Finding(SPLIT, "users in two parts", Verdict.NOTE, f"{text}: {meaning}", values)


def _users(log: EventLog) -> np.ndarray:
    assert log.session_user is not None and log.users is not None
    known = np.unique(log.session_user[log.session_user >= 0])
    return log.users.ids[known].astype(str)


def duplicates(parts: Mapping[str, Part]) -> Iterator[Finding]:
    """Sessions of three or more clicks of the test that training has click for click."""
    logs = {name: part for name, part in parts.items() if isinstance(part, EventLog)}
    if "train" not in logs or "test" not in logs:
        return
    train, test = (_sequences(logs[name]) for name in ("train", "test"))
    if not test:
        return
    known = set(train)
    share = float(np.mean([one in known for one in test]))
    text = f"{percent(share)} of the test sessions of three or more clicks are in training click for click"
    verdict = Verdict.WARNING if share > 0.1 else Verdict.NOTE if share else Verdict.OK
    yield Finding(SPLIT, "identical sessions", verdict, text, {"share": share})


def _sequences(log: EventLog) -> list[tuple[str, ...]]:
    names = log.items.ids.astype(str)[log.item]
    return [tuple(names[a:b]) for a, b in zip(log.ptr[:-1], log.ptr[1:], strict=True) if b - a >= 3]


def cold(parts: Mapping[str, Part], unknown: int) -> Iterator[Finding]:
    """Clicks of the test on items without training events.

    Args:
        unknown: clicks of validation and test that the split has left out, because their items are not in training.
    """
    if "test" not in parts:
        return
    train, test = (pd.unique(clicks_of(parts[name])[0].astype(str)) for name in ("train", "test"))
    clicked = clicks_of(parts["test"])[0].astype(str)
    new = int((~np.isin(clicked, train)).sum())
    share = new / max(len(clicked), 1)
    values = {"test items": len(test), "clicks on new items": new, "share": share, "left out": unknown}
    text = f"{percent(share)} of the test clicks are on items without training events"
    if unknown:
        text += f"; the split has left out {counted(unknown, 'click')} on such items from validation and test"
    yield Finding(SPLIT, "new items", Verdict.NOTE if share or unknown else Verdict.OK, text, values)


def repeats(parts: Mapping[str, Part]) -> Iterator[Finding]:
    """How many clicks repeat an item of their session, and how many targets."""
    part = parts.get("test", parts["train"])
    click, ptr = clicks_of(part)
    code, _ = pd.factorize(click)
    row = np.repeat(np.arange(len(ptr) - 1), np.diff(ptr))
    again = pd.Series(row * (code.max(initial=0) + 1) + code).duplicated().to_numpy()
    last = ptr[1:][np.diff(ptr) > 1] - 1
    values = {"share of clicks": float(again.mean()), "share of targets": float(again[last].mean()) if len(last) else 0}
    text = f"{percent(values['share of targets'])} of the last clicks are on an item that the session has before"
    yield Finding(SPLIT, "repeats", Verdict.NOTE, text, values)
