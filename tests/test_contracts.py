"""What a user's own parts meet: heads by protocol, rates of any kind, metrics, optimizers, logs of other items."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import graphmeta as gm
from graphmeta.baselines import ItemKNN, Popularity, SessionKNN, SessionPopularity, Stan
from graphmeta.nn.encoders.gated_graph import GatedSessionGraph
from graphmeta.nn.features.tables import ItemFeatures
from graphmeta.nn.heads.dot import Dot
from graphmeta.nn.readout import Last
from graphmeta.published.models.meta import maml
from graphmeta.published.models.session import sr_gnn, tagnn
from graphmeta.published.parts import with_score_terms
from graphmeta.testing import fake_log

LOG = fake_log(sessions=40, items=30)


class OwnHead(nn.Module):
    """A product head that inherits nothing of the library's heads."""

    def __init__(self):
        super().__init__()
        self.inside = Dot(Last())
        self.score_terms = self.inside.score_terms

    def query(self, states, batch):
        return self.inside.query(states, batch)

    def vectors(self, candidates):
        return candidates

    def extra(self, batch, query, vectors):
        return self.inside.extra(batch, query, vectors)

    def learn_temperature(self):
        self.inside.learn_temperature()

    def forward(self, states, batch, candidates):
        return self.inside(states, batch, candidates)


def test_score_terms_reach_any_product_head():
    torch.manual_seed(0)
    recommender = gm.Recommender(ItemFeatures(30, 4), GatedSessionGraph(4), OwnHead())
    system, asked = gm.System(recommender, LOG.items).eval(), gm.last_clicks(LOG)
    before = system.scores(asked)
    with_score_terms(system, ["repeat_bias"])
    nn.init.ones_(recommender.head.score_terms["repeat_bias"].recency.weight)
    changed = (system.scores(asked) - before).abs()
    assert changed.max() > 0.5
    assert all(step.loss > 0 for step in gm.train(system, LOG, epochs=1))


def test_a_head_that_cannot_add_score_terms_is_refused_and_tagnn_names_the_reason():
    class Without(OwnHead):
        extra = None

    recommender = gm.Recommender(ItemFeatures(30, 4), GatedSessionGraph(4), Without())
    with pytest.raises(gm.InputError, match="not Without"):
        with_score_terms(gm.System(recommender, LOG.items), ["repeat_bias"])
    with pytest.raises(gm.InputError, match="TargetAttention: its session vector differs by candidate"):
        with_score_terms(tagnn(LOG.items, width=4), ["repeat_bias"])


@pytest.mark.parametrize("per_step", [True, False])
def test_rates_of_the_public_api_are_loaded_again(per_step, tmp_path):
    system = maml(sr_gnn(LOG.items, width=4), step=gm.LearnedRates(0.1, per_step=per_step))
    system.save(tmp_path)
    again = gm.load(tmp_path)
    assert again.recipe == system.recipe is not None
    asked = gm.last_clicks(LOG)
    torch.testing.assert_close(again.scores(asked), system.eval().scores(asked), rtol=0, atol=0)


@pytest.mark.parametrize("baseline", [Popularity, SessionPopularity, ItemKNN, SessionKNN, Stan])
def test_a_baseline_refuses_a_log_of_other_items(baseline):
    other = replace(LOG, items=replace(LOG.items, ids=LOG.items.ids + "z"))
    with pytest.raises(gm.InputError):
        gm.evaluate(baseline(LOG), other)
    assert gm.evaluate(baseline(LOG), LOG).metrics["hit@5"] >= 0


@pytest.mark.parametrize("metrics", [["mrr"], "mrr", {"hit@5": lambda ranks: ranks}])
def test_metrics_that_have_no_name_of_their_own_are_refused(metrics):
    with pytest.raises(gm.InputError, match="must map names|already the name of a metric"):
        gm.evaluate(ItemKNN(LOG), LOG, metrics=metrics)


@pytest.mark.parametrize("optimizer", [torch.optim.LBFGS, torch.optim.SparseAdam])
def test_optimizers_that_cannot_work_are_refused(optimizer):
    with pytest.raises(gm.InputError, match="choose another"):
        list(gm.train(sr_gnn(LOG.items, width=4), LOG, epochs=1, optimizer=optimizer))


@pytest.mark.parametrize("base", ["gru4rec", "wavenet", "niser"])
def test_meta_hin_goes_around_bases_with_item_biases(base):
    system = gm.build("meta_hin", LOG.items, base=base, width=4)
    system.fit_statistics(LOG)
    assert system.scores(gm.last_clicks(LOG)).isfinite().all()
