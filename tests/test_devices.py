"""What runs on a GPU, as far as that can be told without one: every tensor on one device, the CPU's numbers."""

import pytest
import torch

from graphmeta.published.catalogue import CATALOGUE
from tests.catalogue import LOG, made
from tests.pretend import Device, moved, numbers

EVERY = {name: (name, {}, ()) for name, row in CATALOGUE.items() if not row.counts} | {
    "maml around tagnn": ("maml", {"base": "tagnn"}, ()),
    "maml around gru4rec": ("maml", {"base": "gru4rec", "order": 1}, ()),
    "score_terms": ("niser", {}, ("repeat_bias", "same_category")),
    "cbml with score_terms": ("cbml", {"base": "niser"}, ("repeat_bias",)),
}


def slopes(system, samples):
    torch.manual_seed(1)  # dropout
    losses = system.losses(samples)
    losses.mean().backward()
    return losses, {name: p.grad for name, p in system.named_parameters() if p.grad is not None}


@pytest.mark.by_kind
@pytest.mark.parametrize("name", EVERY)
def test_losses_slopes_and_scores_are_those_of_the_cpu(name):
    system, samples = made(*EVERY[name])
    with Device():
        there = moved(system)
        losses, found = slopes(there, samples)
        scores = there.eval().scores(samples)
    wanted, right = slopes(system, samples)
    torch.testing.assert_close(numbers(losses), wanted.detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(numbers(scores), system.eval().scores(samples), rtol=1e-5, atol=1e-5)
    assert found.keys() == right.keys()
    for weight, slope in right.items():
        torch.testing.assert_close(numbers(found[weight]), slope, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["sr_gnn", "gru4rec", "cbml", "bpr_mf"])
def test_recommendations_are_those_of_the_cpu(name):
    system, _ = made(name, {}, ())
    system.eval()
    sessions = [list(LOG.items.ids[:3]), list(LOG.items.ids[4:5]), list(LOG.items.ids[[7, 7, 2, 9]])]
    users = None if system.users is None else system.users.ids[:3].tolist()
    with Device():
        found = moved(system).recommend_many(sessions, k=4, users=users)
    for one, other in zip(found, system.recommend_many(sessions, k=4, users=users), strict=True):
        assert [pick.item for pick in one] == [pick.item for pick in other]
        assert [pick.score for pick in one] == pytest.approx([pick.score for pick in other], abs=1e-5)
