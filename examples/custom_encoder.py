"""Your own encoder, meta-trained: a plain module around PyG's GATv2Conv, checked, then wrapped by an adaptation.

    python examples/custom_encoder.py

An encoder is any module with ``forward(x, batch)``: vectors of the batch's item rows in, one state a click out.
There is nothing to inherit from and nothing to register.
"""

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.nn import GATv2Conv

from graphmeta.adapt.adaptation import Adaptation
from graphmeta.adapt.scope import Scope
from graphmeta.adapt.step import Gradient
from graphmeta.batch import last_clicks
from graphmeta.datasets import complete_journey
from graphmeta.evaluate import evaluate
from graphmeta.nn.features import ItemFeatures
from graphmeta.nn.head import Dot
from graphmeta.nn.readout import SoftAttention
from graphmeta.recommender import Recommender
from graphmeta.splits import split_by_time
from graphmeta.system import System
from graphmeta.testing import check_encoder
from graphmeta.train import Adam, train

SESSIONS, EPOCHS, WIDTH = 1_500, 1, 16


class GATv2Encoder(nn.Module):
    """Attention along the clicks of a session, added to the item vectors."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolution = GATv2Conv(width, width, heads=2, concat=False)

    def forward(self, x: Tensor, batch: HeteroData) -> Tensor:
        """Vectors of the item rows ``[I, width]`` to states of the clicks ``[E, width]``."""
        edges = batch["item", "next", "item"].edge_index
        x = x + torch.relu(self.convolution(x, edges))
        return x[batch["event"].item]


# Shapes, no leak between samples, all tasks at once = one by one, right second-order gradients.
check = check_encoder(GATv2Encoder)
print(check)
assert check.ok

log = complete_journey()
split = split_by_time(log.before(log.starts[SESSIONS]), test=0.1, valid=0.1)
items = split.train.items

torch.manual_seed(0)
head = Dot(SoftAttention(WIDTH), nn.Linear(2 * WIDTH, WIDTH, bias=False))
recommender = Recommender(ItemFeatures(len(items), WIDTH), GATv2Encoder(WIDTH), head)

# Every session gets an encoder and a head of its own, one gradient step away from the shared ones.
adaptation = Adaptation(Scope("encoder", "head"), step=Gradient(0.05), steps=1, order=2)
system = System(recommender, items, adaptation=adaptation)

for report in train(system, split.train, epochs=EPOCHS, optimizer=Adam(lr=5e-3), valid=split.valid, seed=0):
    print(f"epoch {report.epoch + 1}: query loss {report.loss:.3f}, validation MRR@20 {report.valid['mrr@20']:.4f}")

found = evaluate(system, last_clicks(split.test), ks=(5, 20))
print(f"{found.samples} test sessions: Hit@20 {found.metrics['hit@20']:.4f}, MRR@20 {found.metrics['mrr@20']:.4f}")
