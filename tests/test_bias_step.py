"""One step on an item bias in closed form: equal to the loop, with every support sample encoded once."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import graphmeta as gm
from graphmeta.adapt.inner import InnerLoop
from graphmeta.adapt.step import GroupRates
from graphmeta.adapt.support import UserSupport
from graphmeta.data.events import EventLog
from graphmeta.errors import DivergedError
from graphmeta.nn.mean_softmax import Pairs, mean_softmax
from graphmeta.published.parts import copied, with_adaptation
from graphmeta.sampling.order import UserBlocks
from graphmeta.sampling.samples import last_clicks
from graphmeta.sampling.tasks import task_batch
from graphmeta.sampling.user_histories import UserHistories

ITEMS = 20


def log_of(sessions=24, users=3, seed=0):
    random = np.random.default_rng(seed)
    lengths = random.integers(1, 5, sessions)
    session = np.repeat(np.arange(sessions), lengths)
    table = pd.DataFrame({"session": session, "item": random.integers(0, ITEMS, len(session))})
    table["user"] = random.integers(0, users, sessions)[session]
    table["time"] = np.arange(len(session)) * 10.0
    return EventLog.read(table, session="session", item="item", time="time", user="user")


LOG = log_of()
SAMPLES = UserHistories.of(LOG).attached(last_clicks(LOG), LOG)


def system_of(base, *, stacked=True, order=2, decay=0.2, bias=True):
    """A step on the item bias, in double precision and without dropout."""
    own = copied(base)
    own.recommender.head.add_item_bias(len(LOG.items))
    if bias:
        torch.nn.init.normal_(own.recommender.head.item_bias, generator=torch.Generator().manual_seed(1))
    adaptation = gm.Adaptation(
        gm.Scope("head.item_bias"),
        step=GroupRates({"head.item_bias": 7.0}),
        support=UserSupport(decay=decay),
        stacked=stacked,
        steps=1,
        order=order,
    )
    return with_adaptation(own, adaptation).double().eval()


def losses_and_gradients(system, samples):
    losses = system.losses(samples)
    losses.sum().backward()
    return losses.detach(), {name: one.grad for name, one in system.named_parameters() if one.grad is not None}


@pytest.mark.parametrize("terms", [(), ("repeat_bias", "cooccurrence")])
@pytest.mark.parametrize("name", ["niser", "sr_gnn"])
@pytest.mark.parametrize("order", [1, 2])
def test_shared_support_gives_the_losses_and_gradients_of_the_loop(name, order, terms):
    torch.manual_seed(0)
    base = gm.build(name, LOG.items, width=4, score_terms=terms)
    base.fit_statistics(LOG)
    shared, loop = (system_of(base, stacked=stacked, order=order) for stacked in (True, False))
    (ours, own), (expected, other) = (losses_and_gradients(system, SAMPLES) for system in (shared, loop))
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-10)
    zero = {name for name, one in other.items() if not one.any()}  # a step of order 1 leaves zeros or nothing
    assert own.keys() - zero == other.keys() - zero
    for parameter in own:
        torch.testing.assert_close(own[parameter], other[parameter], rtol=0, atol=1e-10, msg=parameter)
    assert ("adaptation.support.log_decay" in own) == (order == 2)
    torch.testing.assert_close(shared.scores(SAMPLES), loop.scores(SAMPLES), rtol=0, atol=1e-10)


def test_every_support_sample_is_encoded_once():
    """A batch with all queries of the users encodes each event of a user once; the loop, once for each later query."""
    system = system_of(gm.build("niser", LOG.items, width=4))
    encoded = []
    system.recommender.encoder.register_forward_hook(lambda module, inputs, found: encoded.append(len(found)))
    system.adaptation.task_chunk = len(SAMPLES)  # nothing is measured
    system.losses(SAMPLES)
    support = SAMPLES.earlier.histories
    read = np.zeros(len(support.item), dtype=bool)
    for begin, end in zip(SAMPLES.earlier.since, SAMPLES.earlier.until, strict=True):
        read[support.begin[begin] : support.begin[end]] = True
    rows = np.flatnonzero(read)
    contexts = rows - support.begin[support.session_of(rows)]
    assert encoded == [int(SAMPLES.lengths.sum()), int(contexts.sum())]
    tasks = task_batch(system.adaptation.support.tasks(SAMPLES, 1000), num_items=ITEMS)
    assert int(tasks.support["sample"].ptr.diff().sum()) > 3 * contexts.sum()


def test_other_adaptations_take_the_general_path():
    base = gm.build("niser", LOG.items, width=4)
    plain = system_of(base)
    assert plain.adaptation.shares_support(plain.recommender, plain.loss, None)
    for change in ("steps", "clip", "objective", "hook"):
        system, objective = system_of(base), None
        if change == "steps":
            system.adaptation.steps = 2
        if change == "clip":
            system.adaptation.inner = InnerLoop(clip=1.0)
        if change == "objective":
            objective = torch.nn.Identity()
        if change == "hook":
            system.recommender.head.register_forward_hook(lambda module, inputs, found: 2 * found)
        assert not system.adaptation.shares_support(system.recommender, system.loss, objective), change
    for scope in ("head", "item_bias"):
        made = gm.build(
            "maml", LOG.items, base="niser", width=4, anchor="user", scope=[scope] if scope == "head" else scope
        )
        assert made.adaptation.shares_support(made.recommender, made.loss, None) == (scope == "item_bias")


def test_a_support_loss_that_is_not_finite_names_the_task():
    system = system_of(gm.build("niser", LOG.items, width=4))
    with torch.no_grad():
        system.recommender.head.item_bias[3] = torch.nan
    with pytest.raises(DivergedError, match=r"task \d+, step 0: the support loss is not finite"):
        system.losses(SAMPLES)


@pytest.mark.parametrize(("rows", "kept"), [(2, 0), (2, 400), (2, 2**20), (100, 2**20)])
def test_a_mean_of_softmaxes_is_that_of_dense_probabilities(monkeypatch, rows, kept):
    monkeypatch.setattr("graphmeta.nn.mean_softmax.KEPT", kept)  # 400: two blocks of four
    torch.manual_seed(0)
    query, vectors, bias, value = (torch.randn(*n, dtype=torch.float64) for n in ((7, 3), (11, 3), (11,), (5,)))
    pairs = Pairs(np.array([0, 2, 0, 2, 3, 3, 0]), np.array([0, 0, 1, 3, 3, 5, 6]))
    weight = torch.rand(len(pairs.group), dtype=torch.float64)
    row, column = torch.tensor([6, 0, 3, 3, 1]), torch.tensor([2, 5, 1, 1, 10])
    inputs = [one.requires_grad_() for one in (query, vectors, weight, bias, value)]

    def found(q, v, w, b, x):
        return mean_softmax(q, v, w, pairs, groups=4, bias=b, extra=(row, column, x), rows=rows)

    def dense(q, v, w, b, x):
        p = torch.softmax((q @ v.t() + b).index_put((row, column), x, accumulate=True), 1)
        each = w[:, None] * p[torch.from_numpy(pairs.sample)]
        return each.new_zeros(4, 11).index_add(0, torch.from_numpy(pairs.group), each)

    torch.testing.assert_close(found(*inputs), dense(*inputs))
    torch.autograd.gradcheck(found, inputs, fast_mode=True)
    assert not found(*inputs)[1].any()
    plain = mean_softmax(query, vectors, weight, pairs, groups=4, rows=rows)
    total = weight.new_zeros(4).index_add(0, torch.from_numpy(pairs.group), weight)
    torch.testing.assert_close(plain.sum(1), total)


def test_blocks_of_users_are_consecutive_and_hold_every_row_once():
    samples = UserHistories.of(LOG).attached(last_clicks(LOG), LOG)
    assert isinstance(system_of(gm.build("niser", LOG.items, width=4)).batches, UserBlocks)
    epochs = [list(UserBlocks(3)(samples, batch_size=4, seed=0, epoch=epoch)) for epoch in (0, 0, 1)]
    one, again, other = (np.concatenate(batches) for batches in epochs)
    assert one.tolist() == again.tolist() != other.tolist()
    assert sorted(one) == list(range(len(samples))) and {len(rows) for rows in epochs[0][:-1]} == {4}
    user, when = samples.user[one], samples.start[one]
    blocks = np.split(np.arange(len(one)), np.flatnonzero((np.diff(user) != 0) | (np.diff(when) < 0)) + 1)
    for user in range(3):  # later blocks may follow one another; between them nothing of the user is left out
        own = np.flatnonzero(samples.user == user)[np.argsort(samples.start[samples.user == user])]
        place = {int(row): number for number, row in enumerate(own)}
        for block in blocks:
            rows = one[block]
            if samples.user[rows[0]] == user and len(rows) <= 3:
                assert np.all(np.diff([place[int(row)] for row in rows]) == 1)
    unknown = replace(samples, user=np.full(len(samples), -1))
    assert sorted(np.concatenate(list(UserBlocks(3)(unknown, batch_size=4, seed=0, epoch=0)))) == sorted(one)
