"""Baselines without training: popularity, co-occurrence, nearest sessions, and users' own items.

Each is fitted on a training log by counting, and scores all items like a system, so that
:func:`~graphmeta.evaluation.ranking.evaluate` takes either. On many logs :class:`SessionKNN` and :class:`Stan` match a
graph network, so a results table needs them. :class:`PersonalFrequency`, :class:`TifuKNN` and :class:`UPCF` read the
earlier sessions of a sample's user. All computations use index arithmetic on ragged lists (session to items, item to
sessions); no array has sessions × items entries. A sample's scores do not depend on its batch.

Terms, for a session of L clicks: the *place* of an item is 1 … L, that of its last click; its *step* is L + 1 − place,
so that the last click has step 1. Validation figures in the docstrings are those of
``python -m benchmarks.neighbours``.
"""

from graphmeta.baselines.item_knn import ItemKNN
from graphmeta.baselines.means import GlobalMean, ItemMean, ItemUserMean
from graphmeta.baselines.personal_frequency import PersonalFrequency
from graphmeta.baselines.popularity import NoRepeats, Popularity, SessionPopularity, has_repeats, match_repeats
from graphmeta.baselines.registry import BASELINES
from graphmeta.baselines.session_knn import SessionKNN
from graphmeta.baselines.stan import Stan
from graphmeta.baselines.tifu_knn import TifuKNN
from graphmeta.baselines.up_cf import UPCF

__all__ = [
    "BASELINES",
    "GlobalMean",
    "ItemKNN",
    "ItemMean",
    "ItemUserMean",
    "NoRepeats",
    "PersonalFrequency",
    "Popularity",
    "SessionKNN",
    "SessionPopularity",
    "Stan",
    "TifuKNN",
    "UPCF",
    "has_repeats",
    "match_repeats",
]
