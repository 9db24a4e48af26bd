"""A single task takes no stack and no loop of its own: the same answers, and nothing is asked of the item table."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from graphmeta.adapt.adaptation import Adaptation
from graphmeta.adapt.scope import Scope
from graphmeta.adapt.step import Gradient
from graphmeta.nn.encoders.gated_graph import GatedSessionGraph
from graphmeta.nn.features.tables import ItemFeatures
from graphmeta.nn.heads.dot import Dot
from graphmeta.nn.readout import Last
from graphmeta.published.catalogue import build
from graphmeta.recommender import Recommender
from graphmeta.sampling.samples import last_clicks
from graphmeta.system import System
from graphmeta.testing import fake_log

LOG = fake_log(sessions=60)
SYSTEMS = [
    ("maml", {"order": 2, "steps": 2}),
    ("maml", {"learned": True}),
    ("melu", {}),
    ("mamo", {"scope": "predictor"}),
    ("meta_hin", {}),
    ("cbml", {"scope": "predictor"}),
    ("cbml", {"scope": "attention", "steps": 2}),
    ("cbml", {"scope": "all"}),  # with the item table
    ("multi_ft", {"base": "niser"}),  # with the item table, and cosines
    ("cbml", {"scope": "predictor", "gate_scope": "sample"}),
]


def system_of(name, options):
    torch.manual_seed(0)
    system = build(name, LOG.items, width=6, lr=0.3, **options).double()
    system.fit_statistics(LOG)
    return system


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("name", "options"), SYSTEMS)
def test_one_session_is_scored_as_among_others_and_in_the_loop(name, options):
    system, samples = system_of(name, options), last_clicks(LOG).take(slice(0, 3))
    together = system.scores(samples)
    alone = torch.cat([system.scores(samples.take([row])) for row in range(3)])
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-9)
    system.adaptation.stacked = False
    torch.testing.assert_close(system.scores(samples.take([1])), alone[1:2], rtol=0, atol=1e-9)
    system.adaptation.steps = 0
    assert not torch.allclose(system.scores(samples.take([1])), alone[1:2], atol=1e-6)


@pytest.mark.parametrize(("name", "options"), SYSTEMS)
def test_in_32_bits_it_is_the_loop_of_64(name, options):
    system, samples = system_of(name, options).float(), last_clicks(LOG).take([2])
    found = system.scores(samples)
    exact = system.double()
    exact.adaptation.stacked = False
    scores = exact.scores(samples)
    torch.testing.assert_close(found.double(), scores, rtol=1e-6, atol=1e-6 * max(1.0, float(scores.abs().max())))


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.usefixtures("float64")
def test_one_task_trains_as_in_the_loop(order):
    system, samples = system_of("cbml", {"scope": "attention", "order": order}), last_clicks(LOG).take([4])
    found = []
    for stacked in (True, False):
        system.adaptation.stacked = stacked
        system.zero_grad()
        system.eval().losses(samples).sum().backward()
        found.append([torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in system.parameters()])
    for ours, loop in zip(*found, strict=True):
        torch.testing.assert_close(ours, loop, rtol=0, atol=1e-9)


def test_a_session_costs_three_products_with_the_table():
    """The support's scores, the gradient of its queries, the ranking; no gradient of the table."""
    counts = []
    logs = [fake_log(sessions=60, items=items) for items in (40, 100)]
    for log in logs:
        torch.manual_seed(0)
        system = build("cbml", log.items, width=6, scope="predictor").eval()
        samples = last_clicks(log).take([0])
        with FlopCounterMode(display=False) as counter:
            system.scores(samples)
        counts.append(counter.get_total_flops())
    support = int(samples.lengths[0]) - 1
    assert counts[1] - counts[0] == 2 * 6 * (logs[1].num_items - logs[0].num_items) * (support + support + 1)


def test_an_operation_without_a_handler_costs_one_session_nothing(recwarn):
    class Unknown(GatedSessionGraph):
        def forward(self, x, batch):
            return torch.einsum("ij,jk->ik", super().forward(x, batch), self.weight)

    encoder = Unknown(6)
    encoder.weight = nn.Parameter(torch.randn(6, 6))
    adaptation = Adaptation(Scope("encoder"), step=Gradient(0.1))
    system = System(Recommender(ItemFeatures(LOG.num_items, 6), encoder, Dot(Last())), LOG.items, adaptation=adaptation)
    scores = system.scores(last_clicks(LOG).take([0]))
    assert not adaptation.fell_back and not recwarn.list
    adaptation.stacked = False
    torch.testing.assert_close(system.scores(last_clicks(LOG).take([0])), scores)


def test_parts_are_left_in_the_mode_they_were_in():
    system = system_of("cbml", {"scope": "predictor"}).float()
    system.eval().recommender.encoder.train()
    modes = [part.training for part in system.modules()]
    one, other = (system.scores(last_clicks(LOG).take(np.array([0]))) for _ in range(2))
    assert torch.equal(one, other)  # no dropout
    assert [part.training for part in system.modules()] == modes
