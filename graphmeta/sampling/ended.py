"""What was known before a time: the sessions of a user, and the transitions of an item, that had ended by then.

Each session has a rank by its end. "Ended strictly before time t" is "rank below limit", with ``limit`` the number of
such sessions; lists sorted by rank are then cut by one binary search per row.
"""

from __future__ import annotations

import numpy as np

from graphmeta.data.events import EventLog
from graphmeta.sampling.padding import ragged


class EndedSessions:
    """The sessions of a log by the time of their last click.

    Shapes: rank ``[sessions]``; a session without a click has not ended.
    """

    def __init__(self, log: EventLog) -> None:
        self.end = np.full(log.num_sessions, np.inf)
        known = log.lengths > 0
        self.end[known] = log.time[log.ptr[1:][known] - 1]
        order = np.argsort(self.end, kind="stable")
        self.rank = np.empty(len(order), dtype=np.int64)
        self.rank[order] = np.arange(len(order))
        self.sorted_ends, self.total = self.end[order], int(known.sum())

    def limit(self, time: np.ndarray) -> np.ndarray:
        """The number of sessions that ended strictly before each time (seconds): ``[S] -> [S]``."""
        return np.searchsorted(self.sorted_ends[: self.total], time, side="left")


class RankedLists:
    """Values of groups, each with the rank of the session that it comes from; sorted by group, then by rank.

    Args:
        group, rank, value: ``[N]``.
        groups: their number.
        ranks: number of ranks.
    """

    def __init__(self, group: np.ndarray, rank: np.ndarray, value: np.ndarray, *, groups: int, ranks: int) -> None:
        key = group * (ranks + 1) + rank
        order = np.argsort(key, kind="stable")
        self.key, self.value, self.ranks = key[order], value[order], ranks
        self.ptr = np.searchsorted(self.key, np.arange(groups + 1) * (ranks + 1))

    def ends(self, group: np.ndarray, limit: np.ndarray) -> np.ndarray:
        """The position after a group's last value of rank below ``limit``: ``[R], [R] -> [R]``."""
        return np.searchsorted(self.key, group * (self.ranks + 1) + limit)

    def counts(self, group: np.ndarray, limit: np.ndarray) -> np.ndarray:
        """The number of a group's values of rank below ``limit``."""
        return self.ends(group, limit) - self.ptr[group]


class Transitions:
    """The transitions of a log, ``(item, follows, item)``, counted over the sessions that had ended.

    Shapes: for P distinct pairs of items, sorted by source, then by total count, ``target`` and ``total`` ``[P]``;
    ``ptr [items + 1]`` points to the pairs of each source.
    """

    def __init__(self, log: EventLog, ended: EndedSessions) -> None:
        self.all_ended = ended.total
        step = np.flatnonzero(log.session[1:] == log.session[:-1])
        size = max(log.num_items, 1)
        pair, of_step, total = np.unique(
            log.item[step] * size + log.item[step + 1], return_inverse=True, return_counts=True
        )
        source, target = np.divmod(pair, size)
        order = np.lexsort((target, -total, source))
        number = np.empty_like(order)
        number[order] = np.arange(len(order))
        self.target, self.total = target[order], total[order]
        self.ptr = np.searchsorted(source[order], np.arange(log.num_items + 1))
        rank = ended.rank[log.session[step]]
        self.steps = RankedLists(number[of_step], rank, rank, groups=len(pair), ranks=len(ended.rank))

    def strongest(self, item: np.ndarray, limit: np.ndarray, *, most: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The ``most`` most frequent followers of each item below its limit: rows, targets and counts.

        Ties go to the lower item number. The total count of a pair bounds its count below any limit, so a row is
        settled when its ``most``-th count is above the bound of the pairs that were not counted.

        Shapes: item, limit ``[R]`` -> three of ``[N]``, sorted by row, then by count.
        """
        size = np.diff(self.ptr)[item]
        everything = limit >= self.all_ended
        shown, rows, found = np.minimum(size, np.where(everything, most, 4 * most)), np.arange(len(item)), []
        while len(rows):
            at, ptr = ragged(self.ptr[item[rows]], shown[rows])
            row = np.repeat(rows, np.diff(ptr))
            count = self.steps.counts(at, limit[row])
            order = np.lexsort((self.target[at], -count, row))
            row, at, count = row[order], at[order], count[order]
            place = np.arange(len(row)) - np.searchsorted(row, row)
            last = np.zeros(len(item), dtype=np.int64)
            last[row[place == most - 1]] = count[place == most - 1]
            bound = np.zeros(len(item), dtype=np.int64)
            partly = rows[shown[rows] < size[rows]]
            bound[partly] = self.total[self.ptr[item[partly]] + shown[partly]]
            settled = everything | (shown == size) | (last > bound)
            kept = (place < most) & (count > 0) & settled[row]
            found.append((row[kept], self.target[at[kept]], count[kept]))
            rows = rows[~settled[rows]]
            shown[rows] = np.minimum(4 * shown[rows], size[rows])
        row, target, count = (np.concatenate(columns) for columns in zip(*found, strict=True)) if found else _NOTHING
        order = np.argsort(row, kind="stable")
        return row[order], target[order], count[order]


_NOTHING = (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64))
