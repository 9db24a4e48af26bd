"""MeLU on ratings: the engine's two ways agree, its gradients are right, and it cannot see what it is asked."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from graphmeta.adapt.adaptation import Adaptation
from graphmeta.adapt.scope import Scope
from graphmeta.adapt.step import Gradient
from graphmeta.errors import InputError
from graphmeta.evaluate import evaluate_ratings
from graphmeta.job import check_system
from graphmeta.nn.attention import Clicks
from graphmeta.nn.content import ContentFeatures, UserContent
from graphmeta.nn.rating import Decision, SquaredError, decision_layers
from graphmeta.published import build
from graphmeta.recommender import Recommender
from graphmeta.system import System
from graphmeta.tasks import RandomQueries
from graphmeta.testing import fake_ratings
from graphmeta.train import Adam, train

LOG = fake_ratings()
UNEVEN = LOG.select((LOG.session > 9) | (LOG.item % 7 != LOG.session % 7)).aligned_to(LOG.items, LOG.users)
TASKS = RandomQueries(queries=4, least=6)(UNEVEN, max_length=0).take(np.array([0, 3, 5, 20]))


def melu(**arguments) -> System:
    torch.manual_seed(0)
    system = build("melu_rating", LOG.items, users=LOG.users, width=3, hidden=5, **{"lr": 0.1, **arguments})
    system.fit(LOG)
    return system


def meta_gradients(system: System) -> list[torch.Tensor]:
    return list(torch.autograd.grad(system.losses(TASKS).sum(), list(system.parameters())))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("order", [1, 2])
def test_all_people_at_once_are_as_one_after_the_other(order: int) -> None:
    assert len(set(TASKS.lengths)) > 1
    one, two = melu(order=order, steps=2), melu(order=order, steps=2)
    two.adaptation.stacked = False
    torch.testing.assert_close(one.scores(TASKS), two.scores(TASKS), rtol=0, atol=1e-9)
    for a, b in zip(meta_gradients(one), meta_gradients(two), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-9)
    assert one.adaptation.stacked


@pytest.mark.usefixtures("float64")
def test_second_order_gradients_are_those_of_finite_differences() -> None:
    system = melu(order=2)
    gradients = dict(zip((n for n, _ in system.named_parameters()), meta_gradients(system), strict=True))
    first = dict(zip(gradients, meta_gradients(melu(order=1)), strict=True))
    for name in ("recommender.head.layers.0.weight", "recommender.features.content.fields.field_genre.table.weight"):
        weight, around = system.get_parameter(name), []
        at = np.unravel_index(int(gradients[name].abs().argmax()), weight.shape)
        with torch.no_grad():
            for delta in (1e-5, -2e-5):
                weight[at] += delta
                around.append(float(system.losses(TASKS).sum()))
            weight[at] += 1e-5
        assert float(gradients[name][at]) == pytest.approx((around[0] - around[1]) / 2e-5, rel=1e-5)
        assert not torch.allclose(gradients[name], first[name], rtol=1e-3)


@pytest.mark.usefixtures("float64")
def test_one_step_of_a_linear_model_by_hand() -> None:
    """θ' = θ − β · 2/n Σ (x·θ − r) x, and the answer x'·θ'."""
    torch.manual_seed(0)
    features, readout = ContentFeatures(LOG.items, 2), UserContent(LOG.users, 2)
    head = Decision(readout, decision_layers(readout.width + features.width, ()))
    adaptation = Adaptation(Scope("head.layers"), step=Gradient(0.3))
    system = System(
        Recommender(features, Clicks(), head), LOG.items, users=LOG.users, adaptation=adaptation, loss=SquaredError(),
        max_length=0,
    )  # fmt: skip
    theta, bias = head.layers[0].weight[0], head.layers[0].bias[0]
    found = system.scores(TASKS).squeeze(1)
    for t in range(len(TASKS)):

        def inputs(part, ptr, t=t):
            own = slice(ptr[t], ptr[t + 1])
            user, item = torch.from_numpy(part.user[own]), torch.from_numpy(part.target[own])
            return torch.cat([readout.content(user), features.content(item)], 1), torch.from_numpy(part.value[own])

        x, r = inputs(TASKS.support, TASKS.support_ptr)
        wrong = x @ theta + bias - r
        own_theta, own_bias = theta - 0.3 * 2 * (wrong @ x) / len(r), bias - 0.3 * 2 * wrong.mean()
        asked, _ = inputs(TASKS.query, TASKS.query_ptr)
        torch.testing.assert_close(found[TASKS.query_ptr[t] : TASKS.query_ptr[t + 1]], asked @ own_theta + own_bias)


def test_a_step_leaves_the_contents_as_they_are() -> None:
    system = melu()
    assert set(system.adaptation.names) == {f"head.layers.{n}.{kind}" for n in (0, 2, 4) for kind in ("weight", "bias")}
    adapted = system.adaptation.adapted(system.recommender, system._tasks(TASKS), system.loss)
    assert set(adapted) == set(system.adaptation.names)
    moved = adapted["head.layers.0.weight"]
    assert moved.shape == (4, 5, 9) and all(
        not torch.equal(own, system.recommender.head.layers[0].weight) for own in moved
    )


def test_what_is_asked_influences_no_answer_and_what_is_known_does() -> None:
    system, scores = melu(), melu().scores(TASKS)
    random = np.random.default_rng(0)
    asked = dataclasses.replace(TASKS.query, value=random.random(len(TASKS.query)))
    assert torch.equal(system.scores(dataclasses.replace(TASKS, query=asked)), scores)
    known = dataclasses.replace(TASKS.support, value=random.random(len(TASKS.support)))
    assert not torch.allclose(system.scores(dataclasses.replace(TASKS, support=known)), scores)


def test_answers_do_not_depend_on_who_else_is_asked() -> None:
    system, order = melu(), np.array([2, 0, 3, 1])
    scores = system.scores(TASKS)
    alone = torch.cat([system.scores(TASKS.take(np.array([t]))) for t in order])
    torch.testing.assert_close(system.scores(TASKS.take(order)), alone)
    one, two = (evaluate_ratings(system, tasks).metrics for tasks in (TASKS, TASKS.take(order)))
    assert one == pytest.approx(two, abs=1e-6) and len(scores) == 16


def test_it_is_saved_and_loaded_with_its_contents(tmp_path) -> None:
    system = melu()
    part = LOG.select(LOG.item % 3 == 0).aligned_to(LOG.items, LOG.users)
    system.fit(part)
    system.save(tmp_path)
    again = System.load(tmp_path)
    assert torch.equal(again.scores(TASKS), system.scores(TASKS))
    assert float(again.recommender.head.mean) == pytest.approx(part.value.mean())


def test_it_learns_and_adapting_helps() -> None:
    """How generous people are is written nowhere: only their own ratings tell it."""
    generous = dataclasses.replace(LOG, value=1.0 + LOG.session % 5)
    learn, test = (
        generous.select(part).aligned_to(LOG.items, LOG.users) for part in (LOG.session < 30, LOG.session >= 30)
    )
    asked, errors = RandomQueries(queries=5)(test, max_length=0), {}
    for steps in (0, 2):
        system = melu(steps=steps, lr=0.2)
        history = list(train(system, learn, epochs=6, optimizer=Adam(lr=2e-2), batch_size=10))
        assert history[-1].loss < history[0].loss
        errors[steps] = evaluate_ratings(system, asked).metrics["mae"]
    assert errors[2] < 0.6 * errors[0]


def test_next_items_are_not_its_question() -> None:
    with pytest.raises(InputError, match="no ratings to learn from|names none"):
        melu().recommend([LOG.items.ids[0], LOG.items.ids[1]], k=3)
    with pytest.raises(InputError, match="melu_rating predicts ratings"):
        check_system("melu_rating", users=True)
    assert isinstance(melu().recommender.head.layers, nn.Sequential)
