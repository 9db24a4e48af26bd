"""Gated starts: what each granularity multiplies, and what the gate may see."""

import pytest
import torch

from graphmeta.nn.conditioning.gate import Column, Full, Rank1, Row
from graphmeta.published.catalogue import build
from graphmeta.testing import fake_log

LOG = fake_log(sessions=60)


@pytest.mark.parametrize(
    ("granularity", "dense"),
    [
        (Full(), lambda gate, w: gate.reshape(w.shape)),
        (Row(), lambda gate, w: gate[:, None].expand_as(w)),
        (Column(), lambda gate, w: gate[None, :].expand_as(w)),
        (Rank1(), lambda gate, w: gate[: w.shape[0], None] * gate[None, w.shape[0] :]),
    ],
)
def test_granularity(granularity, dense):
    weight = torch.randn(3, 5)
    gate = torch.rand(2, granularity.size(weight))
    spread = granularity.spread(gate, weight) * torch.ones(2, 3, 5)
    for task in range(2):
        torch.testing.assert_close(spread[task], dense(gate[task], weight))


def test_column_scales_the_input_and_row_the_output():
    weight, x = torch.randn(3, 5), torch.randn(5)
    gate = torch.rand(1, 5)
    torch.testing.assert_close((weight * Column().spread(gate, weight))[0] @ x, weight @ (gate[0] * x))
    gate = torch.rand(1, 3)
    torch.testing.assert_close((weight * Row().spread(gate, weight))[0] @ x, gate[0] * (weight @ x))


@pytest.mark.parametrize("granularity", [Full(), Row(), Column(), Rank1()])
def test_every_gate_gets_a_gradient(granularity):
    torch.manual_seed(0)
    system = build("cbml", LOG.items, width=6)
    system.adaptation.start.granularity = granularity
    system.adaptation.start.gates.clear()
    system.adaptation.bind(system.recommender)
    system.losses(system.training_samples(LOG).take(slice(0, 8))).mean().backward()
    for gate in system.adaptation.start.gates.values():
        assert gate.weight.grad.abs().sum() > 0 and gate.bias.grad.abs().sum() > 0
