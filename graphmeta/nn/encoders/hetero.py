"""A session as a heterogeneous graph of the session, its items and their attributes.

Node types are ``session``, ``item`` and one per attribute (``field_brand``, …). A round has two halves: messages from
items to sessions and attributes, then messages to items from each other, their session and their attributes. One round
thus passes information between items of the same brand. The attributes are those of the graph from which
:class:`~graphmeta.sampling.subgraph.SubgraphSampler` makes the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.nn import GATConv, HeteroConv, HGTConv, SAGEConv

from graphmeta.data.column_types import Categorical, Column, Several
from graphmeta.data.column_types.values import node_names
from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError
from graphmeta.nn.extending import grown, set_weight
from graphmeta.nn.features.tables import Table, field_name
from graphmeta.nn.readout import Mean
from graphmeta.sampling.batch_rows import NEXT
from graphmeta.sampling.neighbourhood import Neighbourhood

Relation = tuple[str, str, str]
States = dict[str, Tensor]
Edges = dict[Relation, Tensor]
Messages = Callable[[int, list[Relation]], nn.Module]

BACK: Relation = ("item", "back", "item")
CONTAINED_IN: Relation = ("item", "contained_in", "session")
CONTAINS: Relation = ("session", "contains", "item")


def mean_messages(width: int, relations: list[Relation]) -> nn.Module:
    """``m_v = Σ_r W_r mean_{u →r v} h_u + b_r``. Source: R-GCN (Schlichtkrull et al. 2018), eq 2."""
    return HeteroConv({r: SAGEConv((width, width), width, root_weight=False) for r in relations}, aggr="sum")


def attention_messages(width: int, relations: list[Relation], *, heads: int = 2) -> nn.Module:
    """``m_v = Σ_r Σ_{u →r v} α_uv W_r h_u``, α a softmax over u for each relation. Source: GAT; HAN's lower level."""
    if width % heads:
        raise InputError(f"width={width} must be a multiple of {heads}, the number of heads")
    conv = partial(GATConv, (width, width), width // heads, heads=heads, add_self_loops=False)
    return HeteroConv({r: conv() for r in relations}, aggr="sum")


def transformer_messages(width: int, relations: list[Relation], *, heads: int = 2) -> nn.Module:
    """One softmax over all relations at once, with keys and values by kind and relation. Source: HGT (Hu et al. 2020).

    Concatenates the rows of all types into one block, which is not laid out by task: tasks adapt one by one.
    """
    kinds = sorted({kind for source, _, target in relations for kind in (source, target)})
    return HGTConv(width, width, (kinds, relations), heads=heads)


MESSAGES: dict[str, Messages] = {  # their names on the command line and in build specs
    "mean": mean_messages,
    "attention": attention_messages,
    "transformer": transformer_messages,
}


class Round(nn.Module):
    """One round: each half passes messages along its edges and updates its targets with a GRU cell per node type.

    Shapes: states of each kind ``[rows, width]`` -> the same.
    """

    def __init__(self, width: int, relations: list[Relation], messages: Messages) -> None:
        super().__init__()
        self.messages = messages(width, relations)
        self.cells = nn.ModuleDict({kind: nn.GRUCell(width, width) for kind in dict.fromkeys(r[2] for r in relations)})

    def forward(self, states: States, halves: tuple[Edges, ...]) -> States:
        """The new states of all node types."""
        for edges in halves:
            messages = self.messages(states, edges)
            targets = dict.fromkeys(target for _, _, target in edges)
            states = {**states, **{kind: self.cells[kind](messages[kind], states[kind]) for kind in targets}}
        return states


class HeteroSession(nn.Module):
    """Gated message passing over a session, its items and their attributes; a click's state is its item's.

    The session state starts as the mean of its clicks' item vectors, an attribute value as its row in a table. In each
    round ``h_s, h_a ← GRU(messages from items, h)``, then
    ``h_i ← GRU(messages along next and back, from the session and from the attributes, h_i)``. The session state
    ignores order and reaches its items in each round, so it is not concatenated to the states again; the head's readout
    adds the dependence on the last click.

    Args:
        attributes: of the items, a node type each, with one value per item or several; an item without a value has its
            own node, "unknown". Their values and edges come with the batch.
        steps: rounds, each with its own weights.
        messages: message function of a round, ``(width, relations) -> module`` whose ``forward`` is that of PyG's
            ``HeteroConv``: one of :data:`MESSAGES`, or a custom one.

    Shapes: ``x [I, width] -> [E, width]``.
    Source: relational message passing (Schlichtkrull et al. 2018) with SR-GNN's gate, over the session graph with its
    attributes. Differs: attribute nodes belong to one sample, as its items do, so samples exchange no messages.
    """

    def __init__(
        self,
        width: int,
        attributes: Mapping[str, Categorical | Several],
        *,
        steps: int = 1,
        messages: Messages = mean_messages,
    ) -> None:
        super().__init__()
        self.neighbourhood = Neighbourhood(attributes=tuple(attributes), unknown=True)
        self.nodes = {field_name(name): node for name, node in node_names("item", attributes).items()}
        self.fields = nn.ModuleDict(
            {kind: Table(one.size, width) for kind, one in zip(self.nodes, attributes.values(), strict=True)}
        )
        relations = [NEXT, BACK, CONTAINED_IN, CONTAINS]
        relations += [relation for kind in self.nodes for relation in (_has(kind), _of(kind))]
        self.rounds = nn.ModuleList(Round(width, relations, messages) for _ in range(steps))
        self.mean = Mean()

    def reads_column(self, name: str, column: Column) -> bool:
        """Whether it is a categorical column, with one value per row or several."""
        return column.kind in (Categorical.kind, Several.kind)

    def extend_items(self, items: EntityTable) -> None:
        """Take over values that only further items have; such a value counts as unknown."""
        for name, column in items.categories.items():
            if (kind := field_name(name)) in self.fields:
                weight = self.fields[kind].get_parameter("weight").detach()
                set_weight(self.fields[kind], "weight", grown(weight, column.size, like=weight[0]))

    def forward(self, x: Tensor, batch: HeteroData) -> Tensor:
        """States of the clicks."""
        states = {"item": x, "session": self.mean(x.index_select(0, batch["event"].item), batch)}
        states |= {kind: self.fields[kind](batch[node].n_id) for kind, node in self.nodes.items()}
        edges = session_edges(batch, self.nodes)
        for one in self.rounds:
            states = one(states, edges)
        return states["item"].index_select(0, batch["event"].item)


def session_edges(batch: HeteroData, nodes: Mapping[str, str]) -> tuple[Edges, Edges]:
    """Edges to sessions and attributes, and edges to items; one session edge per click.

    Args:
        nodes: the node type in the batch of each kind.
    """
    contains = torch.stack([batch["event"].batch, batch["event"].item])
    step = batch[NEXT].edge_index
    inward: Edges = {CONTAINED_IN: contains.flip(0)}
    outward: Edges = {NEXT: step, BACK: step.flip(0), CONTAINS: contains}
    for kind, node in nodes.items():
        has = batch["item", "has", node].edge_index
        inward[_has(kind)], outward[_of(kind)] = has, has.flip(0)
    return inward, outward


def _has(kind: str) -> Relation:
    return ("item", "has", kind)


def _of(kind: str) -> Relation:
    return (kind, "of", "item")
