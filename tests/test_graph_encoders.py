"""Encoders over the whole graph, of PyG's own layers: checked, meta-trained stacked, and as the loop."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch_geometric.nn import HGTConv, SAGEConv, to_hetero

import graphmeta as gm
from graphmeta.errors import InputError
from graphmeta.nn.heads.dot import Dot
from graphmeta.nn.readout import Mean
from graphmeta.published.parts import with_score_terms
from graphmeta.recommender import Recommender
from graphmeta.sampling.neighbourhood import Neighbourhood
from graphmeta.sampling.session_batch import rows_like, session_batch
from graphmeta.sampling.subgraph import SubgraphSampler
from graphmeta.testing import check_encoder, check_log, fake_log

EXAMPLE = Path(__file__).parents[1] / "examples" / "graph_encoder.py"
GraphEncoder = runpy.run_path(str(EXAMPLE))["GraphEncoder"]
LOG = fake_log(sessions=60, items=12)


def relations_of(graph) -> list[tuple[str, str, str]]:
    both = [(source, kind, target) for source, kind, target in graph.edge_types]
    return [*both, *((target, f"rev_{kind}", source) for source, kind, target in both)]


class OfLayer(nn.Module):
    """Any PyG model of ``(x_dict, edge_index_dict)``: a row per user and value, sessions begin at zero."""

    neighbourhood = Neighbourhood(history=2, follows=2, attributes=True)

    def __init__(self, width: int, graph, layer: nn.Module) -> None:
        super().__init__()
        named = [kind for kind in graph.node_types if kind not in ("session", "item")]
        self.tables = nn.ModuleDict({kind: nn.Embedding(graph[kind].num_nodes + 1, width) for kind in named})
        self.layer, self.relations = layer, graph.edge_types

    def forward(self, x, batch):
        states = {kind: table(batch[kind].n_id + 1) for kind, table in self.tables.items()}
        nothing = x.new_zeros(batch["session"].num_nodes, x.shape[1])
        states |= {"item": x, "session": rows_like(nothing, batch["session"].batch)}
        edges = {kind: batch[kind].edge_index for kind in self.relations}
        edges |= {(t, f"rev_{kind}", s): index.flip(0) for (s, kind, t), index in edges.items()}
        return self.layer(states, edges)["item"][batch["event"].item]


class Sage(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = SAGEConv((width, width), width)
        self.second = SAGEConv((width, width), width)

    def forward(self, x, edge_index):
        return self.second(self.first(x, edge_index).tanh(), edge_index)


def of_pyg(width: int, graph, kind: str) -> OfLayer:
    metadata = (graph.node_types, relations_of(graph))
    layer = HGTConv(width, width, metadata, heads=2) if kind == "HGTConv" else to_hetero(Sage(width), metadata)
    return OfLayer(width, graph, layer)


@pytest.mark.parametrize("kind", ["HGTConv", "to_hetero"])
def test_pygs_models_pass_every_check(kind: str) -> None:
    report = check_encoder(lambda width: of_pyg(width, check_log().graph, kind))
    assert report.ok, report
    if kind == "to_hetero":
        assert "the stacked engine supports every operation" in str(report)


def test_the_example_is_short_and_passes() -> None:
    body = EXAMPLE.read_text().split("class GraphEncoder")[1].split("if __name__")[0]
    assert len(body.strip().splitlines()) <= 30
    report = check_encoder(lambda width: GraphEncoder(width, check_log().graph))
    assert report.ok and "the stacked engine supports every operation" in str(report), report


def system_of(log, *, stacked: bool = True, adapted: bool = True) -> gm.System:
    torch.manual_seed(0)
    encoder = GraphEncoder(8, log.graph)
    recommender = Recommender(gm.nn.ItemFeatures(log.num_items, 8), encoder, Dot(Mean(), nn.Linear(8, 8))).double()
    adaptation = gm.Adaptation(
        gm.Scope("encoder", "head"), step=gm.Gradient(0.1), steps=2, order=2, stacked=stacked
    ) if adapted else None  # fmt: skip
    return gm.System(recommender, log.items, users=log.users, adaptation=adaptation)


def test_meta_training_stacked_is_the_loop() -> None:
    """Weights after an epoch, and scores of a later log, to 1e-9; the stacked engine did not fall back."""
    train, later = LOG.before(LOG.starts[50]), LOG.after(LOG.starts[50])
    later = later.aligned_to(train.items, train.users)
    found = []
    for stacked in (True, False):
        system = system_of(train, stacked=stacked)
        start = [p.detach().clone() for p in system.parameters()]
        list(gm.train(system, train, epochs=1, batch_size=16, optimizer=torch.optim.SGD, seed=0))
        assert system.adaptation is not None and not system.adaptation.fell_back
        assert any((p - s).abs().max() > 1e-6 for p, s in zip(system.parameters(), start, strict=True))
        found.append([*system.parameters(), system.scores(gm.last_clicks(later))])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=0)


@pytest.mark.parametrize("adapted", [False, True])
def test_a_system_reads_the_history_of_the_log_it_was_given(adapted: bool) -> None:
    train = LOG.before(LOG.starts[50])
    later = LOG.after(LOG.starts[50]).aligned_to(train.items, train.users)
    samples = gm.last_clicks(later)
    system = system_of(train, adapted=adapted).eval()
    with pytest.raises(InputError, match=r"load\(folder, graph=log\) or system.attach_graph"):
        system.scores(samples)
    system.fit_statistics(train)
    known = system.scores(samples)
    nobody = system.scores(samples.take(np.arange(len(samples))).__class__(**{**vars(samples), "user": None}))
    assert (known - nobody).abs().max() > 1e-6
    if not adapted:
        batch = SubgraphSampler(train, history=3, follows=4, attributes=True)(samples)
        torch.testing.assert_close(known, system.recommender(batch).detach())
    best = system.recommend([train.items.ids[3]], k=3, user="u1")
    assert len(best) == 3


TERMS = ["repeat_bias", "cooccurrence", "same_category", "reranker"]


@pytest.mark.parametrize(
    "name", ["sr_gnn", "gc_san", "gru4rec", "if_san", "caser", "global_gnn", "tagnn", "wavenet", *TERMS]
)
def test_other_encoders_and_score_terms_ignore_the_further_items(name: str) -> None:
    """Equal scores of a batch with further item rows; so an encoder of the graph works with every head."""
    torch.manual_seed(0)
    log = LOG
    system = gm.build("sr_gnn" if name in TERMS else name, log.items, width=8)
    if name in TERMS:
        with_score_terms(system, [name])
    system.fit_statistics(log)
    for weight in system.eval().parameters():
        weight.data.normal_(0, 0.3)
    samples = gm.prefixes(log).take(slice(100, 180))
    batch = SubgraphSampler(log, history=2, follows=2, attributes=True)(samples)
    assert batch["item"].num_nodes > session_batch(samples, num_items=12)["item"].num_nodes
    with torch.no_grad():
        assert torch.equal(system.recommender(batch), system.recommender(session_batch(samples, num_items=12)))
