"""Meta-train an encoder over the whole graph: the user's earlier sessions, followers of items, attributes.

    python examples/graph_encoder.py

An encoder with a ``neighbourhood`` gets batches with those stores; any PyG layer for ``HeteroData`` reads them.
"""

from torch import nn
from torch_geometric.nn import HeteroConv, SAGEConv

import graphmeta as gm
from graphmeta.sampling.neighbourhood import Neighbourhood
from graphmeta.testing import check_log

SESSIONS, WIDTH = 1_500, 16


class GraphEncoder(nn.Module):
    """Two rounds of mean messages along every edge type, both ways."""

    neighbourhood = Neighbourhood(history=3, follows=4, attributes=True)

    def __init__(self, width, graph):
        super().__init__()
        named = [kind for kind in graph.node_types if kind not in ("session", "item")]  # users and attribute values
        self.tables = nn.ModuleDict({kind: nn.Embedding(graph[kind].num_nodes + 1, width) for kind in named})
        kinds = [kind for kind in graph.edge_types if not kind[1].startswith("rev_")]
        self.relations = [gm.NEXT, *kinds]
        both = [*self.relations, *((target, f"rev_{kind}", source) for source, kind, target in self.relations)]
        self.rounds = nn.ModuleList(
            HeteroConv({kind: SAGEConv((width, width), width, root_weight=False) for kind in both}) for _ in range(2)
        )

    def forward(self, x, batch):  # item vectors [I, width] -> click states [E, width]
        states = {kind: table(batch[kind].n_id + 1) for kind, table in self.tables.items()}  # row 0: an unknown user
        states |= {"item": x, "session": x.new_zeros(batch["session"].num_nodes, x.shape[1])}
        edges = {kind: batch[kind].edge_index for kind in self.relations}
        edges |= {(target, f"rev_{kind}", source): index.flip(0) for (source, kind, target), index in edges.items()}
        for convolution in self.rounds:
            states = {kind: states[kind] + new.tanh() for kind, new in convolution(states, edges).items()}
        return states["item"][batch["event"].item]


if __name__ == "__main__":
    print(check := gm.check_encoder(lambda width: GraphEncoder(width, check_log().graph)))
    assert check.ok
    log = gm.datasets.complete_journey()
    split = gm.split_by_time(log.before(log.starts[SESSIONS]), test=0.2)
    items, graph = split.train.items, split.train.graph
    print({kind: graph[kind].num_nodes for kind in graph.node_types})
    head = gm.nn.Dot(gm.nn.SoftAttention(WIDTH), nn.Linear(2 * WIDTH, WIDTH, bias=False))
    recommender = gm.Recommender(gm.nn.ItemFeatures(len(items), WIDTH), GraphEncoder(WIDTH, graph), head)
    adaptation = gm.Adaptation(gm.Scope("encoder", "head"), step=gm.Gradient(0.1), steps=1, order=2)
    system = gm.System(recommender, items, users=split.train.users, adaptation=adaptation)
    list(gm.train(system, split.train, epochs=2, optimizer=gm.Adam(lr=5e-3), seed=0))
    metrics = gm.evaluate(system, split.test, history=split).metrics  # with the users' newer sessions
    print({name: round(100 * metrics[name], 2) for name in ("hit@20", "mrr@20")})
