"""Batches of samples with the graph around them: the user's earlier sessions, followers of items, attributes."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch_geometric.data import HeteroData

from graphmeta.data.events import EventLog
from graphmeta.data.graph import from_hetero
from graphmeta.data.splits import check_log
from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError
from graphmeta.sampling.batch_rows import to_hetero_data
from graphmeta.sampling.ended import EndedSessions, RankedLists, Transitions
from graphmeta.sampling.neighbourhood import (
    Edges,
    ItemRows,
    Neighbourhood,
    Nodes,
    Relation,
    Subgraph,
    with_further_items,
)
from graphmeta.sampling.padding import ragged
from graphmeta.sampling.samples import Samples
from graphmeta.sampling.session_batch import session_batch, session_rows
from graphmeta.sampling.task_layout import task_major_layout

OWNS, CONTAINS, FOLLOWS = ("user", "owns", "session"), ("session", "contains", "item"), ("item", "follows", "item")


class SubgraphSampler:
    """Makes batches as :func:`~graphmeta.sampling.session_batch.session_batch` does, with stores of the graph around
    each sample.

    The time of a query (a sample) is the begin of its session. The batch has the stores of ``session_batch``,
    unchanged, and, for each sample apart (samples share no row):

    * with ``history``: ``session``, the user's latest sessions that ended before the query's time (``n_id``,
      ``batch``, ``order`` 0 for the oldest, ``age`` in seconds since their end), ``user`` (one row per sample, ``n_id``
      -1 if unknown), ``(user, owns, session)`` and ``(session, contains, item)`` with ``position`` and ``time``;
    * with ``follows``: ``(item, follows, item)`` from each clicked item to its most frequent followers, ``weight`` =
      count over the sessions of all users that ended before the query's time (ties: the lower item number);
    * with ``attributes``: one node type per attribute (``n_id`` = value, ``batch``), one row for each distinct value in
      the sample, with ``(item, has, <attribute>)`` and ``(user, has, <attribute>)``;
    * the items of earlier sessions and followers as rows of ``item`` after those of the clicks; they have no event.

    No edge is of the query's session or of one that ended at or after the query's time, so nothing depends on
    later events. Samples without a time and a target (``recommend`` without times) come after the whole log.

    Args:
        source: the log, or its graph; pass the training log.
        history: number of earlier sessions; follows: number of followers of an item.

    Raises:
        InputError: a history without users in the log, or numbers below 0.
    """

    def __init__(
        self, source: EventLog | HeteroData, *, history: int = 0, follows: int = 0, attributes: bool = False
    ) -> None:
        self.log = from_hetero(source) if isinstance(source, HeteroData) else source
        check_log("SubgraphSampler", self.log)
        self.neighbourhood = Neighbourhood(history, follows, attributes)
        log, self.ended = self.log, EndedSessions(self.log)
        self.sessions_of: RankedLists | None = None
        if log.session_user is not None and log.users is not None:
            owned = np.flatnonzero((log.session_user >= 0) & (log.lengths > 0))
            self.sessions_of = RankedLists(
                log.session_user[owned], self.ended.rank[owned], owned, groups=len(log.users), ranks=log.num_sessions
            )
        elif history:
            raise InputError("history needs the users of a log; name the column of users when reading it (user=)")
        self.transitions = Transitions(log, self.ended) if follows else None
        self.values = _values(log.graph) if attributes else {}

    def __call__(
        self, samples: Samples, *, num_items: int | None = None, task: np.ndarray | None = None, num_tasks: int = 0
    ) -> HeteroData:
        """The batch of these samples; task-major if ``task`` (sorted, ``[S]``) is given.

        Raises:
            InputError: samples of another log without the begin of their sessions, or with another number of items.
        """
        if not self.neighbourhood:
            return session_batch(samples, num_items=self.log.num_items, task=task, num_tasks=num_tasks)
        if num_items not in (None, self.log.num_items):
            self.log.must_have(num_items)
        samples.check_items(self.log.items)
        subgraph = self.around(samples)
        if task is None:
            return subgraph.add_to(to_hetero_data(subgraph.rows), None)
        return subgraph.add_to(*task_major_layout(subgraph.rows, task, num_tasks))

    def extended(self, items: EntityTable) -> SubgraphSampler:
        """The sampler of the same log with further items, which have attributes and no click."""
        return SubgraphSampler(self.log.with_entities(items=items), **vars(self.neighbourhood))

    def __deepcopy__(self, memo: Any) -> SubgraphSampler:
        """The sampler itself: it never changes."""
        return self

    def times(self, samples: Samples) -> np.ndarray:
        """The time of each query, ``[S]`` seconds (row numbers for a log without times); infinite for "now"."""
        if samples.item.ctypes.data == self.log.item.ctypes.data and len(samples.item) == len(self.log.item):
            return self.log.time[self.log.ptr[samples.session]]
        if samples.start is not None:
            return samples.start
        if (samples.target >= 0).any():
            raise InputError(
                "the samples are of another log than the sampler's and have no times, so it is unknown which of its "
                "sessions came before; read the log with time="
            )
        return np.full(len(samples), np.inf)

    def around(self, samples: Samples) -> Subgraph:
        """The stores of these samples, without a layout of tasks."""
        time = self.times(samples)
        limit, num_items = self.ended.limit(time), self.log.num_items
        rows = session_rows(samples, num_items=num_items)
        user = np.full(len(samples), -1) if samples.user is None else samples.user
        owner, session = self._history(user, limit)
        click, ptr = ragged(self.log.ptr[session], self.log.lengths[session])
        of_click = np.repeat(np.arange(len(session)), np.diff(ptr))
        sources, followers, count = self._followers(rows.n_id, limit[rows.item_sample])
        of_sample = rows.item_sample[sources]
        further = np.concatenate([owner[of_click], of_sample]), np.concatenate([self.log.item[click], followers])
        source_item = rows.n_id[sources]
        rows = with_further_items(rows, *further, num_items=num_items)
        find, found = ItemRows(rows, num_items), Subgraph(rows)
        if self.sessions_of is not None:
            found.nodes["user"] = Nodes(np.arange(len(samples)), {"n_id": user})
        if self.neighbourhood.history:
            order = np.arange(len(owner)) - np.searchsorted(owner, owner)
            now = np.where(np.isinf(time), self.log.time.max(initial=0), time)
            age = now[owner] - self.ended.end[session]
            found.nodes["session"] = Nodes(owner, {"n_id": session, "order": order, "age": age})
            found.edges[OWNS] = Edges(owner, np.arange(len(owner)))
            columns = {"position": click - self.log.ptr[session[of_click]], "time": self.log.time[click]}
            found.edges[CONTAINS] = Edges(of_click, find.of(owner[of_click], self.log.item[click]), columns)
        if self.transitions is not None:
            ends = find.of(of_sample, source_item), find.of(of_sample, followers)
            found.edges[FOLLOWS] = Edges(*ends, {"weight": count.astype(np.float32)})
        for relation, (ptr, code) in self.values.items():
            self._add_values(found, relation, ptr, code)
        return found

    def _history(self, user: np.ndarray, limit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The sample and the session of each earlier session, oldest first."""
        if self.sessions_of is None or not self.neighbourhood.history:
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        return self.sessions_of.latest(user, limit, most=self.neighbourhood.history)

    def _followers(self, item: np.ndarray, limit: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if self.transitions is None:
            return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64)
        return self.transitions.strongest(item, limit, most=self.neighbourhood.follows)

    def _add_values(self, found: Subgraph, relation: Relation, ptr: np.ndarray, code: np.ndarray) -> None:
        """The attribute nodes of one type: a row for each distinct value of a sample."""
        kind = relation[2]
        if relation[0] == "item":
            node, sample = found.rows.n_id, found.rows.item_sample
        else:
            node, sample = found.nodes["user"].columns["n_id"], found.nodes["user"].sample
        size = np.where(node >= 0, np.diff(ptr)[np.maximum(node, 0)], 0)
        at, of = ragged(ptr[np.maximum(node, 0)], size)
        row, values = np.repeat(np.arange(len(node)), np.diff(of)), max(int(self.log.graph[kind].num_nodes or 0), 1)
        key, target = np.unique(sample[row] * values + code[at], return_inverse=True)
        found.nodes[kind] = Nodes(key // values, {"n_id": key % values})
        found.edges[relation] = Edges(row, target)


def _values(graph: HeteroData) -> dict[Relation, tuple[np.ndarray, np.ndarray]]:
    """The attribute values of each row of items and users, as pointer and values."""
    found = {}
    for source, relation, target in graph.edge_types:
        if relation == "has":
            row, code = graph[source, relation, target].edge_index.numpy()
            found[source, relation, target] = np.searchsorted(row, np.arange((graph[source].num_nodes or 0) + 1)), code
    return found
