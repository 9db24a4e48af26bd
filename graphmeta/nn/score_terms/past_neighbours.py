"""Items that share users with those of a user's earlier sessions, among pairs of a sample and a candidate."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from graphmeta.baselines.incidence import rank
from graphmeta.baselines.item_knn import ItemKNN
from graphmeta.data.events import EventLog
from graphmeta.nn.score_terms.personal_features import PastEvents, log_share

RECENT = 0.9  # decay of an item's weight, per session
READ = 50  # of a user's items, those of the highest weight
SIMILAR = 3  # columns of similar_columns


def shared_users(log: EventLog, *, neighbours: int) -> tuple[np.ndarray, np.ndarray]:
    """Of each item, its nearest neighbours by the users who have both, and the similarities
    (:class:`~graphmeta.baselines.item_knn.ItemKNN` over users in place of sessions), 0 where there is none:
    two of ``[num_items, neighbours]``.
    """
    similar = np.zeros((log.num_items, neighbours), dtype=np.int64)
    similarity = np.zeros((log.num_items, neighbours))
    if log.session_user is None or not (log.session_user >= 0).any():
        return similar, similarity
    user = log.session_user[log.session]
    rows = np.argsort(user, kind="stable")[np.count_nonzero(user < 0) :]
    ids, session = np.unique(user[rows], return_inverse=True)
    by_user = replace(
        log,
        session=session,
        item=log.item[rows],
        time=np.arange(len(rows), dtype=np.float64),
        sessions=ids,
        session_user=None,
        users=None,
        has_time=False,
    )
    found = ItemKNN(by_user, neighbours=neighbours + 1)
    item, other = found.similar.rows, found.similar.value
    kept = item != other
    item, other, value = item[kept], other[kept], found.similarity[kept]
    place = rank(item)
    kept = place < neighbours
    similar[item[kept], place[kept]], similarity[item[kept], place[kept]] = other[kept], value[kept]
    return similar, similarity


class PastItems:
    """The items of each sample's earlier sessions and their weights ``Σ RECENT^(sessions ago − 1)``, at most ``READ``
    of a sample: those of the highest weight, of equal weight the lower item number.

    Shapes: sample, item, weight ``[P]``; total, the sum of all weights of a sample, ``[S]``.
    """

    def __init__(self, past: PastEvents, num_items: int) -> None:
        weight = RECENT ** (past.age - 1)
        key, number = torch.unique(past.sample * num_items + past.item, return_inverse=True)
        each = weight.new_zeros(len(key)).index_add(0, number, weight)
        self.total = weight.new_zeros(len(past.sessions)).index_add(0, past.sample, weight)
        order = torch.argsort(each, descending=True, stable=True)
        order = order[torch.argsort(key[order] // num_items, stable=True)]
        kept = order[_place(key[order] // num_items, len(past.sessions)) < READ]
        self.sample, self.item, self.weight = key[kept] // num_items, key[kept] % num_items, each[kept]

    def likely(self, similar: Tensor, *, items: int, neighbours: int) -> Tensor:
        """Numbers ``sample · C + item`` of the nearest neighbours of the ``items`` first ones, ``[N]``."""
        chosen = (_place(self.sample, len(self.total)) < items).nonzero().squeeze(1)
        near = similar[self.item[chosen], :neighbours].long()
        return (near + (self.sample[chosen] * len(similar))[:, None]).flatten()


def _place(sample: Tensor, samples: int) -> Tensor:
    """The place of each entry among those of its sample, from 0; ``sample`` is sorted."""
    count = torch.bincount(sample, minlength=samples)
    return torch.arange(len(sample), device=sample.device) - (count.cumsum(0) - count)[sample]


def similar_columns(past: PastItems, key: Tensor, similar: Tensor, similarity: Tensor) -> Tensor:
    """How similar the pairs' items are to the other items of the sample's earlier sessions: ``[N, SIMILAR]``.

    Args:
        key: the pairs, sorted numbers ``sample · C + item``.
        similar, similarity: see :func:`shared_users`.
    """
    row, place = similarity[past.item].nonzero(as_tuple=True)
    item, sample = past.item[row], past.sample[row]
    near = similarity[item, place]
    cell = sample * len(similar) + similar[item, place].long()
    at = torch.searchsorted(key, cell).clamp(max=max(len(key) - 1, 0))
    kept = (key[at] == cell).nonzero().squeeze(1)
    at, near, weight = at[kept], near[kept], past.weight[row[kept]]
    share = near.new_zeros(len(key)).index_add(0, at, near * weight / (past.total[sample[kept]] + 0.5))
    most = near.new_zeros(len(key)).scatter_reduce(0, at, near * weight.clamp(max=1), "amax")
    return torch.stack([log_share(share, 0.002) / 4, log_share(share, 0.03) / 2, 5 * most], 1)
