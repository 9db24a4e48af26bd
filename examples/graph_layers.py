"""PyG models over all node types around a session, from a CSV file to recommendations: HGTConv and to_hetero.

    python examples/graph_layers.py

The graph around a session: its items, the user and their earlier sessions, followers of items, and attribute values.
"""

from torch import nn
from torch_geometric.nn import GraphSAGE, HGTConv, to_hetero

import graphmeta as gm
from graphmeta.sampling.neighbourhood import Neighbourhood
from graphmeta.sampling.session_batch import rows_like

SESSIONS, WIDTH = 1_500, 16


class AllNodes(nn.Module):
    """A PyG model of ``(x_dict, edge_index_dict)``; ``layer(width, metadata)`` makes it."""

    neighbourhood = Neighbourhood(history=3, follows=4, attributes=True)

    def __init__(self, width, graph, layer):
        super().__init__()
        named = [kind for kind in graph.node_types if kind not in ("session", "item")]  # users and attribute values
        self.tables = nn.ModuleDict({kind: nn.Embedding(graph[kind].num_nodes + 1, width) for kind in named})
        self.relations = graph.edge_types
        both = [*self.relations, *((target, f"rev_{kind}", source) for source, kind, target in self.relations)]
        self.layer = layer(width, (graph.node_types, both))

    def forward(self, x, batch):  # item vectors [I, width] -> click states [E, width]
        states = {kind: table(batch[kind].n_id + 1) for kind, table in self.tables.items()}  # row 0: an unknown user
        begin = x.new_zeros(batch["session"].num_nodes, x.shape[1])
        states |= {"item": x, "session": rows_like(begin, batch["session"].batch)}
        edges = {kind: batch[kind].edge_index for kind in self.relations}
        edges |= {(target, f"rev_{kind}", source): index.flip(0) for (source, kind, target), index in edges.items()}
        return (x + self.layer(states, edges)["item"])[batch["event"].item]


def hgt(width, metadata):
    return HGTConv(width, width, metadata, heads=2)


def sage(width, metadata):
    return to_hetero(GraphSAGE(width, width, num_layers=2), metadata)


def system_of(items, users, graph, layer=sage, scope=("encoder", "head")):
    """The encoder in a system; it adapts to a session's clicks (all sessions at once, with hgt one by one)."""
    head = gm.nn.Dot(gm.nn.SoftAttention(WIDTH), nn.Linear(2 * WIDTH, WIDTH, bias=False))
    recommender = gm.Recommender(gm.nn.ItemFeatures(len(items), WIDTH), AllNodes(WIDTH, graph, layer), head)
    adaptation = gm.Adaptation(gm.Scope(*scope), step=gm.Gradient(0.1), steps=1, order=2)
    return gm.System(recommender, items, users=users, adaptation=adaptation)


if __name__ == "__main__":
    bundled = gm.datasets.complete_journey()
    bundled.before(bundled.starts[SESSIONS]).to_frame().to_csv("clicks.csv", index=False)

    log = gm.EventLog.read("clicks.csv", session="session", item="item", time="time", user="user")
    split = gm.split_by_time(log, test=0.2)
    train = split.train
    system = system_of(train.items, train.users, train.graph)
    list(gm.train(system, train, epochs=1, optimizer=gm.Adam(lr=5e-3), seed=0))
    print("hit@20", round(100 * gm.evaluate(system, split.test, history=split).metrics["hit@20"], 2))

    system.save("graph_layers")  # weights and ids, not the log
    system = gm.load("graph_layers", build=lambda items: system_of(items, train.users, train.graph), graph=train)
    session = log.items.ids[:2].tolist()
    print("known user", system.recommend(session, k=3, user=log.users.ids[0]))
    print("new user", system.recommend(session, k=3, user="new", history=[session, session]))
