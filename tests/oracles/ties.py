"""Ranks of tied candidates by counting, and the chance of a hit by enumeration."""

import itertools
from collections.abc import Sequence


def places(scores: Sequence[float], item: int) -> range:
    """The ranks that a random order of ties gives an item, each as likely as the others."""
    above, level = sum(s > scores[item] for s in scores), sum(s == scores[item] for s in scores)
    return range(above + 1, above + level + 1)


def share_within(scores: Sequence[float], item: int, k: int) -> float:
    """The chance that an item is among the first k."""
    return sum(rank <= k for rank in places(scores, item)) / len(places(scores, item))


def any_within(scores: Sequence[float], items: Sequence[int], k: int) -> float:
    """The chance that any of these items is among the first k: over all choices of the tie across rank k."""
    if any(places(scores, item)[-1] <= k for item in items):
        return 1.0
    order = sorted(scores, reverse=True)
    edge = order[k - 1]
    tie = [item for item, score in enumerate(scores) if score == edge]
    free = k - sum(score > edge for score in order)
    chosen = list(itertools.combinations(tie, free))
    return sum(bool(set(one) & set(items)) for one in chosen) / len(chosen)
