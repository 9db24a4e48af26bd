"""Maps sessions of ids to samples."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError, counted, nearest, plain
from graphmeta.sampling.samples import Samples, sessions_without_target
from graphmeta.sampling.user_histories import Earlier

_FEW = 5000  # ids that are compared letter by letter for a suggestion
NO_KNOWN_ITEM = "the session has no known item; pass at least one, or recommend popular items"

NO_KNOWN_USER = (
    "this system reads users alone, and this session's is unknown: all items have the same score; name one of its "
    "training log (user=, --user), recommend popular items, or fit it again on a log with this user"
)


@dataclass(frozen=True)
class Sessions:
    """Sessions as item indices; some may have no known item.

    Shapes: rows: one array of known items per session; times: as rows, in seconds; users ``[S]``, -1 if unknown;
    earlier: the users' earlier sessions.
    """

    rows: list[np.ndarray]
    times: list[np.ndarray] | None
    users: np.ndarray | None
    earlier: Earlier | None = None

    @classmethod
    def of(
        cls,
        items: EntityTable,
        sessions: Sequence[Iterable[Any]],
        *,
        known_users: EntityTable | None,
        users: Sequence[Any] | None,
        times: Sequence[Sequence[float]] | None,
        unknown: str,
        earlier: Earlier | None = None,
    ) -> Sessions:
        """Map sessions of original ids to indices.

        Args:
            earlier: the earlier sessions of the sessions' users; a session of a user with some may be empty.
            unknown: what to do with unknown items: "raise", "warn" (skip them) or "ignore" (skip them silently).

        Raises:
            InputError: an unknown item with ``unknown="raise"``, or a wrong number of times or users.
        """
        if unknown not in ("raise", "warn", "ignore"):
            raise InputError(f"unknown={unknown!r} must be raise, warn or ignore")
        numbers = _numbers(items, [listed(session, at) for at, session in enumerate(sessions)], unknown)
        rows = [row[row >= 0] for row in numbers]
        with_history = np.zeros(len(rows), dtype=bool) if earlier is None else earlier.events > 0
        lacking = next((at for at, row in enumerate(rows) if not len(row) and not with_history[at]), None)
        if lacking is not None and unknown == "raise":
            where = "" if len(rows) == 1 else f"session {lacking}: "
            raise InputError(f"{where}{NO_KNOWN_ITEM}")
        when = None if times is None else _times_of(times, numbers)
        return cls(rows, when, _users_of(known_users, users, len(rows)), earlier)

    def batches(self, size: int, *, max_length: int) -> Iterator[tuple[np.ndarray, Samples]]:
        """Batches of sessions of similar length with a known item, or a history: their positions ``[B]`` and
        samples.
        """
        lengths = np.array([len(row) for row in self.rows])
        known = (lengths > 0) | (False if self.earlier is None else self.earlier.events > 0)
        order = np.argsort(lengths, kind="stable")
        order = order[known[order]]
        for at in range(0, len(order), size):
            chosen = order[at : at + size]
            samples = sessions_without_target(
                [self.rows[number] for number in chosen],
                max_length=max_length,
                times=None if self.times is None else [self.times[number] for number in chosen],
                users=None if self.users is None else self.users[chosen],
            )
            yield chosen, replace(samples, earlier=None if self.earlier is None else self.earlier.take(chosen))


def knows_any(items: EntityTable, session: Sequence[Any]) -> bool:
    """Whether any item of the session is known."""
    return bool((_numbers(items, [list(session)], "ignore")[0] >= 0).any())


def listed(session: Any, number: int = 0) -> list[Any]:
    """The ids of a session; whole floats become integers, as when reading a log.

    Raises:
        InputError: one id (a string, a number) instead of a session.
    """
    if isinstance(session, str | bytes) or not isinstance(session, Iterable):
        where = f"session {number}: " if number else ""
        raise InputError(f"{where}{session!r} is one id, not a session; pass a list of item ids: [{session!r}]")
    return [int(i) if isinstance(i, float | np.floating) and float(i).is_integer() else i for i in session]


def _numbers(items: EntityTable, sessions: list[list[Any]], unknown: str) -> list[np.ndarray]:
    """The row of each item of each session, -1 if unknown; all are looked up at once."""
    every = [item for session in sessions for item in session]
    whole = all(isinstance(item, int | np.integer) for item in every)
    rows = items.rows_of(np.array(every) if whole else np.array(every, dtype=object))
    missing = np.flatnonzero(rows < 0)
    ends = np.cumsum([len(session) for session in sessions])
    if len(missing) and unknown == "raise":
        number = int(np.searchsorted(ends, missing[0], side="right"))
        item, count = every[missing[0]], int((missing < ends[number]).sum())
        where, meaning = f"session {number}: " if number else "", meant(item, items)
        remedy = "leave it out, or pass unknown='ignore' (--unknown ignore)"
        raise InputError(f"{where}item {item!r} is not known to this model ({count} unknown); {meaning}{remedy}")
    if len(missing) and unknown == "warn":
        text = f"skipped: {counted(len(missing), 'unknown item')}, the first {every[missing[0]]!r}"
        warnings.warn(text, stacklevel=5)
    return np.split(rows, ends[:-1]) if len(ends) else []


def meant(item: Any, items: EntityTable) -> str:
    """A suggestion of the nearest known id: the same but for case, spaces or type, or in a small table similar.

    Ids that differ only in their digits are as a rule different items: they are similar if one edit separates them.
    """
    wanted = plain(str(item))
    same = next((one for one in items.ids.tolist() if wanted and plain(str(one)) == wanted), None)
    if same is None and isinstance(item, str) and len(items) <= _FEW:
        texts = (one for one in items.ids.tolist() if isinstance(one, str))
        without_digits = _without_digits(wanted)
        near = [
            one
            for one in texts
            if _without_digits(plain(one)) != without_digits or _differ_by_one_edit(plain(one), wanted)
        ]
        same = nearest(item, near)
    return "" if same is None else f"did you mean {same!r}? Otherwise "


def _without_digits(text: str) -> str:
    return re.sub(r"[0-9]", "", text)


def _differ_by_one_edit(one: str, other: str) -> bool:
    """Whether at most one letter is inserted, deleted or replaced.

    >>> _differ_by_one_edit("sku560", "sku56"), _differ_by_one_edit("sku560", "sku5")
    (True, False)
    """
    short, long = sorted((one, other), key=len)
    begin = next((at for at, (a, b) in enumerate(zip(short, long, strict=False)) if a != b), len(short))
    rest, replaced = short[begin:], len(short) == len(long)
    return len(long) - len(short) <= 1 and (rest[1:] if replaced else rest) == long[begin + 1 :]


def _users_of(known: EntityTable | None, users: Sequence[Any] | None, sessions: int) -> np.ndarray | None:
    if known is None or users is None:
        return None
    if len(users) != sessions:
        raise InputError(f"{len(users)} users for {sessions} sessions; pass one user per session")
    return known.rows_of(np.array(users, dtype=object))


def _times_of(times: Sequence[Sequence[float]], numbers: list[np.ndarray]) -> list[np.ndarray]:
    """Times of the clicks on known items."""
    if len(times) != len(numbers) or any(len(t) != len(n) for t, n in zip(times, numbers, strict=True)):
        raise InputError("times and clicks differ in number; pass one time per click, in seconds")
    seconds = [np.asarray(t, dtype=np.float64) for t in times]
    if any(not np.isfinite(t).all() or (np.diff(t) < 0).any() for t in seconds):
        raise InputError("times must be finite seconds that do not decrease within a session")
    return [t[n >= 0] for t, n in zip(seconds, numbers, strict=True)]
