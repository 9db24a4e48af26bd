"""What every rating system of the catalogue keeps: the engine's two ways agree, its gradients are right, it learns, it
is saved, and it cannot see what it is asked. And MeLU by hand."""

import dataclasses

import numpy as np
import pytest
import torch

from graphmeta.adapt.adaptation import Adaptation
from graphmeta.adapt.scope import Scope
from graphmeta.adapt.step import Gradient
from graphmeta.errors import InputError
from graphmeta.evaluation.ratings import evaluate_ratings
from graphmeta.nn.conditioning.memory import GradientSlots
from graphmeta.nn.encoders.attention import Clicks
from graphmeta.nn.features.content import ContentFeatures, UserContent
from graphmeta.nn.heads.rating import Decision, SquaredError, decision_layers
from graphmeta.published.catalogue import CATALOGUE, build
from graphmeta.published.fit import check_system
from graphmeta.published.load import load
from graphmeta.recommender import Recommender
from graphmeta.sampling.few_shot import RandomQueries
from graphmeta.system import System
from graphmeta.testing import fake_ratings
from graphmeta.training.loop import train
from graphmeta.training.optimizers import Adam

LOG = fake_ratings()
GENEROUS = dataclasses.replace(LOG, value=1.0 + LOG.session % 5)
UNEVEN = LOG.select((LOG.session > 9) | (LOG.item % 7 != LOG.session % 7)).aligned_to(LOG.items, LOG.users)
TASKS = RandomQueries(queries=4, min_events=6)(UNEVEN).take(np.array([0, 3, 5, 20]))
SMALL = {
    "melu_rating": {"hidden": 5},
    "mamo_rating": {"size": 4, "bias": 0.3},
    "meta_hin_rating": {"hidden": 5, "size": 3, "path_lr": 0.3, "neighbours": 4, "known": 3},
}
every = pytest.mark.parametrize("name", [name for name, entry in CATALOGUE.items() if entry.predicts_ratings])


def made(name: str, **arguments) -> System:
    """The system in eval mode, with rates that move; memories, if it has some, hold something."""
    torch.manual_seed(0)
    system = build(name, LOG.items, users=LOG.users, width=3, **{"lr": 0.1, **SMALL[name], **arguments}).eval()
    system.fit_statistics(LOG)
    for memory in system.modules():
        if isinstance(memory, GradientSlots):
            memory.slots.normal_()
    return system


def melu(**arguments) -> System:
    return made("melu_rating", **arguments)


def learned(system: System) -> dict[str, torch.Tensor]:
    return {name: weight for name, weight in system.named_parameters() if weight.requires_grad}


def meta_gradients(system: System) -> list[torch.Tensor]:
    return list(torch.autograd.grad(system.losses(TASKS).sum(), list(learned(system).values())))


@every
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("order", [1, 2])
def test_all_users_stacked_equal_one_by_one(name: str, order: int) -> None:
    assert len(set(TASKS.support_sizes)) > 1
    one, two = made(name, order=order, steps=2), made(name, order=order, steps=2)
    two.adaptation.stacked = False
    torch.testing.assert_close(one.scores(TASKS), two.scores(TASKS), rtol=0, atol=1e-9)
    for a, b in zip(meta_gradients(one), meta_gradients(two), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-9)
    assert not one.adaptation.fell_back


@every
@pytest.mark.usefixtures("float64")
def test_second_order_is_the_derivative(name: str) -> None:
    system = made(name, order=2)
    weights = list(learned(system).values())
    direction = [torch.randn_like(weight) for weight in weights]
    slope, first = (
        sum((g * d).sum() for g, d in zip(meta_gradients(one), direction, strict=True))
        for one in (system, made(name, order=1))
    )
    values = []
    for step in (1e-6, -2e-6):
        with torch.no_grad():
            for weight, d in zip(weights, direction, strict=True):
                weight += step * d
        values.append(float(system.losses(TASKS).sum().detach()))
    assert (values[0] - values[1]) / 2e-6 == pytest.approx(float(slope), rel=1e-5)
    assert float(first) != pytest.approx(float(slope), rel=1e-3)


@every
@pytest.mark.usefixtures("float64")
def test_every_parameter_gets_a_gradient(name: str) -> None:
    system = made(name).train()
    optimizer = torch.optim.SGD(system.parameters(), lr=0.1)
    for _ in range(2):  # at first, what stands behind a zero gets none
        optimizer.zero_grad()
        system.losses(system.training_samples(LOG)).mean().backward()
        optimizer.step()
    assert not [n for n, p in learned(system).items() if p.grad is None or not p.grad.abs().sum() > 0]


@pytest.mark.usefixtures("float64")
def test_second_order_gradients_of_melu_are_those_of_finite_differences() -> None:
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
        limits={"max_length": 0},
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
        query_x, _ = inputs(TASKS.query, TASKS.query_ptr)
        torch.testing.assert_close(found[TASKS.query_ptr[t] : TASKS.query_ptr[t + 1]], query_x @ own_theta + own_bias)


def test_a_step_leaves_the_contents_as_they_are() -> None:
    system = melu()
    assert set(system.adaptation.names) == {f"head.layers.{n}.{kind}" for n in (0, 2, 4) for kind in ("weight", "bias")}
    adapted = system.adaptation.adapted(system.recommender, system._tasks(TASKS), system.loss)
    assert set(adapted) == set(system.adaptation.names)
    moved = adapted["head.layers.0.weight"]
    assert moved.shape == (4, 5, 9) and all(
        not torch.equal(own, system.recommender.head.layers[0].weight) for own in moved
    )


@every
def test_query_ratings_influence_no_prediction_and_known_ratings_do(name: str) -> None:
    system = made(name)
    scores = system.scores(TASKS)
    random = np.random.default_rng(0)
    query = dataclasses.replace(TASKS.query, value=random.random(len(TASKS.query)))
    assert torch.equal(system.scores(dataclasses.replace(TASKS, query=query)), scores)
    known = dataclasses.replace(TASKS.support, value=random.random(len(TASKS.support)))
    assert not torch.allclose(system.scores(dataclasses.replace(TASKS, support=known)), scores)


@every
@pytest.mark.usefixtures("float64")
def test_predictions_do_not_depend_on_the_other_users(name: str) -> None:
    system, order = made(name), np.array([2, 0, 3, 1])
    scores = system.scores(TASKS)
    alone = torch.cat([system.scores(TASKS.take(np.array([t]))) for t in order])
    torch.testing.assert_close(system.scores(TASKS.take(order)), alone)
    one, two = (evaluate_ratings(system, tasks).metrics for tasks in (TASKS, TASKS.take(order)))
    assert one == pytest.approx(two, abs=1e-6) and len(scores) == 16


@every
def test_it_is_saved_and_loaded_with_its_contents(name: str, tmp_path) -> None:
    system = made(name)
    part = LOG.select(LOG.item % 3 == 0).aligned_to(LOG.items, LOG.users)
    system.fit_statistics(part)
    system.save(tmp_path)
    again = load(tmp_path)
    assert torch.equal(again.scores(TASKS), system.scores(TASKS))
    assert float(again.recommender.head.mean) == pytest.approx(part.value.mean())


@every
def test_it_learns_on_ratings(name: str) -> None:
    history = list(train(made(name), GENEROUS, epochs=4, optimizer=Adam(lr=2e-2), batch_size=20))
    assert history[-1].loss < 0.9 * history[0].loss


@pytest.mark.filterwarnings("ignore:.* does not read")
def test_it_learns_and_adapting_helps() -> None:
    """How generous people are is written nowhere: only their own ratings tell it."""
    learn, test = (
        GENEROUS.select(part).aligned_to(LOG.items, LOG.users) for part in (LOG.session < 30, LOG.session >= 30)
    )
    tasks, errors = RandomQueries(queries=5)(test, max_length=0), {}
    for steps in (0, 2):
        system = melu(steps=steps, lr=0.2)
        history = list(train(system, learn, epochs=6, optimizer=Adam(lr=2e-2), batch_size=10))
        assert history[-1].loss < history[0].loss
        errors[steps] = evaluate_ratings(system, tasks).metrics["mae"]
    assert errors[2] < 0.6 * errors[0]


@every
def test_a_rating_system_does_not_rank_next_items(name: str) -> None:
    with pytest.raises(InputError, match="no ratings to learn from|a sample has none"):
        made(name).recommend([LOG.items.ids[0], LOG.items.ids[1]], k=3)
    with pytest.raises(InputError, match=f"{name} predicts ratings"):
        check_system(name, users=True)
    with pytest.raises(InputError, match=f"{name} needs users"):
        build(name, LOG.items)
