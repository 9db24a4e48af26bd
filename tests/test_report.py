"""What is told of a model is what was measured."""

import torch

from graphmeta.cli.model_card import titles
from graphmeta.evaluation.adaptation_curves import by_steps
from graphmeta.evaluation.compare import baselines, compare
from graphmeta.evaluation.protocol import KS
from graphmeta.evaluation.ranking import evaluate
from graphmeta.published.catalogue import build
from graphmeta.sampling.samples import last_clicks
from graphmeta.testing import fake_log

LOG = fake_log(sessions=30)


def test_without_steps_a_system_answers_from_its_start_gate_and_all():
    torch.manual_seed(0)
    system = build("cbml", LOG.items, base="sr_gnn", width=8, lr=20.0)
    with torch.no_grad():  # a gate that says something
        for parameter in system.adaptation.start.parameters():
            parameter.normal_()
    queries = last_clicks(LOG)
    found = compare(system, queries, past=LOG, models=baselines(LOG), bar=lambda rows, _: rows)
    start = by_steps(system, queries, steps=[0], ks=KS).results[0]
    assert torch.equal(found["without_steps"].ranks, start.ranks)
    assert torch.equal(found["system"].ranks, evaluate(system, queries, ks=KS).ranks)
    adaptation, system.adaptation = system.adaptation, None
    plain = evaluate(system, queries, ks=KS).ranks
    assert not torch.equal(start.ranks, plain)
    assert not torch.equal(start.ranks, found["system"].ranks)
    assert adaptation.steps == 1
    assert titles("cbml", found)["without_steps"] == "cbml, without inner steps"
