"""Features of a user's earlier sessions for pairs of a sample and a candidate item."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch_geometric.data import HeteroData

DECAYS = (0.8, 0.9, 0.95, 0.98, 1.0)  # per session
HALF_LIVES = (7.0, 28.0, 90.0)  # days
TASTE = 0.98  # decay of shares of attribute values, per session
PER_ITEM = 2 + len(DECAYS) + 2 + len(HALF_LIVES) + 9  # columns of item_columns
PER_ATTRIBUTE, PER_SAMPLE = 5, 6  # columns of attribute_columns, for each attribute, and of sample_columns
TOGETHER, ALIKE = 3, 2  # columns of together_columns and alike_columns


def log_share(share: Tensor, floor: float) -> Tensor:
    """``log(1 + share / floor)``."""
    return torch.log1p(share / floor)


class PastEvents(NamedTuple):
    """The events of a batch's earlier sessions, and where they are among the pairs.

    Shapes: item, sample, age (1: the latest session), days, pair (its pair), session (its session, numbered from 0)
    ``[H]``; of_session: the sample of each session, length (its events), session_age, session_days ``[R]``; sessions
    (their number for each sample) ``[S]``; pairs: number of pairs.
    """

    item: Tensor
    sample: Tensor
    age: Tensor
    days: Tensor
    pair: Tensor
    session: Tensor
    of_session: Tensor
    length: Tensor
    session_age: Tensor
    session_days: Tensor
    sessions: Tensor
    pairs: int

    @classmethod
    def of(cls, batch: HeteroData, pair: Tensor, pairs: int) -> PastEvents:
        """Those of a batch; ``pair`` of each history row."""
        past, samples = batch["history"], batch["sample"].num_nodes
        dtype = past.days.dtype
        size = past.age.max() + 1 if len(past.age) else 1
        key, session = torch.unique(past.batch * size + past.age, return_inverse=True)
        of_session, age = key // size, (key % size).to(dtype)
        length = torch.zeros_like(age).index_add(0, session, torch.ones_like(past.days))
        days = torch.zeros_like(age).index_add(0, session, past.days) / length
        sessions = age.new_zeros(samples).index_add(0, of_session, torch.ones_like(age))
        return cls(
            past.n_id, past.batch, past.age.to(dtype), past.days, pair, session, of_session, length, age, days,
            sessions, pairs,
        )  # fmt: skip

    @classmethod
    def none(cls, batch: HeteroData, key: Tensor) -> PastEvents:
        """No event; ``key``: the pairs."""
        nothing, samples = key.new_zeros(0), batch["sample"].num_nodes
        empty = torch.zeros(0, device=key.device)
        sessions = torch.zeros(samples, device=key.device)
        return cls(
            nothing, nothing, empty, empty, nothing, nothing, nothing, empty, empty, empty, sessions, len(key)
        )  # fmt: skip

    def per_pair(self, values: Tensor) -> Tensor:
        """Sum of the events' values per pair."""
        return values.new_zeros(self.pairs).index_add(0, self.pair, values)

    def per_sample(self, values: Tensor) -> Tensor:
        """Sum of the sessions' values per sample."""
        return values.new_zeros(len(self.sessions)).index_add(0, self.of_session, values)

    def least(self, values: Tensor, empty: float) -> Tensor:
        """The smallest of the events' values per pair."""
        start = values.new_full((self.pairs,), torch.inf)
        found = start.scatter_reduce(0, self.pair, values, "amin")
        return torch.where(found.isinf(), empty, found)

    def most(self, values: Tensor) -> Tensor:
        """The largest of the events' values per pair, 0 without any."""
        return values.new_zeros(self.pairs).scatter_reduce(0, self.pair, values, "amax")


def item_columns(past: PastEvents, sample: Tensor, interval: Tensor) -> Tensor:
    """How often, how recently and how regularly the user had the item: ``[N, PER_ITEM]``.

    Args:
        sample: of each pair.
        interval: days between two purchases of the item, over all users, ``[N]``.
    """
    count = past.per_pair(torch.ones_like(past.days))
    bought = count > 0
    columns = [bought.to(count.dtype), count.log1p() / 2]
    for decay in DECAYS:
        total = past.per_sample(decay ** (past.session_age - 1)) + 0.5
        share = past.per_pair(decay ** (past.age - 1)) / total[sample]
        columns.append(log_share(share, 0.003) / 4)
        columns += [3 * share] if decay in (0.95, 1.0) else []
    for half in HALF_LIVES:
        total = past.per_sample(0.5 ** (past.session_days / half)) + 0.5
        columns.append(log_share(past.per_pair(0.5 ** (past.days / half)) / total[sample], 0.003) / 4)
    last, last_days, first_days = past.least(past.age, 400.0), past.least(past.days, 1000.0), past.most(past.days)
    columns += [(last == number).to(count.dtype) for number in (1, 2, 3)]
    columns += [last.log() / 3, (last_days + 0.3).log() / 3]
    own = ((first_days - last_days) * bought + 2 * interval) / ((count - 1).clamp(min=0) + 2)
    due = ((last_days + 0.5) / own.clamp(min=0.1)).log()
    columns += [own.clamp(min=0.1).log() / 4 * bought, due * bought, (first_days + 0.3).log() / 4 * bought]
    columns.append(log_share(count / (first_days + 14), 0.002) / 4 * bought)
    return torch.stack(columns, 1)


def attribute_columns(
    past: PastEvents, sample: Tensor, item: Tensor, codes: Tensor, values: int, share: Tensor
) -> Tensor:
    """The user's share of the item's attribute value, and when it was last bought: ``[N, PER_ATTRIBUTE]``.

    Args:
        item: of each pair.
        codes: ``[C]``, the value of each item; 0: unknown.
        share: ``[values]``, that of each value among all events.
    """
    samples = len(past.sessions)
    weight = TASTE ** (past.age - 1)
    key, wanted = past.sample * values + codes[past.item], sample * values + codes[item]
    by_value = weight.new_zeros(samples * values).index_add(0, key, weight)
    total = weight.new_zeros(samples).index_add(0, past.sample, weight) + 3
    mine = by_value[wanted]
    taste = (mine + 3 * share[codes[item]]) / total[sample]
    in_value = past.per_pair(weight) / (mine + 1)
    start = weight.new_full((samples * values,), torch.inf)
    last = start.scatter_reduce(0, key, past.days, "amin")
    first = torch.zeros_like(last).scatter_reduce(0, key, past.days, "amax")
    count = torch.zeros_like(last).index_add(0, key, torch.ones_like(weight))
    known = (count > 0)[wanted]
    last = torch.where(last.isinf(), 1000.0, last)
    interval = ((first - last).clamp(min=0) + 20) / (count + 1)
    due = ((last + 0.5) / interval.clamp(min=0.2)).log()[wanted] * known
    columns = [log_share(taste, 0.001) / 4, in_value, (last[wanted] + 0.3).log() / 3, due, mine / total[sample]]
    return torch.stack(columns, 1) * (codes[item] > 0)[:, None]


def together_columns(past: PastEvents, batch: HeteroData, sample: Tensor, num_items: int) -> Tensor:
    """How often the user had the item in sessions that share items with the present one: ``[N, TOGETHER]``."""
    present = batch["item"].batch * num_items + batch["item"].n_id  # sorted
    key = past.sample * num_items + past.item
    at = torch.searchsorted(present, key).clamp(max=max(len(present) - 1, 0))
    shared = (present[at] == key).to(past.days.dtype) if len(present) else torch.zeros_like(past.days)
    overlap = torch.zeros_like(past.length).index_add(0, past.session, shared)
    weight = TASTE ** (past.session_age - 1)
    common = weight * overlap / past.length.sqrt()
    mine = past.per_pair(common[past.session])
    every, total = past.per_sample(common)[sample], past.per_sample(weight)[sample]
    closest = weight * (2 * overlap / past.length.sqrt()).clamp(max=10).exp()
    near = past.per_pair(closest[past.session]) / (past.per_sample(closest)[sample] + 0.5)
    return torch.stack([log_share(mine / (total + 0.5), 0.01) / 4, mine / (every + 1), log_share(near, 0.003) / 4], 1)


def sample_columns(past: PastEvents, batch: HeteroData) -> Tensor:
    """Of each sample: known sessions, size and variety of them, and how the present session compares: ``[S, 6]``."""
    events = past.per_sample(past.length)
    sessions = past.sessions.clamp(min=1)
    mean = events.clamp(min=1) / sessions
    count = past.per_pair(torch.ones_like(past.days))
    distinct = events.new_zeros(len(past.sessions)).index_add(0, past.sample, 1 / count[past.pair])
    age = torch.where(past.session_age == 1, past.session_days, 0.0)
    gap = torch.where(past.sessions > 0, past.per_sample(age), 30.0)
    length = batch["sample"].ptr.diff().to(events.dtype)
    columns = [
        past.sessions.log1p() / 4,
        distinct / events.clamp(min=1),
        mean.log(),
        (gap + 0.1).log() / 3,
        (length + 1).log() / 2,
        ((length + 1) / mean).log(),
    ]
    return torch.stack(columns, 1)


def alike_columns(
    past: PastEvents, batch: HeteroData, sample: Tensor, codes: Tensor | None = None, values: int = 0
) -> Tensor:
    """How often the user had the item in sessions like the present one: of the same attribute values, and of about its
    size, time of day and day of the week: ``[N, ALIKE]``.

    Args:
        codes, values: the first attribute of the items; the first column is 0 without one.
    """
    weight = TASTE ** (past.session_age - 1)
    present, length = batch["item"], batch["sample"].ptr.diff().to(weight.dtype)
    columns = []
    if codes is None:
        columns.append(weight.new_zeros(past.pairs))
    else:
        found = torch.zeros(len(length) * values, dtype=torch.bool, device=length.device)
        found[present.batch * values + codes[present.n_id]] = True
        found.view(-1, values)[:, 0] = False
        same = found[past.sample * values + codes[past.item]].to(weight.dtype)
        common = torch.zeros_like(weight).index_add(0, past.session, same)
        number = found.view(-1, values).sum(1).to(weight.dtype)[past.of_session]
        own = weight * (4 * common / (past.length * number.clamp(min=1)).sqrt()).clamp(max=20).exp()
        columns.append(past.per_pair(own[past.session]) / (past.per_sample(own)[sample] + 0.5))
    size = (past.length / (length[past.of_session] + 1)).log().abs()
    hours = (24 * past.session_days) % 24
    hours = torch.minimum(hours, 24 - hours)
    weekday = (past.session_days.round() % 7 == 0).to(weight.dtype)
    own = weight * (-1.5 * size - hours / 4).exp() * (1 + weekday)
    columns.append(past.per_pair(own[past.session]) / (past.per_sample(own)[sample] + 0.1))
    return torch.stack([log_share(column, 0.003) / 4 for column in columns], 1)
