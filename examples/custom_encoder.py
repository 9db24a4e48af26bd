"""Meta-train a custom encoder: check it, adapt it in three ways, and measure what adaptation adds.

    python examples/custom_encoder.py

An encoder is any module with ``forward(x, batch)``; no base class, no registry. Writes ``out/adaptations.png``.
"""

from pathlib import Path

import torch
from torch import nn
from torch_geometric.nn import GATv2Conv

import graphmeta as gm
from graphmeta.adapt.starts.gated import Gated
from graphmeta.evaluation.adaptation_curves import by_steps, by_support
from graphmeta.plots.figures import adaptation_curves

SESSIONS, WIDTH = 1_500, 16


class GATv2Encoder(nn.Module):
    """Attention along the clicks of a session, added to the item vectors."""

    def __init__(self, width):
        super().__init__()
        self.convolution = GATv2Conv(width, width, heads=2, concat=False)

    def forward(self, x, batch):  # item vectors [I, width] -> click states [E, width]
        return (x + self.convolution(x, batch["item", "next", "item"].edge_index).relu())[batch["event"].item]


# Checks shapes, independence of samples, stacked = per-task loop, and second-order gradients.
print(check := gm.check_encoder(GATv2Encoder))
assert check.ok
log = gm.datasets.complete_journey()
split = gm.split_by_time(log.before(log.starts[SESSIONS]), test=0.2)
items, queries = split.train.items, gm.last_clicks(split.test)


def system(adaptation=None):
    torch.manual_seed(0)
    head = gm.nn.Dot(gm.nn.SoftAttention(WIDTH), nn.Linear(2 * WIDTH, WIDTH, bias=False))
    recommender = gm.Recommender(gm.nn.ItemFeatures(len(items), WIDTH), GATv2Encoder(WIDTH), head)
    return gm.System(recommender, items, adaptation=adaptation)


# Scope, step and start of each adaptation. None: one more epoch of plain training.
head, both, gate = gm.Scope("head"), gm.Scope("encoder", "head"), Gated(gm.Scope("head.project"), 2 * WIDTH)
systems = {
    "none": system(),
    "head (ANIL)": system(gm.Adaptation(head, step=gm.Gradient(0.1), steps=2, order=2)),
    "encoder, head, learned rates": system(gm.Adaptation(both, step=gm.LearnedRates(0.1), steps=2, order=2)),
    "head, gated start": system(gm.Adaptation(head, step=gm.Gradient(0.1), start=gate, steps=2, order=2)),
}
plain, found, steps, support = system(), {}, {}, {}
list(gm.train(plain, split.train, epochs=3, optimizer=gm.Adam(lr=5e-3), seed=0))
print(f"\n{len(queries)} test sessions, in %        Hit@20   MRR@20   MRR@20 after 0, 1 … 5 steps")
for name, each in systems.items():
    each.load_matching(plain)  # all start from the same trained weights
    list(gm.train(each, split.train, epochs=1, optimizer=gm.Adam(lr=2e-3), seed=0))
    found[name], curve = gm.evaluate(each, queries).metrics, ""
    if each.adaptation is not None:
        steps[name], support[name] = by_steps(each, queries), by_support(each, queries, support=(0, 1, 2, 5, 10))
        curve = "  ".join(f"{100 * value:.2f}" for value in steps[name].values("mrr@20").values())
    print(f"{name:30} {100 * found[name]['hit@20']:6.2f}   {100 * found[name]['mrr@20']:6.2f}   {curve}")
adaptation_curves(steps, support, Path("out/adaptations.png"), baselines={"none": found["none"]})
