"""Batches of samples with the graph around them: the user's earlier sessions, followers of items, attributes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from torch_geometric.data import HeteroData

from graphmeta.data.events import EventLog
from graphmeta.data.graph import from_hetero
from graphmeta.data.splits import check_log
from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError
from graphmeta.sampling.batch_rows import to_hetero_data
from graphmeta.sampling.ended import EndedSessions, Transitions
from graphmeta.sampling.graph_parts import Sessions, attributes_of
from graphmeta.sampling.neighbourhood import Edges, Neighbourhood, Nodes, Subgraph, with_further_items
from graphmeta.sampling.samples import Samples
from graphmeta.sampling.session_batch import session_batch, session_rows
from graphmeta.sampling.task_layout import task_major_layout
from graphmeta.sampling.user_histories import Earlier, UserHistories

OWNS, CONTAINS, FOLLOWS = ("user", "owns", "session"), ("session", "contains", "item"), ("item", "follows", "item")


class SubgraphSampler:
    """Makes batches of samples with the graph around each: earlier sessions, followers of items, attribute values.

    The time of a query (a sample) is the begin of its session. The batch has the stores of
    :func:`~graphmeta.sampling.session_batch.session_batch`, unchanged, and, for each sample apart (samples share no
    row):

    * with ``history``: ``session``, the user's latest earlier sessions (``n_id``, -1 if not in the sampler's log;
      ``batch``, ``order`` 0 for the oldest, ``age`` in seconds since their end), ``(user, owns, session)`` and
      ``(session, contains, item)`` with ``position`` and ``time``;
    * with ``follows``: ``(item, follows, item)`` from each clicked item to its most frequent followers, ``weight`` =
      count over the sessions of all users that ended before the query's time (ties: the lower item number);
    * with ``attributes``: one node type per attribute (``n_id`` = value, ``batch``), one row for each distinct value in
      the sample, with ``(item, has, <attribute>)`` and ``(user, has, <attribute>)``;
    * with ``history`` or all attributes: ``user``, one row per sample (``n_id``, -1 if unknown);
    * the items of earlier sessions and followers as rows of ``item`` after those of the clicks; they have no event.

    Earlier sessions are those of ``samples.earlier``, which may be newer than the sampler's log or of a user it does
    not have, or without it those of the user in the log; which of a user's sessions are earlier than a query, see
    :class:`~graphmeta.sampling.user_histories.UserHistories`.

    No edge is of the query's session or of one that ended at or after the query's time, so nothing depends on
    later events. Samples without a time and a target (``recommend`` without times) come after the whole log.

    A batch takes 1 to 2 times as long as ``session_batch`` of as many clicks as it has item rows and edges; with
    followers alone 4 times, since pairs are counted up to each query's time (``benchmarks.speed --only subgraph``).

    Args:
        source: the log, or its graph; pass the training log.
        history: number of earlier sessions.
        follows: number of followers of an item.
        attributes: all of items and users, or the names of item columns.
        unknown: whether an item or user without a value has a row of its own, of value 0, instead of none.

    Raises:
        InputError: a history without users in the log, an attribute that it does not have, or numbers below 0.
    """

    def __init__(
        self,
        source: EventLog | HeteroData,
        *,
        history: int = 0,
        follows: int = 0,
        attributes: bool | tuple[str, ...] = False,
        unknown: bool = False,
    ) -> None:
        self.log = from_hetero(source) if isinstance(source, HeteroData) else source
        check_log("SubgraphSampler", self.log)
        self.neighbourhood = Neighbourhood(history, follows, attributes, unknown)
        self.has_users = self.neighbourhood.reads_users and self.log.users is not None
        if history and self.log.users is None:
            raise InputError("history needs the users of a log; name their column when reading it (user=, --user)")
        self.histories = UserHistories.of(self.log) if history else None
        self.ended = EndedSessions(self.log) if follows else None
        self.transitions = None if self.ended is None else Transitions(self.log, self.ended)
        self.attributes = attributes_of(self.log.graph, attributes)
        self._numbered: tuple[UserHistories, np.ndarray] | None = None

    def __call__(
        self,
        samples: Samples,
        *,
        num_items: int | None = None,
        task: np.ndarray | None = None,
        num_tasks: int = 0,
        history_events: bool = True,
    ) -> HeteroData:
        """The batch of these samples; task-major if ``task`` (sorted, ``[S]``) is given.

        Args:
            history_events: whether samples with earlier sessions also have the store ``history`` of ``session_batch``.

        Raises:
            InputError: samples of another log without the begin of their sessions, or with another number of items.
        """
        known, samples = samples.earlier, samples if history_events else replace(samples, earlier=None)
        if not self.neighbourhood:
            return session_batch(samples, num_items=self.log.num_items, task=task, num_tasks=num_tasks)
        if num_items not in (None, self.log.num_items):
            self.log.must_have(num_items)
        samples.check_items(self.log.items)
        subgraph = self.around(samples, known)
        if task is None:
            return subgraph.add_to(to_hetero_data(subgraph.rows), None)
        return subgraph.add_to(*task_major_layout(subgraph.rows, task, num_tasks))

    def extended(self, items: EntityTable | None = None, users: EntityTable | None = None) -> SubgraphSampler:
        """The sampler of the same log with further items and users, which have attributes and no click."""
        users = None if self.log.users is None else users
        return SubgraphSampler(self.log.with_entities(items=items, users=users), **vars(self.neighbourhood))

    def __deepcopy__(self, memo: Any) -> SubgraphSampler:
        """The sampler itself: it never changes."""
        return self

    def times(self, samples: Samples, known: Earlier | None = None) -> np.ndarray:
        """The time of each query, ``[S]`` seconds (row numbers for a log without times); infinite for "now"."""
        if samples.item.ctypes.data == self.log.item.ctypes.data and len(samples.item) == len(self.log.item):
            return self.log.time[self.log.ptr[samples.session]]
        if samples.start is not None:
            return samples.start
        if not (samples.target >= 0).any():
            return np.full(len(samples), np.inf)
        if known is None:
            raise InputError(
                "the samples are of another log than the sampler's and have no times, so it is unknown which of its "
                "sessions came before; read the log with time="
            )
        return known.query_time

    def around(self, samples: Samples, known: Earlier | None) -> Subgraph:
        """The stores of these samples, without a layout of tasks.

        Args:
            known: the earlier sessions of their users; those of the sampler's log if not given.
        """
        rows = session_rows(samples, num_items=self.log.num_items)
        user = np.full(len(samples), -1) if samples.user is None else samples.user
        sessions = self._sessions(samples, user, known)
        source, follower, count = self._followers(samples, known, rows.n_id, rows.item_sample)
        item = np.concatenate([sessions.item, follower])
        sample = np.concatenate([sessions.owner[sessions.of_click], rows.item_sample[source]])
        rows, own, end = with_further_items(rows, sample, item, num_items=self.log.num_items)
        found = Subgraph(rows)
        if self.has_users:
            found.nodes["user"] = Nodes(np.arange(len(samples)), {"n_id": user})
        if self.histories is not None:
            number = np.arange(len(sessions.owner))
            found.nodes["session"] = Nodes(sessions.owner, sessions.columns)
            found.edges[OWNS] = Edges(sessions.owner, number)
            found.edges[CONTAINS] = Edges(sessions.of_click, end[: len(sessions.item)], sessions.click_columns)
        if self.transitions is not None:
            weight = count.astype(np.float32)
            found.edges[FOLLOWS] = Edges(own[source], end[len(sessions.item) :], {"weight": weight})
        for attribute in self.attributes:
            owner = found.nodes["user"] if attribute.owner == "user" else Nodes(rows.item_sample, {"n_id": rows.n_id})
            found.add_values(attribute, owner, unknown=self.neighbourhood.unknown)
        return found

    def _sessions(self, samples: Samples, user: np.ndarray, known: Earlier | None) -> Sessions:
        """The latest earlier sessions of each sample, oldest first."""
        if self.histories is None:
            return Sessions.none()
        if known is None and self.log.num_events == 0:  # the sessions of a system without a log come with the samples
            nothing = np.zeros(len(samples), dtype=np.int64)
            known = Earlier(self.histories, nothing, nothing, np.zeros(len(samples)))
        elif known is None:
            time = self.times(samples)
            known = self.histories.earlier(user, time)
            now = np.where(np.isinf(time), self.log.time.max(initial=0), time)
            known = replace(known, query_time=now)
        return Sessions.of(known.last(self.neighbourhood.history), self._numbers(known.histories))

    def _numbers(self, histories: UserHistories) -> np.ndarray:
        """The number of each session in the sampler's log, -1 for others, ``[R]``; kept for the histories last read."""
        kept = self._numbered
        if kept is None or kept[0] is not histories:
            number = pd.Index(self.log.sessions.astype(object)).get_indexer(pd.Index(histories.sessions.astype(object)))
            same = np.append(self.log.time, np.nan)[self.log.ptr[number]] == histories.starts
            kept = self._numbered = histories, np.where((number >= 0) & same, number, -1)
        return kept[1]

    def _followers(
        self, samples: Samples, known: Earlier | None, item: np.ndarray, sample: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if self.transitions is None or self.ended is None:
            return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64)
        limit = self.ended.limit(self.times(samples, known))
        return self.transitions.strongest(item, limit[sample], most=self.neighbourhood.follows)
