"""Items whose vectors are nearest to an item's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from graphmeta.adapt.twin import Twin
from graphmeta.errors import InputError, check_whole
from graphmeta.inference.filters import Filters
from graphmeta.protocols import NamesColumns, ProductHead
from graphmeta.sampling.best import Recommendation, best_of
from graphmeta.sampling.queries import meant

if TYPE_CHECKING:
    from graphmeta.system import System

SIMILAR = "similar"
_ALL = Filters()


def row_of(system: System, item: Any) -> int:
    """The index of an item by its original id.

    Raises:
        InputError: an unknown item; suggests the nearest id.
    """
    row = int(system.items.rows_of(np.array([item], dtype=object))[0])
    if row < 0:
        raise InputError(f"item {item!r} is not known to this model; {meant(item, system.items)}pass one that is")
    return row


def evaluated_twin(system: System) -> System:
    """A twin of the system in eval mode, so that calls change nothing."""
    return cast("System", Twin(system, training=False, detached_views=True).module)


def item_vectors(system: System) -> Tensor:
    """The vectors that the head scores against, ``[num_items, D]``, without columns of biases; before any adaptation.

    Raises:
        InputError: a system that has none.
    """
    if not system.has_weights:
        raise InputError("this system only counts, so its items have no vectors; use one with weights (niser)")
    with torch.inference_mode(False), torch.no_grad():
        twin = evaluated_twin(system)
        _, vectors = twin.recommender.features(torch.zeros(1, dtype=torch.int64, device=system.device))
        if not isinstance(vectors, Tensor) or vectors.dim() != 2 or len(vectors) != system.num_items:
            raise InputError(
                f"{type(system.recommender.features).__name__} has no vector for each item, so items have no cosine"
            )
        head = twin.recommender.head
        if isinstance(head, ProductHead):
            vectors = head.vectors(vectors)
        if isinstance(head, NamesColumns):
            vectors = vectors[:, head.column_parts()["product"]]
        return vectors


def similar(system: System, item: Any, k: int = 10, filters: Filters = _ALL) -> list[Recommendation]:
    """The k items with the largest cosine; see :meth:`System.similar <graphmeta.system.System.similar>`."""
    check_whole("k", k, 1)
    row, allowed = row_of(system, item), filters.allowed(system.items)
    vectors = item_vectors(system)
    if not vectors[row].any():
        raise InputError(
            f"item {item!r} has the zero vector (no training events), so it has no similar items; fit the model on a "
            f"log with it, or with attributes of items"
        )
    cosine = F.normalize(vectors.double(), dim=1) @ F.normalize(vectors[row].double(), dim=0)
    k = min(k, len(cosine))
    return best_of(cosine[None], k, system.items, [np.array([row])], allowed=allowed, why=[SIMILAR])[0]
