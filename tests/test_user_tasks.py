"""Users as tasks: histories, their support, its weights, the adapted item bias, and what a later event may change."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import graphmeta as gm
from graphmeta.adapt.adaptation import Adaptation
from graphmeta.adapt.inner import InnerLoop
from graphmeta.adapt.scope import Scope
from graphmeta.adapt.step import Gradient, GroupRates
from graphmeta.adapt.support import UserSupport, weighted_task_mean
from graphmeta.data.events import EventLog
from graphmeta.errors import InputError
from graphmeta.published.options import UserTasks
from graphmeta.published.parts import copied, with_adaptation
from graphmeta.sampling.given_histories import given_earlier
from graphmeta.sampling.histories import prepended
from graphmeta.sampling.samples import last_clicks, prefixes
from graphmeta.sampling.session_batch import session_batch
from graphmeta.sampling.task_layout import split_tasks
from graphmeta.sampling.tasks import task_batch
from graphmeta.sampling.user_histories import UserHistories

ITEMS, USERS = 25, 6


def frame(sessions=40, seed=0):
    """Sessions of 1 to 5 events of 6 users, some of them at the same time."""
    random = np.random.default_rng(seed)
    lengths = random.integers(1, 6, sessions)
    session = np.repeat(np.arange(sessions), lengths)
    begin = random.integers(0, 60, sessions) * 100.0
    within = np.concatenate([np.sort(random.integers(0, 250, n)) for n in lengths])
    user = random.integers(0, USERS, sessions)
    return pd.DataFrame(
        {
            "session": session,
            "item": [f"i{n}" for n in random.integers(0, ITEMS, len(session))],
            "time": begin[session] + within,
            "user": [f"u{n}" for n in user[session]],
        }
    )


def read(table):
    return EventLog.read(table, session="session", item="item", time="time", user="user")


LOG = read(frame())


def earlier_by_loops(table, session):
    """The user's sessions that, with all that began before them, ended before this session began; oldest first."""
    spans = table.groupby("session").agg(user=("user", "first"), start=("time", "min"), end=("time", "max"))
    own = spans[spans.user == spans.user[session]].sort_values("start", kind="stable")
    found = []
    for number, row in own.iterrows():
        if row.end >= spans.start[session]:
            break
        found.append(number)
    return found


def test_histories_are_those_of_a_loop():
    table = frame()
    samples = UserHistories.of(LOG).attached(last_clicks(LOG), LOG)
    for row in range(len(samples)):
        session = LOG.sessions[samples.session[row]]
        earlier = samples.earlier.take(np.array([row]))
        known = earlier.histories.sessions[earlier.since[0] : earlier.until[0]].tolist()
        assert known == earlier_by_loops(table, session)
        columns = earlier.columns()
        rows = table[table.session.isin(known)]
        assert sorted(LOG.items.ids[columns.n_id]) == sorted(rows.item)
        start = table[table.session == session].time.min()
        days = [(start - time) / 86400 for time in rows.time]
        np.testing.assert_allclose(sorted(columns.days), sorted(days))
        ages = sorted(len(known) - known.index(number) for number in rows.session)
        assert sorted(columns.age) == ages


def test_a_limit_keeps_the_latest_sessions_and_events():
    histories = UserHistories.of(LOG)
    samples = last_clicks(LOG)
    every = histories.attached(samples, LOG).earlier
    two = every.last(2)
    assert (two.sessions == np.minimum(every.sessions, 2)).all() and (two.until == every.until).all()
    rows, ptr = every.latest(3)
    whole, whole_ptr = every.latest(None)
    for s in range(len(samples)):
        assert rows[ptr[s] : ptr[s + 1]].tolist() == whole[whole_ptr[s] : whole_ptr[s + 1]][-3:].tolist()


def test_parts_of_a_split_join_to_the_histories_of_the_log():
    table = frame()
    table["time"] = table.session * 1000.0 + table.groupby("session").cumcount()  # no session crosses a cut
    log = read(table)
    split = gm.split_by_time(log, test=0.2, valid=0.2)
    whole = log.aligned_to(split.train.items, split.train.users)
    one, parts = UserHistories.of(whole), UserHistories.of(*split.parts)
    for name in ("item", "time", "begin", "starts", "ends", "ptr"):
        np.testing.assert_array_equal(getattr(one, name), getattr(parts, name))
    again, _ = UserHistories.together(parts, whole)
    np.testing.assert_array_equal(again.item, one.item)
    with pytest.raises(InputError, match="different items"):
        UserHistories.of(LOG, split.train)
    with pytest.raises(InputError, match="no users"):
        UserHistories.of(replace(LOG, users=None, session_user=None))


def tasks_of(log, *, support=None, max_support=20, rows=slice(None)):
    samples = UserHistories.of(log).attached(last_clicks(log), log).take(rows)
    return (UserSupport() if support is None else support).tasks(samples, max_support)


def test_support_is_every_event_of_the_earlier_sessions():
    tasks, table = tasks_of(LOG, max_support=1000), frame()
    for t in range(len(tasks)):
        session = LOG.sessions[tasks.query.session[t]]
        known = earlier_by_loops(table, session)
        support = tasks.support.take(slice(tasks.support_ptr[t], tasks.support_ptr[t + 1]))
        expected = []
        for age, number in zip(range(len(known), 0, -1), known, strict=True):
            items = table[table.session == number].sort_values("time", kind="stable").item.tolist()
            expected += [(items[:n], items[n], age) for n in range(len(items))]
        contexts = [LOG.items.ids[support.item[b:e]].tolist() for b, e in zip(support.begin, support.end, strict=True)]
        found = zip(contexts, LOG.items.ids[support.target].tolist(), support.age.tolist(), strict=True)
        assert [tuple(one) for one in found] == expected


@pytest.mark.covering
@pytest.mark.parametrize("name", ["niser", "sr_gnn", "gru4rec", "if_san", "gc_san"])
@pytest.mark.parametrize("order", [1, 2])
def test_stacked_is_the_loop(name, order):
    torch.manual_seed(0)
    base = gm.build(name, LOG.items, width=8).double()
    head = base.recommender.head
    head.add_item_bias(ITEMS)
    losses, gradients = [], []
    for stacked in (True, False):
        adaptation = Adaptation(
            Scope("head"),
            step=GroupRates({"head.item_bias": 5.0, "": 0.1}),
            inner=InnerLoop(steps=2, order=order),
            support=UserSupport(decay=0.1),
            stacked=stacked,
        )
        system = with_adaptation(copied(base), adaptation).double().eval()  # no dropout
        tasks = task_batch(tasks_of(LOG, rows=np.arange(12)), num_items=ITEMS)
        found = system.adaptation.run(system.recommender, tasks, system.loss)
        found.sum().backward()
        assert not system.adaptation.fell_back
        losses.append(found.detach())
        gradients.append({n: p.grad for n, p in system.named_parameters()})
    torch.testing.assert_close(*losses, rtol=1e-11, atol=1e-11)
    for parameter, grad in gradients[0].items():
        other = gradients[1][parameter]
        assert (grad is None) == (other is None), parameter
        if grad is not None:
            torch.testing.assert_close(grad, other, rtol=1e-9, atol=1e-11)
    decay = gradients[0]["adaptation.support.log_decay"]
    assert (decay is None or float(decay) == 0) == (order == 1), "λ is learned through the steps alone"


def test_a_step_on_the_item_bias_is_decayed_personal_frequency():
    """Scores change by ``rate (weighted share of i in the history − weighted mean of p_i)``."""
    torch.manual_seed(0)
    base = gm.build("niser", LOG.items, width=8).double().eval()
    base.recommender.head.add_item_bias(ITEMS)
    base.recommender.head.ignore_empty_sessions()
    adaptation = Adaptation(Scope("head.item_bias"), step=Gradient(3.0), support=UserSupport(decay=0.2))
    system = with_adaptation(copied(base), adaptation).double().eval()
    system.max_support = 1000
    samples = UserHistories.of(LOG).attached(last_clicks(LOG), LOG)
    plain, adapted = base.scores(samples), system.scores(samples)
    tasks = tasks_of(LOG, max_support=1000)
    for t in range(len(tasks)):
        support = tasks.support.take(slice(tasks.support_ptr[t], tasks.support_ptr[t + 1]))
        if not len(support):
            torch.testing.assert_close(adapted[t], plain[t])
            continue
        weight = torch.from_numpy(np.exp(-0.2 * support.age))
        weight = weight / weight.sum()
        share = torch.zeros(ITEMS, dtype=torch.float64).index_add(0, torch.from_numpy(support.target), weight)
        mean = weight @ torch.softmax(base.scores(replace(support, age=None)), 1)
        torch.testing.assert_close(adapted[t], plain[t] + 3.0 * (share - mean), rtol=1e-7, atol=1e-7)


def test_weights_of_a_task_sum_to_one_and_a_task_without_support_has_no_loss():
    tasks = task_batch(tasks_of(LOG, rows=np.arange(10)), num_items=ITEMS)
    batch = tasks.support
    real = len(batch["sample"].real)
    age = torch.rand(real, dtype=torch.float64)
    ones = weighted_task_mean(batch, torch.ones(real, dtype=torch.float64), -age)
    count = torch.bincount(batch["sample"].real // batch.rows["sample"], minlength=10)
    torch.testing.assert_close(ones, (count > 0).double())
    assert (count == 0).any() and (count > 0).any()


def perturbed(log, session):
    """Three logs in which something that session must not read differs: later sessions, its own rest, other people."""
    table = log.to_frame()
    start = table[table.session == session].time.min()
    user = table[table.session == session].user.iloc[0]
    random = np.random.default_rng(1)

    def shuffled(rows):
        changed = table.copy()
        changed.loc[rows, "item"] = random.permutation(changed.item.to_numpy())[: rows.sum()]
        return changed

    later = table.time > start
    yield shuffled(later & (table.user == user) & (table.session != session))
    yield shuffled(later & (table.user != user))
    yield table[~(later & (table.session != session))]


@pytest.mark.parametrize("system", ["maml", "cbml", "mamo"])
def test_nothing_later_changes_a_users_scores(system):
    torch.manual_seed(0)
    made = gm.build(system, LOG.items, base="niser", width=8, anchor="user").eval()
    session = LOG.sessions[len(LOG.sessions) // 2]

    def scores(log):
        log = log.aligned_to(LOG.items, log.users)
        samples = UserHistories.of(log).attached(prefixes(log), log)
        own = np.flatnonzero(log.sessions[samples.session] == session)[:1]
        return made.scores(samples.take(own)), samples.take(own).earlier.events

    plain, events = scores(LOG)
    assert events[0] > 0
    for table in perturbed(LOG, session):
        found, _ = scores(read(table))
        torch.testing.assert_close(found, plain, rtol=0, atol=1e-6)


def test_a_history_batch_is_the_same_in_tasks_and_alone():
    """History rows belong to their sample, also where tasks are padded, and survive the split into tasks."""
    samples = UserHistories.of(LOG).attached(last_clicks(LOG), LOG)
    batch = session_batch(samples, num_items=ITEMS, task=np.arange(len(samples)), num_tasks=len(samples))
    alone = split_tasks(batch)
    for t, one in enumerate(alone):
        own = samples.take(np.array([t])).earlier.columns()
        real = one["history"].batch == one["sample"].real[0]
        assert one["history"].n_id[real].tolist() == own.n_id.tolist()
        assert one["history"].age[real].tolist() == own.age.tolist()
        torch.testing.assert_close(one["history"].days[real], torch.from_numpy(own.days).float())


@pytest.fixture(scope="module")
def trained():
    split = gm.split_by_time(LOG, test=0.2, valid=0.0)
    torch.manual_seed(0)
    system = gm.build("maml", split.train.items, base="niser", width=8, anchor="user", order=2)
    list(gm.train(system, split.train, epochs=1, batch_size=8))
    return split, system


def test_training_learns_the_rates_and_the_decay(trained):
    _, system = trained
    adaptation = system.adaptation
    assert adaptation.support.log_decay.exp().item() != pytest.approx(0.05, abs=1e-6)
    assert all(rate.abs().max().item() > 0 for rate in adaptation.step.parameters())
    assert len(system.histories.sessions) == trained[0].train.num_sessions


def test_evaluate_counts_known_sessions(trained):
    split, system = trained
    result = gm.evaluate(system, split.test, history=split, ks=(5,))
    known = [len(earlier_by_loops(LOG.to_frame(), split.test.sessions[s])) for s in last_clicks(split.test).session]
    slices = result.slices["known sessions"]
    assert slices["3-5"]["samples"] == sum(3 <= n <= 5 for n in known)
    assert sum(one["samples"] for one in slices.values()) == result.samples
    # The system holds the sessions that it was trained on; without any history the model is unadapted.
    own = gm.evaluate(system, split.test, ks=(5,))
    assert own.metrics == result.metrics
    unadapted = gm.evaluate(system, split.test, history=split, ks=(5,), steps=0)
    assert not torch.equal(unadapted.ranks, result.ranks)


def test_recommendations_read_a_history_that_is_passed(trained, tmp_path):
    split, system = trained
    user = split.train.users.ids[0]
    own = split.train.to_frame()
    sessions = [part.item.tolist() for _, part in own[own.user == user].groupby("session", sort=False)]
    by_user = system.recommend(["i1"], 5, user=user)
    assert system.recommend(["i1"], 5, history=sessions) == by_user
    assert system.recommend(["i1"], 5, user=user, history=split.train) == by_user
    plain = system.recommend(["i1"], 5)
    assert plain != by_user and system.recommend(["i1"], 5, user="nobody") == plain
    assert system.recommend([], 5, history=sessions) == system.recommend([], 5, user=user)
    many = system.recommend_many([["i1"], ["i1"], []], 5, users=[user, "nobody", user])
    alone = [by_user, plain, system.recommend([], 5, user=user)]
    assert [[one.item for one in offered] for offered in many] == [[one.item for one in offered] for offered in alone]
    system.save(tmp_path / "model")
    loaded = gm.load(tmp_path / "model")
    assert loaded.histories is None and loaded.recommend(["i1"], 5, history=sessions) == by_user
    assert loaded.recommend(["i1"], 5, user=user) == plain
    with pytest.raises(InputError, match="no known item"):
        loaded.recommend([], 5, user=user)
    with pytest.raises(InputError, match="must be named"):
        loaded.recommend(["i1"], 5, history=split.train)
    with pytest.raises(InputError, match="reads no history"):
        gm.build("niser", LOG.items, width=8).recommend(["i1"], 5, history=[["i1"]])
    with pytest.raises(InputError, match="2 histories for 1 sessions"):
        loaded.recommend_many([["i1"]], 5, history=[[["i1"]], []])


def test_each_user_of_a_request_has_its_own_history():
    with pytest.warns(UserWarning, match="items of the history that are unknown to this model and left out: 1"):
        earlier = given_earlier([[["i1", "nothing"], ["i2"]], [], [["i3"]]], None, items=LOG.items, kept=None)
    assert earlier.columns().days.tolist() == [14.0, 7.0, 7.0]
    kept = UserHistories.of(LOG)
    usual = float(np.median([gap for u in range(USERS) for gap in np.diff(kept.starts[kept.ptr[u] : kept.ptr[u + 1]])]))
    dated = given_earlier([[["i1"], ["i2"]]], None, items=LOG.items, kept=kept)
    np.testing.assert_allclose(dated.columns().days, [2 * usual / 86400, usual / 86400])
    with pytest.raises(InputError, match="is one id, not a session"):
        given_earlier([["i1", "i2"]], None, items=LOG.items, kept=None)
    for wrong in ("i1", 5):
        with pytest.raises(InputError):
            given_earlier(wrong, None, items=LOG.items, kept=None)
    assert earlier.sessions.tolist() == [2, 0, 1]
    assert LOG.items.ids[earlier.columns().n_id].tolist() == ["i1", "i2", "i3"]
    assert earlier.columns().age.tolist() == [2, 1, 1]


def test_options_of_user_tasks_are_stored_and_checked():
    system = gm.build("maml", LOG.items, base="niser", anchor="user", decay=0.2, history=3, scope="item_bias")
    assert system.adaptation.names == ["head.item_bias"] and system.adaptation.support.sessions == 3
    assert system.spec.arguments["anchor"] == "user" and system.spec.arguments["decay"] == 0.2
    with pytest.raises(InputError, match="must be session or user"):
        gm.build("maml", LOG.items, base="niser", anchor="item")
    with pytest.raises(InputError, match="has no item bias"):
        gm.build("maml", LOG.items, base="tagnn", anchor="user")
    made = gm.build("maml", LOG.items, base="niser", anchor=UserTasks(item_bias=False))
    assert made.recommender.head.item_bias is None and made.max_support == 100
    with pytest.raises(InputError, match="above 0"):
        UserSupport(decay=0.0)
    with pytest.raises(InputError, match="at least 1"):
        UserSupport(sessions=0)


@pytest.mark.parametrize(("name", "every"), [("meta_tl", True), ("attention_decoder", True), ("cluster_seq", False)])
def test_sequences_of_users_are_read_where_users_are_known(name, every):
    """A user with ten sessions is one sequence, not ten; scores read the earlier sessions before the own clicks."""
    torch.manual_seed(0)
    system = gm.build(name, LOG.items, width=8).eval()
    trained = system.training_samples(LOG)
    frame = LOG.to_frame().sort_values("time", kind="stable")
    expected = {user: part.item.tolist() for user, part in frame.groupby("user")}
    assert len(trained) == (sum(len(own) - 1 for own in expected.values()) if every else USERS)
    assert len(trained.session) == len(trained) and len(expected) == USERS
    if every:  # the last click of each user is the target of their last sample
        trained = trained.take(np.flatnonzero(np.diff(trained.session, append=-1)))
    assert len(system.training_samples(replace(LOG, users=None, session_user=None))) > USERS
    for s in range(USERS):
        clicks = LOG.items.ids[trained.item[trained.begin[s] : trained.end[s] + 1]].tolist()
        assert sorted(clicks) == sorted(expected[LOG.users.ids[trained.user[s]]][-len(clicks) :])
    system.fit_statistics(LOG)
    samples = UserHistories.of(LOG).attached(last_clicks(LOG), LOG)
    longer = prepended(samples, max_length=50)
    for s in range(len(samples)):
        known = samples.take(np.array([s])).earlier.columns().n_id.tolist()
        own = samples.item[samples.begin[s] : samples.end[s]].tolist()
        assert longer.item[longer.begin[s] : longer.end[s]].tolist() == [*known, *own][-50:]
    found = system.scores(samples)
    torch.testing.assert_close(found, system.scores(longer))
    assert not torch.allclose(found, system.scores(replace(samples, earlier=None)))


def test_a_request_reads_what_ended_before_its_time(trained):
    split, system = trained
    user = split.train.users.ids[0]
    own = np.flatnonzero(split.train.session_user == 0)
    begin = split.train.starts[own[2]]
    known = system.histories.for_users([user], before=np.array([begin]))
    ended = [s for s in own if split.train.time[split.train.ptr[s + 1] - 1] < begin]
    assert known.sessions[0] <= len(ended) < len(own) and known.query_time[0] == begin
    early = system.recommend(["i1"], 5, user=user, times=[begin])
    assert early != system.recommend(["i1"], 5, user=user)
    end = system.histories.for_users([user])
    assert end.query_time[0] > system.histories.time.max() and end.sessions[0] == len(own)


def test_logs_that_do_not_fit_are_refused(trained):
    split, system = trained
    with pytest.raises(InputError, match="some of the logs have times"):
        UserHistories.of(split.train, replace(split.test, has_time=False))
    for wrong in ("log.csv", split):
        with pytest.raises(InputError):
            UserHistories.of(wrong)
    with pytest.raises(InputError, match="a log or a split"):
        gm.evaluate(system, split.test, ks=(5,), history="log.csv")
    without = replace(split.train, users=None, session_user=None)
    with pytest.raises(InputError, match="tasks are users"):
        list(gm.train(gm.build("maml", without.items, base="niser", width=8, anchor="user"), without, epochs=1))
    with pytest.raises(InputError, match="pass anchor='user'"):
        gm.build("maml", LOG.items, base="niser", history=3)
    with pytest.raises(InputError, match="max_support"):
        UserTasks(max_support=0)


def test_sessions_numbered_from_zero_again_are_others():
    """Two files of one shop, each with sessions 0, 1, 2 …: histories keep the sessions of both."""
    table = frame(20)
    later = table.assign(time=table.time + 1e6)
    first = read(table)
    second = read(later).aligned_to(first.items, first.users)
    both = UserHistories.of(first, second)
    assert len(both.sessions) == 40 and len(UserHistories.of(first, first).sessions) == 20


def test_sessions_given_as_lists_are_before_now_where_most_begin_at_the_same_time():
    """Days as times: most sessions of a user begin at the time of another."""
    kept = UserHistories.of(replace(LOG, time=np.zeros(LOG.num_events)))
    assert (np.diff(kept.starts) == 0).all()
    items = LOG.items.ids[:2].tolist()
    earlier = given_earlier([[[items[0]], [items[1]]]], None, items=LOG.items, kept=kept)
    assert earlier is not None and earlier.columns().n_id.tolist() == [0, 1]
