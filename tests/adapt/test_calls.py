"""What a call may not do: leave a trace, guess whose rows a tensor holds, or depend on who else is asked."""

import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch_geometric.nn import GATv2Conv, MessagePassing

from graphmeta.adapt.adaptation import Adaptation
from graphmeta.adapt.scope import Scope
from graphmeta.adapt.stacked.notes import Owner, Rows, Term
from graphmeta.adapt.stacked.stack import Stack
from graphmeta.adapt.step import Gradient
from graphmeta.adapt.twin import Twin
from graphmeta.errors import InputError, MixedRows
from graphmeta.nn.features.tables import ItemFeatures
from graphmeta.nn.heads.dot import Dot
from graphmeta.nn.losses.losses import SoftmaxLoss
from graphmeta.nn.readout import Mean
from graphmeta.recommender import Recommender
from graphmeta.sampling.batch_rows import NEXT
from graphmeta.sampling.samples import last_clicks
from graphmeta.sampling.session_batch import rows_like
from graphmeta.sampling.tasks import task_batch
from graphmeta.storage import state_hash
from graphmeta.system import System
from graphmeta.testing import fake_log
from graphmeta.training.loop import train
from graphmeta.training.optimizers import Adam

WIDTH = 6
LOG = fake_log(sessions=60, items=23, length=8)
QUERIES = [LOG.items.ids[LOG.item[a:b]].tolist()[:3] for a, b in zip(LOG.ptr, LOG.ptr[1:], strict=False)]
pytestmark = pytest.mark.usefixtures("float64")


def system_of(encoder, scope=("encoder",), *, order=1, steps=1, lr=0.3):
    torch.manual_seed(2)
    model = Recommender(ItemFeatures(len(LOG.items), WIDTH), encoder, Dot(Mean(), nn.Linear(WIDTH, WIDTH)))
    return System(model, LOG.items, adaptation=Adaptation(Scope(*scope), step=Gradient(lr), steps=steps, order=order))


def made(factory):
    torch.manual_seed(1)
    return factory()


class Transformed(nn.Module):
    """Two layers, compiled or not, one of whose weights is also read by name."""

    def __init__(self, compiled):
        super().__init__()
        net = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh())
        self.net = torch.compile(net, backend="eager") if compiled else net

    def forward(self, x, batch):
        return (self.net(x) + self.net[0].bias)[batch["event"].item]


def test_a_compiled_module_is_scored_and_saved_as_its_original():
    """By the names of its parameters, which have a prefix; one session and many."""
    plain, compiled = (system_of(made(partial(Transformed, each)), steps=2).eval() for each in (False, True))
    assert any("._orig_mod." in name for name, _ in compiled.named_parameters())
    queries = last_clicks(LOG)
    for samples in (queries, queries.take(slice(0, 1))):
        torch.testing.assert_close(compiled.scores(samples), plain.scores(samples), rtol=0, atol=1e-12)
    assert [one.item for one in compiled.recommend(QUERIES[0], 3)] == [
        one.item for one in plain.recommend(QUERIES[0], 3)
    ]
    losses = [one.losses(queries.take(slice(0, 6))) for one in (plain, compiled)]
    torch.testing.assert_close(*losses, rtol=0, atol=1e-12)


class Twice(nn.Module):
    """One layer under two names, or under one."""

    def __init__(self, names):
        super().__init__()
        layer = nn.Linear(WIDTH, WIDTH)
        self.layers = nn.ModuleList([layer] * names)

    def forward(self, x, batch):
        for _ in range(2):
            x = torch.tanh(self.layers[-1](x))
        return x[batch["event"].item]


class Graph(nn.Module):
    def __init__(self, conv):
        super().__init__()
        self.conv = conv

    def forward(self, x, batch):
        return self.conv(x, batch[NEXT].edge_index)[batch["event"].item]


TWICE = {
    "one layer twice": partial(Twice, 2),
    "shared weights of GATv2": lambda: Graph(GATv2Conv(WIDTH, WIDTH, share_weights=True)),
}


@pytest.mark.parametrize("scope", ["head", "encoder"])
@pytest.mark.parametrize("factory", TWICE.values(), ids=TWICE)
def test_after_any_call_every_parameter_is_what_it_was(factory, scope):
    """Identity and value: a module under two names is no way to lose one."""
    system = system_of(made(factory), (scope,))
    places = [(part, name, p) for part in system.modules() for name, p in part._parameters.items()]
    before = state_hash(system)
    for _ in range(2):
        system.recommend(QUERIES[0], 5)
        system.losses(last_clicks(LOG).take(slice(0, 5))).mean().backward()
    assert all(part._parameters[name] is p for part, name, p in places)
    assert state_hash(system) == before


def test_a_module_under_two_names_trains_as_under_one():
    def weight(names):
        system = system_of(made(partial(Twice, names)), ("head",))
        list(train(system, LOG, epochs=1, batch_size=60, optimizer=Adam(lr=1e-2)))
        return system.recommender.encoder.layers[0].weight

    torch.testing.assert_close(weight(2), weight(1), rtol=0, atol=1e-12)
    assert (weight(2) - made(partial(Twice, 2)).layers[0].weight).abs().min() > 5e-3  # it learns


# whose rows -------------------------------------------------------------------------------------------------------


class Prototypes(nn.Module):
    """K prototypes, computed; clicks attend to them."""

    def __init__(self, size):
        super().__init__()
        self.codes, self.w = nn.Parameter(torch.randn(size, WIDTH)), nn.Linear(WIDTH, WIDTH)

    def forward(self, x, batch):
        states, known = x[batch["event"].item], self.w(self.codes.tanh())
        return states + torch.softmax(states @ known.t(), 1) @ known


class Decay(nn.Module):
    """Recency weights of a fixed length, or of that of the longest sample, by a learned rate."""

    def __init__(self, longest):
        super().__init__()
        self.longest, self.rate = longest, nn.Parameter(torch.tensor([0.3]))

    def forward(self, x, batch):
        length = batch.longest if self.longest is None else self.longest
        weight = torch.exp(-self.rate * torch.arange(length, device=x.device))
        return x[batch["event"].item] * weight[batch["event"].order][:, None]


class Sinusoids(Decay):
    """Positions whose frequencies are scaled by a learned ``[1, D]``."""

    def __init__(self, longest):
        super().__init__(longest)
        self.scale = nn.Parameter(torch.rand(1, WIDTH))

    def forward(self, x, batch):
        length = batch.longest if self.longest is None else self.longest
        table = torch.sin(torch.arange(length, device=x.device, dtype=x.dtype)[:, None] * self.scale)
        return x[batch["event"].item] + table[batch["event"].order]


BY_SIZE = {
    **{f"{n} prototypes": partial(Prototypes, n) for n in (4, 7, 8, 16, 24, 30, 40)},
    "decay over 50": partial(Decay, 50),
    "decay over the longest": partial(Decay, None),
    "sinusoids over 50": partial(Sinusoids, 50),
    "sinusoids over the longest": partial(Sinusoids, None),
}


@pytest.mark.parametrize("factory", BY_SIZE.values(), ids=BY_SIZE)
@pytest.mark.first(4)
def test_scores_do_not_depend_on_the_number_of_tasks(factory):
    """3, 4, 5, 10, 25 and 50 sessions together, of three clicks each: the sizes meet those of the encoder."""
    system = system_of(made(factory))
    alone = [system.recommend(one, 5) for one in QUERIES]
    for size in (3, 4, 5, 10, 25, 50):
        for one, other in zip(system.recommend_many(QUERIES[:size], 5), alone, strict=False):
            assert [r.item for r in one] == [r.item for r in other]
            np.testing.assert_allclose([r.score for r in one], [r.score for r in other], rtol=0, atol=1e-10)
    assert not system.adaptation.fell_back


class Propagating(MessagePassing):
    """Edges and nodes by keyword, in any order; more edges than items."""

    def __init__(self, order):
        super().__init__(aggr="add")
        self.order, self.lin = order, nn.Linear(WIDTH, WIDTH)

    def forward(self, x, batch):
        edges = torch.cat([batch[NEXT].edge_index] * 3, 1)
        given = {"x": x, "w": torch.ones(edges.shape[1], dtype=x.dtype)}
        return self.propagate(edges, **{name: given[name] for name in self.order})[batch["event"].item]

    def message(self, x_j, w):
        return self.lin(x_j) * w[:, None]


@pytest.mark.parametrize("order", ["xw", "wx"])
@pytest.mark.parametrize("second", [1, 2])
def test_edges_and_nodes_are_distinguished_by_ownership(order, second):
    found = []
    for stacked in (True, False):
        system = system_of(made(partial(Propagating, order)), ("encoder", "head"), order=second, steps=2)
        system.adaptation.stacked = stacked
        losses = system.losses(last_clicks(LOG).take(slice(0, 7)))
        found.append([losses.detach(), *torch.autograd.grad(losses.mean(), list(system.parameters()))])
        assert not system.adaptation.fell_back
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


class Gated(nn.Module):
    """A per-task vector beside zeros of as many rows as there are samples, which are declared to be theirs or not."""

    def __init__(self, declared):
        super().__init__()
        self.declared, self.vector, self.linear = declared, nn.Parameter(torch.randn(WIDTH)), nn.Linear(WIDTH, WIDTH)

    def forward(self, x, batch):
        state = x.new_zeros(batch["sample"].num_nodes, WIDTH)
        state = rows_like(state, batch["sample"].last) if self.declared else state
        state = torch.tanh(self.linear(state + self.vector))
        return x[batch["event"].item] + state[batch["event"].batch]


@pytest.mark.parametrize("declared", [False, True])
def test_zeros_made_by_size_have_no_task_until_they_are_declared(declared):
    found = []
    for stacked in (True, False):
        system = system_of(made(partial(Gated, declared)), steps=2)
        system.adaptation.stacked = stacked
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found.append(system.scores(last_clicks(LOG).take(slice(0, 4))))
        assert len(caught) == (stacked and system.adaptation.fell_back)
    torch.testing.assert_close(*found, rtol=0, atol=1e-12)


# one odd batch, and reasons ----------------------------------------------------------------------------------------


class Mixing(nn.Module):
    """Adds up rows that a mask names: in some batches those of one task, in others those of several."""

    def __init__(self):
        super().__init__()
        self.linear, self.mixed = nn.Linear(WIDTH, WIDTH), False

    def forward(self, x, batch):
        rows = len(x)
        index = torch.arange(rows, device=x.device)
        index = index.flip(0) if Mixing.mixed else index
        moved = torch.zeros_like(x).index_add(0, index, x)
        return self.linear(moved)[batch["event"].item]

    mixed = False


def test_an_odd_batch_goes_to_the_loop_alone():
    system, samples = system_of(made(Mixing)), last_clicks(LOG).take(slice(0, 4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        system.scores(samples)
    Mixing.mixed = True
    try:
        with pytest.warns(UserWarning, match="in this batch") as caught:
            system.scores(samples)
            system.scores(samples)
        assert len(caught) == 1 and not system.adaptation.fell_back
        Mixing.mixed = False
        system.scores(samples)
        assert not system.adaptation.fallback.failures
        Mixing.mixed = True
        for _ in range(3):  # three in a row are no odd batches any more
            system.scores(samples)
        assert system.adaptation.fell_back
    finally:
        Mixing.mixed = False


class Exponential(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(WIDTH, WIDTH)

    def forward(self, x, batch):
        return (x @ torch.linalg.matrix_exp(self.inner.weight / 9))[batch["event"].item]


def test_a_reason_is_named_once_with_its_place():
    system, samples = system_of(nn.Sequential(), ("head",)), last_clicks(LOG).take(slice(0, 4))
    system = system_of(made(Exponential), order=2)
    with pytest.warns(UserWarning, match=r"encoder \(test_calls.py:\d+\): linalg_matrix_exp") as caught:
        for _ in range(3):
            system.losses(samples)
            system.scores(samples)
    assert len(caught) == 1


class Fails(nn.Module):
    """An error of the module's own, in both engines."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, x, batch):
        raise ZeroDivisionError("my own")


def test_an_error_of_the_module_is_raised_unchanged(recwarn):
    system = system_of(made(Fails))
    with pytest.raises(ZeroDivisionError, match="my own"):
        system.scores(last_clicks(LOG).take(slice(0, 4)))
    assert not recwarn.list


def test_an_unread_last_output_is_allowed():
    class Unread(Twice):
        def forward(self, x, batch):
            self.layers[0](x)
            return torch.tanh(self.layers[1](x))[batch["event"].item]

    encoder = made(partial(Unread, 2))
    encoder.layers = nn.ModuleList([nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)])
    system = system_of(encoder, order=2)
    system.losses(last_clicks(LOG).take(slice(0, 4)))
    assert not system.adaptation.fell_back


def test_memory_of_many_recommendations_does_not_grow(monkeypatch):
    """Sessions come in batches of like length, whose scores take so many bytes; answers keep their order."""
    system = system_of(made(partial(Twice, 1)))
    sessions = [LOG.items.ids[LOG.item[a : a + 1 + n % 7]].tolist() for n, a in enumerate(LOG.ptr[:-1])]
    whole, seen = system.recommend_many(sessions, 4), []
    scores = System.scores
    monkeypatch.setattr("graphmeta.inference.recommend._SCORES", 10 * 4 * len(LOG.items))
    monkeypatch.setattr(
        System, "scores", lambda self, samples, **how: seen.append(samples.lengths) or scores(self, samples, **how)
    )
    parts = system.recommend_many(sessions, 4)
    assert [[r.item for r in one] for one in parts] == [[r.item for r in one] for one in whole]
    assert [len(lengths) for lengths in seen] == [10] * 6
    assert np.all(np.diff(np.concatenate(seen)) >= 0)


def test_sessions_of_nothing_known_are_answered_with_nothing():
    system = system_of(made(partial(Twice, 1)))
    found = system.recommend_many([QUERIES[0], ["gone"], QUERIES[1]], 3, unknown="ignore")
    assert [len(one) for one in found] == [3, 0, 3]
    assert [r.item for r in found[2]] == [r.item for r in system.recommend(QUERIES[1], 3)]
    with pytest.raises(ValueError, match="session 1: item 'gone' is not known"):
        system.recommend_many([QUERIES[0], ["gone"], QUERIES[1]], 3)
    with pytest.raises(ValueError, match="session 1: the session has no known item"):
        system.recommend_many([QUERIES[0], []], 3)
    for unknown in ("ignore", "warn"):  # however many are asked
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert system.recommend_many([["gone"]], 3, unknown=unknown) == [[]]
            assert system.recommend_many([["gone"], []], 3, unknown=unknown) == [[], []]
            for one in (["gone"], [], iter(["gone"])):
                with pytest.raises(ValueError, match="^the session has no known item"):
                    system.recommend(one, 3, unknown=unknown)
    assert len(system.recommend(iter(["gone", *QUERIES[0]]), 3, unknown="ignore")) == 3


def test_k_is_any_whole_number_and_no_truth_value():
    system = system_of(made(partial(Twice, 1)))
    assert system.recommend(QUERIES[0], np.int64(3)) == system.recommend(QUERIES[0], 3)
    for k in (True, np.bool_(True), 3.0, 0):
        with pytest.raises(ValueError, match="must be a whole number"):
            system.recommend(QUERIES[0], k)


def test_an_answer_may_be_empty_where_all_is_seen():
    system = system_of(made(partial(Twice, 1)))
    assert system.recommend(LOG.items.ids.tolist(), 3, exclude_seen=True) == []


def test_frozen_parameters_in_scope_stay_and_are_listed():
    encoder = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH))
    encoder[0].requires_grad_(False)
    encoder.forward = lambda x, batch: encoder[1](encoder[0](x))[batch["event"].item]
    for order in (1, 2):
        system = system_of(encoder, order=order)
        assert system.adaptation.names == ["encoder.1.weight", "encoder.1.bias"]
        assert system.adaptation.frozen == ["encoder.0.weight", "encoder.0.bias"]
        assert "frozen=['encoder.0.weight'" in str(system.adaptation)
        before = encoder[0].weight.clone()
        list(train(system, LOG, epochs=1, batch_size=30, optimizer=Adam(lr=1e-2)))
        assert torch.equal(encoder[0].weight, before)
    encoder.requires_grad_(False)
    with pytest.raises(ValueError, match="are frozen: encoder.0.weight"):
        system_of(encoder)


def test_every_task_count_from_two_to_fifty_is_the_loop():
    encoder = made(partial(Decay, 50))
    system = system_of(encoder, steps=2)
    for size in (*range(2, 12), 17, 25, 50):
        samples, found = last_clicks(LOG).take(slice(0, size)), []
        tasks = task_batch(samples, num_items=len(LOG.items), max_support=10)
        for stacked in (True, False):
            system.adaptation.stacked = stacked
            found.append(system.adaptation.run(system.recommender, tasks, SoftmaxLoss(), score=True).detach())
        torch.testing.assert_close(*found, rtol=0, atol=1e-12)


class Running(nn.Module):
    """Keeps a running mean by assigning to a buffer, and one by writing into it; training alone moves them."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)
        self.register_buffer("assigned", torch.zeros(WIDTH))
        self.register_buffer("written", torch.zeros(WIDTH))

    def forward(self, x, batch):
        if self.training:
            self.assigned = 0.9 * self.assigned + 0.1 * x.detach().mean(0)
            with torch.no_grad():
                self.written.mul_(0.9).add_(0.1 * x.detach().mean(0))
        return self.linear(x)[batch["event"].item]


def test_training_updates_buffers_and_scoring_does_not():
    """A running mean over clicks has a value after each task, so its training is the loop's."""
    states = []
    for stacked in (True, False):
        system = system_of(made(Running))
        system.adaptation.stacked = stacked
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            list(train(system, LOG, epochs=1, batch_size=30))
        assert any("what is read from the tasks, into a buffer" in str(each.message) for each in caught) == stacked
        assigned, written = system.recommender.encoder.assigned, system.recommender.encoder.written
        assert assigned.abs().sum() > 0
        torch.testing.assert_close(assigned, written)
        states.append(assigned.clone())
        system.train().recommend(QUERIES[0], 3)
        assert torch.equal(system.recommender.encoder.assigned, states[-1])
    torch.testing.assert_close(*states)


class Penalised(nn.Module):
    """A loss that also reads a weight of the encoder."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder, self.loss = encoder, SoftmaxLoss()

    def forward(self, head, states, batch, candidates):
        return self.loss(head, states, batch, candidates) + self.encoder.layers[0].weight.square().sum()


@pytest.mark.parametrize("stacked", [True, False])
@pytest.mark.filterwarnings("ignore:.*task by task")
def test_a_loss_sees_the_weights_of_its_task(stacked):
    """One step at a rate of .1 down ``‖W‖²`` alone takes W to .8 W."""
    system = system_of(made(partial(Twice, 1)), lr=0.1)
    loss = Penalised(system.recommender.encoder)
    loss.loss.forward = lambda head, states, batch, candidates: 0 * states[batch["sample"].real].sum(1)
    system.adaptation.stacked = stacked
    tasks = task_batch(last_clicks(LOG).take(slice(0, 3)), num_items=len(LOG.items), max_support=10)
    before = float(system.recommender.encoder.layers[0].weight.detach().square().sum())
    found = system.adaptation.run(system.recommender, tasks, loss)
    np.testing.assert_allclose(found.detach(), [0.64 * before] * 3, rtol=1e-9)


def test_scoring_uses_no_random_numbers():
    system = system_of(made(partial(Twice, 1)))
    before = torch.get_rng_state()
    system.recommend_many(QUERIES[:9], 3)
    assert torch.equal(torch.get_rng_state(), before)


class Casting(nn.Module):
    """Operations that return the parameter itself."""

    def __init__(self):
        super().__init__()
        self.scale, self.linear = nn.Parameter(torch.ones(WIDTH)), nn.Linear(WIDTH, WIDTH)

    def forward(self, x, batch):
        return self.linear(x * self.scale.to(x.dtype).contiguous())[batch["event"].item]


def test_nothing_is_left_on_a_parameter():
    system = system_of(made(Casting), ("head",))
    system.adaptation.scope = Scope("encoder.linear")
    system.adaptation.bind(system.recommender)
    list(train(system, LOG, epochs=1, batch_size=20))
    system.recommend(QUERIES[0], 3)
    assert all(not p.__dict__ for p in system.parameters())
    assert not system.adaptation.fell_back


class Clocked(nn.Module):
    """Reads logarithms of times and of pauses, which are finite for every real click."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, WIDTH)

    def forward(self, x, batch):
        time, order = batch["event"].time, batch["event"].order
        pause = torch.where(order > 0, time - time.roll(1), torch.ones_like(time))
        told = torch.stack([time.log(), pause.log()], 1).to(x.dtype)
        return x[batch["event"].item] + torch.tanh(self.linear(told))


@pytest.mark.parametrize("steps", [1, 3])
def test_times_of_dummy_rows_are_times(steps):
    system = system_of(made(Clocked), steps=steps, order=2)
    samples = last_clicks(LOG).take(slice(0, 6))
    samples = replace(samples, begin=samples.end - np.array([2, 7, 3, 5, 2, 6]))
    losses = system.losses(samples)
    found = torch.autograd.grad(losses.mean(), list(system.recommender.encoder.parameters()))
    assert losses.isfinite().all() and all(gradient.isfinite().all() for gradient in found)
    together = system.scores(samples)
    alone = torch.cat([system.scores(samples.take(slice(s, s + 1))) for s in range(6)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-10)


class Annealed(Twice):
    """A number and a count (a default of the class) that forward changes in training."""

    calls = 0

    def __init__(self):
        super().__init__(1)
        self.temperature = 1.0

    def forward(self, x, batch):
        if self.training:
            self.temperature, self.calls = 0.9 * self.temperature, self.calls + 1
        return super().forward(x, batch) / self.temperature


def test_numbers_that_training_changes_are_kept():
    system = system_of(made(Annealed))
    list(train(system, LOG, epochs=1, batch_size=30))
    encoder = system.recommender.encoder
    assert encoder.calls >= 4  # two batches, a step and a query each
    assert encoder.temperature == pytest.approx(0.9**encoder.calls)
    before = encoder.calls
    system.train().recommend(QUERIES[0], 3)
    assert encoder.calls == before


def test_a_parameter_that_is_held_twice_is_refused():
    encoder = made(partial(Twice, 1))
    encoder.kept = [encoder.layers[0].weight]
    with pytest.raises(ValueError, match=r"encoder.layers.0.weight is also held in a list"):
        system_of(encoder).recommend(QUERIES[0], 3)


def test_parameters_of_a_constant_twin_share_memory_and_have_no_gradient():
    module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.BatchNorm1d(3))
    module[1].weight, module[1].kept = module[0].weight, [module[0].bias]
    twin = Twin(module, constant=True)
    own = twin.module
    for (name, original), constant in zip(module.named_parameters(), own.parameters(), strict=True):
        assert constant.data_ptr() == original.data_ptr() and not constant.requires_grad, name
    assert own[0].weight is own[1].weight and own[1].kept[0] is own[0].bias
    x = torch.randn(4, 3)
    torch.testing.assert_close(own(x), module(x), rtol=0, atol=0)
    assert not own(x).requires_grad
    twin.put({"0.weight": 2 * module[0].weight})
    assert own(x).requires_grad and own[1].weight is own[0].weight
    assert type(module[0].weight) is nn.Parameter and module[0].weight is module[1].weight


@pytest.mark.parametrize("order", [1, 2])
def test_a_parameter_out_of_scope_that_is_held_twice_is_read(order):
    held, plain = (made(partial(Twice, 1)) for _ in range(2))
    held.kept = [held.layers[0].weight]
    systems = [system_of(encoder, ("head",), order=order) for encoder in (held, plain)]
    systems[0].load_state_dict(systems[1].state_dict())
    samples = last_clicks(LOG).take(slice(0, 5))
    torch.testing.assert_close(*[system.scores(samples) for system in systems], rtol=0, atol=0)
    gradients = [
        torch.autograd.grad(system.losses(samples).mean(), list(system.recommender.encoder.parameters()))
        for system in systems
    ]
    torch.testing.assert_close(*gradients, rtol=0, atol=0)


def test_a_lazy_layer_is_refused_with_a_remedy():
    with pytest.raises(ValueError, match="run the recommender on one batch"):
        system_of(nn.Sequential(nn.LazyLinear(WIDTH)))


def test_a_constant_that_would_be_large_for_all_tasks_goes_to_the_loop(monkeypatch):
    class Wide(Twice):
        def forward(self, x, batch):
            return x[batch["event"].item] + self.layers[0](x.new_ones(4000, WIDTH)).mean(0)

    monkeypatch.setattr("graphmeta.adapt.stacked.operations.base._LARGEST", 2**16)
    system, samples = system_of(made(partial(Wide, 1))), last_clicks(LOG)
    with pytest.warns(UserWarning, match=r"60 times as large.*rows_like"):
        tasks = task_batch(samples, num_items=len(LOG.items), max_support=1)
        found = system.adaptation.run(system.recommender, tasks, SoftmaxLoss(), score=True)
    assert found.isfinite().all()


# what a call keeps --------------------------------------------------------------------------------------------------


class HookedInside(nn.Module):
    """Doubles a layer's output by a hook of one call, which is removed or stays."""

    def __init__(self, *, stays):
        super().__init__()
        self.layer, self.stays = nn.Linear(WIDTH, WIDTH), stays

    def forward(self, x, batch):
        handle = self.layer.register_forward_hook(lambda module, inputs, out: 2 * out)
        out = self.layer(x[batch["event"].item])
        if not self.stays:
            handle.remove()
        return torch.tanh(out)


@pytest.mark.parametrize("stays", [False, True])
def test_a_hook_that_forward_registers_is_seen_by_its_call_only(stays):
    system = system_of(made(lambda: HookedInside(stays=stays)))
    expected = [system.recommend(clicks, 5) for clicks in QUERIES[:8]]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda clicks: system.recommend(clicks, 5), QUERIES[:8] * 4))
    assert found == expected * 4
    assert not any(part._forward_hooks for part in system.modules())


class Renorming(nn.Module):
    """Looks up rows whose norm is limited, which torch does by writing into the table."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(50, WIDTH, max_norm=0.1)

    def forward(self, x, batch):
        return x[batch["event"].item] + self.table(batch["event"].order)


@pytest.mark.parametrize("stacked", [True, False])
def test_an_embedding_that_writes_into_its_weight_is_refused(stacked):
    system = system_of(made(Renorming))
    system.adaptation.stacked = stacked
    before = system.recommender.encoder.table.weight.clone()
    with pytest.raises(InputError, match="embedding with max_norm rescales the rows of a parameter"):
        system.losses(last_clicks(LOG).take(slice(0, 5)))
    assert torch.equal(system.recommender.encoder.table.weight, before)


class Keeps(nn.Module):
    """Adds what its weights made of the call before."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(WIDTH, WIDTH)
        self.register_buffer("kept", torch.zeros(WIDTH))

    def forward(self, x, batch):
        out = self.layer(x[batch["event"].item])
        before, self.kept = self.kept, out.detach().mean(0)
        return torch.tanh(out + before)


def test_a_buffer_set_to_what_weights_decide_is_named():
    def losses(stacked):
        system = system_of(made(Keeps), steps=2)
        system.adaptation.stacked = stacked
        return [system.losses(last_clicks(LOG).take(slice(0, 5))).detach() for _ in range(2)]

    with pytest.warns(UserWarning, match=r"encoder\.kept \(a buffer\) set to what depends on per-task weights"):
        found = losses(True)
    torch.testing.assert_close(found, losses(False), rtol=0, atol=1e-12)


def test_conditions_of_rows_are_not_those_of_others_by_the_same_index():
    stack, asked = Stack(2), []
    index, first, second = torch.tensor([0, 3]), torch.zeros(4), torch.zeros(4)
    owner = Owner(None, (Term(lambda: asked.append("second")),))
    stack.rows(first)
    stack.rows(second, owner=owner)
    for x, expected in ((first, []), (second, ["second"])):
        stack.use(Rows(stack, 0, stack.owner_by_value(index, x, stack.note(x))))
        assert asked == expected


def with_a_spare_row(*places):
    """The stack after rows of two tasks were written to these places of four rows and a spare one, and that was cut."""
    stack = Stack(2)
    stack.sizes = (2,)
    rows = stack.rows(torch.ones(4, 3))
    with stack:
        out = torch.zeros(5, 3)
        for place in places:
            out[torch.tensor(place)] = rows
        kept = stack.note(out[:-1])
    assert type(kept) is Rows and kept.in_blocks
    stack.use(kept)
    return stack


def test_every_write_beside_a_spare_row_must_keep_to_its_task():
    with_a_spare_row([0, 4, 4, 2], [1, 0, 3, 4]).run_checks()
    for places in (([2, 1, 3, 0], [0, 1, 2, 3]), ([0, 1, 2, 3], [2, 1, 3, 0])):
        with pytest.raises(MixedRows, match="writes rows of one task to another's"):
            with_a_spare_row(*places).run_checks()


def test_one_row_more_than_a_store_may_be_no_spare_row():
    """Five groups of rows of two tasks, three of the first: a size says nothing of whose they are."""
    stack = Stack(2)
    stack.sizes = (2,)
    with stack:
        rows = stack.rows(torch.ones(8, 1))
        groups = torch.zeros(5, 1).index_add(0, torch.tensor([0, 1, 2, 2, 3, 3, 4, 4]), rows)
        note = stack.note(groups)
    assert stack.task_of(groups, note).tolist() == [0, 0, 0, 1, 1]
    stack.run_checks()
