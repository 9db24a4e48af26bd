"""Recommendations in original ids, similar items and explanations."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Unpack, cast

from graphmeta.data.events import EventLog
from graphmeta.errors import InputError, check_whole
from graphmeta.inference.explain import Explanation, explain
from graphmeta.inference.filters import CallOptions, Chosen, Filters, taken_from
from graphmeta.inference.recommend import Wanted, ranked
from graphmeta.inference.similar import similar
from graphmeta.protocols import Adapting, ReadsTimes
from graphmeta.sampling.best import Recommendation
from graphmeta.sampling.given_histories import History, given_earlier
from graphmeta.sampling.queries import NO_KNOWN_ITEM, Sessions, knows_any, listed
from graphmeta.sampling.user_histories import Earlier
from graphmeta.system.scoring import SystemScores

if TYPE_CHECKING:
    from graphmeta.system.system import System


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
        **options: Unpack[CallOptions],
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
            unknown: how to handle unknown item ids: ``raise``, ``warn`` (and skip) or ``ignore``. Unless it is
                ``raise``, a session of which nothing is known gets the items with the most training events, whose
                ``why`` is "popular".
            among, exclude, exclude_seen: which items may be recommended (only those in stock, of a brand, not of the
                session), see :class:`~graphmeta.inference.filters.Filters`. Exact: the k best of these, fewer if there
                are fewer.
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
            **options,
        )[0]
        if not best and self.events is None and not knows_any(self.items, clicks):
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
        **options: Unpack[CallOptions],
    ) -> list[list[Recommendation]]:
        """:meth:`recommend` for any number of sessions, with the same results.

        Works in batches of sessions of similar length and keeps the k best of each, so memory does not grow with the
        number of sessions. If ``unknown`` is ``warn`` or ``ignore``, a session without a known item, or without a user
        that the system needs, has popular items; none if the system has no counts of training events.

        Args:
            users: the user of each session, None for an unknown one.

        Raises:
            InputError: as :meth:`recommend`; names the session by its number, from 0.
        """
        filters, adapting = taken_from(options)
        check_whole("k", k, 1)
        if len(sessions) == 0:
            return []
        earlier = self._earlier(history, users, times, len(sessions))
        queries = Sessions.of(
            self.items, sessions, known_users=self.users, users=users, times=times, unknown=unknown, earlier=earlier
        )
        if times is None and any(isinstance(part, ReadsTimes) for part in self.modules()):
            warnings.warn("this system reads dwell times; pass the click times (times=, --times)", stacklevel=2)
        return ranked(self._whole, queries, Wanted(int(k), filters, unknown), adapting)

    def similar(
        self, item: Any, k: int = 10, *, among: Chosen | None = None, exclude: Chosen | None = None
    ) -> list[Recommendation]:
        """The k items nearest to an item, by the cosine of the vectors that the head scores against (without bias
        columns, and before any adaptation); the score is the cosine.

        Args:
            among, exclude: see :meth:`recommend`.

        Raises:
            InputError: an unknown item, one with a zero vector, or a system without a vector for each item.
        """
        return similar(self._whole, item, k, Filters(among, exclude))

    def explain(
        self,
        session: Iterable[Any],
        item: Any,
        *,
        user: Any = None,
        history: EventLog | Sequence[Iterable[Any]] | None = None,
        times: Sequence[float] | None = None,
        unknown: str = "raise",
        **adapting: Unpack[Adapting],
    ) -> Explanation:
        """Why an item has its score in a session: by part of the model, by click, and by the user's earlier sessions,
        in numbers that add up to the score; ``print`` shows them.

        Args:
            item: the original id; the others as in :meth:`recommend`.

        Raises:
            InputError: as :meth:`recommend`, or an unknown item.
        """
        given = None if user is None else [user]
        histories = history if history is None or isinstance(history, EventLog) else [history]
        when = None if times is None else [times]
        queries = Sessions.of(
            self.items,
            [listed(session)],
            known_users=self.users,
            users=given,
            times=when,
            unknown=unknown,
            earlier=self._earlier(histories, given, when, 1),
        )
        return explain(self._whole, queries, item, adapting)

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

    @property
    def _whole(self) -> System:
        return cast("System", self)
