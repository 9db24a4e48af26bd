"""Readouts: from the states of a sample's clicks to one vector, ``(states [E, D], batch) -> [S, D']``."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError
from graphmeta.nn.features.tables import Table
from graphmeta.protocols import HasReadout
from graphmeta.sampling.session_batch import rows_like


def readout_of(head: nn.Module, reader: str) -> nn.Module:
    """The head's readout.

    Raises:
        InputError: a head without one; names ``reader``, which would read it.
    """
    if not isinstance(head, HasReadout):
        raise InputError(
            f"{reader} needs the head's readout, and {type(head).__name__} has no module of that name; give it one "
            f"(graphmeta.protocols.HasReadout)"
        )
    return head.readout


class Last(nn.Module):
    """The state of the last click, zero for a sample without clicks. ``[E, D] -> [S, D]``."""

    reads_last_click = True

    def forward(self, states: Tensor, batch: HeteroData) -> Tensor:
        """One vector per sample."""
        last, known = batch["sample"].last, batch["sample"].get("has_events")
        if len(states) == 0:
            return rows_like(states.new_zeros(len(last), states.shape[1]), last)
        found = states.index_select(0, last)
        return found if known is None else torch.where(known[:, None], found, 0.0)


class Mean(nn.Module):
    """The mean state of the clicks, zero for a sample without clicks. ``[E, D] -> [S, D]``."""

    def forward(self, states: Tensor, batch: HeteroData) -> Tensor:
        """One vector per sample."""
        total = states.new_zeros(batch["sample"].num_nodes, states.shape[1])
        return total.index_add(0, batch["event"].batch, states) / batch["sample"].ptr.diff().clamp(min=1)[:, None]


class UserEmbedding(nn.Module):
    """The embedding of the sample's user, whatever was clicked; zero for unknown users.

    Unlike :class:`~graphmeta.nn.features.tables.UserFeatures`, a user without events keeps its initial row.

    Shapes: ``[E, D] -> [S, width]``.
    """

    def __init__(self, num_users: int, width: int) -> None:
        super().__init__()
        self.user = Table(num_users, width)

    def knows(self, user: Tensor) -> Tensor:
        """Whether each user has a row, ``[S]``."""
        return user >= 0

    def extend_users(self, users: EntityTable) -> None:
        """Refuse new users: a vector is learned from a user's events.

        Raises:
            InputError: always.
        """
        raise InputError(
            "a user's vector is learned from their events, so there is none for new users; build the system with them "
            "and train it on a log with their events"
        )

    def forward(self, states: Tensor, batch: HeteroData) -> Tensor:
        """One vector per sample."""
        user = batch["sample"].get("user")
        if user is None:
            return states.new_zeros(batch["sample"].num_nodes, self.user.width)
        return self.user(user.clamp(min=0)) * (user >= 0)[:, None]


class SoftAttention(nn.Module):
    """SR-GNN's readout: an attention-weighted sum of all clicks, concatenated with the last one:
    ``[Σ_i α_i h_i ; h_last]``.

    ``α_i = qᵀ σ(W_1 h_last + W_2 h_i + c)``; with ``normalised``, a softmax of it over the clicks; a repeated click
    counts each time.

    Shapes: ``[E, width] -> [S, 2·width]``. Source: SR-GNN eqs 6–7; TAGNN's code for the softmax.
    """

    def __init__(self, width: int, *, normalised: bool = False) -> None:
        super().__init__()
        self.normalised = normalised
        self.of_last, self.of_each = nn.Linear(width, width, bias=False), nn.Linear(width, width)
        self.score = nn.Linear(width, 1, bias=False)

    def forward(self, states: Tensor, batch: HeteroData) -> Tensor:
        """One vector per sample."""
        last, owner = Last()(states, batch), batch["event"].batch
        alpha = self.score(torch.sigmoid(self.of_last(last).index_select(0, owner) + self.of_each(states)))
        if self.normalised:
            alpha = softmax_of(alpha, owner, len(last))
        total = torch.zeros_like(last).index_add(0, owner, alpha * states)
        return torch.cat([total, last], 1)


def clicks_left(batch: HeteroData) -> Tensor:
    """Number of clicks of the sample after each click, ``[E]``: 0 for the last one."""
    last = batch["sample"].ptr[1:].index_select(0, batch["event"].batch) - 1
    return last - torch.arange(len(last), device=last.device)


def softmax_of(x: Tensor, owner: Tensor, size: int) -> Tensor:
    """Softmax of each column over the rows with the same owner, ``[E, D] -> [E, D]``; differentiable any number of
    times.
    """
    shape = (size, x.shape[1])
    top = x.new_full(shape, -torch.inf).scatter_reduce(0, owner[:, None].expand_as(x), x.detach(), "amax")
    weight = (x - top.index_select(0, owner)).exp()
    total = x.new_zeros(shape).index_add(0, owner, weight)
    return weight / total.index_select(0, owner)
