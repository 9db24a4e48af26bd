"""Self-attention over the clicks of a session, from matmul and softmax, so that it is differentiable any number of
times.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from graphmeta.errors import InputError


def to_dense(x: Tensor, batch: HeteroData) -> tuple[Tensor, Tensor]:
    """Click rows as a padded block, and the mask of clicks: ``[E, D] -> [S, L, D], [S, L]``."""
    size, longest = batch["sample"].num_nodes, batch.longest
    if len(x) == size * longest:  # all samples have as many clicks
        return x.reshape(size, longest, x.shape[1]), (batch["event"].order >= 0).reshape(size, longest)
    place = batch["event"].batch * longest + batch["event"].order
    dense = x.new_zeros(size * longest, x.shape[1]).index_copy(0, place, x)
    known = torch.zeros(size * longest, dtype=torch.bool, device=x.device).index_fill(0, place, True)
    return dense.reshape(size, longest, x.shape[1]), known.reshape(size, longest)


def from_dense(dense: Tensor, batch: HeteroData) -> Tensor:
    """The click rows of a padded block: ``[S, L, D] -> [E, D]``."""
    flat, event = dense.flatten(0, 1), batch["event"]
    if len(flat) == len(event.order):
        return flat
    return flat.index_select(0, event.batch * batch.longest + event.order)


def in_blocks(run: Callable[[Tensor, Tensor], Tensor], x: Tensor, batch: HeteroData) -> Tensor:
    """Apply ``run`` to padded blocks of clicks and their masks; it must be causal, or leave out what is masked.

    Samples of similar length run together: in one padded block, a session of 200 clicks among 63 of 3 would cost as
    much as 64 of 200.

    Shapes: ``run([S, L, D], [S, L]) -> [S, L, D']``; ``x [E, D] -> [E, D']``.
    """
    if batch.rows:  # task-major: weights that differ by task need equal blocks for all tasks
        return from_dense(run(*to_dense(x, batch)), batch)
    if len(x) == 0:  # no sample has a click: nothing but the width is needed
        return run(x.new_zeros(1, 1, x.shape[1]), torch.ones(1, 1, dtype=torch.bool, device=x.device)).flatten(0, 1)[:0]
    states, rows = [], []
    for place, inside in length_groups(batch["sample"].ptr):
        block = x.index_select(0, place.flatten()).unflatten(0, place.shape)
        kept = inside.flatten().nonzero().squeeze(1)
        states.append(run(block, inside).flatten(0, 1).index_select(0, kept))
        rows.append(place.flatten().index_select(0, kept))
    return torch.cat(states).index_select(0, torch.cat(rows).argsort())


def length_groups(ptr: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Groups of samples of similar length, each more than half as long as the longest: their clicks as a block.

    Yields the row of each click ``[G, L]``, with a shorter sample's last click repeated, and the mask of clicks that
    are not repeated ``[G, L]``.

    >>> [place.tolist() for place, _ in length_groups(torch.tensor([0, 1, 4, 6]))]
    [[[1, 2, 3], [4, 5, 5]], [[0]]]
    """
    length, order = ptr.diff().sort(descending=True, stable=True)
    left = length.tolist()
    while left and left[0] > 0:
        size = next((n for n, other in enumerate(left) if 2 * other <= left[0]), len(left))
        at = torch.arange(left[0], device=ptr.device)
        inside = at < length[:size, None]
        yield ptr[order[:size], None] + torch.minimum(at, length[:size, None] - 1), inside
        left, length, order = left[size:], length[size:], order[size:]


class SelfAttentionBlock(nn.Module):
    """``F = softmax(X W_Q (X W_K)ᵀ / √D) X W_V``; ``E = ReLU(F W_1 + b_1) W_2 + b_2 + F``. ``[E, D] -> [E, D]``.

    Source: GC-SAN (Xu et al. 2019) eqs 8–10, CBML eqs 3–4. Clicks attend to each other in both directions within their
    sample, in one head; padding is masked (not in the public code).
    """

    def __init__(self, width: int, *, dropout: float = 0.2) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.inner, self.outer = nn.Linear(width, width), nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, batch: HeteroData) -> Tensor:
        """New states of the clicks."""
        projected = torch.cat([self.query(x), self.key(x), self.value(x)], 1)
        attended = in_blocks(self.attend, projected, batch)
        return self.dropout(self.outer(torch.relu(self.inner(attended)))) + attended

    def attend(self, dense: Tensor, known: Tensor) -> Tensor:
        """Attention within padded blocks of queries, keys and values: ``[S, L, 3·D], [S, L] -> [S, L, D]``."""
        q, k, v = dense.chunk(3, 2)
        weight = (q @ k.transpose(1, 2)) / math.sqrt(q.shape[2])
        return torch.softmax(weight.masked_fill(~known[:, None, :], -torch.inf), 2) @ v


class Clicks(nn.Module):
    """A click's state is its item's vector, without context. Shapes: ``x [I, D] -> [E, D]``."""

    def forward(self, x: Tensor, batch: HeteroData) -> Tensor:
        """States of the clicks."""
        return x.index_select(0, batch["event"].item)


class SelfAttentionStack(nn.Module):
    """A stack of self-attention blocks with separate weights; no positions, as in GC-SAN.

    Shapes: ``[E, width] -> [E, width]``.
    """

    def __init__(self, width: int, *, layers: int = 2, dropout: float = 0.2) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(SelfAttentionBlock(width, dropout=dropout) for _ in range(layers))

    def forward(self, states: Tensor, batch: HeteroData) -> Tensor:
        """States of the clicks: ``[E, width] -> [E, width]``."""
        for block in self.blocks:
            states = block(states, batch)
        return states


class Blend(nn.Module):
    """Weighted sum of a block's output and its input: ``w · block(h) + (1 − w) · h``, ``h = below(x)``.

    Args:
        block: ``(states [E, D], batch) -> [E, D]``.
        below: the encoder of ``h``; a click's item vector if not given.
        weight: w; with ``learned`` its initial value, ``w = σ(logit)``.

    Raises:
        InputError: a weight outside [0, 1], or a learned one that begins at 0 or 1.

    Shapes: ``x [I, D] -> [E, D]``.
    Source: GC-SAN eq 12, CBML eqs 5 and 7; computed at every click, and the head reads the last.
    """

    def __init__(
        self, block: nn.Module, below: nn.Module | None = None, *, weight: float = 0.5, learned: bool = False
    ) -> None:
        super().__init__()
        if not (0 < weight < 1 if learned else 0 <= weight <= 1):
            raise InputError(f"weight={weight!r} must be between 0 and 1, and neither of them if it is learned")
        self.block, self.below, self.fixed = block, Clicks() if below is None else below, weight
        self.logit = nn.Parameter(torch.tensor([weight]).logit()) if learned else None

    @property
    def weight(self) -> Tensor | float:
        """w."""
        return self.fixed if self.logit is None else torch.sigmoid(self.logit)

    def extra_repr(self) -> str:
        """w, or its initial value."""
        return f"weight={self.fixed}{'' if self.logit is None else ', learned'}"

    def forward(self, x: Tensor, batch: HeteroData) -> Tensor:
        """States of the clicks."""
        states, weight = self.below(x, batch), self.weight
        return weight * self.block(states, batch) + (1 - weight) * states


class SplitEncoders(nn.Module):
    """Encoders that each read their own chunk of the item vector; their states are concatenated.

    Shapes: ``x [I, n·D] -> [E, n·D]`` for n encoders.
    """

    def __init__(self, *encoders: nn.Module) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(encoders)

    def forward(self, x: Tensor, batch: HeteroData) -> Tensor:
        """States of the clicks."""
        shares = x.chunk(len(self.encoders), 1)
        return torch.cat([encoder(share, batch) for encoder, share in zip(self.encoders, shares, strict=True)], 1)
