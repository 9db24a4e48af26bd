"""Convert an event log to a PyTorch Geometric graph, print its node and edge types, and list one node's neighbours.

python examples/build_graph.py
"""

import graphmeta as gm
from graphmeta.data.graph import to_networkx

log = gm.datasets.complete_journey()
print(f"{log.num_events:,} events, {log.num_sessions:,} sessions, {log.num_items:,} items, {len(log.users):,} users")

# The graph of the training part only: it contains no event after the cut.
split = gm.split_by_time(log, test=0.1, valid=0.1)
graph = gm.build_graph(split.train)
assert graph.validate()

for kind in graph.node_types:
    print(f"  {kind:16} {graph[kind].num_nodes:>8,} nodes")
for edge in graph.edge_types:
    print(f"  {' '.join(edge):26} {graph[edge].num_edges:>8,} edges")

# Edges have attributes; here the number of transitions from one item to the next.
follows = graph["item", "follows", "item"]
strongest = int(follows.weight.argmax())
first, second = follows.edge_index[:, strongest].tolist()
items = split.train.items
count = follows.weight[strongest]
print(f"most frequent transition ({count:.0f} times): {items.describe(first)} -> {items.describe(second)}")

# The neighbours of one session, as networkx: nodes are (type, number), edges have their type as ``kind``.
near = to_networkx(graph, around=("session", 0))
print(f"session {split.train.sessions[0]} and its neighbours: {near.number_of_nodes()} nodes")
for _, (_, item), kind in sorted(near.out_edges(("session", 0), data="kind")):
    print(f"  {kind} {items.describe(item)}")

# Reverse edges, for message passing in both directions; any PyG layer or loader takes the result.
both = gm.build_graph(split.train, reverse=True)
print(f"{len(graph.edge_types)} edge types, {len(both.edge_types)} with their reverses")
