"""Steps with rates by group, clipped, held near their start, trained at every step: against plain descent by task."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call

from graphmeta.adapt.adaptation import Adaptation
from graphmeta.adapt.inner import InnerLoop, MultiStep, OrderSchedule
from graphmeta.adapt.scope import Scope
from graphmeta.adapt.stacked.table_state import TableState
from graphmeta.adapt.stacked.task_matrix import MatrixState
from graphmeta.adapt.step import Gradient, GroupRates, LearnedRates
from graphmeta.errors import InputError
from graphmeta.nn.encoders.gated_graph import GatedSessionGraph
from graphmeta.nn.features.tables import ItemFeatures
from graphmeta.nn.heads.dot import Cosine, Dot
from graphmeta.nn.losses.losses import SoftmaxLoss
from graphmeta.nn.readout import Last, SoftAttention
from graphmeta.published.catalogue import build
from graphmeta.recommender import Recommender
from graphmeta.sampling.samples import Samples, sessions_without_target
from graphmeta.sampling.session_batch import session_batch
from graphmeta.sampling.tasks import task_batch
from graphmeta.testing import fake_log
from tests.adapt.reference import support_of

LOG, RATE = fake_log(sessions=16, items=19), 0.3
ITEMS, TABLE = LOG.num_items, "features.item.weight"

pytestmark = pytest.mark.usefixtures("float64")


def samples():
    """Sessions of one to six known clicks (the first has no support), with repeats, and their next items."""
    known = sessions_without_target([np.array(clicks) for clicks in ([3], [1, 2, 1, 5, 2, 2], [4, 9, 4], [6, 0])])
    return Samples(known.item, known.begin, known.end, np.array([4, 6, 5, 11]), known.session)


class Layers(nn.Module):
    """A weight met as a layer, twice, and transposed; and one that is a layer alone."""

    def __init__(self, width):
        super().__init__()
        self.twice, self.plain = nn.Linear(width, width), nn.Linear(width, width, bias=False)

    def forward(self, x, batch):
        once = torch.tanh(self.twice(x))[batch["event"].item]
        return torch.tanh(self.plain(self.twice(once) @ self.twice.weight.t()))


def graph():
    head = Dot(SoftAttention(4), nn.Linear(8, 4))
    return Recommender(ItemFeatures(ITEMS, 4), GatedSessionGraph(4), head)


def layers():
    return Recommender(ItemFeatures(ITEMS, 5), Layers(5), Dot(Last(), nn.Linear(5, 5)))


def wide():
    """Wide enough for every matrix to stay low-rank."""
    return Recommender(ItemFeatures(ITEMS, 40), Layers(40), Dot(Last(), nn.Linear(40, 40)))


def cosines():
    return build("niser", LOG.items, width=4).recommender


def raw_cosines():
    """The same rows looked up as they are, whose gradients are not orthogonal to them."""
    return Recommender(ItemFeatures(ITEMS, 4), Layers(4), Cosine(Last(), nn.Linear(4, 4), scale=3.0))


def single_products():
    """A network beside the scores that reads single products."""
    return fitted(build("sr_gnn", LOG.items, width=4, score_terms=["reranker"]))


def sums():
    """Items that are sums of rows of the table, and a network that reads their products."""
    return fitted(build("dropout_net", LOG.items, width=4, base="sr_gnn", options={"score_terms": ["reranker"]}))


def fitted(system):
    system.fit_statistics(LOG)
    return system.recommender


MODELS = {make.__name__: make for make in (graph, layers, wide, cosines, raw_cosines, single_products, sums)}


def made(name):
    torch.manual_seed(3)
    model = MODELS[name]().eval()
    for parameter in model.parameters():  # so that nothing is zero
        nn.init.normal_(parameter, std=0.8 / parameter.shape[-1] ** 0.5)
    return model


@dataclass(frozen=True)
class Plain:
    """Descent on each task alone, by autograd: ``L_support(θ)``'s gradient clipped, and that of ``λ/2 ‖θ − θ_0‖²``."""

    model: nn.Module
    names: list[str]
    loop: InnerLoop
    rates: dict[str, list[torch.Tensor | float]]

    def walk(self, support):
        """The weights after each step."""
        start = {name: self.model.get_parameter(name) for name in self.names}
        weights, found = {name: weight.clone() for name, weight in start.items()}, []
        for number in range(self.loop.steps if len(support) else 0):
            weights = self.step(support, weights, start, number)
            found.append(weights)
        return found or [weights] * self.loop.steps

    def step(self, support, weights, start, number):
        second, here, fixed = self.loop.order == 2, weights, {}
        if not second:
            here = {name: weight.detach().requires_grad_() for name, weight in weights.items()}
            start = {name: weight.detach() for name, weight in start.items()}
            fixed = {name: weight.detach() for name, weight in self.model.named_parameters()}
        batch = session_batch(support, num_items=ITEMS)
        loss = functional_call(self.model, fixed | here, (batch, SoftmaxLoss())).mean()
        slopes = self.slopes(loss, here, second)
        norm = torch.sqrt(sum(slope.square().sum() for slope in slopes.values()))
        factor = 1.0 if self.loop.clip is None or norm <= self.loop.clip else self.loop.clip / norm
        near = sum((here[name] - start[name]).square().sum() for name in here) * self.loop.proximal / 2
        pull = self.slopes(near, here, second)
        moved = {name: factor * slopes[name] + pull[name] for name in here}
        return {name: weight - self.rates[name][number] * moved[name] for name, weight in weights.items()}

    def slopes(self, loss, weights, second):
        found = torch.autograd.grad(loss, list(weights.values()), create_graph=second, allow_unused=True)
        filled = [torch.zeros_like(w) if g is None else g for w, g in zip(weights.values(), found, strict=True)]
        return dict(zip(weights, filled, strict=True))

    def losses(self, shares):
        """``Σ_k v_k L_query(θ_k)`` of each task."""
        return torch.cat(
            [
                sum(v * self.ask(t, w, SoftmaxLoss()) for v, w in zip(shares, walk, strict=True))
                for t, walk in enumerate(self.walks())
            ]
        )

    def scores(self):
        return torch.cat([self.ask(t, walk[-1], None) for t, walk in enumerate(self.walks())])

    def walks(self):
        return [self.walk(support_of(samples(), t)) for t in range(len(samples()))]

    def ask(self, task, weights, loss):
        query = session_batch(samples().take(slice(task, task + 1)), num_items=ITEMS)
        return functional_call(self.model, weights, (query, loss))


def gradients(losses, learned):
    found = torch.autograd.grad(losses.mean(), learned, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(learned, found, strict=True)]


def rates_of(adaptation):
    """From the learned numbers, without asking the step."""
    step, steps = adaptation.step, range(adaptation.steps)
    if isinstance(step, Gradient):
        return {name: [step.lr] * len(steps) for name in adaptation.names}
    found, kept = {}, dict(step.named_parameters())
    for name in adaptation.names:
        if isinstance(step, LearnedRates):
            found[name] = [kept[f"rates.{name.replace('.', '/')}"][k if step.per_step else 0] for k in steps]
            continue
        groups = [name] if step.groups is None else [g for g in step.groups if name.startswith(g)]
        own = kept[f"rates.{groups[0].replace('.', '/')}"]
        found[name] = [RATE * torch.exp(own[k if step.per_step else 0]) for k in steps]
    return found


def check(name, scope, loop, *, step=None, progress=1.0, shares=None, order=None):
    """Stacked, loop and plain descent agree in losses, scores and all meta-gradients; returns those of descent."""
    answers = []
    for stacked in (True, False, None):
        model = made(name)
        adaptation = Adaptation(
            Scope(*scope),
            step=(step or (lambda: Gradient(RATE)))(),
            inner=loop,
            stacked=bool(stacked),
        )
        adaptation.bind(model)
        for number, rho in enumerate(adaptation.parameters()):
            with torch.no_grad():
                rho += 0.2 * torch.sin(torch.arange(rho.numel()) + number).reshape(rho.shape)
        learned = [p for p in (*model.parameters(), *adaptation.parameters()) if p.requires_grad]
        if stacked is None:
            shown = replace(loop, order=order or loop.order)
            plain = Plain(model, adaptation.names, shown, rates_of(adaptation))
            losses = plain.losses(shares or (*(0.0,) * (loop.steps - 1), 1.0))
            scores = plain.scores()
        else:
            tasks = task_batch(samples(), num_items=ITEMS)
            losses = adaptation.run(model, tasks, SoftmaxLoss(), progress=progress)
            scores = adaptation.run(model, tasks, SoftmaxLoss(), score=True)
            assert not adaptation.fell_back
        answers.append([losses.detach(), scores.detach(), *gradients(losses, learned)])
    assert all(part.abs().max() > 0 for part in answers[2][:2])
    worst = 0.0
    for one, other, right in zip(*answers, strict=True):
        worst = max(worst, *(float((found - right).abs().max()) for found in (one, other)))
    print(f"largest difference: {worst:.1e}")
    assert worst < 1e-10, worst
    return answers[2]


both_orders = pytest.mark.parametrize("order", [1, 2])
models = pytest.mark.parametrize(
    ("name", "scope"),
    [
        pytest.param("graph", ("head",), marks=pytest.mark.slow),
        ("graph", ("encoder", "head")),
        pytest.param("graph", ("",), marks=pytest.mark.slow),
        ("layers", ("encoder", "head")),
        ("wide", ("",)),
        ("cosines", ("",)),
        pytest.param("cosines", ("features",), marks=pytest.mark.slow),
        ("raw_cosines", ("",)),
        pytest.param("single_products", ("",), marks=pytest.mark.slow),
        ("sums", ("",)),
    ],
)


@pytest.mark.covering
@models
@both_orders
def test_rates_by_group_and_step(name, scope, order):
    found = check(name, scope, InnerLoop(2, order), step=lambda: GroupRates(RATE))
    assert sum(float(part.abs().max()) > 1e-9 for part in found[2:]) > 5


@both_orders
def test_rates_that_all_steps_share(order):
    check("graph", ("",), InnerLoop(3, order), step=lambda: GroupRates(RATE, per_step=False))


@both_orders
def test_rates_of_groups_by_prefix(order):
    groups = ("head", "encoder")
    found = check("wide", ("encoder", "head"), InnerLoop(2, order), step=lambda: GroupRates(RATE, groups=groups))
    assert [part.shape for part in found[-2:]] == [(2,), (2,)] and all(part.abs().min() > 1e-8 for part in found[-2:])


@pytest.mark.covering
@models
@both_orders
def test_clipped_by_the_norm_over_all_parameters(name, scope, order):
    loop = InnerLoop(2, order)
    model = made(name)
    names = [n for n in Scope(*scope).names(model) if model.get_parameter(n).requires_grad]
    plain = Plain(model, names, loop, {})
    norms = [norm_of(plain, support_of(samples(), t), names) for t in (1, 2, 3)]
    limit = sum(sorted(norms)[:2]) / 2  # between the least and the middle one
    check(name, scope, replace(loop, clip=limit))


def norm_of(plain, support, names):
    batch = session_batch(support, num_items=ITEMS)
    loss = functional_call(plain.model, {}, (batch, SoftmaxLoss())).mean()
    slopes = plain.slopes(loss, {name: plain.model.get_parameter(name) for name in names}, False)
    return math.sqrt(sum(float(slope.square().sum()) for slope in slopes.values()))


@pytest.mark.covering
@models
@both_orders
@pytest.mark.parametrize("rates", [Gradient, LearnedRates])
def test_held_near_the_start(name, scope, order, rates):
    check(name, scope, InnerLoop(3, order, proximal=0.7), step=lambda: rates(RATE))


@pytest.mark.covering
@models
@both_orders
def test_trained_at_every_step(name, scope, order):
    """v is uniform at first, half way to the last step at half of ``until``."""
    loop, half = InnerLoop(3, order, multi_step=MultiStep(anneal_until=0.4)), name in ("wide", "cosines")
    progress, shares = (0.2, (1 / 6, 1 / 6, 2 / 3)) if half else (0.0, (1 / 3, 1 / 3, 1 / 3))
    check(name, scope, loop, progress=progress, shares=shares)


@models
def test_all_at_once(name, scope):
    loop = InnerLoop(3, OrderSchedule(0.5), clip=0.8, proximal=0.4, multi_step=MultiStep(anneal_until=1.0))
    for progress, order, shares in ((0.25, 1, (0.25, 0.25, 0.5)), (0.75, 2, (1 / 12, 1 / 12, 5 / 6))):
        check(name, scope, loop, step=lambda: GroupRates(RATE), progress=progress, shares=shares, order=order)


@both_orders
@pytest.mark.parametrize("stacked", [True, False])
def test_a_task_alone(order, stacked):
    """It is answered with plain tensors, as no table is in scope."""
    model, shares = made("graph"), (0.25, 0.25, 0.5)
    loop = InnerLoop(3, order, clip=0.3, proximal=0.4, multi_step=MultiStep(anneal_until=1.0))
    adaptation = Adaptation(Scope("encoder", "head"), step=Gradient(RATE), inner=loop, stacked=stacked)
    adaptation.bind(model)
    wanted = Plain(model, adaptation.names, loop, rates_of(adaptation)).losses(shares)
    for t in range(len(samples())):
        tasks = task_batch(samples().take(slice(t, t + 1)), num_items=ITEMS)
        found = adaptation.run(model, tasks, SoftmaxLoss(), progress=0.25)
        torch.testing.assert_close(found, wanted[t : t + 1], rtol=0, atol=1e-12)


def test_the_order_changes_with_the_progress():
    answers = {}
    half = OrderSchedule(0.5)
    for key, order, progress in (("a", 1, 0.3), ("b", half, 0.3), ("c", 2, 0.5), ("d", half, 0.5)):
        model = made("graph")
        adaptation = Adaptation(Scope("encoder"), step=Gradient(RATE), inner=InnerLoop(2, order))
        adaptation.bind(model)
        losses = adaptation.run(model, task_batch(samples(), num_items=ITEMS), SoftmaxLoss(), progress=progress)
        answers[key] = gradients(losses, list(model.parameters()))
    for one, other in (("a", "b"), ("c", "d")):
        assert all(torch.equal(x, y) for x, y in zip(answers[one], answers[other], strict=True))
    assert any(not torch.allclose(x, y) for x, y in zip(answers["a"], answers["c"], strict=True))
    assert adaptation.order == 2


@pytest.mark.parametrize("name", ["wide", "cosines"])
@both_orders
def test_changes_stay_low_rank(name, order):
    """Whatever is asked of the steps, as long as a matrix has one rate."""
    model = made(name)
    loop = InnerLoop(2, order, clip=0.1, proximal=0.5)
    adaptation = Adaptation(Scope(""), step=GroupRates(RATE), inner=loop)
    adaptation.bind(model)
    kept = []
    descend = adaptation._descend
    adaptation._descend = lambda problem, begin: kept.append(descend(problem, begin)) or kept[-1]
    adaptation.run(model, task_batch(samples(), num_items=ITEMS, max_support=1), SoftmaxLoss())
    (weights,) = kept
    (table,) = (weight for n, weight in weights.items() if n.endswith(TABLE))
    assert isinstance(table, TableState) and len(table.outer) == 2
    if name == "wide":
        low = {n for n, weight in weights.items() if isinstance(weight, MatrixState)}
        assert low == {"encoder.plain.weight", "head.project.weight"}  # the third is used transposed


def test_a_gradient_at_the_limit_is_left_as_it_is():
    model, tasks = made("wide"), task_batch(samples(), num_items=ITEMS)
    answers = []
    for clip in (None, 1e6):
        adaptation = Adaptation(Scope(""), step=Gradient(RATE), inner=InnerLoop(2, 2, clip=clip))
        adaptation.bind(model)
        answers.append(adaptation.run(model, tasks, SoftmaxLoss()))
    assert torch.equal(*answers)


def test_scores_do_not_depend_on_the_progress():
    model, tasks = made("graph"), task_batch(samples(), num_items=ITEMS)
    loop = InnerLoop(3, OrderSchedule(0.5), multi_step=MultiStep())
    adaptation = Adaptation(Scope("encoder"), step=Gradient(RATE), inner=loop)
    adaptation.bind(model)
    found = [adaptation.run(model, tasks, SoftmaxLoss(), score=True, progress=p) for p in (0.0, 0.4, 1.0)]
    assert torch.equal(found[0], found[1]) and torch.equal(found[1], found[2])


def test_the_weights_of_steps_move_to_the_last_one():
    weights = MultiStep(anneal_until=0.5).weights
    assert weights(4, 0.0) == (0.25,) * 4 and weights(4, 0.25) == (0.125, 0.125, 0.125, 0.625)
    assert weights(4, 0.5) == weights(4, 1.0) == (0.0, 0.0, 0.0, 1.0)
    assert weights(1, 0.0) == (1.0,) and weights(0, 0.0) == ()


@pytest.mark.parametrize(
    ("loop", "progress"),
    [
        (InnerLoop(2, 2), 1.0),
        (InnerLoop(2, OrderSchedule(0.5)), 1.0),
        (InnerLoop(2, 2, multi_step=MultiStep(0.4)), 0.0),
        (InnerLoop(2, OrderSchedule(0.3), multi_step=MultiStep(0.4)), 0.3),  # second order and every step
        (InnerLoop(2, OrderSchedule(0.5), multi_step=MultiStep(0.4)), 1.0),  # never both
    ],
)
def test_when_a_batch_takes_the_most(loop, progress):
    assert loop.peak_memory_progress == progress


def test_a_clipped_step_stays_stacked_under_autocast():
    model, tasks = made("graph").float(), task_batch(samples(), num_items=ITEMS)
    adaptation = Adaptation(Scope(""), step=Gradient(RATE), inner=InnerLoop(2, 1, clip=0.2, proximal=0.1))
    adaptation.bind(model)
    exact = adaptation.run(model, tasks, SoftmaxLoss())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = adaptation.run(model, tasks, SoftmaxLoss())
    assert not adaptation.fell_back
    torch.testing.assert_close(found.float(), exact, rtol=0.03, atol=0.03)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda: InnerLoop(order=3), "order must be 1 or 2"),
        (lambda: InnerLoop(steps=-1), "steps must be a whole number"),
        (lambda: InnerLoop(clip=0.0), "clip=0.0 must be"),
        (lambda: InnerLoop(clip=math.nan), "clip=nan must be"),
        (lambda: InnerLoop(proximal=-1.0), "proximal=-1.0 must be"),
        (lambda: MultiStep(anneal_until=0.0), "anneal_until=0.0 must be"),
        (lambda: OrderSchedule(first_order_until=1.0), "first_order_until=1.0 must be"),
        (lambda: GroupRates(0.0), "learned in log space cannot start at 0"),
        (lambda: GroupRates(-0.1), "the rate is -0.1"),
        (lambda: Adaptation(Scope(""), step=Gradient(0.1), inner=InnerLoop(), steps=2), "belong to the inner loop"),
    ],
)
def test_what_makes_no_inner_loop_is_refused(wrong, told):
    with pytest.raises(InputError, match=told):
        wrong()


@pytest.mark.parametrize(
    ("groups", "told"),
    [(("encoder",), "head.project.weight is in none of the groups encoder"), (("encoder", "haed", ""), "group 'haed'")],
)
def test_groups_that_do_not_fit_the_scope_are_refused(groups, told):
    with pytest.raises(InputError, match=told):
        Adaptation(Scope("encoder", "head.project"), step=GroupRates(0.1, groups=groups)).bind(made("wide"))


def test_the_longest_group_that_fits():
    step = GroupRates(0.1, groups=("", "head", "head.project"))
    Adaptation(Scope(""), step=step).bind(made("graph"))
    assert step.group_of["head.project.weight"] == "head.project" and step.group_of[TABLE] == ""
    assert {g for n, g in step.group_of.items() if n.startswith("head.readout")} == {"head"}


@pytest.mark.parametrize("rates", [GroupRates, LearnedRates])
def test_more_steps_than_rates_are_refused(rates):
    model = made("wide")
    adaptation = Adaptation(Scope("head"), step=rates(0.1, per_step=True), steps=2)
    adaptation.bind(model)
    adaptation.steps = 3
    with pytest.raises(InputError, match="rates for 2 steps, not for 3"):
        adaptation.run(model, task_batch(samples(), num_items=ITEMS), SoftmaxLoss(), score=True)


def test_a_clipped_gradient_of_a_number_stays_a_number():
    from graphmeta.adapt.clipping import _scaled

    number, table = torch.tensor(2.0), torch.ones(3, 2)
    found = _scaled(number, [number, table, None], torch.tensor(0.5))
    assert found[0].shape == () and float(found[0]) == 1 and torch.equal(found[1], table / 2) and found[2] is None


def test_paths_have_no_multi_step_loss():
    from graphmeta.published.models.meta import meta_hin
    from graphmeta.published.models.session import sr_gnn
    from graphmeta.testing import fake_log

    with pytest.raises(InputError, match="no multi-step loss"):
        meta_hin(sr_gnn(fake_log(sessions=5).items, width=4), inner=InnerLoop(steps=2, multi_step=MultiStep()))
