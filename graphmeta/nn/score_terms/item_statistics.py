"""Statistics of items and of consecutive clicks, of a log in memory or on disk."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from graphmeta.data.events import EventLog
from graphmeta.data.scan.log import ScannedLog
from graphmeta.data.scan.pairs import PairCounts, parts_of


def next_share(log: EventLog | ScannedLog, similar: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each item and entry of its neighbour list: how often the neighbour was the next click after the item, as a
    share of all next clicks, and the reverse: two of ``[num_items, neighbours]``.
    """
    size = log.num_items
    forth, back = np.zeros(similar.shape), np.zeros(similar.shape)
    left = np.zeros(size)
    for first, pair, count in _follows(log, reverse=False):
        left += np.bincount(pair // size, count, minlength=size)
        forth[first.start : first.stop] = _counts_of(pair, count, first, similar)
    for first, pair, count in _follows(log, reverse=True):
        back[first.start : first.stop] = _counts_of(pair, count, first, similar)
    left = np.maximum(left, 1)
    return forth / left[:, None], back / left[similar]


def _counts_of(pair: np.ndarray, count: np.ndarray, first: range, similar: np.ndarray) -> np.ndarray:
    """The counts of these items' pairs with their neighbours, ``[items, neighbours]``."""
    near = similar[first.start : first.stop].astype(np.int64)
    wanted = np.array(first)[:, None] * len(similar) + near
    if not len(pair):
        return np.zeros(wanted.shape)
    at = np.minimum(np.searchsorted(pair, wanted), len(pair) - 1)
    return np.where(pair[at] == wanted, count[at], 0)


def _follows(log: EventLog | ScannedLog, *, reverse: bool) -> Iterator[tuple[range, np.ndarray, np.ndarray]]:
    """Pairs of an item and the next click's, sorted, and their counts, in blocks of first items; with ``reverse``, of
    an item and the click before.
    """
    size = log.num_items
    counts = PairCounts(log) if isinstance(log, ScannedLog) else None
    for part in parts_of(log):
        follows = part.graph["item", "follows", "item"]
        one, other = follows.edge_index.numpy()[:: -1 if reverse else 1]
        order = np.argsort(one * size + other) if reverse else slice(None)
        pair, count = (one * size + other)[order], follows.weight.double().numpy()[order]
        if counts is None:
            yield range(size), pair, count
        else:
            counts.add(pair, count)
    if counts is not None:
        yield from counts.blocks()
        counts.drop()


def item_statistics(log: EventLog | ScannedLog) -> np.ndarray:
    """Per item: clicks, clicks in the latest tenth of sessions, repeat rate, and sessions: ``[num_items, 4]``, in
    logarithms except the third.
    """
    size = log.num_items
    recent = log.support_since(log.num_sessions - max(log.num_sessions // 10, 1))
    sessions, repeats = np.zeros(size), np.zeros(size)
    for part in parts_of(log):
        pair, clicks = np.unique(part.session * size + part.item, return_counts=True)
        sessions += np.bincount(pair % size, minlength=size)
        repeats += np.bincount(pair % size, clicks > 1, minlength=size)
    returned = (repeats + 0.5) / (sessions + 5)
    return np.stack([np.log1p(log.support) / 8, np.log1p(recent) / 6, returned, np.log1p(sessions) / 6], 1)
