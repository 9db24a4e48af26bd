"""GCE-GNN: items exchange messages within the session and read their neighbours in a graph of all sessions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from graphmeta.nn.features.tables import Table
from graphmeta.nn.readout import Mean, clicks_left, softmax_of
from graphmeta.sampling.batch_rows import NEXT

SLOPE = 0.2  # of LeakyReLU below zero
OUT, IN, BOTH, SELF = range(4)  # types of session edges


class SessionAttention(nn.Module):
    """Attention over an item's neighbours in the session graph, with one weight vector per type of edge.

    ``h_i = Σ_j softmax_j(LeakyReLU(a_r(ij) · (x_i ⊙ x_j))) x_j`` over j that follow i (type out), precede it (in), do
    both, and i itself.

    Shapes: ``x [I, D] -> [I, D]``. Source: GCE-GNN (Wang et al. 2020) eqs 7–9.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.of_types = nn.Parameter(torch.empty(4, width).uniform_(-1, 1) / width**0.5)

    def forward(self, x: Tensor, batch: HeteroData) -> Tensor:
        """The new vectors of the items."""
        centre, neighbour, kind, valid = typed_edges(batch)
        weighted = x[:, None] * self.of_types  # per item, not per edge: per-task weights need the rows of the batch
        product = (weighted.index_select(0, centre) * x.index_select(0, neighbour)[:, None]).sum(2)
        logit = F.leaky_relu((product * F.one_hot(kind, 4)).sum(1, keepdim=True), SLOPE)
        weight = softmax_of(logit.masked_fill(~valid[:, None], -torch.inf), centre, len(x))
        return torch.zeros_like(x).index_add(0, centre, weight * x.index_select(0, neighbour))


def typed_edges(batch: HeteroData) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pairs of an item and a neighbour, the type of each, and whether it counts.

    A transition is a pair for both its ends, and each item is one with itself; pairs that would occur twice do not
    count the second time.

    Shapes: four of ``[2 · transitions + I]``.
    """
    (source, target), size = batch[NEXT].edge_index, len(batch["item"].n_id)
    itself = torch.arange(size, device=source.device)
    known, back = F.pad((source * size + target).sort().values, (1, 0), value=-1), target * size + source
    both = known[torch.searchsorted(known, back).clamp(max=len(known) - 1)] == back
    apart = source != target
    centre, neighbour = torch.cat([source, target, itself]), torch.cat([target, source, itself])
    outward = torch.where(both, BOTH, OUT)
    kind = torch.cat([outward, torch.full_like(source, IN), torch.full_like(itself, SELF)])
    valid = torch.cat([apart, apart & ~both, torch.ones_like(itself, dtype=torch.bool)])
    return centre, neighbour, kind, valid


class GlobalContext(nn.Module):
    """The sum of an item's vectors in the session graph and in the graph of all sessions; a click's state is its
    item's.

    In the graph of all sessions, ``h_i = ReLU(W_2 [e_i ; Σ_j π_ij e_j])`` with
    ``π_ij = softmax_j(q · LeakyReLU(W_1 [s ⊙ e_j ; w_ij]))`` over i's neighbours j, and s the mean vector of the
    session's clicks. The session level is :class:`SessionAttention`.

    Args:
        neighbours: k, neighbours per item in the input.
        dropout: of the vectors from the graph of all sessions.

    Shapes: ``x [I, (1 + k) · width + k] -> [E, width]``, x as in
    :class:`~graphmeta.nn.features.transitions.TransitionFeatures`.
    Source: GCE-GNN (Wang et al. 2020) eqs 2–10, with one hop. Differs: an item without neighbours has zero for their
    mean.
    """

    def __init__(self, width: int, *, neighbours: int = 12, dropout: float = 0.5) -> None:
        super().__init__()
        self.width, self.neighbours = width, neighbours
        self.local, self.mean = SessionAttention(width), Mean()
        self.of_session, self.of_weight = nn.Linear(width, width, bias=False), nn.Linear(1, width, bias=False)
        self.score = nn.Linear(width, 1, bias=False)
        self.mix = nn.Linear(2 * width, width, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, batch: HeteroData) -> Tensor:
        """States of the clicks."""
        own, around, weight = x[:, : self.width], x[:, self.width : -self.neighbours], x[:, -self.neighbours :]
        session = self.mean(own.index_select(0, batch["event"].item), batch)
        session = session.index_select(0, batch["item"].batch)
        context = self.context(session, around.unflatten(1, (self.neighbours, self.width)), weight)
        of_all = torch.relu(self.mix(torch.cat([own, context], 1)))
        return (self.local(own, batch) + self.dropout(of_all)).index_select(0, batch["event"].item)

    def context(self, session: Tensor, around: Tensor, weight: Tensor) -> Tensor:
        """The neighbours' mean by π: ``[I, D], [I, k, D], [I, k] -> [I, D]``; zero without neighbours."""
        hidden = self.of_session(session[:, None] * around) + self.of_weight(weight[:, :, None])
        score = self.score(F.leaky_relu(hidden, SLOPE)).squeeze(2)
        valid = weight > 0
        score = score.masked_fill(~valid & valid.any(1, keepdim=True), -torch.inf)
        share = torch.softmax(score, 1) * valid
        return torch.matmul(share[:, None], around).squeeze(1)


class PositionAttention(nn.Module):
    """A weighted sum of the clicks' states, whose weights read their positions, counted from the last click.

    ``Σ_i β_i h_i`` with ``β_i = q · σ(W_4 tanh(W_3 [h_i ; p_(l - i + 1)]) + W_5 mean_j h_j)``.

    Args:
        longest: number of positions with an embedding; earlier clicks share the last.

    Shapes: ``[E, width] -> [S, width]``. Source: GCE-GNN (Wang et al. 2020) eqs 11–14.
    """

    def __init__(self, width: int, *, longest: int = 50) -> None:
        super().__init__()
        self.place, self.longest, self.mean = Table(longest, width), longest, Mean()
        self.of_place = nn.Linear(2 * width, width)
        self.of_each, self.of_mean = nn.Linear(width, width), nn.Linear(width, width, bias=False)
        self.score = nn.Linear(width, 1, bias=False)

    def forward(self, states: Tensor, batch: HeteroData) -> Tensor:
        """One vector per sample."""
        place = self.place(clicks_left(batch).clamp(max=self.longest - 1))
        placed = torch.tanh(self.of_place(torch.cat([states, place], 1)))
        mean, owner = self.mean(states, batch), batch["event"].batch
        gate = torch.sigmoid(self.of_each(placed) + self.of_mean(mean).index_select(0, owner))
        return torch.zeros_like(mean).index_add(0, owner, self.score(gate) * states)
