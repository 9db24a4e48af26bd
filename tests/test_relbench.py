"""Logs as RelBench databases and back, databases of others, and their tasks, here and in relbench's words."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import graphmeta as gm
from graphmeta.baselines import PersonalFrequency, Popularity
from graphmeta.cli import commands
from graphmeta.data.relbench import TASK, from_relbench, relbench_task, to_relbench
from graphmeta.data.windows import next_days
from graphmeta.datasets.relbench import find
from graphmeta.evaluation.next_basket import evaluate_next_basket
from tests.relbench_database import DAYS, write_shop

DAY = 86400.0


def random_log(sessions: int = 120) -> gm.EventLog:
    """Sixty days of six users and a stranger, with values and every type of column."""
    random = np.random.default_rng(2)
    session = np.repeat(np.arange(sessions), random.integers(1, 5, sessions))
    owner = random.integers(0, 7, sessions)
    frame = pd.DataFrame({"s": [f"s{n}" for n in session], "i": random.integers(100, 112, len(session))})
    frame["u"] = pd.Series([None if owner[s] == 6 else f"u{owner[s]}" for s in session], dtype=object)
    frame["t"] = 1.7e9 + DAY * session / 2 + 60 * np.arange(len(session)) + 0.25
    frame["v"] = random.random(len(session))
    items = pd.DataFrame({"id": np.arange(100, 112), "brand": ["x", None, "y"] * 4, "price": [1.5, np.nan, 2.0] * 4})
    items["tags"] = pd.Series([["a", "b"], None, ["b"]] * 4, dtype=object)
    items["image"] = pd.Series([[0.5, 1.0], None, [2.0, 0.0]] * 4, dtype=object)
    items["title"] = ["red shoe", None, "blue shoe"] * 4
    types = {"price": "numeric", "image": "vector", "title": "text"}
    table = gm.EntityTable.read(items, key="id", attributes=["brand"], several={"tags": "|"}, types=types)
    return gm.EventLog.read(frame, session="s", item="i", user="u", time="t", value="v", items=table)


LOG = random_log()


def same(one: gm.EventLog, other: gm.EventLog) -> None:
    """Fail unless the logs have the same events, and items and users with the same cells."""
    pd.testing.assert_frame_equal(one.to_frame(), other.to_frame(), check_dtype=False)
    for own, theirs in ((one.items, other.items), (one.users, other.users)):
        assert own.ids.tolist() == theirs.ids.tolist()
        assert [column.kind for column in own.columns.values()] == [column.kind for column in theirs.columns.values()]
        assert {n: c.cells() for n, c in own.columns.items()} == {n: c.cells() for n, c in theirs.columns.items()}


def times(days: float) -> tuple[float, float]:
    """When the test and the validation of the log begin."""
    test = np.floor(LOG.time.max() - days * DAY)
    return test, np.floor(LOG.time[LOG.time <= test].max() - days * DAY)


def test_a_log_comes_back_with_its_columns(tmp_path):
    to_relbench(LOG, tmp_path)
    same(from_relbench(tmp_path, until=None), LOG)
    early = from_relbench(tmp_path, until="val")
    test, valid = times(7.0)
    assert early.time.max() <= valid < from_relbench(tmp_path).time.max() <= test
    assert early.num_items == LOG.num_items


def test_the_task_has_the_items_of_the_days_after_a_time(tmp_path):
    to_relbench(LOG, tmp_path, days=5.0, k=3)
    task = relbench_task(tmp_path)
    frame, (test, valid) = LOG.to_frame(), times(5.0)
    for at, known, after in ((valid, task.valid_known, task.valid), (test, task.known, task.test)):
        inside = frame[(frame["time"] > at) & (frame["time"] <= at + 5 * DAY) & frame["user"].notna()]
        expected = {user: set(part["item"]) for user, part in inside.groupby("user")}
        found = {user: set(part["item"]) for user, part in after.to_frame().groupby("user")}
        assert found == expected and known.num_events == (frame["time"] <= at).sum()
    assert (task.name, task.k, task.days) == (TASK, 3, 5.0)
    result = evaluate_next_basket(PersonalFrequency(task.known), task.test, history=task.known, ks=(task.k,))
    assert result.samples == task.test.num_sessions and 0 < result.metrics["map@3"] <= 1


def test_earlier_events_alone_are_known_in_the_task():
    known, after = next_days(LOG, days=5.0)
    model = PersonalFrequency(known)
    usual = evaluate_next_basket(model, after, history=known, ks=(5,)).ranks
    assert evaluate_next_basket(model, after, history=LOG, ks=(5,)).ranks.equal(usual)  # the log has the targets too


def test_a_database_of_others_is_read(tmp_path):
    users, items, events = write_shop(tmp_path)
    log = from_relbench(tmp_path, until=None)
    assert (log.num_events, log.num_items) == (len(events), len(items))
    assert log.items.columns["colour"].cells()[:3] == ["red", None, "blue"]
    assert log.items.columns["price"].kind == "numeric" and "name" not in log.items.columns  # 1,200 different names
    days = events.groupby(["customer_id", "t_dat"])["article_id"].apply(lambda of: sorted(of)).to_dict()
    found = log.to_frame().groupby("session")
    assert sorted(sorted(part["item"]) for _, part in found) == sorted(days.values())
    task = relbench_task(tmp_path, task=TASK)
    assert (task.k, task.days, task.test.num_sessions) == (12, DAYS, 2)
    assert set(task.test.to_frame()["item"]) == {1, 3, 1150}  # of test.parquet
    assert evaluate_next_basket(Popularity(task.known), task.test, ks=(12,)).candidates == len(items)


def test_a_task_without_labels_has_those_of_its_window(tmp_path):
    write_shop(tmp_path)
    given = relbench_task(tmp_path)
    for part in ("val", "test"):
        (tmp_path / "tasks" / TASK / f"{part}.parquet").unlink()
    made = relbench_task(tmp_path)
    for one, other in ((made.valid, given.valid), (made.test, given.test)):
        assert one.to_frame()[["user", "item"]].values.tolist() == other.to_frame()[["user", "item"]].values.tolist()


def test_a_spec_names_a_folder_below_the_data(tmp_path, monkeypatch):
    write_shop(tmp_path / "relbench" / "rel-shop")
    monkeypatch.setenv("GRAPHMETA_DATA", str(tmp_path))
    assert find(f"relbench:rel-shop/{TASK}") == (tmp_path / "relbench" / "rel-shop", TASK)
    assert find(f"relbench:{tmp_path}/relbench/rel-shop") == (tmp_path / "relbench" / "rel-shop", None)
    with pytest.raises(gm.InputError, match="rel-hm.*relbench.load_dataset"):
        find("relbench:rel-hm/user-item-purchase")
    with pytest.raises(gm.InputError, match="relbench:DATABASE/TASK"):
        find("clicks.csv")


def test_the_bench_of_a_task_compares_baselines_and_context_gnn(tmp_path, monkeypatch, capsys):
    to_relbench(LOG, tmp_path / "relbench" / "rel-small", days=5.0, k=3)
    monkeypatch.setenv("GRAPHMETA_DATA", str(tmp_path))
    given = ["bench", f"relbench:rel-small/{TASK}", "--json"]
    assert commands.main(given) == 0
    (found,) = json.loads(capsys.readouterr().out)["logs"]
    task = relbench_task(tmp_path / "relbench" / "rel-small")
    own = evaluate_next_basket(PersonalFrequency(task.known), task.test, history=task.known, ks=(3,))
    by_name = {row["name"]: row["map"]["mean"] for row in found["rows"]}
    assert by_name.keys() == {"popularity", "personal_frequency", "tifu_knn", "up_cf", "context_gnn"}
    assert by_name["personal_frequency"] == pytest.approx(own.metrics["map@3"])
    assert list(by_name.values()) == sorted(by_name.values(), reverse=True)
    assert found["k"] == 3 and found["sizes"]["labelled users"] == own.samples
    assert commands.main(["bench", "clicks.csv"]) == 2 and "name its column of item ids" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "manifest.yaml").unlink(), "no such file; pass the folder of a RelBench database"),
        (lambda folder: (folder / "manifest.yaml").write_text("a: [", encoding="utf-8"), "not YAML"),
        (lambda folder: (folder / "manifest.yaml").write_text("[1]", encoding="utf-8"), "not a manifest"),
    ],
)
def test_what_is_no_database_is_named(tmp_path, change, message):
    write_shop(tmp_path)
    change(tmp_path)
    with pytest.raises(gm.InputError, match=message):
        from_relbench(tmp_path)


def test_wrong_arguments_are_named(tmp_path):
    write_shop(tmp_path / "shop")
    with pytest.raises(gm.InputError, match="did you mean 'user-item-purchase'"):
        from_relbench(tmp_path / "shop", task="user-item-purchases")
    with pytest.raises(gm.InputError, match="until='end'"):
        from_relbench(tmp_path / "shop", until="end")
    with pytest.raises(gm.InputError, match="needs users and times"):
        to_relbench(replace(LOG, users=None, session_user=None), tmp_path / "log")
    with pytest.raises(gm.InputError, match="longer than 150 days"):
        to_relbench(LOG, tmp_path / "log", days=30.0)
    with pytest.raises(gm.InputError, match="next_days needs times"):
        next_days(replace(LOG, has_time=False))
    with pytest.raises(gm.InputError, match="no event of a known user in the days after"):
        next_days(LOG, at=LOG.time.max())
    path = tmp_path / "shop" / "tasks" / TASK / "manifest.yaml"
    path.write_text(json.dumps({"name": TASK, "task_type": "regression"}))
    with pytest.raises(gm.InputError, match="a task of regression; choose one of recommendation"):
        from_relbench(tmp_path / "shop")
