"""Negative sampling: ``(target [S], user [S] or None, num_items) -> items, counts``.

``items`` is ``[N]``, shared by all samples, or ``[S, N]``, one row per sample; ``counts [S, N]`` marks the valid
negatives of each sample. Sampling uses PyTorch's global generator, so training is reproducible.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from graphmeta.data.events import EventLog
from graphmeta.distributed.group import step

Negatives = tuple[Tensor, Tensor]
_RESAMPLINGS = 20


class SharedNegatives(nn.Module):
    """The other targets of the batch, plus ``sampled`` items shared by all samples, with probability ∝
    ``support^alpha``.

    Source: GRU4Rec (Hidasi et al. 2016; Hidasi & Karatzoglou 2018). ``alpha`` 0 samples uniformly, 1 by popularity.
    """

    def __init__(self, *, in_batch: bool = True, sampled: int = 0, alpha: float = 0.75) -> None:
        super().__init__()
        self.in_batch, self.sampled, self.alpha = in_batch, sampled, alpha
        self.cdf: Tensor | None = None

    def fit_statistics(self, log: EventLog) -> None:
        """Count the clicks of each item."""
        weight = np.power(np.maximum(log.support, 1e-9), self.alpha)
        self.cdf = torch.from_numpy(np.cumsum(weight) / weight.sum())

    def forward(self, target: Tensor, user: Tensor | None, num_items: int) -> Negatives:
        """``items [N]`` and ``counts [S, N]``: all but a sample's own target."""
        parts = [step().group.gather(target)] if self.in_batch else []
        if self.sampled:
            uniform_cdf = torch.arange(1, num_items + 1, dtype=torch.float64) / num_items
            cdf = uniform_cdf if self.cdf is None else self.cdf
            parts.append(by_probability(cdf, self.sampled).to(target.device))
        items = torch.cat(parts)
        return items, items[None] != target[:, None]


SampleItems = Callable[[Tensor, int, int], Tensor]


class PerSampleNegatives(nn.Module):
    """``count`` items per sample, resampled where they are its target or in its user's history.

    Args:
        sample: ``(targets [S], count, num_items) -> items [count]``: :func:`uniform` or :func:`in_batch_targets`.
    """

    def __init__(self, sample: SampleItems, *, count: int = 1) -> None:
        super().__init__()
        self.sample, self.count = sample, count
        self.history: Tensor | None = None

    def fit_statistics(self, log: EventLog) -> None:
        """Store each user's clicked items."""
        if log.session_user is not None:
            user = log.session_user[log.session]
            pair = np.unique(user[user >= 0] * log.num_items + log.item[user >= 0])
            self.history = torch.from_numpy(pair)

    def forward(self, target: Tensor, user: Tensor | None, num_items: int) -> Negatives:
        """``items [S, count]``, and which of them are valid negatives of their sample."""
        items = self.sample(target, len(target) * self.count, num_items)
        own = target.repeat_interleave(self.count)
        users = None if user is None else user.repeat_interleave(self.count)
        invalid = self._known(items, own, users, num_items)
        for _ in range(_RESAMPLINGS):
            again = invalid.nonzero().squeeze(1)
            if len(again) == 0:
                break
            items[again] = self.sample(target, len(again), num_items)
            some = None if users is None else users[again]
            invalid[again] = self._known(items[again], own[again], some, num_items)
        return items.reshape(-1, self.count), ~invalid.reshape(-1, self.count)

    def _known(self, items: Tensor, target: Tensor, user: Tensor | None, num_items: int) -> Tensor:
        known = items == target
        if self.history is None or user is None or len(self.history) == 0:
            return known
        if self.history.device != items.device:
            self.history = self.history.to(items.device)
        history, pair = self.history, user * num_items + items
        at = torch.searchsorted(history, pair).clamp(max=len(history) - 1)
        return known | ((history[at] == pair) & (user >= 0))


def by_probability(cdf: Tensor, count: int) -> Tensor:
    """``count`` items for the whole batch, the same on all ranks, sampled with replacement by their cumulative
    probabilities ``cdf [num_items]``, float64.
    """
    place = torch.rand(count, dtype=torch.float64, generator=step().generator)
    return torch.searchsorted(cdf, place).clamp(max=len(cdf) - 1)


def uniform_for_batch(target: Tensor, count: int, num_items: int) -> Tensor:
    """``count`` items for the whole batch, the same on all ranks, uniform over the catalogue."""
    return torch.randint(num_items, (count,), generator=step().generator).to(target.device)


def uniform(target: Tensor, count: int, num_items: int) -> Tensor:
    """``count`` items, uniform over the catalogue; each rank samples its own."""
    return torch.randint(num_items, (count,)).to(target.device)


def in_batch_targets(target: Tensor, count: int, num_items: int) -> Tensor:
    """``count`` of the batch's targets, i.e. by popularity. Source: ASARS, section 3."""
    return target[torch.randint(max(len(target), 1), (count,)).to(target.device)]


class UniformSeen(nn.Module):
    """Samples uniformly from the items with events in the training log; from the catalogue before it is fitted.

    Args:
        since: only items with an event at this time (seconds) or later.
    """

    def __init__(self, *, since: float = -np.inf) -> None:
        super().__init__()
        self.since, self.items = since, torch.zeros(0, dtype=torch.int64)

    def seen_since(self, begin: float) -> UniformSeen:
        """The sampler, not yet fitted, of items with an event at this time (seconds) or later."""
        return UniformSeen(since=begin)

    def fit_statistics(self, log: EventLog) -> None:
        """Store the items with events."""
        self.items = torch.from_numpy(np.flatnonzero(np.bincount(log.item[log.time >= self.since])))

    def forward(self, target: Tensor, count: int, num_items: int) -> Tensor:
        """``[count]``."""
        if len(self.items) == 0:
            return uniform(target, count, num_items)
        return self.items[torch.randint(len(self.items), (count,))].to(target.device)
