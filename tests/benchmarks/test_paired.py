"""Metrics per test session beside a row, their intervals, and paired tests between the rows of a table."""

import json
import math
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from benchmarks import accuracy, paired, rows
from benchmarks.accuracy import PREFIXES, Dataset
from benchmarks.paired import table_of
from benchmarks.rows import by_variant, in_order, measured, path_of, percent, read
from benchmarks.sessions import Sessions
from graphmeta.baselines import ItemKNN, PersonalFrequency, Popularity, match_repeats
from graphmeta.data.splits import split_by_time
from graphmeta.errors import InputError
from graphmeta.evaluation import intervals
from graphmeta.evaluation.intervals import bootstrap_interval, per_session
from graphmeta.evaluation.next_basket import evaluate_next_basket, last_baskets
from graphmeta.evaluation.ranking import evaluate
from graphmeta.published.catalogue import build
from graphmeta.sampling.samples import last_clicks, prefixes
from graphmeta.testing import Mixture, fake_log

SPLIT = split_by_time(fake_log(sessions=120, items=30, length=6, mixture=Mixture(random=0.5, users=0)))
TRAIN, TEST = SPLIT.train, SPLIT.test.aligned_to(SPLIT.train.items)


def test_queries_of_a_session_are_resampled_together():
    """Copies of a query add no information: the interval is that of one query per session, not narrower."""
    random = np.random.default_rng(0)
    values = (random.random(300) < 0.3).astype(float)
    session = np.repeat(np.arange(300), 9)
    means, counts = per_session(np.repeat(values, 9), session)
    one, copied = bootstrap_interval(values), bootstrap_interval(means, weights=counts)
    assert (copied.low, copied.high) == pytest.approx((one.low, one.high))
    assert copied.standard_error == pytest.approx(one.standard_error)
    alone = bootstrap_interval(np.repeat(values, 9))
    assert copied.high - copied.low > 2 * (alone.high - alone.low)
    shuffled = random.permutation(300)
    test = intervals.paired(means, means[shuffled] - 0.05, weights=counts)
    assert test.p == pytest.approx(intervals.paired(values, values[shuffled] - 0.05).p)


def test_sessions_of_different_lengths_weigh_by_their_queries():
    random = np.random.default_rng(1)
    counts = random.integers(1, 8, 400)
    values = random.random(counts.sum())
    means, sizes = per_session(values, np.repeat(np.arange(400), counts))
    assert sizes.tolist() == counts.tolist()
    one = bootstrap_interval(means, weights=sizes)
    assert one.mean == pytest.approx(values.mean())
    drawn = [(take := random.integers(0, 400, 400), (means * sizes)[take].sum() / sizes[take].sum())[1]
             for _ in range(2000)]  # fmt: skip
    assert one.standard_error == pytest.approx(np.std(drawn), rel=0.1)
    with pytest.raises(InputError, match="3 weights for 400 sessions"):
        bootstrap_interval(means, weights=np.ones(3))
    with pytest.raises(InputError, match="from 1"):
        intervals.paired(means, means, weights=sizes - sizes.min())


def test_a_paired_test_of_one_query_per_session_is_that_of_scipy():
    one, other = np.random.default_rng(2).random((2, 50))
    assert intervals.paired(one, other).p == pytest.approx(stats.ttest_rel(one, other).pvalue)


@pytest.fixture
def table(monkeypatch, tmp_path):
    """Runs rows of a small data set, and compares them."""
    monkeypatch.setattr(rows, "RESULTS", tmp_path)
    monkeypatch.setattr(paired, "RESULTS", tmp_path)
    monkeypatch.setattr(paired, "PAIRED", tmp_path.parent / f"{tmp_path.name}-paired.json")
    data = {"fake": Dataset("fake", lambda: (TRAIN, None, TEST), PREFIXES, {})}
    monkeypatch.setattr(accuracy, "DATASETS", data)
    monkeypatch.setattr(paired, "DATASETS", data)
    paired.pairs_of_tables.cache_clear()

    def run(module, *words):
        monkeypatch.setattr(sys, "argv", [module.__name__, *words])
        module.main()
        return sorted(tmp_path.rglob("*.json"))

    yield run
    paired.pairs_of_tables.cache_clear()


def test_rows_have_intervals_and_neighbours_are_compared(table):
    for name in ("popularity", "item_knn"):
        table(accuracy, "fake", name)
    (first, second), models = in_order(rows.results("fake", "sr-gnn")), {"popularity": Popularity, "item_knn": ItemKNN}
    own = first[0]["intervals"]
    assert own["over"] == "session" and own["number"] == TEST.num_sessions
    assert own["hit@20"]["low"] <= first[0]["metrics"]["hit@20"] <= own["hit@20"]["high"]
    assert "[" in percent(first, "mrr@20")
    assert set(own) == {*first[0]["metrics"], "over", "number"}  # figures only: nothing of single sessions

    table(paired)
    (pair,) = json.loads(paired.PAIRED.read_text())["fake/sr-gnn"]
    found = [evaluate(match_repeats(TRAIN, models[run[0]["system"]](TRAIN)), prefixes(TEST)) for run in (first, second)]
    ranks = [Sessions.of(one, prefixes(TEST)).values["mrr@20"] for one in found]
    _, counts = per_session(np.zeros(len(prefixes(TEST))), prefixes(TEST).session)
    expected = intervals.paired(*ranks, weights=counts)
    assert pair["mrr@20"]["difference"] == pytest.approx(expected.difference)
    assert pair["mrr@20"]["p"] == pytest.approx(expected.p)
    assert pair["mrr@20"]["low"] < expected.difference < pair["mrr@20"]["high"]

    lines = table_of({run[0]["system"]: run for run in (first, second)})
    assert lines[-2].startswith(f"| {first[0]['system']} | {second[0]['system']} | ")
    paired.pairs_of_tables.cache_clear()
    second[0]["metrics"]["hit@20"] += 0.01  # rows that were run again: their old pair is not shown
    assert table_of({run[0]["system"]: run for run in (first, second)}) == []


def test_the_metrics_per_session_of_another_run_are_not_read(table):
    (path, *_) = [one for one in table(accuracy, "fake", "popularity") if "sr-gnn" in str(one)]
    row = read(path)
    found = Sessions.beside(path, row["metrics"])
    assert found is not None and found.matches(row["metrics"])
    with pytest.warns(UserWarning, match="not of the same run"):
        assert Sessions.beside(path, {name: value + 1e-6 for name, value in row["metrics"].items()}) is None
    path.with_suffix(".npz").unlink()
    assert Sessions.beside(path, row["metrics"]) is None


def test_seeds_are_averaged_per_session(table):
    for seed in "01":
        table(accuracy, "fake", "gru4rec", "--epochs", "1", "--held-out", "0", "--seed", seed,
              "--arguments", '{"width": 4}')  # fmt: skip
    table(accuracy, "fake", "popularity")
    table(paired, "fake/cbml")
    (pair,) = json.loads(paired.PAIRED.read_text())["fake/cbml"]
    assert sorted(pair["seeds"]) == [1, 2]
    found = {runs[0]["system"]: np.mean([r["metrics"]["hit@5"] for r in runs])
             for runs in by_variant(rows.results("fake", "cbml"))}  # fmt: skip
    assert abs(pair["hit@5"]["difference"]) == pytest.approx(abs(found["gru4rec"] - found["popularity"]))
    with pytest.raises(SystemExit, match="no rows of 'fake/other'"):
        table(paired, "fake/other")


def test_a_saved_system_gives_its_row_the_metrics_per_session(table, tmp_path):
    saved = tmp_path.parent / f"{tmp_path.name}-saved"
    words = ("fake", "gru4rec", "--epochs", "1", "--held-out", "0", "--arguments", '{"width": 4}')
    (path, *_) = [one for one in table(accuracy, *words, "--save", str(saved)) if "sr-gnn" in str(one)]
    before = read(path)
    plain = {name: value for name, value in before.items() if name != "intervals"}
    path.write_text(json.dumps(plain))
    path.with_suffix(".npz").unlink()
    table(paired, "--add", str(path), str(saved))
    assert read(path) == before and Sessions.beside(path, before["metrics"]) is not None
    other = build("gru4rec", TRAIN.items, width=4)
    other.save(tmp_path / "other")
    with pytest.raises(SystemExit, match="pass the system that the row saved"):
        table(paired, "--add", str(path), str(tmp_path / "other"))


def test_where_the_log_has_users_the_unit_is_the_user():
    log = fake_log(sessions=60, items=30)
    found = evaluate(Popularity(log), last_clicks(log))
    sessions = Sessions.of(found, last_clicks(log))
    assert sessions.unit == "user" and len(sessions.queries) == len(log.users) < log.num_sessions
    assert sessions.queries.sum() == log.num_sessions and sessions.matches(found.metrics)
    assert sessions.intervals()["over"] == "user"
    queries = last_clicks(log)
    assert queries.user is not None
    some = replace(queries, user=np.where(queries.session < 5, -1, queries.user))
    partly = Sessions.of(found, some)  # an unknown user for each of five sessions
    assert partly.unit == "user" and partly.matches(found.metrics)
    assert len(partly.queries) == 5 + len(np.unique(queries.user[5:]))


def test_baskets_have_one_value_per_user(tmp_path):
    known, last = last_baskets(fake_log(sessions=60, items=30))
    found = evaluate_next_basket(PersonalFrequency(known), last, history=known)
    sessions = Sessions.of_baskets(found)
    assert sessions.matches(found.metrics) and {"recall@10", "ndcg@10", "map@20"} <= set(sessions.values)
    assert measured(found, sessions)["intervals"]["number"] == found.samples


def test_every_stored_pair_is_of_the_present_rows():
    for place, pairs in json.loads(paired.PAIRED.read_text()).items():
        own = rows.results(*place.split("/"))
        for pair in pairs:
            assert paired.current(pair, own), (place, pair["rows"])
            for name in (name for name in pair if "@" in name):
                one = pair[name]
                assert one["low"] <= one["difference"] <= one["high"] and 0 <= one["p"] <= 1
                assert not math.isnan(one["p"])


def test_no_metrics_per_session_are_in_the_repository():
    """They derive from data that may not be shared."""
    assert "*.npz" in (paired.PAIRED.parent.parent / ".gitignore").read_text().splitlines()


def test_ranks_of_ties_are_expected_values_per_session():
    log = fake_log(sessions=20, items=10)
    constant = type("Constant", (), {"num_items": 10, "scores": lambda self, s: torch.zeros(len(s), 10)})()
    samples = prefixes(log)
    found = Sessions.of(evaluate(constant, samples, ks=(5,)), samples)
    assert found.values["hit@5"] == pytest.approx(0.5)
    assert path_of({"dataset": "d", "protocol": "p", "system": "s", "seed": 0}).suffix == ".json"
