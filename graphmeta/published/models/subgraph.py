"""Systems that score the items of a user's sampled sub-graph by message passing."""

from __future__ import annotations

from functools import partial

from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError
from graphmeta.nn.encoders.user_subgraph import UserSubgraph
from graphmeta.nn.features.tables import ItemFeatures
from graphmeta.nn.heads.pair import PairHead
from graphmeta.published.registry import published
from graphmeta.recommender import SubgraphRecommender
from graphmeta.sampling.baskets import next_items, validation_mix
from graphmeta.system import System


@published("Yuan et al. 2025, ContextGNN", family="graph", equations="sections 3.1-3.3")
def context_gnn(
    items: EntityTable, *, width: int = 64, history: int = 50, rounds: int = 1, empty: float = 0.1
) -> System:
    """ContextGNN: message passing scores the items of the user's sub-graph, two towers score all others.

    With h_u the state of the user, h_i that of an item of the sub-graph, q = P h_u, and e_i the vectors of a table:

        score_i = h_u · h_i + w · h_i + a · q + b     for an item i of the sub-graph,
        score_i = q · e_i + a' · q + b'               for any other item;

    the two offsets learn, from the user's state, how likely it is that the user stays with known items. The sub-graph
    has the present clicks, and the ``history`` latest earlier sessions of the user with their items; see
    :class:`~graphmeta.nn.encoders.user_subgraph.UserSubgraph`. For a user without earlier sessions it has the present
    clicks alone.

    Args:
        width: d.
        history: earlier sessions that are read.
        rounds: of message passing.
        empty: how much of the training is to predict the items of a session before its first click, from 0 to 1, see
            :func:`~graphmeta.sampling.baskets.next_items`; 1 for next baskets. If it is more than half, the epoch is
            chosen by as large a share of such queries.

    Raises:
        InputError: a share outside [0, 1].

    Source: Yuan et al., ContextGNN: Beyond Two-Tower Recommendation Systems, ICLR 2025.
    Differs: the sub-graph is of sessions, clicks and items (a transaction table is not a node type), without columns of
    items and users; h_u is computed from the states of the items; the softmax is over the whole catalogue.
    """
    return _of_subgraph(items, width, history, rounds, empty=empty, towers=True)


@published("You et al. 2021, ID-GNN (of Robinson et al. 2024)", family="graph", equations="algorithm 1")
def id_gnn(items: EntityTable, *, width: int = 64, history: int = 50, rounds: int = 1, empty: float = 0.1) -> System:
    """ID-GNN: message passing from a marked user scores the items of the user's sub-graph; all others are tied.

    ``score_i = h_u · h_i + w · h_i + a · q + b`` for an item of the sub-graph, ``a' · q + b'`` for any other, as in
    :func:`context_gnn`, whose arguments these are.

    Raises:
        InputError: a share outside [0, 1].

    Source: You et al., Identity-aware Graph Neural Networks, AAAI 2021; Robinson et al., RelBench, 2024, which ranks
    the items of the sub-graph by it.
    Differs: items outside the sub-graph have one score, computed from the user's state, so that the loss is a softmax
    over the catalogue, as that of :func:`context_gnn`; Robinson et al. have a binary loss over the items of the
    sub-graph.
    """
    return _of_subgraph(items, width, history, rounds, empty=empty, towers=False)


def _of_subgraph(items: EntityTable, width: int, history: int, rounds: int, *, empty: float, towers: bool) -> System:
    if not 0 <= empty <= 1:
        raise InputError(f"empty={empty!r} must be a share of the training samples, from 0 to 1")
    encoder, head = UserSubgraph(width, history=history, rounds=rounds), PairHead(width, towers=towers)
    system = System(SubgraphRecommender(ItemFeatures(len(items), width), encoder, head), items)
    system.samples = partial(next_items, empty=empty)
    if empty > 0.5:
        system.queries = partial(validation_mix, empty=empty)
    return system
