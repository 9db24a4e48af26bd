"""What a call refuses because it would be wrong without a word: originals read around their module, and writes."""

import contextvars
import functools
import gc
import itertools
import threading
import warnings
import weakref
from collections import deque

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrize

from graphmeta.adapt.adaptation import Adaptation
from graphmeta.adapt.scope import Scope
from graphmeta.adapt.stacked.stack import Stack
from graphmeta.adapt.step import Gradient
from graphmeta.nn.features.tables import ItemFeatures
from graphmeta.nn.heads.dot import Cosine, Dot
from graphmeta.nn.losses.losses import SoftmaxLoss
from graphmeta.nn.readout import Mean
from graphmeta.recommender import Recommender
from graphmeta.sampling.samples import last_clicks
from graphmeta.sampling.tasks import task_batch
from graphmeta.storage import state_hash
from graphmeta.testing import check_encoder
from tests.adapt.reference import Inner, Reference
from tests.adapt.test_calls import LOG, QUERIES, WIDTH, system_of

pytestmark = pytest.mark.usefixtures("float64")
SAMPLES = last_clicks(LOG).take(slice(0, 5))
EVERYTHING = ("features", "encoder", "head")


class Clicks(nn.Module):
    """A layer on each click; ``call`` says how."""

    def __init__(self, call=None):
        super().__init__()
        self.linear, self.other = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.call = call

    def forward(self, x, batch):
        h = x[batch["event"].item]
        return torch.tanh(self.linear(h) if self.call is None else self.call(self, h))


# originals around their module -------------------------------------------------------------------------------------


class Static:
    """A function that is no method, and leads to a layer."""

    def __init__(self, layer):
        self.held = staticmethod(lambda h: layer(h))


class Around(Clicks):
    layer = None

    def __init__(self, how):
        super().__init__()
        own = self.linear
        self.how = how
        if how == "class":
            Around.layer = own
        elif how == "variable":
            Around.layer = contextvars.ContextVar("layer", default=own)
        elif how == "thread":
            Around.layer = threading.local()
            Around.layer.held = own
        self.held = {
            "array": lambda: np.array([own], dtype=object),
            "cycle": lambda: itertools.cycle([own]),
            "nested": lambda: functools.reduce(lambda inner, _: [inner], range(12), own),
            "static": lambda: Static(own),
        }.get(how, lambda: None)()

    def forward(self, x, batch):
        h, how = self.other(x[batch["event"].item]), self.how
        if how == "nested":
            found = self.held
            while isinstance(found, list):
                (found,) = found
        else:
            found = {
                "class": lambda: Around.layer,
                "variable": lambda: Around.layer.get(),
                "thread": lambda: Around.layer.held,
                "array": lambda: self.held[0],
                "cycle": lambda: next(self.held),
                "static": lambda: self.held.held,
            }[how]()
        return torch.tanh(found(h))


@pytest.mark.covering
@pytest.mark.parametrize("stacked", [True, False])
@pytest.mark.parametrize("how", ["class", "variable", "thread", "array", "cycle", "nested", "static"])
def test_a_weight_that_is_read_around_its_module_is_refused_by_name(how, stacked):
    torch.manual_seed(1)
    system = system_of(Around(how))
    system.adaptation.stacked = stacked
    for ask in (lambda: system.losses(SAMPLES), lambda: system.recommend(QUERIES[0], 3)):
        with pytest.raises(ValueError, match=r"encoder\.linear\.weight is also read around its module"):
            ask()


@pytest.mark.parametrize("how", ["class", "array"])
def test_what_is_out_of_scope_may_be_read_in_any_way(how):
    system = system_of(Around(how), ("encoder.other",))
    assert system.losses(SAMPLES).isfinite().all()


def test_check_encoder_names_the_weight():
    report = check_encoder(lambda width: Around("class"), width=WIDTH)
    assert not report.ok
    assert any("linear.weight is also read around" in check.found for check in report.checks if not check.ok)


class Dispatched(Clicks):
    """A generic function over a layer, whose cache of implementations is shared."""

    def __init__(self, how):
        super().__init__()
        own = self.linear

        @functools.singledispatch
        def apply(h):
            return own(h)

        self.held = apply if how == "singledispatch" else weakref.WeakKeyDictionary({own: 1})

    def forward(self, x, batch):
        h = self.other(x[batch["event"].item])
        layer = next(iter(self.held)) if isinstance(self.held, weakref.WeakKeyDictionary) else self.held
        return torch.tanh(layer(h))


def mean_of_losses(make, scope, *, order, steps=2):
    """The losses by the reference."""
    found, _ = Reference(make, SAMPLES, num_items=len(LOG.items)).losses(Inner(scope, steps, order))
    return found


def recommender_of(encoder, head=Dot):
    torch.manual_seed(4)
    return Recommender(ItemFeatures(len(LOG.items), WIDTH), encoder(), head(Mean(), nn.Linear(WIDTH, WIDTH)))


@pytest.mark.filterwarnings("ignore:.*task by task")
@pytest.mark.parametrize("stacked", [True, False])
@pytest.mark.parametrize("how", ["singledispatch", "keys"])
def test_caches_that_lead_to_a_layer_are_the_calls_own(how, stacked):
    def make():
        return recommender_of(lambda: Dispatched(how))

    model = make()
    for order in (1, 2, 1):  # again and again: nothing is left of the first
        found = losses_of(model, ("encoder",), order=order, stacked=stacked)[0]
        torch.testing.assert_close(found, mean_of_losses(make, ("encoder",), order=order), rtol=0, atol=1e-12)
    assert model.encoder.linear is not None and not model.encoder.linear.weight.__dict__


# writes ------------------------------------------------------------------------------------------------------------


def losses_of(model, scope, *, order, stacked, steps=2):
    """The losses after adaptation, and the warnings."""
    adaptation = Adaptation(Scope(*scope), step=Gradient(0.3), order=order, steps=steps, stacked=stacked)
    adaptation.bind(model)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tasks = task_batch(SAMPLES, num_items=len(LOG.items))
        found = adaptation.run(model, tasks, SoftmaxLoss()).detach()
    return found, [str(warning.message) for warning in caught]


class Written(Dot):
    """Scores that are written into before their cross-entropy is taken."""

    def __init__(self, write, readout, project):
        super().__init__(readout, project)
        self.write = write

    def forward(self, states, batch, candidates):
        scores = F.linear(self.query(states, batch), self.vectors(candidates))
        self.write(scores)
        return scores

    def cross_entropy(self, states, batch, candidates):
        sample, scores = batch["sample"], self.forward(states, batch, candidates)
        losses = F.cross_entropy(scores, sample.target.clamp(min=0), reduction="none")
        real = sample.get("real")
        return losses if real is None else losses[real]


class WrittenCosine(Written, Cosine):
    def __init__(self, write, readout, project):
        Cosine.__init__(self, readout, project, scale=3.0)
        self.write = write


def first_column(scores):
    scores[:, 0] = -5.0


WRITES = {
    "mul_": lambda z: z.mul_(2),
    "a slice": lambda z: z[:, :3].mul_(2),
    "tanh_": lambda z: z.tanh_(),
    "setitem": first_column,
    "a view": lambda z: z.view(-1).mul_(1.5),
    "iadd": lambda z: z.__iadd__(1.5),
}


@pytest.mark.covering
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("head", [Written, WrittenCosine])
@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_scores_of_a_table_in_scope_may_be_written_into(write, head, order):
    def make():
        return recommender_of(Clicks, lambda *parts: head(write, *parts))

    wanted, _ = losses_of(make(), EVERYTHING, order=order, stacked=False)
    found, told = losses_of(make(), EVERYTHING, order=order, stacked=True)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
    assert len(told) == 1 if head is Written else len(told) <= 1  # cosines are a tensor of their own
    assert all("head" in one or "losses or scores" in one for one in told)
    assert all("write into a copy" in one or head is WrittenCosine for one in told)


class Rows(Clicks):
    def forward(self, x, batch):
        self.call(self, x)
        return torch.tanh(self.linear(x))[batch["event"].item]


@pytest.mark.covering
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_rows_of_a_table_in_scope_may_be_written_into(write, order):
    def make():
        return recommender_of(lambda: Rows(lambda m, x: write(x)))

    wanted, _ = losses_of(make(), EVERYTHING, order=order, stacked=False)
    found, told = losses_of(make(), EVERYTHING, order=order, stacked=True)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
    assert len(told) == 1 and "encoder" in told[0] and "write into a copy" in told[0]


def after(m, h):
    z = m.linear(h)
    h.mul_(2)
    return z + h


@pytest.mark.covering
@pytest.mark.parametrize("stacked", [True, False])
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("scope", [("encoder",), EVERYTHING])
def test_what_torch_refuses_gets_no_number(scope, order, stacked):
    """Rows that a layer needs for its gradient are written into after it."""
    model = recommender_of(lambda: Clicks(lambda m, h: after(m, h * 1)))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        losses_of(model, scope, order=order, stacked=stacked)


def written_by_out(m, h):
    z = h * 1
    y = m.linear(z)
    with torch.no_grad():
        torch.mul(z.detach(), 2, out=z.detach())
    return y


@pytest.mark.parametrize("stacked", [True, False])
def test_a_write_by_out_is_seen(stacked):
    model = recommender_of(lambda: Clicks(written_by_out))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        losses_of(model, ("encoder",), order=1, stacked=stacked)


def halved(m, h):
    m.other.weight.view(-1)[:2].mul_(0.5)
    return m.other(m.linear(h))


@pytest.mark.covering
@pytest.mark.parametrize("scope", [("encoder",), ("encoder.linear",), ("head",)])
@pytest.mark.parametrize("stacked", [True, False])
@pytest.mark.parametrize("scoring", [True, False])
def test_a_parameter_is_no_place_to_write_into(scope, stacked, scoring):
    """Steps take constants over the memory of the parameters: torch would let them be written into."""
    system = system_of(Clicks(halved), scope, steps=2)
    system.adaptation.stacked = stacked
    before = state_hash(system)
    if scope == ("head",):  # the encoder is called once, with its own weights: torch's own affair
        return
    with pytest.raises(ValueError, match="writes into a parameter"):
        system.recommend_many(QUERIES[:3], 3) if scoring else system.losses(SAMPLES)
    assert state_hash(system) == before


class Plain(Clicks):
    """Its states are needed for no derivative of its own."""

    def forward(self, x, batch):
        return self.linear(x)[batch["event"].item]


class Doubling(Dot):
    """A head that writes into the states that it gets."""

    def query(self, states, batch):
        return super().query(states.mul_(2), batch)


@pytest.mark.parametrize("stacked", [True, False])
@pytest.mark.parametrize("order", [1, 2])
def test_every_step_of_a_head_gets_the_states_as_encoded(order, stacked):
    def make():
        return recommender_of(Plain, Doubling)

    found, told = losses_of(make(), ("head",), order=order, stacked=stacked)
    torch.testing.assert_close(found, mean_of_losses(make, ("head",), order=order), rtol=0, atol=1e-12)
    assert len(told) == stacked


# buffers and caches ------------------------------------------------------------------------------------------------


class Counting(Clicks):
    """Batch norm, a buffer that is written and one that is assigned, a count; and an operation without a stack."""

    def __init__(self):
        super().__init__()
        self.norm, self.calls = nn.BatchNorm1d(WIDTH), 0
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("last", torch.zeros(WIDTH))

    def forward(self, x, batch):
        h = self.norm(x[batch["event"].item].detach())
        if self.training:
            self.seen += 1
            self.last, self.calls = h.detach().mean(0), self.calls + 1
            if self.calls == 1:
                self.first = 1
        return torch.tanh(self.linear(h) @ torch.matrix_exp(self.other.weight))


@pytest.mark.filterwarnings("ignore:.*task by task")
def test_a_refused_attempt_leaves_no_trace_in_buffers():
    found = []
    for stacked in (True, False):
        torch.manual_seed(3)
        system = system_of(Counting(), ("encoder.linear", "encoder.other"))
        system.adaptation.stacked = stacked
        system.train()
        for _ in range(2):
            system.losses(SAMPLES)
        encoder = system.recommender.encoder
        found.append([*encoder.norm.buffers(), encoder.seen, encoder.last, torch.tensor(encoder.calls)])
        assert system.adaptation.fell_back == stacked and encoder.first == 1
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
    assert int(found[0][-1]) == 2 * len(SAMPLES) * 2  # two batches; a step and a query for each task


class Squashed(nn.Module):
    def forward(self, weight):
        return torch.tanh(weight)


class Parametrized(Clicks):
    def __init__(self, inside):
        super().__init__()
        parametrize.register_parametrization(self.linear, "weight", Squashed())
        self.inside = inside

    def forward(self, x, batch):
        if not self.inside:
            return super().forward(x, batch)
        with parametrize.cached():
            return super().forward(x, batch)


@pytest.mark.parametrize("stacked", [True, False])
@pytest.mark.parametrize("inside", [True, False])
def test_cached_parametrizations_are_the_weights_of_no_other_task(inside, stacked):
    torch.manual_seed(1)
    system = system_of(Parametrized(inside), lr=1.0)
    system.adaptation.stacked = stacked

    def recommended(sessions):
        return [[(one.item, one.score) for one in system.recommend(session, 3)] for session in sessions]

    wanted = recommended(QUERIES[:4])
    with parametrize.cached():
        found = recommended(QUERIES[3::-1])[::-1]
        many = system.recommend_many(QUERIES[:4], 3)
    assert found == wanted
    scores = [[one.score for one in answer] for answer in many]
    np.testing.assert_allclose(scores, [[score for _, score in answer] for answer in wanted], rtol=0, atol=1e-12)
    assert not system.adaptation.fell_back


def stacks_alive():
    return sum(type(one) is Stack for one in gc.get_objects())


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.covering
def test_a_call_leaves_no_tensor_alive(order, fails):
    """Without the collector, which does not see a cycle through an autograd graph."""
    call = (lambda m, h: torch.tanh(m.linear(h).roll(1, 0)) @ m.other.weight) if fails else None
    recommender = recommender_of(lambda: Clicks(call), Cosine)
    tasks = task_batch(SAMPLES, num_items=LOG.num_items)
    gc.collect()
    gc.disable()
    try:
        before = stacks_alive()
        for score in (False, True):
            adaptation = Adaptation(Scope(*EVERYTHING), step=Gradient(0.1), steps=2, order=order)
            adaptation.bind(recommender)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = adaptation.run(recommender, tasks, SoftmaxLoss(), score=score)
            assert adaptation.fell_back is fails and found.isfinite().all()
            del found, adaptation
        assert stacks_alive() == before
    finally:
        gc.enable()


def test_a_class_that_was_made_for_twins_keeps_nothing_alive():
    system = system_of(Parametrized(False))
    system.recommend(QUERIES[0], 3)
    kept = weakref.ref(system.recommender.encoder.linear)
    del system
    gc.collect()
    assert kept() is None


def test_deques_of_layers_stay_ordinary():
    system = system_of(Clicks(lambda m, h: m.held[0](h)))
    system.recommender.encoder.held = deque([system.recommender.encoder.linear])
    assert system.losses(SAMPLES).isfinite().all() and not system.adaptation.fell_back
