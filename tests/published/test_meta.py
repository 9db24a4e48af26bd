"""CBML's oracles: what it is when its parts are switched off."""

import pytest
import torch

from graphmeta.batch import last_clicks, session_batch
from graphmeta.published import build
from graphmeta.testing import fake_log

LOG = fake_log(sessions=40)


def cbml_like(base, **arguments):
    """CBML whose IF-SAN part holds the weights of ``base`` and whose cluster block is zero."""
    system = build("cbml", LOG.items, width=6, **arguments)
    own, others = system.recommender.state_dict(), base.recommender.state_dict()
    for name in own:
        if name in others and name != "head.project.weight":
            own[name] = others[name]
    own["head.project.weight"] = torch.cat([others["head.project.weight"], torch.zeros(6, 6)], 1)
    system.recommender.load_state_dict(own)
    return system


def open_gates(system):
    for gate in system.adaptation.start.gates.values():
        torch.nn.init.zeros_(gate.weight)
        torch.nn.init.constant_(gate.bias, 100.0)


@torch.no_grad()
def test_cbml_with_everything_off_is_if_san():
    torch.manual_seed(0)
    base = build("if_san", LOG.items, width=6)
    system = cbml_like(base, lr=0.0)
    open_gates(system)
    samples = last_clicks(LOG)
    torch.testing.assert_close(system.scores(samples), base.scores(samples))


@torch.no_grad()
def test_the_gate_is_what_differs():
    torch.manual_seed(0)
    base = build("if_san", LOG.items, width=6)
    samples = last_clicks(LOG)
    assert not torch.allclose(cbml_like(base, lr=0.0).scores(samples), base.scores(samples))


@torch.no_grad()
def test_one_cluster_has_one_centre_for_all():
    torch.manual_seed(0)
    system = build("cbml", LOG.items, width=6, clusters=1)
    batch = session_batch(last_clicks(LOG), num_items=LOG.num_items)
    centre = system.recommender.summary(batch)[:, -6:]
    centres = system.recommender.head.project.prototypes.centres
    torch.testing.assert_close(centre, centres.expand_as(centre))


@pytest.mark.parametrize("name", ["maml", "melu", "cbml"])
def test_every_parameter_learns(name):
    torch.manual_seed(0)
    system = build(name, LOG.items, width=6)
    before = {n: p.detach().clone() for n, p in system.named_parameters()}
    optimizer = torch.optim.SGD(system.parameters(), lr=0.5)
    for rows in (slice(0, 40), slice(0, 40)):
        optimizer.zero_grad()
        system.losses(system.training_samples(LOG).take(rows)).mean().backward()
        optimizer.step()
    still = [n for n, p in system.named_parameters() if torch.equal(before[n], p)]
    assert not still


def test_melu_adapts_the_prediction_layer_alone():
    system = build("melu", LOG.items, width=6)
    assert system.adaptation.names == ["head.project.weight", "head.project.bias"]


def test_cbml_adapts_all_of_the_recommender_but_the_clusters():
    system = build("cbml", LOG.items, width=6)
    left_out = {n for n, _ in system.recommender.named_parameters()} - set(system.adaptation.names)
    assert left_out and all(name.startswith("head.project.prototypes") for name in left_out)
