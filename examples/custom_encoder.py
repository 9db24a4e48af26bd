"""Plug your own encoder into meta-training: check it, adapt it in three ways, and see what adapting brings.

    python examples/custom_encoder.py

An encoder is any module with ``forward(x, batch)``: vectors of the batch's item rows in, one state a click out.
There is nothing to inherit from and nothing to register. Writes ``out/adaptations.png``.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.nn import GATv2Conv

from graphmeta.adapt.adaptation import Adaptation
from graphmeta.adapt.scope import Scope
from graphmeta.adapt.start import Gated
from graphmeta.adapt.step import Gradient, LearnedRates
from graphmeta.batch import last_clicks
from graphmeta.curves import by_steps, by_support
from graphmeta.datasets import complete_journey
from graphmeta.evaluate import evaluate
from graphmeta.nn.features import ItemFeatures
from graphmeta.nn.head import Dot
from graphmeta.nn.readout import SoftAttention
from graphmeta.plots import adapting
from graphmeta.recommender import Recommender
from graphmeta.splits import split_by_time
from graphmeta.system import System
from graphmeta.testing import check_encoder
from graphmeta.train import Adam, train

SESSIONS, WIDTH = 1_500, 16


class GATv2Encoder(nn.Module):
    """Attention along the clicks of a session, added to the item vectors."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolution = GATv2Conv(width, width, heads=2, concat=False)

    def forward(self, x: Tensor, batch: HeteroData) -> Tensor:
        """Vectors of the item rows ``[I, width]`` to states of the clicks ``[E, width]``."""
        x = x + torch.relu(self.convolution(x, batch["item", "next", "item"].edge_index))
        return x[batch["event"].item]


def trained(adaptation: Adaptation | None, begin: System | None = None) -> System:
    """An epoch of training, from what another system has learned or from scratch."""
    torch.manual_seed(0)
    head = Dot(SoftAttention(WIDTH), nn.Linear(2 * WIDTH, WIDTH, bias=False))
    recommender = Recommender(ItemFeatures(len(items), WIDTH), GATv2Encoder(WIDTH), head)
    system = System(recommender, items, adaptation=adaptation)
    if begin is not None:
        system.start_from(begin)
    list(train(system, split.train, epochs=1, optimizer=Adam(lr=5e-3), seed=0))
    return system


# Shapes, no leak between samples, all tasks at once = one by one, right second-order gradients.
check = check_encoder(GATv2Encoder)
print(check)
assert check.ok

log = complete_journey()
split = split_by_time(log.before(log.starts[SESSIONS]), test=0.2)
items, asked = split.train.items, last_clicks(split.test)

# What a session changes, from where, and how: one line each. All go on from one plain training, and so does "none".
last, gate = Scope("head"), Gated(Scope("head.project"), 2 * WIDTH)
ways = {
    "head (ANIL)": Adaptation(last, step=Gradient(0.1), steps=2, order=2),
    "all but items, learned rates": Adaptation(Scope("encoder", "head"), step=LearnedRates(0.1), steps=2, order=2),
    "head, gated start": Adaptation(last, step=Gradient(0.1), start=gate, steps=2, order=2),
}
plain = trained(None)
none = evaluate(trained(None, plain), asked).metrics
systems = {name: trained(way, plain) for name, way in ways.items()}
steps = {name: by_steps(system, asked) for name, system in systems.items()}
support = {name: by_support(system, asked, support=(0, 1, 2, 5, 10)) for name, system in systems.items()}

print(f"\n{len(asked)} test sessions, in %            Hit@20   MRR@20   MRR@20 after 0, 1 … 5 steps")
print(f"{'none':30} {100 * none['hit@20']:8.2f} {100 * none['mrr@20']:8.2f}")
for name, curve in steps.items():
    found, each = curve.results[curve.own].metrics, (f"{100 * v:.2f}" for v in curve.values("mrr@20").values())
    print(f"{name:30} {100 * found['hit@20']:8.2f} {100 * found['mrr@20']:8.2f}   {' '.join(each)}")
adapting(steps, support, Path("out/adaptations.png"), baselines={"none": none})
