"""Message passing over a user, their earlier sessions, the present clicks and the items of both."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.nn import HeteroConv, SAGEConv

from graphmeta.nn.encoders.hetero import Edges, Relation, States
from graphmeta.nn.readout import clicks_left
from graphmeta.sampling.neighbourhood import Neighbourhood
from graphmeta.sampling.session_batch import rows_like
from graphmeta.sampling.user_histories import DAY

IN_SESSION: Relation = ("item", "in", "session")
IN_EVENT: Relation = ("item", "in", "event")
OF_SESSION: Relation = ("session", "of", "user")
OF_EVENT: Relation = ("event", "of", "user")
OWNS_SESSION: Relation = ("user", "owns", "session")
OWNS_EVENT: Relation = ("user", "owns", "event")
SESSION_HAS: Relation = ("session", "has", "item")
EVENT_HAS: Relation = ("event", "has", "item")
RELATIONS = [IN_SESSION, IN_EVENT, OF_SESSION, OF_EVENT, OWNS_SESSION, OWNS_EVENT, SESSION_HAS, EVENT_HAS]


class SumRound(nn.Module):
    """One round of GraphSAGE with sums: ``h_v ← ReLU(LayerNorm(W_0 h_v + Σ_r W_r Σ_{u →r v} h_u))``, step by step.

    Shapes: states of each node type ``[rows, width]`` -> the same.
    """

    def __init__(self, width: int, relations: list[Relation]) -> None:
        super().__init__()
        conv = partial(SAGEConv, (width, width), width, aggr="sum", root_weight=False, bias=False)
        self.messages = HeteroConv({r: conv() for r in relations}, aggr="sum")
        kinds = list(dict.fromkeys(target for _, _, target in relations))
        self.own = nn.ModuleDict({kind: nn.Linear(width, width) for kind in kinds})
        self.norm = nn.ModuleDict({kind: nn.LayerNorm(width) for kind in kinds})

    def forward(self, states: States, steps: tuple[Edges, ...]) -> States:
        """The new states of all node types."""
        for edges in steps:
            messages = self.messages(states, edges)
            targets = dict.fromkeys(target for _, _, target in edges)
            new = {kind: self.norm[kind](self.own[kind](states[kind]) + messages[kind]).relu() for kind in targets}
            states = {**states, **new}
        return states


class UserSubgraph(nn.Module):
    """GraphSAGE on the sub-graph of a query: the user, their earlier sessions, the present clicks, and the items.

    A round passes messages from items to sessions and clicks, from these to the user, and back to sessions and clicks,
    then to items. Items start as their vectors, earlier sessions and clicks as a linear function of their age, the user
    as one vector ρ that all users share: an item's state depends on what this user did with it, and how often, not on
    who the user is.

    Args:
        history: earlier sessions that are read, the latest.
        rounds: of message passing, each with its own weights.

    Shapes: ``x [I, width] -> [E, width]``; :meth:`of_items`: the states of all items of the sub-graph, ``[I, width]``.
    Source: GraphSAGE with sums on a temporal sub-graph and ID-awareness of the root (You et al. 2021), as in Robinson
    et al. 2024 and ContextGNN (Yuan et al. 2025).
    Differs: the steps of a round follow each other, where theirs are simultaneous.
    """

    def __init__(self, width: int, *, history: int = 50, rounds: int = 1) -> None:
        super().__init__()
        self.neighbourhood = Neighbourhood(history=history)
        self.root = nn.Parameter(torch.empty(width).uniform_(-(width**-0.5), width**-0.5))
        self.of_session, self.of_click = nn.Linear(2, width), nn.Linear(1, width)
        self.rounds = nn.ModuleList(SumRound(width, RELATIONS) for _ in range(rounds))

    def of_items(self, x: Tensor, batch: HeteroData) -> Tensor:
        """States of all items of each sub-graph."""
        sample, event = batch["sample"], batch["event"]
        user = rows_like(x.new_zeros(sample.num_nodes, 1), sample.last) + self.root
        left = clicks_left(batch).to(x.dtype)[:, None]
        states = {"item": x, "user": user, "event": self.of_click(torch.log1p(left) / 4)}
        states["session"] = self.of_session(_session_ages(batch, x.dtype))
        steps = _steps(batch, event)
        for one in self.rounds:
            states = one(states, steps)
        return states["item"]

    def forward(self, x: Tensor, batch: HeteroData) -> Tensor:
        """States of the clicks."""
        return self.of_items(x, batch).index_select(0, batch["event"].item)


def _session_ages(batch: HeteroData, dtype: torch.dtype) -> Tensor:
    """``log(1 + days) / 4`` since each earlier session, and ``log(1 + sessions ago) / 4``, ``[H, 2]``."""
    session = batch["session"]
    count = torch.zeros(batch["sample"].num_nodes, dtype=torch.int64, device=session.batch.device)
    count = count.index_add(0, session.batch, torch.ones_like(session.batch))
    ago = count.index_select(0, session.batch) - session.order
    days = session.age.clamp(min=0) / DAY
    return torch.stack([torch.log1p(days).to(dtype), torch.log1p(ago.to(dtype))], 1) / 4


def _steps(batch: HeteroData, event: HeteroData) -> tuple[Edges, ...]:
    """The edges of each step of a round: to sessions and clicks, to users, back to sessions and clicks, to items."""
    owns, has = (batch[r].edge_index for r in (("user", "owns", "session"), ("session", "contains", "item")))
    click = torch.arange(len(event.item), device=event.item.device)
    clicked, made = torch.stack([click, event.item]), torch.stack([event.batch, click])
    return (
        {IN_SESSION: has.flip(0), IN_EVENT: clicked.flip(0)},
        {OF_SESSION: owns.flip(0), OF_EVENT: made.flip(0)},
        {OWNS_SESSION: owns, OWNS_EVENT: made},
        {SESSION_HAS: has, EVENT_HAS: clicked},
    )
