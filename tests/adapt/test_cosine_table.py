"""The item table in scope where scores are cosines: every task's own lengths, without a table for each."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from graphmeta.adapt.adaptation import Adaptation
from graphmeta.adapt.scope import Scope
from graphmeta.adapt.stacked.stack import Stack
from graphmeta.adapt.stacked.table_state import TableState
from graphmeta.adapt.stacked.task_table import TaskTable
from graphmeta.adapt.step import Gradient, LearnedRates
from graphmeta.errors import UnsupportedOp
from graphmeta.nn.catalogue_softmax import products_at
from graphmeta.nn.losses.losses import SoftmaxLoss
from graphmeta.published.catalogue import build
from graphmeta.sampling.samples import Samples, sessions_without_target
from graphmeta.sampling.tasks import task_batch
from graphmeta.testing import fake_log

LOG, WIDTH = fake_log(sessions=16, items=19), 4
EXTRAS = [[], ["repeat_bias"], ["same_category"], ["cooccurrence"], ["repeat_bias", "reranker"]]

pytestmark = pytest.mark.usefixtures("float64")


def samples():
    """Sessions of one to four known clicks (the first has no support), with repeats, and their next items."""
    known = sessions_without_target([np.array(clicks) for clicks in ([3], [1, 2, 1, 5], [4, 9, 4])])
    return Samples(known.item, known.begin, known.end, np.array([4, 6, 5]), known.session)


def model(base="niser", score_terms=(), around=None):
    """In eval mode, with score_terms that have something to say."""
    torch.manual_seed(3)
    options = {"score_terms": score_terms}
    if around is not None:
        base, options = around, {"base": base, "options": options}
    system = build(base, LOG.items, width=WIDTH, **options).eval()
    system.fit_statistics(LOG)
    for name, weight in system.named_parameters():
        if "score_terms" in name:
            nn.init.normal_(weight, std=0.3)
    return system.recommender


def adapting(recommender, *, stacked=True, order=1, steps=1, learned=False):
    """Of everything that a session can change."""
    step = LearnedRates(0.3, per_step=True) if learned else Gradient(0.3)
    scope = Scope("")
    adaptation = Adaptation(scope, step=step, steps=steps, order=order, stacked=stacked)
    adaptation.bind(recommender)
    return adaptation


def answers(recommender, **options):
    """Losses, scores and the meta-gradient of every parameter and rate."""
    adaptation, tasks = adapting(recommender, **options), task_batch(samples(), num_items=LOG.num_items)
    losses = adaptation.run(recommender, tasks, SoftmaxLoss())
    learned = [*recommender.parameters(), *adaptation.parameters()]
    found = torch.autograd.grad(losses.mean(), learned, allow_unused=True)
    gradients = [torch.zeros_like(p) if g is None else g for p, g in zip(learned, found, strict=True)]
    return [losses.detach(), adaptation.run(recommender, tasks, SoftmaxLoss(), score=True).detach(), *gradients]


def assert_stacked_is_loop(recommender, **options):
    one, other = answers(recommender, **options), answers(recommender, stacked=False, **options)
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-9)
    return one


@pytest.mark.covering
@pytest.mark.parametrize("learned", [False, True], ids=["fixed", "learned"])
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("steps", [1, 3])
def test_stacked_is_the_loop(steps, order, learned):
    found = assert_stacked_is_loop(model(), steps=steps, order=order, learned=learned)
    assert not learned or all(gradient.abs().sum() > 0 for gradient in found[-3:])


@pytest.mark.covering
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("score_terms", EXTRAS[1:], ids=" ".join)
def test_with_what_is_added_to_single_scores(score_terms, order):
    assert_stacked_is_loop(model(score_terms=score_terms), steps=2, order=order)


@pytest.mark.parametrize("around", [None, "dropout_net"], ids=["rows", "sums of rows"])
def test_single_products_of_plain_scores_too(around):
    """A network that reads the products of a session's neighbours, a ragged number of them, beside a plain head."""
    assert_stacked_is_loop(model("sr_gnn", ["reranker"], around=around), steps=2, order=2)


@pytest.mark.parametrize("name", ["maml", "multi_ft", "cbml_f"])
def test_no_system_around_niser_adapts_one_by_one(name):
    torch.manual_seed(0)
    options = {"scope": [""]} if name == "maml" else {}
    system = build(
        name, LOG.items, base="niser", options={"score_terms": ["repeat_bias"]}, width=WIDTH, lr=0.3, **options
    )
    found = system.eval().scores(samples())
    assert not system.adaptation.fell_back and "features.item.weight" in str(system.adaptation.tables)
    system.adaptation.stacked = False
    torch.testing.assert_close(system.scores(samples()), found, rtol=0, atol=1e-9)
    system.adaptation.steps = 0
    assert not torch.allclose(system.scores(samples())[1:], found[1:], atol=1e-3)


def test_lengths_of_sums_of_rows_are_left_to_the_loop():
    torch.manual_seed(0)
    recommender = build("dropout_net", LOG.items, base="niser", width=WIDTH).eval().recommender
    with pytest.warns(UserWarning, match="sums of rows of an item table in scope.*task by task"):
        found = answers(recommender)
    for one, other in zip(found, answers(recommender, stacked=False), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("order", [1, 2])
def test_lengths_are_those_of_the_table_written_out(order):
    """Values and gradients; in first order what steps have added is a constant, so a table's gradient is the base's."""
    recommender, tasks = model(), task_batch(samples(), num_items=LOG.num_items)
    adaptation = adapting(recommender, order=order, steps=3, learned=True)
    state = adaptation.adapted(recommender, tasks, SoftmaxLoss())["features.features.item.weight"]
    assert isinstance(state, TableState) and state.scale is not None and len(state.outer) == 3
    assert state.first_order == (order == 1) and (state.scale[1:] - 1).abs().max() > 1e-2
    table, weight = state.dense(3), torch.randn(3, LOG.num_items)
    torch.testing.assert_close(state.squares(3), table.square().sum(2), rtol=0, atol=1e-12)
    learned = [state.base, *adaptation.parameters()]
    found, own = (
        torch.autograd.grad((weight * squares).sum(), learned, allow_unused=True, retain_graph=True)
        for squares in (state.squares(3), table.square().sum(2))
    )
    for one, other in zip(found, own, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)
    if order == 1:
        torch.testing.assert_close(found[0], (2 * weight[:, :, None] * table).sum(0), rtol=0, atol=1e-10)


def changed(tasks=2, rows=7):
    """A table that each task has scaled and added to."""
    keys = torch.tensor([1, 3, 5 + rows])
    outer = (torch.randn(tasks, 3, rows), torch.randn(tasks, 3, WIDTH))
    return TableState(
        torch.randn(rows, WIDTH), ((keys, torch.randn(3, WIDTH)),), (outer,), torch.rand(tasks, rows) + 0.5
    )


@pytest.mark.parametrize("eps", [1e-12, 2.0], ids=["none", "some"])
def test_a_step_on_unit_vectors_is_that_of_the_table_written_out(eps):
    """Products with unit vectors, single ones and some of the vectors; rows shorter than eps are divided by it."""
    torch.manual_seed(1)
    state, stack = changed(), Stack(2)
    query, index, weight = torch.randn(4, WIDTH), torch.tensor([1, 6, 5, 5]), torch.randn(4, 7)
    query, index = stack.rows(query), stack.rows(index)
    row, column = torch.tensor([0, 1, 1, 1, 3]), torch.tensor([1, 1, 2, 2, 5])
    table = TaskTable(state, stack)
    units = F.normalize(table, dim=-1, eps=eps)
    read = [products_at(query, units, row, column), F.linear(query, units), units.index_select(0, index)]

    dense = state.dense(2).requires_grad_()
    short = dense.norm(dim=2) < eps
    assert short.any() == (eps > 1) and not short.all()
    unit = dense / dense.norm(dim=2, keepdim=True).clamp(min=eps)
    scores = (query.reshape(2, 2, -1) @ unit.transpose(1, 2)).flatten(0, 1)
    written = [scores[row, column], scores, unit[torch.tensor([0, 0, 1, 1]), index]]
    for one, other in zip(read, written, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)

    losses = [part[0].square().sum() + (weight * part[1]).sum() + part[2].pow(3).sum() for part in (read, written)]
    slopes = list(torch.autograd.grad(losses[0], table.read()))
    assert len(slopes) == 3  # rows, products (single ones are some of them), lengths
    moved = table.stepped(state, 0.3, slopes, keep_graph=False)
    expected = dense - 0.3 * torch.autograd.grad(losses[1], dense)[0]
    torch.testing.assert_close(moved.dense(2), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(moved.squares(2), expected.square().sum(2), rtol=0, atol=1e-12)


@pytest.mark.parametrize("options", [{"dim": 0}, {"dim": -1, "p": 1.0}])
def test_other_lengths_are_unknown(options):
    with pytest.raises(UnsupportedOp, match="by other lengths"):
        F.normalize(TaskTable(changed(), Stack(2)), **options)
