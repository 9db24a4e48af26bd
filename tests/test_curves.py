"""Adaptation curves are what evaluating by hand gives at each number, and leave the system as it was."""

import numpy as np
import pytest
import torch
from torch import nn

from graphmeta.adapt.adaptation import Adaptation
from graphmeta.adapt.scope import Scope
from graphmeta.adapt.step import Gradient, LearnedRates
from graphmeta.baselines import Popularity
from graphmeta.errors import DivergedError, InputError
from graphmeta.evaluation.adaptation_curves import by_steps, by_support
from graphmeta.evaluation.ranking import evaluate
from graphmeta.nn.encoders.gated_graph import GatedSessionGraph
from graphmeta.nn.features.tables import ItemFeatures
from graphmeta.nn.heads.dot import Dot
from graphmeta.nn.readout import Last
from graphmeta.published.catalogue import build
from graphmeta.recommender import Recommender
from graphmeta.sampling.few_shot import sampled_tasks, support_from_clicks
from graphmeta.sampling.samples import Samples, last_clicks
from graphmeta.sampling.session_batch import session_batch
from graphmeta.sampling.tasks import Tasks
from graphmeta.storage import state_hash
from graphmeta.system import System
from graphmeta.testing import fake_log

LOG = fake_log(sessions=16, length=7)
QUERIES = last_clicks(LOG)


def made(step=None, *, steps=2, stacked=True) -> System:
    """A small system whose steps are large enough to change ranks."""
    torch.manual_seed(0)
    recommender = Recommender(ItemFeatures(len(LOG.items), 6), GatedSessionGraph(6), Dot(Last(), nn.Linear(6, 6)))
    adaptation = Adaptation(Scope("encoder", "head"), step=step or Gradient(2.0), steps=steps, stacked=stacked)
    return System(recommender, LOG.items, adaptation=adaptation, limits={"max_support": 4})


def after(system: System, samples: Samples, *, steps: int, support: int) -> torch.Tensor:
    """Scores of each sample by plain descent: a copy of the weights, autograd, one session after the other."""
    begin = {name: weight.clone() for name, weight in system.recommender.state_dict().items()}
    moved, found = [n for n, _ in system.recommender.named_parameters() if not n.startswith("features")], []
    for s in range(len(samples)):
        clicks = samples.item[samples.begin[s] : samples.end[s]]
        ends = np.arange(1, len(clicks))[-support:] if support else np.zeros(0, np.int64)
        none = np.zeros_like(ends)
        known = session_batch(Samples(clicks, none, ends, clicks[ends], none), num_items=system.num_items)
        for _ in range(steps if len(ends) else 0):
            scores = system.recommender(known)
            loss = nn.functional.cross_entropy(scores, torch.from_numpy(clicks[ends]))
            weights = [system.recommender.get_parameter(name) for name in moved]
            with torch.no_grad():
                for weight, slope in zip(weights, torch.autograd.grad(loss, weights), strict=True):
                    weight -= system.adaptation.step.lr * slope
        with torch.no_grad():
            found.append(system.recommender(session_batch(samples.take(slice(s, s + 1)), num_items=system.num_items)))
        system.recommender.load_state_dict(begin)
    return torch.cat(found)


def places(scores: torch.Tensor, target: np.ndarray) -> torch.Tensor:
    """1 + how many items score more than the target."""
    own = scores[torch.arange(len(scores)), torch.from_numpy(target)]
    return 1.0 + (scores > own[:, None]).sum(1).double()


def test_each_number_of_steps_is_that_many_steps_of_descent(float64):
    system = made()
    curve = by_steps(system, QUERIES, steps=(0, 1, 3))
    for steps, result in curve.results.items():
        assert torch.equal(result.ranks, places(after(system, QUERIES, steps=steps, support=4), QUERIES.target))
    assert not torch.equal(curve.results[0].ranks, curve.results[3].ranks)


def test_each_number_of_support_samples_is_learned_from_the_last_so_many(float64):
    system = made()
    curve = by_support(system, QUERIES, support=(0, 1, 3, 9))  # a session has five
    for support, result in curve.results.items():
        assert torch.equal(result.ranks, places(after(system, QUERIES, steps=2, support=support), QUERIES.target))
    assert not torch.equal(curve.results[1].ranks, curve.results[3].ranks)


def test_users_are_adapted_to_their_last_items_including_the_first(float64):
    system = build("meta_cf_g", LOG.items, width=6, lr=2.0, steps=2)
    curve, every = by_support(system, QUERIES, support=(0, 1, 3, 6, 9)), support_from_clicks(QUERIES)
    for support, result in curve.results.items():
        last = np.concatenate(
            [np.arange(max(b, e - support), e) for b, e in zip(every.support_ptr, every.support_ptr[1:], strict=False)]
        )
        count = np.minimum(np.diff(every.support_ptr), support)
        tasks = Tasks(every.support.take(last), every.query, np.append(0, np.cumsum(count)), every.query_ptr)
        assert torch.equal(result.ranks, places(system.scores(tasks), QUERIES.target))
        assert system.task_sizes(tasks).support.max() == min(support, 6)
    assert not torch.equal(curve.results[1].ranks, curve.results[3].ranks)
    assert not torch.equal(curve.results[3].ranks, curve.results[6].ranks)
    assert torch.equal(curve.results[6].ranks, curve.results[9].ranks)
    assert torch.equal(curve.results[6].ranks, evaluate(system, QUERIES).ranks)
    assert system.task_sizes(QUERIES).support.max() == 6  # what the memory is estimated by


@pytest.mark.parametrize("curve", [by_steps, by_support])
def test_tasks_have_no_curve_and_the_error_names_the_alternative(curve):
    with pytest.raises(InputError, match="these are tasks, not samples; use evaluate_tasks"):
        curve(made(), sampled_tasks(LOG))


def test_the_curves_pass_through_the_system_as_it_is_and_meet_where_nothing_is_learned():
    system = made()
    steps, support = by_steps(system, QUERIES), by_support(system, QUERIES)
    assert list(steps.results) == list(range(6)) and list(support.results) == list(range(11))
    assert (steps.own, support.own) == (2, 4)
    usual = evaluate(system, QUERIES).metrics
    assert steps.results[2].metrics == support.results[4].metrics == usual
    assert steps.results[0].metrics == support.results[0].metrics == evaluate(made(steps=0), QUERIES).metrics
    assert steps.values("mrr@20")[2] == usual["mrr@20"]


@pytest.mark.parametrize("curve", [by_steps, by_support])
def test_the_system_is_left_as_it_was(curve):
    system = made().train()
    before = state_hash(system)
    curve(system, QUERIES)
    assert (system.adaptation.steps, system.max_support, system.training) == (2, 4, True)
    assert state_hash(system) == before


@pytest.mark.parametrize("curve", [by_steps, by_support])
def test_the_system_is_left_as_it_was_when_a_step_diverges(curve):
    system = made(Gradient(1e30), steps=3)
    with pytest.raises(DivergedError):
        curve(system, QUERIES)
    assert (system.adaptation.steps, system.max_support) == (3, 4)


def test_rates_that_all_steps_share_go_on_and_rates_a_step_end():
    assert 4 in by_steps(made(LearnedRates(0.5)), QUERIES, steps=[4]).results
    own = made(LearnedRates(0.5, per_step=True))
    assert list(by_steps(own, QUERIES, steps=range(3)).results) == [0, 1, 2]
    with pytest.raises(InputError, match=r"rates for 2 steps, not for 3.*per_step=False"):
        by_steps(own, QUERIES, steps=range(4))


def test_a_curve_needs_an_adaptation_and_valid_steps_or_support():
    plain = made()
    plain.adaptation = None
    for curve in (by_steps, by_support):
        with pytest.raises(InputError, match="does not adapt"):
            curve(plain, QUERIES)
    with pytest.raises(InputError, match=r"steps must be whole and not negative, not \[-1\]"):
        by_steps(made(), QUERIES, steps=[-1])
    with pytest.raises(InputError, match=r"numbers of steps must be whole .*, not \[0, 1.5\]"):
        by_steps(made(), QUERIES, steps=[0, 1.5])
    with pytest.raises(InputError, match=r"not \[\]"):
        by_support(made(), QUERIES, support=[])


def test_steps_and_support_are_arguments_of_every_call():
    system = made()
    want = by_steps(system, QUERIES, steps=(0, 3))
    for steps in (0, 3):
        scores = system.scores(QUERIES, steps=steps)
        assert torch.equal(places(scores, QUERIES.target), want.results[steps].ranks)
        session = [LOG.items.ids[i] for i in QUERIES.item[QUERIES.begin[0] : QUERIES.end[0]]]
        best = system.recommend(session, k=3, steps=steps)
        assert best == system.recommend_many([session], k=3, steps=steps)[0]
        assert [r.score for r in best] == pytest.approx(scores[0].topk(3).values.tolist(), abs=1e-5)
    assert torch.equal(evaluate(system, QUERIES, max_support=0).ranks, want.results[0].ranks)
    assert torch.equal(system.scores(QUERIES, steps=2, max_support=4), system.scores(QUERIES))
    assert (system.adaptation.steps, system.max_support) == (2, 4)


def test_memory_is_measured_anew_for_other_steps():
    system = made()
    system.scores(QUERIES)
    before = dict(system.adaptation.activations)
    system.scores(QUERIES, steps=5)
    assert before and system.adaptation.activations == before


def test_steps_that_cannot_be_are_refused():
    plain = made()
    plain.adaptation = None
    for call in (plain.scores, lambda samples, **own: evaluate(plain, samples, **own)):
        with pytest.raises(InputError, match="does not adapt; leave out steps="):
            call(QUERIES, steps=0)
    with pytest.raises(InputError, match="does not adapt; leave out steps="):
        evaluate(Popularity(LOG), QUERIES, max_support=1)
    for wrong in (-1, 1.5, True):
        with pytest.raises(InputError, match="max_support=.* must be a whole number"):
            made().scores(QUERIES, max_support=wrong)
    with pytest.raises(InputError, match="steps must be a whole number"):
        made().scores(QUERIES, steps=-1)
    with pytest.raises(InputError, match="have a given support"):
        made().scores(sampled_tasks(LOG), max_support=1)
    with pytest.raises(InputError, match="rates for 2 steps, not for 3"):
        made(LearnedRates(0.5, per_step=True)).scores(QUERIES, steps=3)
    with pytest.raises(TypeError, match="'step'"):
        evaluate(made(), QUERIES, step=1)
