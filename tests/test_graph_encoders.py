"""Encoders over the whole graph, of PyG's own layers: checked, meta-trained stacked, and as the loop."""

from __future__ import annotations

import runpy
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import graphmeta as gm
from graphmeta.errors import InputError
from graphmeta.nn.heads.dot import Dot
from graphmeta.nn.readout import Mean
from graphmeta.published.parts import with_score_terms
from graphmeta.recommender import Recommender
from graphmeta.sampling.session_batch import session_batch
from graphmeta.sampling.subgraph import SubgraphSampler
from graphmeta.testing import check_encoder, check_log, fake_log

EXAMPLE = Path(__file__).parents[1] / "examples" / "graph_encoder.py"
GraphEncoder = runpy.run_path(str(EXAMPLE))["GraphEncoder"]
LAYERS = runpy.run_path(str(EXAMPLE.with_name("graph_layers.py")))
LOG = fake_log(sessions=60, items=12)


OF_PYG = {"HeteroConv": GraphEncoder} | {
    name: lambda width, graph, layer=layer: LAYERS["AllNodes"](width, graph, layer)
    for name, layer in (("HGTConv", LAYERS["hgt"]), ("to_hetero", LAYERS["sage"]))
}


@pytest.mark.parametrize("kind", [pytest.param("HGTConv", marks=pytest.mark.slow), "to_hetero"])
def test_pygs_models_pass_every_check(kind: str) -> None:
    report = check_encoder(lambda width: OF_PYG[kind](width, check_log().graph))
    assert report.ok, report
    assert ("the stacked engine supports every operation" in str(report)) == (kind == "to_hetero")


@pytest.mark.filterwarnings("ignore:encoder.layer.k_rel")
@pytest.mark.parametrize("kind", OF_PYG)
def test_pygs_models_from_a_file_to_recommendations(kind: str, tmp_path: Path) -> None:
    """Read, trained without adapting, meta-trained (stacked, but HGT), saved, loaded, asked with user and history."""
    LOG.to_frame().to_csv(tmp_path / "clicks.csv", index=False)
    columns = {name: one.values[one.codes] for name, one in LOG.items.attributes.items()}
    pd.DataFrame({"item": LOG.items.ids, **columns}).to_csv(tmp_path / "items.csv", index=False)
    items = gm.EntityTable.read(str(tmp_path / "items.csv"), key="item")
    log = gm.EventLog.read(
        str(tmp_path / "clicks.csv"), session="session", item="item", time="time", user="user", items=items
    )
    split = gm.split_by_time(log, test=0.3)
    train = split.train

    def made(items: gm.EntityTable, *, adapted: bool = True) -> gm.System:
        torch.manual_seed(0)
        encoder, features = OF_PYG[kind](8, train.graph), gm.nn.ItemFeatures(len(items), 8)
        adaptation = gm.Adaptation(gm.Scope("encoder", "head"), step=gm.Gradient(0.1), steps=1, order=2)
        recommender = Recommender(features, encoder, Dot(Mean(), nn.Linear(8, 8)))
        return gm.System(recommender, items, users=train.users, adaptation=adaptation if adapted else None)

    for adapted in (False, True):
        system = made(train.items, adapted=adapted)
        before = {name: weight.detach().clone() for name, weight in system.named_parameters()}
        list(gm.train(system, train, epochs=1, batch_size=32, optimizer=gm.Adam(lr=1e-2), valid=split.valid, seed=0))
        still = [name for name, weight in system.named_parameters() if torch.equal(weight, before[name])]
        assert not [name for name in still if name.startswith(("head", "features"))], still
        assert system.adaptation is None or bool(system.adaptation.fell_back) == (kind == "HGTConv")
        wanted = gm.evaluate(system, split.test, history=split, ks=(5,))
        system.save(tmp_path / "model")
        loaded = gm.load(tmp_path / "model", build=partial(made, adapted=adapted), graph=train)
        assert gm.evaluate(loaded, split.test, history=split, ks=(5,)).metrics == wanted.metrics
        user = train.users.ids[3]
        mine = log.to_frame().query("user == @user").groupby("session", sort=False).item.apply(list).tolist()
        session = mine[-1][:2]  # one layer reaches the earlier sessions of the clicked items alone
        known = loaded.recommend(session, 3, user=user, history=log)
        assert known == system.recommend(session, 3, user=user, history=log)
        assert known == loaded.recommend(session, 3, user=user, history=mine)
        assert known != loaded.recommend(session, 3)
        assert loaded.recommend(session, 3, user="new", history=mine) != loaded.recommend(session, 3)


def test_the_example_is_short() -> None:
    body = EXAMPLE.read_text().split("class GraphEncoder")[1].split("if __name__")[0]
    assert len(body.strip().splitlines()) <= 30
    body = EXAMPLE.with_name("graph_layers.py").read_text().split("class AllNodes")[1].split("def system_of")[0]
    assert len(body.strip().splitlines()) <= 30


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
    "name", ["sr_gnn", "gc_san", "gru4rec", "if_san", "caser", "global_gnn", "ensemble", "tagnn", "wavenet", *TERMS]
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
