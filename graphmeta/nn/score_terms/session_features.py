"""Features of a session for pairs of a sample and a candidate item: shared sessions and attribute values."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from graphmeta.nn.score_terms.personal_features import log_share

CONTEXT, SHARED = 10, 4  # columns of context_columns, and of shared_columns for each attribute


class Neighbours(NamedTuple):
    """Entries of the clicked items' neighbour lists among the pairs, without the items themselves.

    Shapes: pair, sample, ago (clicks since the clicked item, from 0), cosine, together (sessions with both), clicked,
    other (sessions with the clicked item, with the neighbour) ``[L]``.
    """

    pair: Tensor
    sample: Tensor
    ago: Tensor
    cosine: Tensor
    together: Tensor
    clicked: Tensor
    other: Tensor


def context_columns(near: Neighbours, sample: Tensor, length: Tensor, sessions: Tensor) -> Tensor:
    """How often the item shares sessions with the clicked items: ``[N, CONTEXT]``.

    Args:
        length: distinct items of each sample ``[S]``.
        sessions: of the log that was counted.
    """
    number = len(sample)

    def total(values: Tensor) -> Tensor:
        return values.new_zeros(number).index_add(0, near.pair, values)

    def most(values: Tensor) -> Tensor:
        return values.new_zeros(number).scatter_reduce(0, near.pair, values, "amax")

    each = length[sample].clamp(min=1)
    lift = ((near.together + 1) / (near.clicked * near.other / sessions + 1)).log()
    recent, share, last = near.cosine / (near.ago + 1), near.together / (near.clicked + 10), near.ago == 0
    columns = [
        total(lift) / each,
        total(lift) / 4,
        most(lift),
        log_share(total(share) / each, 0.002) / 4,
        log_share(total(near.cosine), 0.01) / 4,
        5 * most(near.cosine),
        log_share(total(recent), 0.01) / 4,
        5 * total(near.cosine * last),
        log_share(total(share * last), 0.002) / 4,
        total(torch.ones_like(lift)) / each,
    ]
    return torch.stack(columns, 1)


def shared_columns(
    batch: HeteroData, sample: Tensor, item: Tensor, codes: Tensor, values: int, lift: Tensor | None
) -> Tensor:
    """Share of the session's items with the item's attribute value, whether any has it, and how often the values of the
    session's items share sessions with it: ``[N, SHARED]``.

    Args:
        lift: ``[values, values]``, logarithms; the last two columns are 0 without it.
    """
    present, samples = batch["item"], batch["sample"].num_nodes
    own = codes[present.n_id]
    count = torch.zeros(samples * values, device=item.device).index_add(
        0, present.batch * values + own, torch.ones(len(own), device=item.device)
    )
    count = count.view(samples, values)
    length = count.sum(1).clamp(min=1)
    value = codes[item]
    mine = count[sample, value]
    columns = [2 * mine / length[sample], (mine > 0).to(count.dtype)]
    if lift is None:
        columns += [torch.zeros_like(mine)] * 2
    else:
        every = (count @ lift)[sample, value]
        columns += [2 * every / length[sample], every / 2]
    return torch.stack(columns, 1) * (value > 0)[:, None]
