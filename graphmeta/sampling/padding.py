"""Index arithmetic for ragged rows, and for the dummy rows that pad tasks to equal size."""

from __future__ import annotations

import numpy as np


def ragged(begin: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions ``begin[s] … begin[s] + lengths[s] - 1`` of all s, concatenated ``[sum]``, and pointer ``[S + 1]``.

    >>> ragged(np.array([5, 0]), np.array([2, 3]))[0].tolist()
    [5, 6, 0, 1, 2]
    """
    ptr = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=ptr[1:])
    return np.arange(ptr[-1]) + np.repeat(begin - ptr[:-1], lengths), ptr


def distinct(key: np.ndarray, *, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The distinct keys, sorted, and the place of each key among them, as ``np.unique``; keys are below ``size``.

    Counts in a table where it is not much larger than the keys, instead of sorting.

    >>> [found.tolist() for found in distinct(np.array([7, 2, 7]), size=8)]
    [[2, 7], [1, 0, 1]]
    """
    if size > 64 * len(key):
        return np.unique(key, return_inverse=True)
    there = np.zeros(size, dtype=bool)
    there[key] = True
    found = np.flatnonzero(there)
    place = np.empty(size, dtype=np.int64)
    place[found] = np.arange(len(found))
    return found, place[key]


def overwritten(dummies: np.ndarray, at: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The values of dummy rows, with those of real rows written at ``at``; changes ``dummies``."""
    dummies[at] = values
    return dummies


def padded_sizes(count: dict[str, np.ndarray], longest: int, shortest: int) -> dict[str, int]:
    """Padded rows per task: at least one dummy sample and item. Dummy samples are sessions as real ones are: each has
    ``shortest`` (1, or 0 if some real sample is empty) to ``longest`` events, and items of its own if it is 1; every
    dummy item has an event."""
    samples, events, items = count["sample"], count["event"], count["item"]
    per_sample = int(samples.max(initial=0)) + 1
    while True:
        spare = per_sample - samples
        per_item = int((items + np.maximum(spare * shortest, 1)).max(initial=1))
        per_event = int((events + per_item - items).max(initial=1))
        lacking = int((per_event - events - spare * longest).max(initial=0))
        if lacking <= 0:
            break
        per_sample += max(1, lacking // (longest + 1))
    return {"sample": per_sample, "event": per_event, "item": per_item}


def padded_index(task: np.ndarray, counts: np.ndarray, per_task: int) -> np.ndarray:
    """The new index of each row when every task has ``per_task`` rows (rows sorted by task)."""
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    return task * per_task + np.arange(len(task)) - first[task]


def events_per_dummy(events: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """Each task's dummy events distributed evenly over its dummy samples; one count per dummy sample."""
    number, _ = ragged(np.zeros_like(samples), samples)
    owner = np.repeat(np.arange(len(samples)), samples)
    each = events // np.maximum(samples, 1)
    return each[owner] + (number < (events - each * samples)[owner])


def pointer(session: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Pointer to the rows of each wanted session, in rows sorted by session."""
    return np.concatenate([np.searchsorted(session, wanted), [len(session)]]).astype(np.int64)
