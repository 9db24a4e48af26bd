"""What a user's own parts meet: heads by protocol, rates of any kind, metrics, optimizers, logs of other items."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import graphmeta as gm
from graphmeta.adapt.starts.gated import Gated
from graphmeta.baselines import ItemKNN, NoRepeats, Popularity, SessionKNN, SessionPopularity, Stan
from graphmeta.evaluation.ranking import evaluate_tasks
from graphmeta.nn.catalogue_softmax import plus
from graphmeta.nn.encoders.gated_graph import GatedSessionGraph
from graphmeta.nn.encoders.recurrent import Recurrent
from graphmeta.nn.features.tables import ItemFeatures
from graphmeta.nn.heads.dot import Dot
from graphmeta.nn.losses.losses import AllPositions, RankingLoss, SoftmaxLoss
from graphmeta.nn.losses.negatives import PerSampleNegatives, SharedNegatives, uniform
from graphmeta.nn.losses.pairwise import Bpr
from graphmeta.nn.readout import Last
from graphmeta.published.models.graph import niser, reranker
from graphmeta.published.models.meta import maml, melu
from graphmeta.published.models.session import sr_gnn, tagnn
from graphmeta.published.parts import with_score_terms
from graphmeta.sampling.few_shot import sampled_tasks
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
    system, queries = gm.System(recommender, LOG.items).eval(), gm.last_clicks(LOG)
    before = system.scores(queries)
    with_score_terms(system, ["repeat_bias"])
    nn.init.ones_(recommender.head.score_terms["repeat_bias"].recency.weight)
    changed = (system.scores(queries) - before).abs()
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
    assert again.spec == system.spec is not None
    queries = gm.last_clicks(LOG)
    torch.testing.assert_close(again.scores(queries), system.eval().scores(queries), rtol=0, atol=0)


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


class Around:
    """A wrapper with the two members of a scorer and nothing else."""

    def __init__(self, model):
        self.model, self.num_items = model, model.num_items

    def scores(self, samples, **adapting):
        return self.model.scores(samples, **adapting)


@pytest.mark.parametrize("make", [lambda: gm.build("meta_cf_g", LOG.items, width=4, lr=1.0), lambda: ItemKNN(LOG)])
def test_a_wrapper_of_a_scorer_gets_what_the_scorer_gets(make):
    class Declared(Around):
        items, adapts = LOG.items, True

        @property
        def reads_tasks(self):
            return self.model.reads_tasks

    model, tasks = make(), sampled_tasks(LOG, max_events=6)
    assert evaluate_tasks(Declared(model), tasks).ranks.equal(evaluate_tasks(model, tasks).ranks)
    assert gm.evaluate(NoRepeats(model), LOG).metrics.keys() == gm.evaluate(Around(model), LOG).metrics.keys()
    if isinstance(model, gm.System):
        assert evaluate_tasks(Around(model), tasks).ranks.equal(evaluate_tasks(model, tasks).ranks)
        assert evaluate_tasks(NoRepeats(model), tasks).ranks.equal(evaluate_tasks(model, tasks).ranks)
        found = evaluate_tasks(Declared(model), tasks, steps=1)
        assert found.ranks.equal(evaluate_tasks(model, tasks, steps=1).ranks)
        with pytest.raises(gm.InputError, match="does not adapt; leave out steps= and max_support=, or give it adapts"):
            evaluate_tasks(Around(model), tasks, steps=1)
    else:
        with pytest.raises(gm.InputError, match="Around.scores reads .*give it reads_tasks = False"):
            evaluate_tasks(Around(model), tasks)


class Plain(nn.Module):
    """A product head with the members that the protocol asks for, and no others."""

    def __init__(self):
        super().__init__()
        self.l, self.score_terms = nn.Linear(4, 4), nn.ModuleDict()
        self.heat = nn.Parameter(torch.ones(1), requires_grad=False)

    def query(self, states, batch):
        return self.l(Last()(states, batch)) * self.heat

    def vectors(self, candidates):
        return candidates

    def extra(self, batch, query, vectors):
        terms = [term(batch, lambda s, i: (query[s] * vectors[i]).sum(1)) for term in self.score_terms.values()]
        return tuple(torch.cat(parts) for parts in zip(*terms, strict=True)) if terms else None

    def learn_temperature(self):
        self.heat.requires_grad_(True)

    def forward(self, states, batch, candidates):
        query, vectors = self.query(states, batch), self.vectors(candidates)
        return plus(query @ vectors.t(), self.extra(batch, query, vectors))


def plain(**options):
    recommender = gm.Recommender(ItemFeatures(30, 4), Recurrent(4, 4), Plain())
    return gm.System(recommender, LOG.items, **options)


@pytest.mark.filterwarnings("ignore:co-occurrence counts")
def test_the_reranker_goes_around_any_product_head():
    system = reranker(plain())
    learned = {name for name, weight in system.named_parameters() if weight.requires_grad}
    assert "recommender.head.heat" in learned and not any("features" in name or "head.l." in name for name in learned)
    assert all(step.loss > 0 for step in gm.train(system, LOG, epochs=1))
    again = reranker(niser(LOG.items, width=4, score_terms=["reranker", "repeat_bias"]))
    assert again.recommender.get_parameter("head.scale").requires_grad


def test_what_a_head_lacks_is_named():
    with pytest.raises(gm.InputError, match="AllPositions needs the head's readout, and Plain has no module"):
        list(gm.train(plain(loss=AllPositions(SoftmaxLoss())), LOG, epochs=1))
    gated = gm.Adaptation(gm.Scope("head.l"), step=gm.Gradient(0.1), start=Gated(gm.Scope("head.l"), 16))
    with pytest.raises(gm.InputError, match="needs the head's readout, and Plain has no module of that name"):
        plain(adaptation=gated).scores(gm.last_clicks(LOG))
    with pytest.raises(gm.InputError, match="the head's last layer, and Plain has no module called project"):
        melu(plain())


@pytest.mark.filterwarnings("ignore:co-occurrence counts")
@pytest.mark.parametrize("negatives", [SharedNegatives(sampled=4), PerSampleNegatives(uniform, count=3)])
@pytest.mark.parametrize("terms", [["repeat_bias"], ["repeat_bias", "same_category", "cooccurrence"]])
def test_ranking_losses_compare_the_scores_with_their_terms(negatives, terms):
    def scores_of(target, other, valid):
        return torch.cat([target[:, None], other], 1)

    class Kept(nn.Module):
        def forward(self, target, user, num_items):
            items, valid = negatives(target, user, num_items)
            self.chosen = torch.cat([target[:, None], items.expand(len(target), -1)], 1)
            return items, valid

    system = niser(LOG.items, width=4, score_terms=terms).eval()
    system.fit_statistics(LOG)
    for weight in system.recommender.head.score_terms.parameters():
        nn.init.normal_(weight)
    samples, kept = gm.prefixes(LOG), Kept()
    found = system.recommender(gm.session_batch(samples, num_items=30), RankingLoss(scores_of, kept))
    torch.testing.assert_close(found, system.scores(samples).gather(1, kept.chosen), rtol=1e-4, atol=1e-4)
    system.loss = RankingLoss(Bpr(), negatives)
    assert all(step.loss > 0 for step in gm.train(system, LOG, epochs=1))


def test_tagnn_names_why_its_scores_are_no_products():
    system = tagnn(LOG.items, width=4)
    with pytest.raises(gm.InputError, match="TargetAttention: its session vector differs by candidate.*leave it out"):
        list(gm.train(system, LOG, options=gm.TrainOptions(precision="bf16")))
    system.loss = RankingLoss(Bpr(), SharedNegatives())
    with pytest.raises(gm.InputError, match="TargetAttention: its session vector differs by candidate.*SoftmaxLoss"):
        list(gm.train(system, LOG, epochs=1))


class First(nn.Module):
    """A learned bonus for the first item of the catalogue."""

    def __init__(self):
        super().__init__()
        self.bonus = nn.Parameter(torch.ones(1))

    def forward(self, batch, product):
        row = torch.arange(batch["sample"].num_nodes)
        return row, torch.zeros_like(row), self.bonus.expand(len(row))


def test_a_custom_score_term_is_added_to_the_named_ones(tmp_path):
    def make(items):
        torch.manual_seed(0)
        return niser(items, width=4, score_terms=["repeat_bias", First(), First()])

    with pytest.warns(UserWarning, match="First cannot be stored in a build spec.*loaded with build="):
        system = make(LOG.items).eval()
    torch.manual_seed(0)
    known = niser(LOG.items, width=4, score_terms=["repeat_bias"]).eval()
    queries = gm.last_clicks(LOG)
    difference = system.scores(queries) - known.scores(queries)
    torch.testing.assert_close(difference[:, 0], torch.full((len(queries),), 2.0))
    assert difference[:, 1:].abs().max() < 1e-5 and system.spec is None
    assert list(system.recommender.head.score_terms) == ["repeat_bias", "First", "First_2"]
    system.save(tmp_path)
    with pytest.raises(gm.InputError, match="build="):
        gm.load(tmp_path)
    with pytest.warns(UserWarning, match="First"):
        torch.testing.assert_close(gm.load(tmp_path, build=make).scores(queries), system.scores(queries))
    with pytest.raises(gm.InputError, match="niser: .*cannot be stored.*call graphmeta.published.models.graph.niser"):
        gm.build("niser", LOG.items, score_terms=[First()])


def test_a_result_counts_what_of_a_log_is_left_out():
    few = LOG.select(LOG.item < 12)
    model = ItemKNN(few.aligned_to(few.items))
    found = gm.evaluate(model, LOG, ks=(5,))
    assert found.left_out.clicks == LOG.num_events - few.num_events > 0
    assert found.left_out.sessions == LOG.num_sessions - found.samples > 0
    assert f"left out: {found.left_out.clicks} clicks on unknown items, {found.left_out.sessions} sessions" in str(
        found
    )
    assert "left out" not in str(gm.evaluate(ItemKNN(LOG), LOG)) and "left out" not in str(
        gm.evaluate(ItemKNN(LOG), gm.last_clicks(LOG))
    )


def test_a_report_names_the_metric_that_chooses_the_epoch():
    split = gm.split_by_time(fake_log(sessions=60))
    system = sr_gnn(split.train.items, width=4)
    assert [one.metric for one in gm.train(system, split, epochs=2)] == ["mrr@20", "mrr@20"]
    numbers = iter([1.0, 3.0, 2.0])
    measured = lambda system: {"own": next(numbers), "mrr": 0.5}  # noqa: E731
    reports = list(gm.train(system, split.train, epochs=3, valid=measured))
    assert [(one.metric, one.best) for one in reports] == [("own", True), ("own", True), ("own", False)]
    assert next(gm.train(system, split.train, epochs=1)).metric is None
