"""The k best items of sessions among those that may be recommended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from graphmeta.errors import InputError
from graphmeta.inference.filters import Filters
from graphmeta.inference.popularity import popular
from graphmeta.inference.retrieval import chooses_index, searched
from graphmeta.protocols import Adapting, ComposesItems, CountsOnly
from graphmeta.sampling.best import ATTRIBUTES, MODEL, Recommendation, best_of
from graphmeta.sampling.queries import NO_KNOWN_USER, Sessions, knows_any

if TYPE_CHECKING:
    from torch import Tensor

    from graphmeta.sampling.samples import Samples
    from graphmeta.system import System

NOTHING_KNOWN, NOTHING_ALLOWED = "no known item", "no allowed item"
WHY_NONE = {
    NOTHING_KNOWN: "no item of it is known to this model",
    NOTHING_ALLOWED: "no item is allowed that could be recommended",
}
_SCORES = 2**24  # bytes of scores at a time
_SEARCHED = 256  # sessions at a time in an index
_FEATURES = 16  # a system that reads histories may compute many numbers for each score


@dataclass(frozen=True)
class Wanted:
    """How many items, among which, and whether a session of which nothing is known is an error.

    ``unknown``: see :meth:`System.recommend <graphmeta.system.System.recommend>`.
    """

    k: int
    filters: Filters
    unknown: str = "raise"


def ranked(system: System, queries: Sessions, wanted: Wanted, adapting: Adapting) -> list[list[Recommendation]]:
    """The recommendations of each session, in batches of sessions of similar length.

    Among more than a million items, an index is searched (:mod:`graphmeta.inference.retrieval`); a warning gives its
    recall, and ``why`` is "approximate". Sessions of which nothing is known have popular items, or none if the system
    has no counts.

    Raises:
        InputError: a session without a user whom the system needs, if ``unknown`` is "raise"; names its number.
    """
    allowed, k = wanted.filters.allowed(system.items), wanted.k
    counts = system if isinstance(system, CountsOnly) else None
    exclude = wanted.filters.exclude_seen or (counts is not None and counts.excludes_session)
    found: list[list[Recommendation] | None] = [None] * len(queries.rows)
    size = _SCORES // (4 * system.num_items * (_FEATURES if system.reads_history else 1))
    by_index = chooses_index(system, filtered=allowed is not None)
    for places, samples in queries.batches(_SEARCHED if by_index else max(1, size), max_length=system.max_length):
        seen = [queries.rows[place] for place in places] if exclude else None
        if by_index:
            for place, one in zip(places, searched(system, samples, k, seen), strict=True):
                found[place] = one
            continue
        scores = system.scores(samples, **adapting)
        has_user = _has_user(system, samples, scores)
        if wanted.unknown == "raise" and not has_user.all():
            where = "" if len(queries.rows) == 1 else f"session {places[np.argmin(has_user)]}: "
            raise InputError(f"{where}{NO_KNOWN_USER}")
        if counts is not None:
            has_user &= counts.has_counts(samples, scores)
        flags = _flags(system, queries, places)
        best = best_of(scores, k, system.items, seen, allowed=allowed, why=flags)
        for place, one, some in zip(places, best, has_user, strict=True):
            found[place] = one if some else None
    rest = [place for place, one in enumerate(found) if one is None]
    if rest and system.events is not None:
        nothing = np.zeros(0, dtype=np.int64)
        seen = [queries.rows[place] if exclude else nothing for place in rest]
        for place, one in zip(rest, popular(system.events, k, system.items, seen, allowed), strict=True):
            found[place] = one
    return [one or [] for one in found]


def none_for(system: System, session: Sequence[Any]) -> str:
    """Why a session of original ids has no recommendations: a key of ``WHY_NONE``."""
    known = system.events is not None or knows_any(system.items, session)
    return NOTHING_ALLOWED if known else NOTHING_KNOWN


def _has_user(system: System, samples: Samples, scores: Tensor) -> np.ndarray:
    """Mask ``[S]`` of all samples but those without a known user to whom it gives all items the same score."""
    equal = np.array((scores.amax(1) == scores.amin(1)).tolist())
    return ~(equal & system.without_user(samples))


def _flags(system: System, queries: Sessions, places: np.ndarray) -> list[str]:
    """Why the items of each of these sessions are recommended: by the model, or by attributes alone."""
    composed = any(isinstance(part, ComposesItems) and part.composes_items for part in system.modules())
    if system.events is None or not composed:
        return [MODEL] * len(places)
    rows = [queries.rows[place] for place in places]
    return [ATTRIBUTES if len(row) and not system.events[row].any() else MODEL for row in rows]
