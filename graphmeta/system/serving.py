"""Recommendations in original ids."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any, Unpack

import numpy as np
from torch import Tensor

from graphmeta.data.events import EventLog
from graphmeta.errors import InputError, check_whole
from graphmeta.protocols import Adapting, ReadsTimes
from graphmeta.sampling.given_histories import History, given_earlier
from graphmeta.sampling.queries import (
    NO_KNOWN_ITEM,
    NO_KNOWN_USER,
    Recommendation,
    Sessions,
    best_of,
    knows_any,
    listed,
)
from graphmeta.sampling.samples import Samples
from graphmeta.sampling.user_histories import Earlier
from graphmeta.system.scoring import SystemScores

_SCORES = 2**24  # bytes of scores at a time when recommending
_FEATURES = 16  # a system that reads histories may compute many numbers for each score


class SystemServing(SystemScores):
    """Recommendations for sessions of original ids."""

    def recommend(
        self,
        session: Iterable[Any],
        k: int = 10,
        *,
        user: Any = None,
        history: EventLog | Sequence[Iterable[Any]] | None = None,
        times: Sequence[float] | None = None,
        unknown: str = "raise",
        exclude_seen: bool = False,
        **adapting: Unpack[Adapting],
    ) -> list[Recommendation]:
        """The k best next items for any session of original ids, also one not in training; all if there are fewer.

        Args:
            session: item ids, oldest first.
            user: the original id of the session's user; an unknown user counts as none and gets the ranking of a zero
                user vector, or without support of the weights before adaptation.
            history: for a system that reads users' earlier sessions, these sessions as lists of item ids, oldest first,
                or a log that has them, with ``user``; if not given, those of ``user`` in the log that it was fitted to,
                which a loaded system does not have. ``session`` may then be empty.
            times: the time of each click in seconds, for systems with dwell times.
            unknown: how to handle unknown item ids: ``raise``, ``warn`` (and skip) or ``ignore``.
            exclude_seen: exclude the items of the session; there may then be fewer than k results.
            steps, max_support: see :meth:`scores`.

        Raises:
            InputError: an unknown item, a session without any known item, one id instead of a session, a k below 1,
                ``history`` for a system that reads none, or an unknown user of a system that scores all items equally
                then (``mf``).
        """
        clicks = listed(session)
        best = self.recommend_many(
            [clicks],
            k,
            users=None if user is None else [user],
            history=history if history is None or isinstance(history, EventLog) else [history],
            times=None if times is None else [times],
            unknown=unknown,
            exclude_seen=exclude_seen,
            **adapting,
        )[0]
        if not best and not knows_any(self.items, clicks):
            raise InputError(NO_KNOWN_ITEM)
        return best

    def recommend_many(
        self,
        sessions: Sequence[Iterable[Any]],
        k: int = 10,
        *,
        users: Sequence[Any] | None = None,
        history: History | None = None,
        times: Sequence[Sequence[float]] | None = None,
        unknown: str = "raise",
        exclude_seen: bool = False,
        **adapting: Unpack[Adapting],
    ) -> list[list[Recommendation]]:
        """:meth:`recommend` for any number of sessions, with the same results.

        Works in batches of sessions of similar length and keeps the k best of each, so memory does not grow with the
        number of sessions. A session without a known item, or without a user that the system needs, has no
        recommendations if ``unknown`` is ``warn`` or ``ignore``.

        Raises:
            InputError: as :meth:`recommend`; names the session by its number, from 0.
        """
        check_whole("k", k, 1)
        if len(sessions) == 0:
            return []
        earlier = self._earlier(history, users, times, len(sessions))
        queries = Sessions.of(
            self.items, sessions, known_users=self.users, users=users, times=times, unknown=unknown, earlier=earlier
        )
        if times is None and any(isinstance(part, ReadsTimes) for part in self.modules()):
            warnings.warn("this system reads dwell times; pass the click times (times=, --times)", stacklevel=2)
        found: list[list[Recommendation]] = [[] for _ in queries.rows]
        size = _SCORES // (4 * self.num_items * (_FEATURES if self.reads_history else 1))
        for places, samples in queries.batches(max(1, size), max_length=self.max_length):
            seen = [queries.rows[place] for place in places] if exclude_seen else None
            scores = self.scores(samples, **adapting)
            ranked = self._ranked(samples, scores)
            if unknown == "raise" and not ranked.all():
                where = "" if len(sessions) == 1 else f"session {places[np.argmin(ranked)]}: "
                raise InputError(f"{where}{NO_KNOWN_USER}")
            for place, best, some in zip(places, best_of(scores, int(k), self.items, seen), ranked, strict=True):
                found[place] = best if some else []
        return found

    def _ranked(self, samples: Samples, scores: Tensor) -> np.ndarray:
        """Mask ``[S]`` of all samples but those without a known user to whom it gives all items the same score."""
        equal = np.array((scores.amax(1) == scores.amin(1)).tolist())
        return ~(equal & self.without_user(samples))

    def _earlier(
        self,
        history: History | None,
        users: Sequence[Any] | None,
        times: Sequence[Sequence[float]] | None,
        sessions: int,
    ) -> Earlier | None:
        """The earlier sessions of the users of this many sessions."""
        if not self.reads_history:
            if history is not None:
                raise InputError("this system reads no history; leave it out, or fit one that adapts to users")
            return None
        for name, given in (("users", users), ("histories", None if isinstance(history, EventLog) else history)):
            if given is not None and len(given) != sessions:
                raise InputError(f"{len(given)} {name} for {sessions} sessions; pass one per session")
        return given_earlier(history, users, items=self.items, kept=self.histories, times=times)
