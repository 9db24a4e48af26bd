"""The item table in scope where scores are cosines: every task's own lengths, without a table for each."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from graphmeta.adapt.adaptation import Adaptation
from graphmeta.adapt.scope import Scope
from graphmeta.adapt.step import Gradient, LearnedRates
from graphmeta.adapt.weight import TaskLayout
from graphmeta.batch import Samples, open_sessions
from graphmeta.nn.loss import SoftmaxLoss
from graphmeta.published import build
from graphmeta.published.parts import FIXED
from graphmeta.tasks import task_batch
from graphmeta.testing import fake_log

LOG, WIDTH = fake_log(sessions=16, items=19), 4
EXTRAS = [[], ["returns"], ["kin"], ["evidence"], ["returns", "second_look"]]

pytestmark = pytest.mark.usefixtures("float64")


def samples():
    """Sessions of one to four known clicks (the first has no support), with repeats, and their next items."""
    known = open_sessions([np.array(clicks) for clicks in ([3], [1, 2, 1, 5], [4, 9, 4])])
    return Samples(known.item, known.begin, known.end, np.array([4, 6, 5]), known.session)


def model(base="niser", extras=()):
    """In eval mode, with extras that have something to say."""
    torch.manual_seed(3)
    system = build(base, LOG.items, width=WIDTH, extras=extras).eval()
    system.fit(LOG)
    for name, weight in system.named_parameters():
        if "extras" in name:
            nn.init.normal_(weight, std=0.3)
    return system.recommender


def adapting(recommender, *, stacked=True, order=1, steps=1, learned=False):
    """Of everything that a session can change."""
    step = LearnedRates(0.3, per_step=True) if learned else Gradient(0.3)
    scope = Scope("", without=FIXED)
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


@pytest.mark.parametrize("learned", [False, True], ids=["fixed", "learned"])
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("steps", [1, 3])
def test_stacked_is_the_loop(steps, order, learned):
    found = assert_stacked_is_loop(model(), steps=steps, order=order, learned=learned)
    assert not learned or all(gradient.abs().sum() > 0 for gradient in found[-3:])


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("extras", EXTRAS[1:], ids=" ".join)
def test_with_what_is_added_to_single_scores(extras, order):
    assert_stacked_is_loop(model(extras=extras), steps=2, order=order)
