"""All tasks at once give what one task after the other gives: losses, scores and every meta-gradient."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch_geometric.nn import (
    EdgeConv,
    GATConv,
    GatedGraphConv,
    GATv2Conv,
    GCNConv,
    GINConv,
    GraphConv,
    SAGEConv,
    TransformerConv,
)

from graphmeta.adapt.adaptation import Adaptation
from graphmeta.adapt.budget import Activations, _costs, chunks, counting, estimate, split_by_cost
from graphmeta.adapt.scope import Scope
from graphmeta.adapt.starts.start import Shared as SharedStart
from graphmeta.adapt.step import Gradient, LearnedRates
from graphmeta.errors import DivergedError, InputError
from graphmeta.nn.encoders.attention import Blend, SelfAttentionStack, from_dense, to_dense
from graphmeta.nn.encoders.gated_graph import GatedSessionGraph
from graphmeta.nn.features.tables import ItemFeatures
from graphmeta.nn.heads.dot import Dot
from graphmeta.nn.losses.losses import SoftmaxLoss
from graphmeta.nn.readout import Last, SoftAttention
from graphmeta.recommender import Recommender
from graphmeta.sampling.batch_rows import NEXT
from graphmeta.sampling.samples import Samples, last_clicks, sessions_without_target
from graphmeta.sampling.tasks import TaskSizes, task_batch
from graphmeta.system import System
from graphmeta.testing import fake_log
from graphmeta.training.loop import train

ITEMS, WIDTH = 19, 4


pytestmark = pytest.mark.usefixtures("float64")


class Convolution(nn.Module):
    """A PyG convolution over the session's clicks, then LayerNorm."""

    def __init__(self, conv):
        super().__init__()
        self.conv, self.norm = conv, nn.LayerNorm(WIDTH)

    def forward(self, x, batch):
        return self.norm(torch.tanh(self.conv(x, batch[NEXT].edge_index)))[batch["event"].item]


class Recurrent(nn.Module):
    """torch's GRU or LSTM over the padded clicks."""

    def __init__(self, kind, layers=1):
        super().__init__()
        self.rnn = kind(WIDTH, WIDTH, batch_first=True, num_layers=layers)

    def forward(self, x, batch):
        return from_dense(self.rnn(to_dense(x[batch["event"].item], batch)[0])[0], batch)


class Cell(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.linear = nn.GRUCell(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x, batch):
        return self.cell(self.linear(x), x)[batch["event"].item]


class Positions(nn.Module):
    """Looks up rows of a table of its own, one a click."""

    def __init__(self):
        super().__init__()
        self.position = nn.Embedding(9, WIDTH)

    def forward(self, x, batch):
        return x[batch["event"].item] + self.position(batch["event"].order)


class Unknown(nn.Module):
    """Uses an operation that the stacked engine does not know."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(WIDTH, WIDTH))

    def forward(self, x, batch):
        return (x @ torch.linalg.matrix_exp(self.weight))[batch["event"].item]


ENCODERS = {
    "GatedSessionGraph": lambda: GatedSessionGraph(WIDTH),
    "SelfAttentionStack": lambda: Blend(SelfAttentionStack(WIDTH, layers=2, dropout=0.0)),
    "GatedGraphConv": lambda: Convolution(GatedGraphConv(WIDTH, 2)),
    "SAGEConv": lambda: Convolution(SAGEConv(WIDTH, WIDTH)),
    "GraphConv": lambda: Convolution(GraphConv(WIDTH, WIDTH)),
    "GATConv": lambda: Convolution(GATConv(WIDTH, WIDTH // 2, heads=2)),
    "GATv2Conv": lambda: Convolution(GATv2Conv(WIDTH, WIDTH // 2, heads=2)),
    "GCNConv": lambda: Convolution(GCNConv(WIDTH, WIDTH)),
    "GINConv": lambda: Convolution(GINConv(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU()), train_eps=True)),
    "TransformerConv": lambda: Convolution(TransformerConv(WIDTH, WIDTH, beta=True)),
    "EdgeConv": lambda: Convolution(EdgeConv(nn.Sequential(nn.Linear(2 * WIDTH, WIDTH), nn.LayerNorm(WIDTH)))),
    "GRU": lambda: Recurrent(nn.GRU, layers=2),
    "LSTM": lambda: Recurrent(nn.LSTM),
    "GRUCell, Linear": Cell,
    "Embedding": Positions,
}


def samples(seed=0):
    """Sessions of 1 to 5 known clicks (the first has no support at all) with their next click."""
    random = np.random.default_rng(seed)
    sessions = [random.integers(0, ITEMS, n) for n in (2, 6, 4)]
    known = sessions_without_target([session[:-1] for session in sessions])
    return Samples(known.item, known.begin, known.end, np.array([s[-1] for s in sessions]), known.session)


def recommender(make):
    torch.manual_seed(3)
    head = Dot(SoftAttention(WIDTH), nn.Linear(2 * WIDTH, WIDTH))
    return Recommender(ItemFeatures(ITEMS, WIDTH), make(), head)


def answers(make, scope, *, stacked, order=1, steps=1, step=None):
    """Losses, scores and meta-gradients of every parameter."""
    model, tasks = recommender(make), task_batch(samples(), num_items=ITEMS)
    adaptation = Adaptation(
        Scope(*scope), step=Gradient(0.3) if step is None else step(), steps=steps, order=order, stacked=stacked
    )
    adaptation.bind(model)
    losses = adaptation.run(model, tasks, SoftmaxLoss())
    every = [*model.parameters(), *adaptation.parameters()]
    gradients = torch.autograd.grad(losses.mean(), every, allow_unused=True)
    scores = adaptation.run(model, tasks, SoftmaxLoss(), score=True)
    filled = [torch.zeros_like(p) if g is None else g for p, g in zip(every, gradients, strict=True)]
    return [losses.detach(), scores.detach(), *filled], adaptation


def assert_equal(one, other, tolerance=1e-9):
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance)


def assert_stacked_is_loop(name, scope, order, steps):
    one, adaptation = answers(ENCODERS[name], scope, stacked=True, order=order, steps=steps)
    other, _ = answers(ENCODERS[name], scope, stacked=False, order=order, steps=steps)
    assert not adaptation.fell_back, "the stacked engine gave up"
    assert_equal(one, other)


@pytest.mark.covering
@pytest.mark.parametrize(("order", "steps"), [(1, 3), (2, 2)])
@pytest.mark.parametrize("name", ENCODERS)
def test_stacked_is_the_loop_for_every_layer(name, order, steps):
    assert_stacked_is_loop(name, ("",), order, steps)


@pytest.mark.covering
@pytest.mark.parametrize("scope", [("head",), ("encoder", "head"), ("features",)], ids=["head", "no table", "table"])
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("steps", [1, 3])
def test_stacked_is_the_loop_for_every_scope(scope, order, steps):
    assert_stacked_is_loop("GatedSessionGraph", scope, order, steps)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("per_step", [False, True])
def test_learned_rates_learn_in_both_orders(order, per_step):
    def step():
        return LearnedRates(0.2, per_step=per_step)

    one, adaptation = answers(ENCODERS["GatedSessionGraph"], ("",), stacked=True, order=order, steps=2, step=step)
    other, _ = answers(
        ENCODERS["GatedSessionGraph"], ("encoder", "head"), stacked=True, order=order, steps=2, step=step
    )
    assert all(gradient.abs().sum() > 0 for gradient in one[-len(list(adaptation.parameters())) :])
    loop, _ = answers(
        ENCODERS["GatedSessionGraph"], ("encoder", "head"), stacked=False, order=order, steps=2, step=step
    )
    assert_equal(other, loop)


def test_unknown_operation_falls_back_once_with_the_same_result():
    with pytest.warns(UserWarning, match="matrix_exp") as caught:
        one, adaptation = answers(Unknown, ("encoder",), stacked=True, order=2)
    assert len(caught) == 1 and adaptation.fell_back
    assert_equal(one, answers(Unknown, ("encoder",), stacked=False, order=2)[0], tolerance=0)


def test_second_order_is_the_derivative():
    make, scope = ENCODERS["GatedSessionGraph"], ("encoder", "head")
    gradient = answers(make, scope, stacked=True, order=2, steps=2)[0][2:]
    model, tasks = recommender(make), task_batch(samples(), num_items=ITEMS)
    adaptation = Adaptation(Scope(*scope), step=Gradient(0.3), steps=2, order=2)
    adaptation.bind(model)
    generator = torch.Generator().manual_seed(0)
    direction = [torch.randn(p.shape, generator=generator) for p in model.parameters()]
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            for parameter, d in zip(model.parameters(), direction, strict=True):
                parameter += (1e-6 if values == [] else -2e-6) * d
        values.append(float(adaptation.run(model, tasks, SoftmaxLoss()).mean().detach()))
        assert sign
    numeric = (values[0] - values[1]) / 2e-6
    analytic = float(sum((g * d).sum() for g, d in zip(gradient, direction, strict=True)))
    first = float(
        sum((g * d).sum() for g, d in zip(answers(make, scope, stacked=True, steps=2)[0][2:], direction, strict=True))
    )
    assert numeric == pytest.approx(analytic, rel=1e-6)
    assert abs(first - analytic) > 1e-3 * abs(analytic), "the two orders should differ here"


def test_orders_agree_as_the_rate_vanishes():
    def step():
        return Gradient(1e-9)

    one, _ = answers(ENCODERS["SAGEConv"], ("",), stacked=True, order=1, step=step)
    other, _ = answers(ENCODERS["SAGEConv"], ("",), stacked=True, order=2, step=step)
    assert_equal(one, other, tolerance=1e-7)


def test_one_step_by_hand():
    """θ' = θ − β ∇ of the mean support loss, written out for one task."""
    model, tasks = recommender(ENCODERS["SAGEConv"]), task_batch(samples().take([1]), num_items=ITEMS)
    adaptation = Adaptation(Scope("head.project"), step=Gradient(0.3))
    adaptation.bind(model)
    loss = nn.functional.cross_entropy(
        model(tasks.support), tasks.support["sample"].target[tasks.support["sample"].real]
    )
    slope = torch.autograd.grad(loss, model.head.project.weight)[0]
    moved = adaptation.adapted(model, tasks, SoftmaxLoss())["head.project.weight"]
    torch.testing.assert_close(moved[0], model.head.project.weight - 0.3 * slope)


def test_low_rank_table_is_the_dense_table():
    model, tasks = recommender(ENCODERS["SAGEConv"]), task_batch(samples(), num_items=ITEMS)
    adaptation = Adaptation(Scope("features", "head"), step=Gradient(0.5), steps=2, order=2)
    adaptation.bind(model)
    state = adaptation.adapted(model, tasks, SoftmaxLoss())["features.item.weight"]
    from graphmeta.sampling.task_layout import split_tasks

    for task, support in enumerate(split_tasks(tasks.support)):
        weights = {name: model.get_parameter(name) for name in adaptation.names}
        for _ in range(2):
            losses = torch.func.functional_call(model, weights, (support, SoftmaxLoss()))
            if len(losses):
                slopes = torch.autograd.grad(losses.mean(), list(weights.values()), allow_unused=True)
                weights = {n: w - 0.5 * s for (n, w), s in zip(weights.items(), slopes, strict=True)}
        torch.testing.assert_close(state.dense(3)[task], weights["features.item.weight"], rtol=0, atol=1e-12)


def test_order_of_tasks_only_permutes_answers():
    model, order = recommender(ENCODERS["GATv2Conv"]), [2, 0, 1]
    adaptation = Adaptation(Scope("encoder", "head"), step=Gradient(0.3), steps=2)
    adaptation.bind(model)
    straight = adaptation.run(model, task_batch(samples(), num_items=ITEMS), SoftmaxLoss())
    mixed = adaptation.run(model, task_batch(samples().take(order), num_items=ITEMS), SoftmaxLoss())
    torch.testing.assert_close(mixed, straight[order], rtol=0, atol=1e-12)


def test_query_target_reaches_no_weight():
    model, known = recommender(ENCODERS["SAGEConv"]), samples()
    other = Samples(known.item, known.begin, known.end, (known.target + 1) % ITEMS, known.session)
    adaptation = Adaptation(Scope(""), step=Gradient(0.3))
    adaptation.bind(model)
    scores = [adaptation.run(model, task_batch(s, num_items=ITEMS), SoftmaxLoss(), score=True) for s in (known, other)]
    assert torch.equal(*scores)


def test_a_start_never_sees_the_query_target():
    seen = []

    class Looks(SharedStart):
        def forward(self, recommender, observed, encoded):
            seen.append(observed["sample"])
            return super().forward(recommender, observed, encoded)

    model, known = recommender(ENCODERS["SAGEConv"]), samples()
    known = replace(known, value=np.arange(len(known), dtype=float))
    adaptation = Adaptation(Scope(""), step=Gradient(0.3), start=Looks())
    adaptation.bind(model)
    adaptation.run(model, task_batch(known, num_items=ITEMS), SoftmaxLoss())
    assert seen and not any("target" in one or "value" in one for one in seen)


def test_nothing_is_left_behind_between_tasks():
    model, tasks = recommender(ENCODERS["GRU"]), task_batch(samples(), num_items=ITEMS)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    adaptation = Adaptation(Scope(""), step=Gradient(0.3), steps=3)
    adaptation.bind(model)
    with torch.no_grad():
        first = adaptation.run(model, tasks, SoftmaxLoss(), score=True)
        second = adaptation.run(model, tasks, SoftmaxLoss(), score=True)
    assert torch.equal(first, second)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_scope_that_selects_nothing_is_an_error():
    adaptation = Adaptation(Scope("haed"), step=Gradient(0.1))
    with pytest.raises(InputError, match="selects no parameter; there are: features.item.weight"):
        adaptation.bind(recommender(ENCODERS["SAGEConv"]))


def test_scope_without_influence_is_an_error():
    model = Recommender(ItemFeatures(ITEMS, WIDTH), Unused(), Dot(Last()))
    adaptation = Adaptation(Scope("encoder"), step=Gradient(0.1))
    adaptation.bind(model)
    with pytest.raises(InputError, match="influence"):
        adaptation.run(model, task_batch(samples(), num_items=ITEMS), SoftmaxLoss())


class Unused(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x, batch):
        return x[batch["event"].item]


def test_diverged_support_names_task_and_step():
    model = recommender(ENCODERS["SAGEConv"])
    with torch.no_grad():
        model.head.project.weight.fill_(torch.inf)
    adaptation = Adaptation(Scope("head"), step=Gradient(0.1))
    adaptation.bind(model)
    with pytest.raises(DivergedError, match=r"task 1, step 0.*lower the inner rate"):
        adaptation.run(model, task_batch(samples(), num_items=ITEMS), SoftmaxLoss())


def test_a_scope_that_excludes_all_it_selects_is_an_error():
    scope = Scope("head.project", without=["head"])
    with pytest.raises(InputError, match="excluded from adaptation: head.project.weight.*; name others"):
        scope.names(recommender(ENCODERS["SAGEConv"]))


@pytest.mark.parametrize("rate", [float("nan"), float("inf"), -0.1])
@pytest.mark.parametrize("step", [Gradient, LearnedRates])
def test_rates_that_are_no_steps_are_refused(step, rate):
    with pytest.raises(InputError, match=f"the rate is {rate}; it must be"):
        step(rate)


@pytest.mark.parametrize("wrong", [{"order": 3}, {"steps": -1}, {"steps": 1.5}])
def test_wrong_arguments(wrong):
    with pytest.raises(InputError):
        Adaptation(Scope(""), step=Gradient(0.1), **wrong)


def test_no_support_at_all_is_the_shared_model():
    model, one_click = recommender(ENCODERS["SAGEConv"]), samples().take([0])
    adaptation = Adaptation(Scope(""), step=Gradient(0.3))
    adaptation.bind(model)
    tasks = task_batch(one_click, num_items=ITEMS)
    assert tasks.support is None
    torch.testing.assert_close(adaptation.run(model, tasks, SoftmaxLoss(), score=True), model(tasks.query))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        adaptation.run(model, tasks, SoftmaxLoss())


class Shared(nn.Module):
    """A module-wide table with as many rows as the batch has item rows (3 tasks of 10): not rows of tasks."""

    def __init__(self, rows):
        super().__init__()
        self.table, self.unit = nn.Parameter(torch.randn(rows, WIDTH)), nn.Parameter(torch.randn(WIDTH))

    def forward(self, x, batch):
        return x[batch["event"].item] + (self.table * self.unit).mean(0)


@pytest.mark.parametrize("store", ["item", "event", "sample"])
def test_a_shared_tensor_of_as_many_rows_is_not_taken_for_rows_of_tasks(store):
    rows = 3 * task_batch(samples(), num_items=ITEMS).support.rows[store]
    one, _ = answers(lambda: Shared(rows), ("encoder.unit",), stacked=True)
    assert_equal(one, answers(lambda: Shared(rows), ("encoder.unit",), stacked=False)[0])


class Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return x @ weight

    @staticmethod
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        return grad @ weight.t(), x.t() @ grad


class Odd(nn.Module):
    """One of the uses of a weight that the stack cannot follow."""

    def __init__(self, use):
        super().__init__()
        self.use, self.weight = use, nn.Parameter(torch.randn(WIDTH, WIDTH))
        self.vector = nn.Parameter(torch.randn(WIDTH))

    def wide(self):
        """Weights of a GRU cell that are constants."""
        return [self.weight.detach().repeat(3, 1)] * 2

    def forward(self, x, batch):
        return self.use(self, x[batch["event"].item])


USES = {
    "a function of one's own": lambda m, h: Product.apply(h, m.weight),
    "mH": lambda m, h: h @ m.weight.mH,
    "data": lambda m, h: h * m.vector * m.vector.data,
    "a linear layer on a weight": lambda m, h: h @ nn.functional.linear(m.weight, m.weight.detach() * 0 + 1),
    "layer_norm of a weight": lambda m, h: h * nn.functional.layer_norm(m.vector, (WIDTH,)),
    "rms_norm of a weight": lambda m, h: h * nn.functional.rms_norm(m.vector, (WIDTH,), m.vector),
    "a weight as the input of a cell": lambda m, h: h + torch.gru_cell(m.weight, m.weight, *m.wide()).mean(0),
    "softmax in another dtype": lambda m, h: h * torch.softmax(m.vector, 0, dtype=torch.float32),
    "softmax of torch.nn in another dtype": lambda m, h: h * nn.functional.softmax(m.vector, 0, dtype=torch.float32),
    "softmax with the dtype by position": lambda m, h: h * torch.softmax(m.vector, 0, torch.float32),
    "squeeze without a dimension": lambda m, h: h * m.vector.squeeze(),
    "matrix times vector": lambda m, h: h + m.weight @ m.vector,
    "clamp by a weight": lambda m, h: torch.maximum(h, m.vector),
    "a padding row": lambda m, h: h + nn.functional.embedding(torch.zeros(len(h), dtype=torch.long), m.weight, 0),
}


@pytest.mark.filterwarnings("ignore:.*task by task")
@pytest.mark.parametrize("use", USES)
def test_a_use_that_cannot_be_followed_is_never_wrong(use):
    one, _ = answers(lambda: Odd(USES[use]), ("encoder",), stacked=True)
    assert_equal(one, answers(lambda: Odd(USES[use]), ("encoder",), stacked=False)[0])


class Transposed(nn.Module):
    def __init__(self):
        super().__init__()
        self.readout = Last()

    def forward(self, states, batch, candidates):
        return self.readout(states, batch) @ candidates.T


@pytest.mark.filterwarnings("ignore:.*task by task")
def test_a_head_of_ones_own_sees_the_adapted_table():
    found = []
    for stacked in (True, False):
        torch.manual_seed(0)
        model = Recommender(ItemFeatures(ITEMS, WIDTH), GatedSessionGraph(WIDTH), Transposed())
        adaptation = Adaptation(Scope(""), step=Gradient(0.3), stacked=stacked)
        adaptation.bind(model)
        tasks = task_batch(samples(), num_items=ITEMS)
        found.append(adaptation.run(model, tasks, SoftmaxLoss(), score=True))
    assert_equal([found[0]], [found[1]])


def test_a_gate_on_the_encoder_reaches_the_support_under_a_head_scope():
    from graphmeta.adapt.starts.gated import Gated

    found = []
    for stacked in (True, False):
        model = recommender(ENCODERS["SAGEConv"])
        torch.manual_seed(1)
        start = Gated(Scope("encoder"), 2 * WIDTH, bias=0.0)
        adaptation = Adaptation(Scope("head"), step=Gradient(0.3), start=start, stacked=stacked)
        adaptation.bind(model)
        found.append(adaptation.run(model, task_batch(samples(), num_items=ITEMS), SoftmaxLoss()))
    assert_equal([found[0]], [found[1]])


@pytest.mark.parametrize("scope", [("head",), ("",)], ids=["head", "everything"])
def test_tasks_in_chunks_are_the_tasks_at_once(scope):
    def learned(task_chunk):
        """Weights after two epochs, and answers."""
        log, model = fake_log(sessions=20, items=ITEMS), recommender(ENCODERS["GatedSessionGraph"])
        adaptation = Adaptation(Scope(*scope), step=Gradient(0.3))
        adaptation.task_chunk = task_chunk
        system = System(model, log.items, adaptation=adaptation)
        losses = [report.loss for report in train(system, log, epochs=2, batch_size=7)]
        queries = last_clicks(log)
        assert len(system.parts(queries)) == (1 if task_chunk is None else 10)
        return losses, system.scores(queries), list(system.parameters())

    torch.testing.assert_close(learned(2), learned(None), rtol=0, atol=1e-9)


def test_a_chunk_is_what_its_memory_lets_in():
    model = recommender(ENCODERS["GatedSessionGraph"])
    adaptation = Adaptation(Scope("head.project", "features"), step=Gradient(0.3), steps=2, order=2)
    adaptation.bind(model)
    per_task = 4 * (3 * (2 * WIDTH * WIDTH + WIDTH) + (5 + 1 + 2 * 5 + 1) * ITEMS)
    assert adaptation.memory(7, 5) == 7 * per_task
    many = TaskSizes(np.full(2**28 // per_task + 1, 5), np.full(2**28 // per_task + 1, 20))
    assert [run.stop - run.start for run in chunks(adaptation, model, many)] == [2**28 // per_task, 1]
    adaptation.order = 1
    assert adaptation.memory(1, 5) == 4 * (2 * (2 * WIDTH * WIDTH + WIDTH) + (2 * 5 + 1) * ITEMS)
    adaptation.order = 2
    numbers, size = 2 * WIDTH * WIDTH + WIDTH, f"{7 * per_task / 2**20:,.1f} MiB"
    told = estimate(adaptation, model, many, 7)
    assert told == (
        f"adaptation memory: about {size}, without activations for 7 tasks at a time (2 steps, {numbers} adapted "
        f"parameters, {ITEMS} embedding rows, up to 5 support samples per task)"
    )
    of_training, of_scoring = adaptation.mode(model, False), adaptation.mode(model, True)
    adaptation.activations = {
        of_training: Activations(20, 2**10, 0.0),
        of_scoring: Activations(20, 2**15, 0.0),
    }
    size = f"{7 * (per_task + 20 * 2**10) / 2**20:,.1f} MiB"
    assert estimate(adaptation, model, many, 7).startswith(f"adaptation memory: about {size} for 7 tasks at a time")
    adaptation.activations = {}
    adaptation.task_chunk = 3
    assert "for 3 tasks at a time" in estimate(adaptation, model, many, 7)
    with pytest.raises(InputError, match="task_chunk must be at least 1"):
        adaptation.task_chunk = 0


@pytest.mark.parametrize(("order", "score"), [(1, False), (2, False), (1, True), (2, True)])
def test_the_estimate_is_what_is_kept(order, score):
    """Measured on two tasks, told of many: the most that autograd keeps and what the tasks' weights take."""
    log = fake_log(sessions=48, items=ITEMS, length=9)
    model = recommender(ENCODERS["SelfAttentionStack"])
    adaptation = Adaptation(Scope(""), step=Gradient(0.1), steps=2, order=order)
    system = System(model, log.items, adaptation=adaptation)
    queries = last_clicks(log)
    before = [p.clone() for p in system.parameters()], torch.get_rng_state()
    with torch.set_grad_enabled(not score):
        (whole,) = system.parts(queries, score=score)
        sizes = system.task_sizes(queries)
        assert sizes.rows.tolist() == [8 * 9 // 2] * 48 and sizes.support.tolist() == [7] * 48
        told = sum(_costs(adaptation, model, sizes, score)) - adaptation.memory(48, 7)
        told += next(iter(adaptation.activations.values())).fixed
        with counting(frozenset(p.data_ptr() for p in model.parameters())) as counter:
            adaptation.run(model, system._tasks(whole), SoftmaxLoss(), score=score)
    assert counter.peak <= told < 1.5 * counter.peak
    after = [p.clone() for p in system.parameters()], torch.get_rng_state()
    torch.testing.assert_close(before, after, rtol=0, atol=0)
    # Five times the tasks of a third of the budget take turns.
    assert len(split_by_cost(np.full(15, 2**28 / 3 - 1))) == 5


def test_long_tasks_are_not_adapted_with_short_ones():
    """One session of 51 clicks among 63 of 3 pads nobody: what is padded follows the runs."""
    log = fake_log(sessions=1)
    model = recommender(ENCODERS["GatedSessionGraph"])
    adaptation = Adaptation(Scope("encoder"), step=Gradient(0.1))
    system = System(model, log.items, adaptation=adaptation)
    sizes = TaskSizes(np.array([2] * 63 + [10]), np.array([6] * 63 + [511]))
    adaptation.activations[model.training, False, False] = Activations(511, 2**28 / 600, 0.0)
    runs = chunks(adaptation, model, sizes)
    assert [run.stop - run.start for run in runs] == [63, 1]
    assert system.adaptation is adaptation


class TwoProducts(nn.Module):
    """Scores with the table twice, and once through their mean: gradients that are shared, and not contiguous."""

    def __init__(self):
        super().__init__()
        self.one, self.other = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, states, batch, candidates):
        last = states[batch["sample"].last]
        return nn.functional.linear(self.one(last), candidates) + nn.functional.linear(self.other(last), candidates)


@pytest.mark.parametrize("order", [1, 2])
def test_a_head_that_reads_the_table_twice(order):
    found = []
    for stacked in (True, False):
        torch.manual_seed(3)
        model = Recommender(ItemFeatures(ITEMS, WIDTH), GatedSessionGraph(WIDTH), TwoProducts())
        adaptation = Adaptation(Scope(""), step=Gradient(0.3), steps=2, order=order, stacked=stacked)
        adaptation.bind(model)
        losses = adaptation.run(model, task_batch(samples(), num_items=ITEMS), SoftmaxLoss())
        assert not adaptation.fell_back
        found.append([losses.detach(), *torch.autograd.grad(losses.sum(), list(model.parameters()))])
    assert_equal(*found)
