"""Linear weights that keep their changes low-rank: as a matrix for each task, and written out where need be."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call

from graphmeta.adapt.adaptation import Adaptation
from graphmeta.adapt.scope import Scope
from graphmeta.adapt.stacked.stack import Stack
from graphmeta.adapt.stacked.task_matrix import MatrixState, TaskMatrix
from graphmeta.adapt.step import Gradient
from graphmeta.nn.features.tables import ItemFeatures
from graphmeta.nn.heads.dot import Dot
from graphmeta.nn.losses.losses import SoftmaxLoss
from graphmeta.nn.readout import Last
from graphmeta.recommender import Recommender
from graphmeta.sampling.samples import last_clicks
from graphmeta.sampling.task_layout import split_tasks
from graphmeta.sampling.tasks import task_batch
from graphmeta.testing import check_encoder, fake_log

pytestmark = pytest.mark.usefixtures("float64")
LOG = fake_log(sessions=12, length=7)
WIDTH = 5


class Layers(nn.Module):
    """One weight met three times, twice as a layer and once transposed; and a layer whose output is written into."""

    def __init__(self, width):
        super().__init__()
        self.twice, self.plain = nn.Linear(width, width), nn.Linear(width, width, bias=False)

    def forward(self, x, batch):
        once = torch.tanh(self.twice(x))[batch["event"].item]
        again = self.twice(once) @ self.twice.weight.t()
        return torch.relu_(self.plain(again)) + again


def model_of(encoder=Layers):
    torch.manual_seed(0)
    head = Dot(Last(), nn.Linear(WIDTH, WIDTH))
    return Recommender(ItemFeatures(LOG.num_items, WIDTH), encoder(WIDTH), head)


def states(model, tasks, *, steps, order=2, scope=("encoder", "head")):
    adaptation = Adaptation(Scope(*scope), step=Gradient(0.4), steps=steps, order=order)
    adaptation.bind(model)
    kept = []
    descend = adaptation._descend
    adaptation._descend = lambda problem, begin: kept.append(descend(problem, begin)) or kept[-1]
    weights = adaptation.adapted(model, tasks, SoftmaxLoss())
    return kept[0], weights


@pytest.mark.parametrize("most", [1, 10])
@pytest.mark.parametrize("steps", [1, 2])
def test_it_is_the_matrix_of_each_task(steps, most):
    """Against plain gradient descent on each task alone."""
    model = model_of()
    tasks = task_batch(last_clicks(LOG).take(slice(0, 3)), num_items=LOG.num_items, max_support=most)
    assert tasks.support is not None
    _, found = states(model, tasks, steps=steps)
    for task, support in enumerate(split_tasks(tasks.support)):
        weights = {name: model.get_parameter(name) for name in found}
        for _ in range(steps):
            loss = functional_call(model, weights, (support, SoftmaxLoss())).mean()
            slopes = torch.autograd.grad(loss, list(weights.values()))
            weights = {n: w - 0.4 * s for (n, w), s in zip(weights.items(), slopes, strict=True)}
        for name, weight in weights.items():
            torch.testing.assert_close(found[name][task], weight, rtol=0, atol=1e-12)


def test_rows_are_kept_while_they_are_fewer_than_the_numbers_of_the_matrix():
    model = model_of()
    for most, kept in ((1, {"encoder.plain.weight", "head.project.weight"}), (10, {"head.project.weight"})):
        tasks = task_batch(last_clicks(LOG).take(slice(0, 3)), num_items=LOG.num_items, max_support=most)
        weights, _ = states(model, tasks, steps=1)  # what is used transposed is written out in any case
        assert {name for name, weight in weights.items() if isinstance(weight, MatrixState)} == kept


def test_a_step_is_one_change_however_often_the_layer_is_called():
    class Thrice(Layers):
        def forward(self, x, batch):
            for _ in range(3):
                x = torch.tanh(self.plain(x))
            return x[batch["event"].item]

    width, log = 60, fake_log(sessions=3, length=5)
    torch.manual_seed(0)
    model = Recommender(ItemFeatures(log.num_items, width), Thrice(width), Dot(Last()))
    weights, _ = states(model, task_batch(last_clicks(log), num_items=log.num_items, max_support=1), steps=2)
    assert len(weights["encoder.plain.weight"].changes) == 2


def test_a_later_step_may_have_a_rate_for_each_number():
    class Rates(Gradient):
        def rate(self, name, number):
            return torch.linspace(0.1, 0.5, WIDTH**2).reshape(WIDTH, WIDTH) if number else 0.3

    model = model_of()
    tasks = task_batch(last_clicks(LOG).take(slice(0, 3)), num_items=LOG.num_items, max_support=1)
    answers = []
    for stacked in (True, False):
        adaptation = Adaptation(Scope("head.project.weight"), step=Rates(0.3), steps=2, stacked=stacked)
        adaptation.bind(model)
        answers.append(adaptation.run(model, tasks, SoftmaxLoss()))
    torch.testing.assert_close(*answers, rtol=0, atol=1e-12)


def test_products_and_what_is_written_out_agree():
    torch.manual_seed(1)
    stack = Stack(3)
    state = MatrixState(torch.randn(2, 5), ((0.3, torch.randn(3, 6, 2), torch.randn(3, 6, 5)),) * 2)
    x = torch.randn(12, 7, 5)
    wanted = torch.stack([row @ w.t() for w, rows in zip(state.dense(3), x.chunk(3), strict=True) for row in rows])
    torch.testing.assert_close(TaskMatrix(state, stack).linear(x), wanted)
    one = state.base - 0.6 * sum(s.t() @ r for s, r in [(state.changes[0][1][1], state.changes[0][2][1])])
    torch.testing.assert_close(state.dense(3)[1], one)


def test_the_encoder_keeps_the_contract_stacked():
    report = check_encoder(Layers, width=WIDTH)
    assert report.ok and "falls back" not in str(report), report


def test_autocast_does_not_round_what_is_written_out():
    torch.manual_seed(1)
    state = MatrixState(torch.randn(2, 5).float(), ((0.3, torch.randn(3, 6, 2).float(), torch.randn(3, 6, 5).float()),))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = state.dense(3)
    assert torch.equal(under, state.dense(3))


class SeenTwice(Layers):
    """Each weight is first met where there is no gradient: as a gate, as a layer and transposed."""

    def forward(self, x, batch):
        with torch.no_grad():
            gate = torch.sigmoid(self.twice(x) + x @ self.plain.weight.t())
        return (gate * self.twice(x) @ self.plain.weight.t())[batch["event"].item]


def test_a_use_without_gradient_is_no_hindrance():
    report = check_encoder(SeenTwice, width=WIDTH)
    engines = next(check for check in report.checks if check.name == "stacked = loop")
    assert engines.ok and "falls back" not in engines.found, report


class InBf16(nn.Linear):
    def forward(self, x, batch):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            made = super().forward(torch.tanh(super().forward(x)))
        return made[batch["event"].item].to(x.dtype)


def test_a_layer_in_bf16_changes_a_matrix_of_32_bits():
    model = model_of(lambda width: InBf16(width, width)).float()
    tasks = task_batch(last_clicks(LOG).take(slice(0, 3)), num_items=LOG.num_items, max_support=1)
    answers = []
    for stacked in (True, False):
        adaptation = Adaptation(Scope("encoder"), step=Gradient(0.4), steps=3, order=2, stacked=stacked)
        adaptation.bind(model)
        answers.append(adaptation.run(model, tasks, SoftmaxLoss()))
        assert not adaptation.fell_back
    torch.testing.assert_close(*answers, rtol=0.02, atol=0)
    weights, _ = states(model, tasks, steps=2, scope=("encoder",))
    made = weights["encoder.weight"]
    assert (made.dense(3) if isinstance(made, MatrixState) else made).dtype == torch.float32


@pytest.mark.parametrize("order", [1, 2])
def test_memory_of_a_step_has_no_matrix_for_each_task(order):
    """Nothing that is kept for the backward pass is as large as the tasks' matrices."""
    width, count = 60, 8
    log = fake_log(sessions=count, length=5)
    torch.manual_seed(0)
    head = Dot(Last(), nn.Linear(width, width, bias=False))
    model = Recommender(ItemFeatures(log.num_items, width), nn.Sequential(), head)
    model.encoder.forward = lambda x, batch: x[batch["event"].item]
    adaptation = Adaptation(Scope("head"), step=Gradient(0.4), steps=2, order=order)
    adaptation.bind(model)
    tasks, largest = task_batch(last_clicks(log), num_items=log.num_items), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: largest.append(t.numel()) or t, lambda t: t):
        adaptation.run(model, tasks, SoftmaxLoss()).mean().backward()
    assert np.max(largest) < count * width * width / 2
