"""MetaTL by hand: the relation, its one step, the distances."""

import numpy as np
import pytest
import torch

from graphmeta.published.catalogue import build
from graphmeta.sampling.samples import last_clicks, sessions_without_target
from graphmeta.sampling.tasks import task_batch
from graphmeta.testing import fake_log

LOG = fake_log(sessions=50, length=4)

pytestmark = pytest.mark.usefixtures("float64")


def made(**arguments):
    torch.manual_seed(0)
    return build("meta_tl", LOG.items, width=5, hidden=(7, 6), **arguments).eval()


def relation(system, clicks):
    table, layers = system.recommender.features.item.weight, system.recommender.head.readout.layers
    pairs = torch.stack([torch.cat([table[a], table[b]]) for a, b in zip(clicks, clicks[1:], strict=False)])
    return layers(pairs).mean(0)


def test_without_a_step_the_mean_transition_leads_on():
    system = made(steps=0)
    table = system.recommender.features.item.weight.detach()
    sessions = [[3, 9, 3, 4], [0], [7, 8]]
    scores = system.scores(sessions_without_target([np.array(one) for one in sessions]))
    for row, clicks in enumerate(sessions):
        r = relation(system, clicks) if len(clicks) > 1 else torch.zeros(5)
        wanted = [-float((table[clicks[-1]] + r - one).detach().norm()) for one in table]
        torch.testing.assert_close(scores[row], torch.tensor(wanted), rtol=0, atol=2e-6)


def test_the_step_is_down_the_margin_by_hand():
    system, clicks = made(lr=0.3), [3, 9, 4, 20]
    table = system.recommender.features.item.weight.detach()
    samples = sessions_without_target([np.array(clicks)])
    support = task_batch(samples, num_items=LOG.num_items).support
    items, counts = system.loss.sample(support, LOG.num_items)
    real = support["sample"].real.tolist()
    assert [int(support["sample"].target[row]) for row in real] == clicks[1:] and counts[real].all()
    r = relation(system, clicks).detach()
    slope = torch.zeros(5)
    for row, (head, target) in zip(real, zip(clicks, clicks[1:], strict=False), strict=True):
        near, far = table[head] + r - table[target], table[head] + r - table[items[row][0]]
        if 1 + near.norm() - far.norm() > 0:
            slope += (near / near.norm() - far / far.norm()) / 3
    assert slope.norm() > 0
    place = table[20] + r - 0.3 * slope
    torch.testing.assert_close(system.scores(samples)[0], -(place - table).norm(dim=1), rtol=0, atol=2e-6)


@pytest.mark.parametrize("order", [1, 2])
def test_all_users_stacked_give_what_the_loop_gives_and_everything_learns(order):
    system, samples = made(steps=2, order=order), last_clicks(LOG).take(slice(0, 5))
    answers, trained = [], [p for p in system.parameters() if p.requires_grad]
    for stacked in (True, False):
        system.adaptation.stacked = stacked
        losses = system.losses(samples)
        answers.append([losses, *torch.autograd.grad(losses.mean(), trained)])
        assert not system.adaptation.fell_back
    for one, other in zip(*answers, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)
    assert all(slope.abs().sum() > 0 for slope in answers[0][1:])
    system.adaptation.stacked = True
    if order == 2:
        check_slope(system, samples, trained, answers[0][1:])


def check_slope(system, samples, trained, slopes):
    """The gradient along a random direction, by a central difference."""
    random = torch.Generator().manual_seed(1)
    direction = [torch.randn(p.shape, generator=random) for p in trained]
    values, small = [], 1e-7
    for sign in (1, -2):
        with torch.no_grad():
            for p, d in zip(trained, direction, strict=True):
                p.add_(sign * small * d)
            values.append(system.losses(samples).mean())
    analytic = sum((slope * d).sum() for slope, d in zip(slopes, direction, strict=True))
    torch.testing.assert_close((values[0] - values[1]) / (2 * small), analytic, rtol=1e-4, atol=2e-6)
