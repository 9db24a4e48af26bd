"""The best items of each row of scores, as recommendations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError

MODEL, POPULAR, ATTRIBUTES, APPROXIMATE = "model", "popular", "attributes", "approximate"


@dataclass(frozen=True)
class Recommendation:
    """One recommended item: its original id, a readable name, its score, and why it is recommended.

    ``why``: "model"; "attributes": by the model, but no item of the session has a training event, so that attributes
    alone are known of it; "approximate": by the model, among the items that an approximate search has found;
    "popular": nothing of the session is known, and the score is the number of training events.
    """

    item: Any
    name: str
    score: float
    why: str = MODEL


def best_of(
    scores: Tensor,
    k: int,
    items: EntityTable,
    seen: list[np.ndarray] | None = None,
    *,
    allowed: np.ndarray | None = None,
    why: Sequence[str] | None = None,
) -> list[list[Recommendation]]:
    """The k best items of each row of scores among the ``allowed`` ones ``[num_items]``, without ``seen`` ones (others
    are set to -inf in place); possibly fewer. Equal scores are ranked in the order of the item table.

    Args:
        why: of each row, see :class:`Recommendation`.

    Raises:
        InputError: scores that are not finite.
    """
    if not scores.isfinite().all():
        raise InputError("the model's scores are not finite numbers; its training diverged, train it again")
    for at, row in enumerate(seen or ()):
        scores[at, torch.from_numpy(row)] = -torch.inf
    if allowed is not None:
        scores[:, torch.from_numpy(~allowed).to(scores.device)] = -torch.inf
    flags = [MODEL] * len(scores) if why is None else why
    best = (one.tolist() for one in top(scores, k))
    return [named_best(items, rows, values, flag) for rows, values, flag in zip(*best, flags, strict=True)]


def named_best(items: EntityTable, rows: Sequence[int], scores: Sequence[float], why: str) -> list[Recommendation]:
    """Recommendations of these items, without those whose score is -inf."""
    return [_named(items, row, score, why) for row, score in zip(rows, scores, strict=True) if score > -np.inf]


def top(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The columns of the k best scores of each row, and these scores, ``[S, k]``; of equal scores, the first columns.

    >>> top(torch.tensor([[1.0, 3.0, 3.0, 3.0]]), 2)[0].tolist()
    [[1, 2]]
    """
    k = min(k, scores.shape[1])
    value, column = scores.topk(k, dim=1)
    least = value[:, -1:]
    more = ((scores >= least).sum(1) > k) & (least[:, 0] > -torch.inf)  # equal scores, of which some are left out
    for row in more.nonzero()[:, 0].tolist():
        tied = (scores[row] >= least[row]).nonzero()[:, 0]
        order = scores[row, tied].argsort(descending=True, stable=True)[:k]
        column[row] = tied[order]
        value[row] = scores[row, column[row]]
    column, order = column.sort(dim=1)
    value, order = value.gather(1, order).sort(dim=1, descending=True, stable=True)
    return column.gather(1, order), value


def _named(items: EntityTable, row: int, score: float, why: str) -> Recommendation:
    item = items.ids[row]
    return Recommendation(item.item() if isinstance(item, np.generic) else item, items.describe(row), score, why)
