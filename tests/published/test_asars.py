"""The ASARS variants against loops written from the equations, what they may not see, and how they are trained."""

import numpy as np
import pandas as pd
import pytest
import torch

from graphmeta.data.events import EventLog
from graphmeta.datasets.session_logs import complete_journey
from graphmeta.errors import InputError
from graphmeta.evaluation.ranking import evaluate
from graphmeta.nn.losses.losses import following
from graphmeta.published.catalogue import build
from graphmeta.published.load import load
from graphmeta.sampling.histories import user_histories, with_history
from graphmeta.sampling.samples import last_clicks, prefixes, sessions_without_target, whole_sessions
from graphmeta.sampling.session_batch import session_batch
from graphmeta.testing import fake_log
from graphmeta.training.loop import train
from graphmeta.training.optimizers import Adam

NAMES = ("asars_user_att", "asars_user_cat", "asars_time_att", "asars_time_cat", "asars_time_user")
SMALL = {"width": 4, "hidden": 5}
LOG = fake_log(sessions=60)


def system_of(name, log=LOG, **options):
    torch.manual_seed(0)
    system = build(name, log.items, users=log.users, **SMALL, **options).double().eval()
    system.fit_statistics(log)
    torch.nn.init.normal_(system.recommender.features.item.weight)
    return system


def lstm(network, inputs):
    """The states of one LSTM layer, step by step (input, forget, cell, output)."""
    layer, out = network.layers[0], []
    h = c = inputs.new_zeros(layer.hidden_size)
    for x in inputs:
        gates = layer.weight_ih_l0 @ x + layer.bias_ih_l0 + layer.weight_hh_l0 @ h + layer.bias_hh_l0
        i, f, g, o = gates.chunk(4)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        out.append(h)
    return torch.stack(out)


def attended(attention, states, keys, against):
    """What the last click makes of all."""
    scores = torch.stack(
        [torch.tanh(attention.key.weight @ k + attention.key.bias) @ a for k, a in zip(keys, against, strict=True)]
    )
    return torch.softmax(scores, 0) @ states


def expected(name, system, items, times, user):
    """z · e_k + b_k for one session."""
    model, table = system.recommender, system.recommender.features.item.weight
    vectors, encoder = table[items, :4], model.encoder
    inner = encoder.encoder if name in ("asars_user_att", "asars_user_cat", "asars_time_user") else encoder
    if "time" in name:
        dwell, gaps = inner.dwell, np.diff(times)
        place = np.clip(np.floor((gaps - float(dwell.bins.low)) / float(dwell.bins.size)), 0, int(dwell.bins.bins) - 1)
        pauses = dwell.table.weight[[0, *(1 + place).astype(int)]]
    person = None if inner is encoder else encoder.users.user.weight[user]
    if name == "asars_time_cat":
        read = lstm(inner.network, torch.cat([vectors, pauses], 1))[-1]
    elif name == "asars_user_cat":
        read = torch.cat([lstm(inner, vectors)[-1], person])
    elif name == "asars_user_att":
        states = lstm(inner, vectors)
        read = torch.cat([attended(encoder.attention, states, states, [person] * len(states)), person])
    else:
        states, keys = lstm(inner.network, vectors), lstm(inner.over_dwell, pauses)
        read = attended(inner.attention, states, keys, states)
        read = read if person is None else torch.cat([read, person])
    return table[:, :4] @ (model.head.project.weight @ read + model.head.project.bias) + table[:, 4]


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_the_variant_is_the_formula(name):
    random = np.random.default_rng(1)
    gaps = random.integers(1, 100, 359)
    clicks = pd.DataFrame(
        {"s": np.arange(360) // 6, "t": np.append(0, np.cumsum(gaps)), "i": random.integers(0, 9, 360)}
    )
    clicks["u"] = clicks["s"] % 4
    log = EventLog.read(clicks, session="s", item="i", time="t", user="u")
    system, samples = system_of(name, log), last_clicks(log).take(slice(0, 5))
    found = system.scores(samples)
    for row in range(5):
        where = slice(samples.begin[row], samples.end[row])
        wanted = expected(name, system, log.item[where], log.time[where], int(samples.user[row]))
        torch.testing.assert_close(found[row], wanted, rtol=0, atol=1e-10)


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_nothing_that_comes_later_is_seen(name):
    """States of the first three clicks stay when the fourth click's item and time change."""
    system = system_of(name)
    states = []
    for item, time in ((5, 90.0), (7, 4000.0)):
        queries = sessions_without_target(
            [np.array([1, 2, 3, item])], times=[np.array([0, 30, 60, time])], users=np.array([1])
        )
        states.append(system.recommender.encode(session_batch(queries, num_items=LOG.num_items))[0])
    torch.testing.assert_close(states[0][:3], states[1][:3], rtol=0, atol=0)
    assert not torch.equal(states[0][3], states[1][3])


@torch.no_grad()
def test_lag_0_leaks_the_next_click_and_warns():
    timed = jittered()
    with pytest.warns(UserWarning, match="leaks the time of the next click"):
        system = system_of("asars_time_cat", timed, dwell_lag=0)
    scores = [system.scores(last_clicks(log).take(slice(0, 1))) for log in (timed, jittered(last=-50.0))]
    assert not torch.equal(*scores)
    honest = system_of("asars_time_cat", timed)
    scores = [honest.scores(last_clicks(log).take(slice(0, 1))) for log in (timed, jittered(last=-50.0))]
    assert torch.equal(*scores)


def jittered(last=0.0):
    """Sessions of three clicks with pauses of many lengths; the first session's last click may come at another time."""
    rows = [
        (s, s % 5 + c, 1e4 * s + 100 * c + (s * 7 + c * 3) % 60 + last * (s == 0) * (c == 2))
        for s in range(40)
        for c in range(3)
    ]
    return EventLog.read(pd.DataFrame(rows, columns=["s", "i", "t"]), session="s", item="i", time="t")


def test_users_are_needed_where_they_are_read():
    for name in ("asars_user_att", "asars_user_cat", "asars_time_user"):
        with pytest.raises(InputError, match="needs users"):
            build(name, LOG.items)
    assert build("asars_time_att", LOG.items).users is None


@torch.no_grad()
def test_an_unknown_user_is_a_vector_of_zeros():
    system = system_of("asars_user_cat")
    queries = sessions_without_target([np.array([1, 2])] * 2, users=np.array([-1, 3]))
    states = system.recommender.encode(session_batch(queries, num_items=LOG.num_items))[0]
    assert states[:2, 5:].eq(0).all() and states[2:, 5:].ne(0).any()


def test_what_follows_what_is_learned_and_not_only_whose_it_is():
    """Each user has six items, clicked in a circle. Negatives outside the history are beaten without knowing it."""
    steps = np.arange(4)
    rows = [(6 * u + s, u, 6 * u + (s + step) % 6, 10 * s + step) for u in range(4) for s in range(6) for step in steps]
    log = EventLog.read(pd.DataFrame(rows, columns=["s", "u", "i", "t"]), session="s", user="u", item="i", time="t")
    found = {}
    for loss in ("cross_entropy", "hinge"):
        torch.manual_seed(0)
        system = build("asars_user_cat", log.items, users=log.users, width=16, hidden=16, dropout=0.0, loss=loss)
        *_, last = train(system, log, epochs=30, optimizer=Adam(lr=0.03), batch_size=12)
        found[loss] = last.loss, evaluate(system, last_clicks(log), ks=(1, 6)).metrics
    assert found["cross_entropy"][1]["hit@1"] == 1.0
    assert found["hinge"][0] < 0.01 and found["hinge"][1]["hit@6"] == 1.0 and found["hinge"][1]["hit@1"] < 0.6


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_a_click_s_loss_is_the_cross_entropy_of_the_prefix_before_it(name):
    system, queries = system_of(name), prefixes(LOG, max_length=200)
    wanted = torch.nn.functional.cross_entropy(
        system.scores(queries), torch.from_numpy(queries.target), reduction="none"
    )
    torch.testing.assert_close(system.losses(system.training_samples(LOG)), wanted, rtol=0, atol=1e-10)


def test_the_users_with_most_sessions_get_no_batches_to_themselves():
    users = np.array([0] * 40 + [1, 2, 3, 4] * 2)
    samples = sessions_without_target([np.array([0])] * 48, users=users)
    batches = list(system_of("asars_user_cat").batches(samples, batch_size=8, seed=0, epoch=0))
    assert [len(rows) for rows in batches] == [8] * 6
    assert sum(set(users[rows]) != {0} for rows in batches) > 2


def test_every_click_is_compared_with_one_that_the_user_never_clicked():
    log = fake_log(sessions=40)
    system = system_of("asars_user_cat", log, loss="hinge")
    batch = following(session_batch(whole_sessions(log), num_items=log.num_items))
    negatives, history = system.loss.loss.negatives, {u: set() for u in range(20)}
    for event, item in enumerate(log.item):
        history[int(log.session_user[log.session[event]])].add(int(item))
    target, user = batch["sample"].target, batch["sample"].user
    assert len(target) == log.num_events - log.num_sessions
    items, counts = negatives(target, user, log.num_items)
    assert items.shape == (len(target), 1) and counts.float().mean() > 0.9
    assert all(int(i) not in history[int(u)] for i, u, c in zip(items[:, 0], user, counts[:, 0], strict=True) if c)
    assert set(items.flatten().tolist()) <= set(target.tolist())


@pytest.mark.parametrize("name", NAMES)
def test_it_learns_on_the_bundled_dataset_and_is_saved_with_its_bins(name, tmp_path):
    log = complete_journey()
    log = log.of_sessions(np.arange(log.num_sessions) >= log.num_sessions - 80)
    torch.manual_seed(0)
    system = build(name, log.items, users=log.users, width=8, dropout=0.0)
    history = list(train(system, log, epochs=3, optimizer=Adam(lr=1e-2), batch_size=32))
    assert history[-1].loss < history[0].loss
    system.save(tmp_path)
    again, samples = load(tmp_path), last_clicks(log).take(slice(0, 20))
    assert torch.equal(again.scores(samples), system.scores(samples))
    for one, other in zip(system.buffers(), again.buffers(), strict=True):
        assert torch.equal(one, other)


@torch.no_grad()
def test_a_batch_of_users_is_their_sessions_one_by_one():
    """The state begins anew with each session, so a row of sessions scores as each alone."""
    system, samples = system_of("asars_time_user"), whole_sessions(LOG)
    rows = next(iter(system.batches(samples, batch_size=7, seed=0, epoch=0)))
    together = system.scores(samples.take(rows))
    alone = torch.cat([system.scores(samples.take([row])) for row in rows])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)


@torch.no_grad()
def test_a_carried_state_is_that_of_the_joined_sessions():
    system = system_of("asars_user_cat", carry_state=True)
    assert system.samples is user_histories
    row = int(np.flatnonzero(LOG.session_user == 4)[-1])
    samples = last_clicks(LOG).take([row])
    mine = np.concatenate([np.flatnonzero(LOG.session == s) for s in np.flatnonzero(LOG.session_user == 4)])
    joined = sessions_without_target([LOG.item[mine[:-1]]], max_length=200, users=np.array([4]))
    carried = system.scores(with_history(samples, LOG, max_length=200))
    torch.testing.assert_close(carried, system.scores(joined), rtol=0, atol=1e-12)
    assert not torch.allclose(carried, system.scores(samples))


@torch.no_grad()
def test_temporal_terms_that_are_equal_for_all_items_change_no_ranking():
    system = system_of("asars_time_user", temporal=True)
    samples = last_clicks(LOG).take(slice(0, 6))
    before = system.scores(samples)
    users = system.recommender.head.users.user.weight
    users[:, -1] += 3.0
    system.recommender.head.mean += 1.0
    torch.testing.assert_close(system.scores(samples), before + 4.0, rtol=0, atol=1e-10)


def test_no_loss_of_that_name():
    with pytest.raises(InputError, match="loss='hing' must be one of"):
        build("asars_time_att", LOG.items, loss="hing")
