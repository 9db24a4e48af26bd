"""Curves by known sessions, examples with a history, the amortised start, and plans with options."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import graphmeta as gm
from graphmeta.data.events import EventLog
from graphmeta.data.merging import merged
from graphmeta.data.splits import split_at
from graphmeta.evaluation import queries as queries_module
from graphmeta.evaluation.compare import by_known_sessions, compare
from graphmeta.evaluation.examples import examples
from graphmeta.evaluation.lists import COMPARED_KS
from graphmeta.evaluation.queries import validation_queries
from graphmeta.evaluation.ranking import CONTEXT_LENGTHS, ITEM_EVENTS, KNOWN_SESSIONS
from graphmeta.published.fit import fit_plan
from graphmeta.published.training_plan import Plan
from graphmeta.sampling.baskets import next_items, without_context
from graphmeta.sampling.samples import last_clicks, prefixes
from graphmeta.sampling.user_histories import UserHistories
from graphmeta.training.recipes import TrainingRecipe


def log_of(sessions=200, users=8, items=30, seed=0):
    """Each user buys five items of their own again and again."""
    random = np.random.default_rng(seed)
    user = random.integers(0, users, sessions)
    rows = []
    for session in range(sessions):
        own = (user[session] * 3 + random.permutation(5)[:3]) % items
        rows += [(session, f"i{i}", session * 1000.0 + n, f"u{user[session]}") for n, i in enumerate(own)]
    table = pd.DataFrame(rows, columns=["session", "item", "time", "user"])
    return EventLog.read(table, session="session", item="item", time="time", user="user")


LOG = log_of()
SPLIT = gm.split_by_time(LOG, test=0.2, valid=0.1)


@pytest.fixture(scope="module")
def adapted():
    torch.manual_seed(0)
    system = gm.build("maml", SPLIT.train.items, base="niser", width=8, anchor="user", scope="item_bias", order=2)
    list(gm.train(system, SPLIT.train, epochs=1, batch_size=16))
    return system


def test_a_curve_reads_the_last_sessions_alone(adapted):
    queries = UserHistories.of(*SPLIT.parts).attached(last_clicks(SPLIT.test), SPLIT.test)
    found = by_known_sessions({"adapted": adapted}, queries, ks=(5,), numbers=(0, 1, 3, None))["adapted"]
    plain = gm.evaluate(adapted, queries, ks=(5,), steps=0)
    assert torch.equal(found[0].ranks, plain.ranks)
    assert torch.equal(found[None].ranks, gm.evaluate(adapted, queries, ks=(5,)).ranks)
    whole = queries.earlier.histories
    for row in range(0, len(queries), 6):
        own = queries.take(np.array([row]))
        last = own.earlier.since[0] + np.arange(own.earlier.sessions[0])[-3:]
        items = whole.item[whole.begin[last[0]] : whole.begin[last[-1] + 1]]
        assert own.earlier.last(3).columns().n_id.tolist() == items.tolist()
    assert found[None].metrics["mrr@5"] > found[0].metrics["mrr@5"], "users buy their own items again"
    with pytest.raises(gm.InputError, match="no earlier sessions"):
        by_known_sessions({"adapted": adapted}, last_clicks(SPLIT.test))


def test_a_comparison_without_the_history_reads_no_earlier_session(adapted):
    queries = UserHistories.of(*SPLIT.parts).attached(last_clicks(SPLIT.test), SPLIT.test)
    found = compare(adapted, queries, past=SPLIT.train, models={}, bar=lambda rows, _: rows)
    unknown = gm.evaluate(adapted, replace(queries, earlier=queries.earlier.last(0)), ks=COMPARED_KS)
    assert torch.equal(found["without_history"].ranks, unknown.ranks)
    assert not torch.equal(found["system"].ranks, unknown.ranks)


@pytest.mark.parametrize("ranges", [CONTEXT_LENGTHS, KNOWN_SESSIONS, ITEM_EVENTS])
def test_every_number_is_in_one_range_named_by_its_ends(ranges):
    for number in range(ranges is CONTEXT_LENGTHS, 120):
        (name,) = [name for name, (low, high) in ranges.items() if low <= number <= high]
        low, _, high = name.rstrip("+").partition("-")
        assert int(low) <= number <= (np.inf if name.endswith("+") else int(high or low))


@pytest.mark.parametrize(("clicks", "earlier", "found"), [(2, 3, 1), (6, 3, 1), (1, 3, 0), (7, 3, 0), (2, 2, 0)])
def test_examples_are_of_short_sessions_with_three_earlier_ones(clicks, earlier, found):
    """Sessions of two to six clicks before the target, by users with at least three earlier sessions."""
    items = [f"i{n}" for n in range(9)]
    rows = [(s, items[n], 100 * s + n, "u") for s in range(earlier) for n in range(3)]
    rows += [("now", items[n], 10_000 + n, "u") for n in range(clicks + 1)]
    rows += [(f"other {n}", item, n, f"v{n}") for n, item in enumerate(items)]
    table = pd.DataFrame(rows, columns=["session", "item", "time", "user"]).astype({"session": str})
    log = EventLog.read(table, session="session", item="item", time="time", user="user")
    split = split_at(log, 5_000, 5_000)
    torch.manual_seed(0)
    system = gm.build("maml", split.train.items, base="niser", width=4, anchor="user").eval()
    shown = examples(system, split.test, history=split, number=3, k=2)
    assert [(len(one.known), one.sessions) for one in shown] == [(clicks, earlier)] * found


def test_examples_show_what_the_history_moved(adapted):
    for example in examples(adapted, SPLIT.test, history=SPLIT, number=2, k=3):
        assert example.sessions >= 3 and example.without != example.offered and example.rank_without
        for item, past in example.past.items():
            assert past.count >= 1 and item in {one.item for one in (*example.offered, *example.without)}
            assert f"last {past.sessions_ago} session" in str(past)
    (plain,) = examples(gm.build("niser", SPLIT.train.items, width=8).eval(), SPLIT.test, number=1)
    assert plain.without is None and not plain.past


def test_an_amortised_start_learns_users_items():
    torch.manual_seed(0)
    system = gm.build("amortised", SPLIT.train.items, base="niser", width=8, hidden=16)
    reports = list(gm.train(system, SPLIT.train, epochs=6, batch_size=16, optimizer=gm.Adam(lr=1e-2)))
    assert not system.adaptation.fell_back and reports[-1].loss < reports[0].loss
    with_history = gm.evaluate(system, SPLIT.test, ks=(5,), history=SPLIT).metrics
    samples = last_clicks(SPLIT.test)
    with pytest.warns(UserWarning, match="no earlier sessions of their users"):
        without = gm.evaluate(system, samples, ks=(5,)).metrics
    assert with_history["mrr@5"] > without["mrr@5"]
    attached = UserHistories.of(*SPLIT.parts).attached(samples, SPLIT.test)
    together = system.scores(attached)
    for row in range(0, len(samples), 7):  # alone as in a batch, padded or not
        torch.testing.assert_close(system.scores(attached.take(np.array([row]))), together[[row]], rtol=1e-4, atol=1e-4)
    assert torch.allclose(
        system.scores(replace(attached, earlier=None)),
        system.scores(replace(attached, earlier=attached.earlier.last(0))),
        atol=1e-5,
    )
    with pytest.raises(gm.InputError, match="item bias"):
        gm.build("amortised", SPLIT.train.items, base="tagnn", width=8)


def test_a_plan_passes_its_options_to_the_system_alone():
    plan = Plan("maml", 8, recipe=TrainingRecipe(epochs=1), options={"anchor": "user", "base": "niser", "decay": 0.3})
    system = fit_plan(plan, SPLIT)
    assert system.spec.arguments["base"] == "niser" and system.spec.arguments["anchor"] == "user"
    assert plan.settings()["options"] == {"anchor": "user", "base": "niser", "decay": 0.3}
    assert set(system.notes["history"]) == {"niser (base)", "maml"}


@pytest.mark.parametrize("empty", [0.0, 0.1, 0.6, 1.0])
def test_the_epoch_is_chosen_by_the_queries_that_the_system_is_trained_for(empty):
    system = gm.build("personal_reranker", SPLIT.train.items, base="niser", width=4, empty=empty)
    queries = validation_queries(system, SPLIT.valid, SPLIT.train)
    again = validation_queries(system, SPLIT.valid, SPLIT.train)
    assert (queries.begin == again.begin).all() and (queries.target == again.target).all()
    assert np.bincount(queries.session, minlength=SPLIT.valid.num_sessions).max() == 1
    assert len(queries) == SPLIT.valid.num_sessions and queries.earlier.sessions.max() > 3
    none = (queries.lengths == 0).mean()
    assert none == round(empty) if empty != 0.6 else 0.1 < none < 0.9  # a few such queries do not choose the epoch
    items = [set(SPLIT.valid.item[SPLIT.valid.session == session].tolist()) for session in queries.session]
    assert all(target in own for target, own in zip(queries.target.tolist(), items, strict=True))
    plain = validation_queries(gm.build("niser", SPLIT.train.items, width=4), SPLIT.valid, SPLIT.train)
    assert (plain.target == last_clicks(SPLIT.valid).target).all()


def test_samples_without_context_are_random_clicks_of_every_session():
    first = without_context(LOG)
    assert np.bincount(first.session, minlength=LOG.num_sessions).tolist() == np.minimum(LOG.lengths, 4).tolist()
    assert not first.lengths.any()
    for s, target in zip(first.session, first.target, strict=True):
        assert target in LOG.item[LOG.ptr[s] : LOG.ptr[s + 1]]
    starts = [target == LOG.item[LOG.ptr[s]] for s, target in zip(first.session, first.target, strict=True)]
    assert any(starts), "a session's first click is a target too"
    every, some, none = prefixes(LOG), next_items(LOG, empty=0.4), next_items(LOG, empty=1.0)
    emptied = some.lengths == 0
    assert 0.3 * len(first) < emptied.sum() < 0.5 * len(first) and 0.5 < (~emptied).sum() / len(every) < 0.7
    assert sorted(none.target) == sorted(first.target) and not none.lengths.any()
    given = {(*every.item[b:e], t) for b, e, t in zip(every.begin, every.end, every.target, strict=True)}
    kept = some.take(~emptied)
    assert {(*kept.item[b:e], t) for b, e, t in zip(kept.begin, kept.end, kept.target, strict=True)} <= given
    with pytest.raises(gm.InputError, match="from 0 to 1"):
        gm.build("personal_reranker", LOG.items, empty=1.5)


def test_merged_logs_have_the_sessions_of_both():
    both = merged(SPLIT.train, SPLIT.valid)
    assert both.num_sessions == SPLIT.train.num_sessions + SPLIT.valid.num_sessions
    frame = pd.concat([SPLIT.train.to_frame(), SPLIT.valid.to_frame()]).sort_values(["time"], kind="stable")
    assert both.to_frame().sort_values("time", kind="stable").values.tolist() == frame.values.tolist()
    assert (np.diff(both.starts) >= 0).all()
    with pytest.raises(gm.InputError, match="different items"):
        merged(log_of(sessions=20, items=7), SPLIT.valid)


def test_histories_of_validation_are_joined_once(monkeypatch):
    """Once per training, not per epoch; the metrics are exactly those of joining them in each epoch."""
    calls, original = [], queries_module.known_histories
    monkeypatch.setattr(queries_module, "known_histories", lambda *given: calls.append(1) or original(*given))

    def trained(valid):
        torch.manual_seed(0)
        system = gm.build("maml", SPLIT.train.items, base="niser", width=8, anchor="user", scope="item_bias")
        reports = gm.train(system, SPLIT.train, epochs=3, batch_size=32, valid=valid)
        return [report.valid for report in reports], system.state_dict()

    metrics, weights = trained(SPLIT.valid)
    assert len(calls) == 1 and len(metrics) == 3

    def in_each_epoch(system):
        found = gm.evaluate(system, SPLIT.valid, ks=(5, 20), history=SPLIT.train).metrics
        return {"mrr@20": found["mrr@20"], **found}

    again, same = trained(in_each_epoch)
    assert len(calls) == 4 and again == metrics
    assert all(torch.equal(weights[name], same[name]) for name in weights)
