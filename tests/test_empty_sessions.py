"""A session without clicks is no query: what it is predicted by, as support of a user and as a query."""

import numpy as np
import pytest
import torch

import graphmeta as gm
from graphmeta.adapt.support import UserSupport
from graphmeta.protocols import HasReadout, IgnoresEmptySessions, ReadsOnlyUsers
from graphmeta.published.catalogue import CATALOGUE, TRAINED
from graphmeta.published.options import UserTasks
from graphmeta.sampling.samples import last_clicks
from graphmeta.sampling.user_histories import UserHistories
from graphmeta.testing import fake_log

LOG = fake_log(sessions=40)
SAMPLES = UserHistories.of(LOG).attached(last_clicks(LOG), LOG).take(slice(-6, None))
BASES = [name for name in TRAINED if CATALOGUE[name].base is None and CATALOGUE[name].adapts == "nothing"]
OF_CLICKS = ("encoder.", "head.readout.", "head.project.", "head.decoder.")  # what reads the clicks, if named so


def anchored(name):
    """A system whose tasks are users, over this base."""
    torch.manual_seed(0)
    arguments = {"users": LOG.users} if CATALOGUE[name].needs_users else {}
    base = gm.build(name, LOG.items, width=4, **arguments)
    base.fit_statistics(LOG)
    return gm.build(
        "maml", LOG.items, base=base, scope=["encoder", "features", "head"], anchor=UserTasks(item_bias=False)
    ).eval()


@torch.no_grad()
def scores_of(system, samples):
    return system.recommender(system._queries(samples))


@torch.no_grad()
def perturb(system):
    """Change all that reads the clicks; returns the changed names."""
    names = [name for name, _ in system.recommender.named_parameters() if name.startswith(OF_CLICKS)]
    for name in names:
        own = system.recommender.get_parameter(name)
        own.add_(torch.randn_like(own))
    return names


@pytest.mark.covering
@pytest.mark.parametrize("name", BASES)
def test_support_without_clicks_is_predicted_without_the_encoder(name):
    system = anchored(name)
    support = system.adaptation.support.tasks(SAMPLES, 50).support
    first = support.lengths == 0
    if not isinstance(system.recommender.head, IgnoresEmptySessions):
        assert len(support) and not first.any(), "such a head reads an arbitrary vector of an empty session"
        return
    assert first.any()
    before, changed = scores_of(system, support), perturb(system)
    after = scores_of(system, support)
    head = system.recommender.head
    of_users = isinstance(head, HasReadout) and isinstance(head.readout, ReadsOnlyUsers)
    assert torch.allclose(after[first], before[first], atol=1e-6) != of_users
    assert not changed or not torch.allclose(after[~first], before[~first], atol=1e-4)


def test_a_next_basket_of_an_amortised_start_does_not_depend_on_the_encoder():
    torch.manual_seed(0)
    system = gm.build("amortised", LOG.items, base="niser", width=4).eval()
    history = [["i1", "i2"], ["i3"]]
    before = system.recommend([], 5, history=history)
    perturb(system)
    after = system.recommend([], 5, history=history)
    assert [(one.item, round(one.score, 5)) for one in before] == [(one.item, round(one.score, 5)) for one in after]


def test_sizes_are_those_of_the_tasks_without_first_events():
    support = UserSupport()
    support.firsts = False
    tasks, sizes = support.tasks(SAMPLES, 7), support.sizes(SAMPLES, 7)
    np.testing.assert_array_equal(sizes.support, tasks.support_sizes)
    np.testing.assert_array_equal(sizes.rows, support.sizes(tasks, 7).rows)
    assert sizes.support.max() < 7, "the last seven events, without those that begin a session"


def test_a_start_alone_reads_no_support(monkeypatch):
    system = gm.build("amortised", LOG.items, base="niser", width=4).eval()
    assert not len(system._with_support(SAMPLES).support)
    assert system._tasks(SAMPLES).support is None
    system.adaptation.steps = 1
    assert len(system._with_support(SAMPLES).support)
