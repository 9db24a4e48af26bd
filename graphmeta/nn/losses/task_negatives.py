"""Negatives that a task has not seen, sampled by a hash: the same for a task in any batch and in every inner step.

A user's negatives are a function of their known items and of the epoch, not of a shared random generator. Adaptation
therefore gives the same weights for a task alone and in a batch, and for the stacked engine and the loop.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from graphmeta.data.events import EventLog
from graphmeta.distributed.group import step
from graphmeta.errors import InputError
from graphmeta.nn.sizes import counts
from graphmeta.protocols import ItemScorer, ProductHead
from graphmeta.sampling.session_batch import real_samples, rows_like

Comparing = Callable[[Tensor, Tensor, Tensor], Tensor]
_RESAMPLINGS = 20
_FIRST, _SECOND = -4658895280553007687, -7723592293110705685  # as signed 64-bit integers


def hashed(x: Tensor) -> Tensor:
    """A 64-bit hash of each integer; every output bit depends on every input bit.

    Source: the finaliser of SplitMix64 (Steele, Lea & Flood 2014).
    """
    x = (x ^ (x >> 30 & (1 << 34) - 1)) * _FIRST
    x = (x ^ (x >> 27 & (1 << 37) - 1)) * _SECOND
    return x ^ (x >> 31 & (1 << 33) - 1)


class UnseenNegativesLoss(nn.Module):
    """Compare each target's score with those of ``count`` items that its task has not seen.

    Seen are the clicks and targets of the task's samples in the given batch: a support set does not include its
    queries. Outside tasks (plain training) they are the sample's clicks and target, and all items its user clicked in
    the training log. Negatives change with the seed set at the start of an epoch, and are fixed in evaluation.

    Args:
        comparison: ``(target's score [S], others' [S, N], valid negatives [S, N]) -> [S]``.
        penalty: λ of ``λ (‖p‖² + Σ_i ‖q_i‖²)`` for heads that score by products ``p · q_i``: p is the query vector, i
            are the compared items. Within tasks, which do not adapt items, it is ``λ ‖p‖²``.
        sums: multiply a sample's loss by its task's number of samples, so that a task's mean is its sum.

    Shapes: returns one loss for each real sample, ``[S]``. The head is a :class:`~graphmeta.protocols.ItemScorer`.
    """

    def __init__(self, comparison: Comparing, *, count: int = 3, penalty: float = 0.0, sums: bool = False) -> None:
        super().__init__()
        self.comparison, self.count, self.penalty, self.sums = comparison, count, penalty, sums
        self.history: Tensor | None = None

    def extra_repr(self) -> str:
        """The comparison and the number of negatives."""
        return f"comparison={self.comparison}, count={self.count}"

    def fit_statistics(self, log: EventLog) -> None:
        """Store each user's clicked items."""
        if log.session_user is not None:
            user = log.session_user[log.session]
            self.history = torch.from_numpy(np.unique(user[user >= 0] * log.num_items + log.item[user >= 0]))

    def forward(self, head: nn.Module, states: Tensor, batch: HeteroData, candidates: Tensor) -> Tensor:
        """The losses."""
        items, counts = self.sample(batch, len(candidates))
        every = torch.cat([batch["sample"].target.clamp(min=0)[:, None], items], 1)
        scores = real_samples(batch, _scorer(head).of_items(states, batch, candidates, every))
        losses = self.comparison(scores[:, 0], scores[:, 1:], real_samples(batch, counts))
        if self.penalty and isinstance(head, ProductHead):
            losses = losses + self.penalty * real_samples(batch, head.query(states, batch)).square().sum(1)
            if not batch.rows:
                compared = torch.cat([torch.ones_like(counts[:, :1]), counts], 1)
                losses = losses + self.penalty * (candidates[every].square().sum(2) * compared).sum(1)
        return losses * _task_sizes(batch, losses) if self.sums else losses

    def sample(self, batch: HeteroData, num_items: int) -> tuple[Tensor, Tensor]:
        """``items [S, count]``, and which of them are unseen (all, unless almost every item has been seen)."""
        target, real = batch["sample"].target.clamp(min=0), _is_real(batch)
        owner = torch.arange(len(target), device=target.device) // batch.rows.get("sample", 1)
        sample, click = batch["event"].batch, batch["item"].n_id[batch["event"].item]
        seen = torch.where(  # -1 marks padding, so that no size depends on the number of real samples
            torch.cat([real[sample], real]),
            torch.cat([owner[sample] * num_items + click, owner * num_items + target]),
            -1,
        )
        signature = torch.zeros_like(target).index_add(0, owner, torch.where(real, hashed(target + 1), 0))
        user = None if batch.rows else batch["sample"].get("user")
        key = signature[owner] + hashed(target) + (0 if user is None else hashed(user + 2))
        salt = step().seed % (1 << 62) if self.training else 0
        key = hashed(key[:, None] + torch.arange(self.count, device=key.device)) + salt
        items, unseen = self._unseen(key, owner[:, None] * num_items, user, seen.sort().values, num_items)
        return rows_like(items, target), rows_like(unseen, target)

    def _unseen(
        self, key: Tensor, base: Tensor, user: Tensor | None, seen: Tensor, num_items: int
    ) -> tuple[Tensor, Tensor]:
        """The first unseen item among a fixed number of samples, or the last one."""
        attempt = torch.arange(_RESAMPLINGS, device=key.device)
        sampled = hashed(hashed(key)[..., None] + attempt).remainder(num_items)
        unseen = ~_among(seen, base[..., None] + sampled)
        if self.history is not None and user is not None:
            if self.history.device != key.device:
                self.history = self.history.to(key.device)
            unseen &= ~_among(self.history, user[:, None, None] * num_items + sampled)
        first = torch.where(unseen, attempt, _RESAMPLINGS - 1).amin(-1, keepdim=True)
        return sampled.gather(-1, first).squeeze(-1), unseen.any(-1)


def _scorer(head: nn.Module) -> ItemScorer:
    if not isinstance(head, ItemScorer):
        raise InputError(
            f"{type(head).__name__} scores no chosen items; give it of_items(states, batch, candidates, items)"
        )
    return head


def _is_real(batch: HeteroData) -> Tensor:
    real = batch["sample"].get("real")
    size, device = batch["sample"].num_nodes, batch["sample"].target.device
    if real is None:
        return torch.ones(size, dtype=torch.bool, device=device)
    return torch.zeros(size, dtype=torch.bool, device=device).index_fill(0, real, True)


def _task_sizes(batch: HeteroData, losses: Tensor) -> Tensor:
    """Number of real samples in each real sample's task."""
    real = batch["sample"].get("real")
    if real is None:
        return torch.ones_like(losses)
    task = real // batch.rows["sample"]
    return counts(task, batch.num_tasks)[task].to(losses.dtype)


def _among(pairs: Tensor, wanted: Tensor) -> Tensor:
    """Which of ``wanted`` are in the sorted ``pairs``."""
    if len(pairs) == 0:
        return torch.zeros_like(wanted, dtype=torch.bool)
    return pairs[torch.searchsorted(pairs, wanted).clamp(max=len(pairs) - 1)] == wanted


class HashedNoise(nn.Module):
    """Gaussian noise that is a deterministic function of the set of known items: ``[E, D] -> [S, width]``.

    Gives every user a fixed random vector without storing a table.

    Args:
        scale: its standard deviation.
    """

    def __init__(self, width: int, *, scale: float = 1.0) -> None:
        super().__init__()
        self.width, self.scale = width, scale

    def forward(self, states: Tensor, batch: HeteroData) -> Tensor:
        """One vector per sample."""
        click = hashed(batch["item"].n_id[batch["event"].item] + 1)
        whole = click.new_zeros(batch["sample"].num_nodes).index_add(0, batch["event"].batch, click)
        bits = hashed(hashed(whole)[:, None] + torch.arange(2 * self.width, device=whole.device))
        radius, angle = ((bits >> 11 & (1 << 53) - 1).double() / (1 << 53)).chunk(2, 1)
        normal = (-2 * torch.log1p(-radius)).sqrt() * torch.cos(2 * math.pi * angle)
        return self.scale * normal.to(states.dtype)
