"""Approximate top-k among more than a million items, with its recall against the exact one (faiss)."""

from __future__ import annotations

import math
import threading
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from graphmeta.adapt.twin import Twin
from graphmeta.errors import InputError, counted
from graphmeta.protocols import LearnsItemBias, ProductHead
from graphmeta.sampling.best import APPROXIMATE, MODEL, Recommendation, named_best, top
from graphmeta.sampling.samples import Samples

if TYPE_CHECKING:
    from graphmeta.system import System

EXACT_UP_TO = 1_000_000  # items; the product with all vectors takes a few milliseconds each session
RECALL = 0.95  # wanted of the approximate lists; lists are searched until it is reached
_SAMPLED = 64  # sessions whose recall is measured
_TRAINING = 40  # vectors for each list, to place the lists
_K = 100  # of the recall
_ROWS = 2**16  # vectors at a time
_ITERATIONS = 5

_LOCK = threading.Lock()
_INDEXES: WeakKeyDictionary[System, tuple[tuple[int, ...], Index]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Index:
    """Item vectors in inverted lists (faiss ``IndexIVFFlat``, inner product).

    ``recall``: the share of the exact ``k`` best items that a search finds, mean over ``queries`` sessions; ``probes``
    of the ``lists`` lists are searched.
    """

    vectors: Tensor
    index: Any
    lists: int
    probes: int
    recall: float
    k: int
    queries: int

    @property
    def is_faster(self) -> bool:
        """Whether at most half of the lists are searched; else the exact product takes no longer."""
        return 2 * self.probes <= self.lists

    def search(self, query: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Items and scores ``[S, k]`` of these queries ``[S, D]``, best first; of equal scores the first items. Items
        that are not found have the score -inf.
        """
        found = torch.from_numpy(self.index.search(query.numpy(), k)[1])
        chosen = self.vectors[found.clamp(min=0)]
        scores = torch.where(found >= 0, torch.einsum("sd,skd->sk", query, chosen), -torch.inf)
        found, order = found.sort(dim=1)
        scores, order = scores.gather(1, order).sort(dim=1, descending=True, stable=True)
        return found.gather(1, order), scores


def built(vectors: Tensor, queries: Tensor, *, k: int = _K, recall: float | None = None) -> Index:
    """An index of these vectors ``[C, D]`` that searches as many lists as the recall on the queries ``[S, D]`` needs,
    ``RECALL`` if not given.

    Raises:
        InputError: faiss is not installed.
    """
    try:
        import faiss  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise InputError(
            "approximate retrieval needs faiss; pip install 'graphmeta[retrieval]', or system.retrieval = 'exact'"
        ) from None
    table, k = vectors.contiguous().numpy(), min(k, len(vectors))
    lists = max(1, math.isqrt(len(table)))
    index = faiss.index_factory(table.shape[1], f"IVF{lists},Flat", faiss.METRIC_INNER_PRODUCT)
    index.cp.niter = _ITERATIONS
    index.cp.max_points_per_centroid, index.cp.min_points_per_centroid = _TRAINING, 1
    rows = np.random.default_rng(0).permutation(len(table))[: _TRAINING * lists]
    index.train(np.ascontiguousarray(table[np.sort(rows)]))
    for begin in range(0, len(table), _ROWS):
        index.add(table[begin : begin + _ROWS])
    recall = RECALL if recall is None else recall
    exact, probes, found = exact_best(vectors, queries, k)[0], min(8, lists), 0.0
    while True:
        index.nprobe = probes
        rows = index.search(queries.numpy(), k)[1]
        found = float(np.mean([np.isin(one, other).mean() for one, other in zip(exact.numpy(), rows, strict=True)]))
        if found >= recall or probes == lists:
            return Index(vectors, index, lists, probes, found, k, len(queries))
        probes = min(2 * probes, lists)


def exact_best(vectors: Tensor, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest products of each query, in blocks of vectors: items and scores ``[S, k]``."""
    best = torch.zeros(len(queries), 0, dtype=torch.int64), queries.new_zeros(len(queries), 0)
    for begin in range(0, len(vectors), _ROWS):
        item, score = top(queries @ vectors[begin : begin + _ROWS].T, k)
        items, scores = torch.cat([best[0], item + begin], 1), torch.cat([best[1], score], 1)
        at, score = top(scores, k)
        best = items.gather(1, at), score
    return best


def can_search(system: System) -> bool:
    """Whether the scores of a system are products of a query and item vectors that no session changes."""
    head = system.recommender.head if system.has_weights else None
    return (
        isinstance(head, ProductHead)
        and not len(head.score_terms)
        and system.adaptation is None
        and (system.blend is None or system.blend.name is None)
        and system.recommender.reads_only() is None
    )


def products(system: System, samples: Samples | None) -> tuple[Tensor | None, Tensor]:
    """The queries ``[S, D]`` of some samples, and the item vectors ``[C, D]``, with item biases as a column."""
    with torch.inference_mode(False), torch.no_grad():
        twin = cast("System", Twin(system, training=False, detached_views=True).module)
        head = cast(ProductHead, twin.recommender.head)
        query = None
        if samples is None:
            _, candidates = twin.recommender.features(torch.zeros(1, dtype=torch.int64, device=system.device))
        else:
            batch = twin._queries(twin.as_read(samples))
            states, candidates = twin.recommender.encode(batch)
            query = head.query(states, batch)
        vectors = head.vectors(candidates)
        if isinstance(head, LearnsItemBias) and head.item_bias is not None:
            vectors = torch.cat([vectors, head.item_bias[:, None]], 1)
            query = None if query is None else F.pad(query, (0, 1), value=1.0)
        return None if query is None else query.detach().float().cpu(), vectors.detach().float().cpu()


def index_of(system: System, samples: Samples) -> Index:
    """The index of a system's items, built when it is first needed and after its weights change.

    Args:
        samples: sessions to measure the recall on.

    Warns:
        UserWarning: when it is built: its recall, and whether it is searched.
    """
    key = tuple(number for weight in system.state_dict().values() for number in (weight.data_ptr(), weight._version))
    with _LOCK:
        known = _INDEXES.get(system)
        if known is not None and known[0] == key:
            return known[1]
        query, vectors = products(system, samples.take(slice(0, _SAMPLED)))
        assert query is not None
        index = built(vectors, query)
        _INDEXES[system] = key, index
    searched = f"{index.probes:,} of {counted(index.lists, 'list')} searched"
    found = f"recall@{index.k} {index.recall:.3f} against the exact lists of {counted(index.queries, 'session')}"
    among = f"among {counted(system.num_items, 'item')}"
    if index.is_faster or system.retrieval == "approximate":
        message = f"approximate retrieval {among}: {found} ({searched}); system.retrieval = 'exact' gives exact lists"
    else:
        message = f"exact retrieval {among}: an index is no faster for this model ({found} with {searched})"
    warnings.warn(message, stacklevel=5)
    return index


def chooses_index(system: System, *, filtered: bool) -> bool:
    """Whether ``recommend`` searches an index: in a catalogue of more than ``EXACT_UP_TO`` items, without filters by
    item (those are exact), for a system whose scores are products.

    Raises:
        InputError: ``system.retrieval`` is none of auto, exact and approximate, or approximate for another system.
    """
    if system.retrieval not in ("auto", "exact", "approximate"):
        raise InputError(f"system.retrieval={system.retrieval!r} must be 'auto', 'exact' or 'approximate'")
    if system.retrieval == "exact" or filtered:
        return False
    if system.retrieval == "approximate" and not can_search(system):
        raise InputError(
            "this system's scores are not products of a query and fixed item vectors (it adapts, adds score terms or "
            "counts), so they have no index; leave system.retrieval at 'auto' for exact lists"
        )
    return system.retrieval == "approximate" or (system.num_items > EXACT_UP_TO and can_search(system))


def searched(system: System, samples: Samples, k: int, seen: list[np.ndarray] | None) -> list[list[Recommendation]]:
    """The k best items of each sample, without those of ``seen``: by the index, flagged as approximate, or exact where
    the index would have to search more than half of its lists.
    """
    index = index_of(system, samples)
    query, _ = products(system, samples)
    assert query is not None
    if not query.isfinite().all():
        raise InputError("the model's scores are not finite numbers; its training diverged, train it again")
    more = max((len(np.unique(row)) for row in seen or ()), default=0)
    size = min(k + more, system.num_items)
    by_index = index.is_faster or system.retrieval == "approximate"
    items, scores = index.search(query, size) if by_index else exact_best(index.vectors, query, size)
    found = []
    for at in range(len(query)):
        kept = (scores[at] > -torch.inf).numpy()
        if seen is not None:
            kept &= ~np.isin(items[at].numpy(), seen[at])
        rows, values = items[at][kept][:k].tolist(), scores[at][kept][:k].tolist()
        found.append(named_best(system.items, rows, values, APPROXIMATE if by_index else MODEL))
    return found
