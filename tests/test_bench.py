"""Bench: intervals, paired tests and verdicts against independent computations; the command on a small log."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import graphmeta as gm
from graphmeta.cli import commands
from graphmeta.evaluation.intervals import Paired, bootstrap_interval, paired
from graphmeta.evaluation.metrics import Ranks
from graphmeta.published.bench import Bench, BenchOptions, _compared, _kinds, _queries, summary
from graphmeta.published.blending import Blended
from graphmeta.testing import Mixture, fake_log

SPLIT = gm.split_by_time(fake_log(sessions=120, items=30, mixture=Mixture(random=0.3, users=12)), test=0.3)
SIZES = {"training sessions": 1, "training events": 2, "items": 30, "users": 12, "test sessions": 200}


def test_the_interval_of_a_mean_is_near_that_of_the_normal_distribution() -> None:
    values = (np.random.default_rng(0).random(4000) < 0.3).astype(float)
    one = bootstrap_interval(values)
    error = math.sqrt(one.mean * (1 - one.mean) / 3999)
    assert one.standard_error == pytest.approx(error, rel=1e-6)
    assert one.low == pytest.approx(one.mean - 1.96 * error, abs=0.3 * error)
    assert one.high == pytest.approx(one.mean + 1.96 * error, abs=0.3 * error)
    assert bootstrap_interval(values) == one and bootstrap_interval(np.ones(5)).high == 1.0


def test_a_paired_test_uses_the_differences_of_the_same_sessions() -> None:
    random = np.random.default_rng(1)
    base, gain = random.random(300), 0.01 * random.random(300)
    found = paired(base + gain, base)
    assert found.difference == pytest.approx(gain.mean()) and found.p < 1e-10
    assert found.standard_error == pytest.approx(gain.std(ddof=1) / math.sqrt(300))
    assert paired(base, random.permutation(base)).p > 0.9  # the same mean on other sessions
    assert paired(base, base) == Paired(0.0, 0.0, 1.0)
    with pytest.raises(gm.InputError, match="the same sessions in both"):
        paired(base, base[1:])
    with pytest.raises(gm.InputError, match="no session"):
        bootstrap_interval(base[:0])


def compared(ranks: dict[str, np.ndarray]) -> Bench:
    positions = {name: Ranks.of(torch.from_numpy(one)) for name, one in ranks.items()}
    seconds = dict.fromkeys(ranks, 1.0)
    return _compared("log", "reranker", SIZES, 20, positions, (seconds, seconds), None)


def test_rows_are_ordered_and_compared_with_their_neighbours() -> None:
    random = np.random.default_rng(0)
    ranks = {
        "popularity": random.integers(1, 31, 200),
        "stan": random.integers(1, 11, 200),
        "reranker": random.integers(1, 6, 200),
    }
    found = compared(ranks)
    assert [row.name for row in found.rows] == ["reranker", "stan", "popularity"]
    assert found.rows[0].mrr.mean == pytest.approx((1 / ranks["reranker"]).mean())
    assert found.rows[2].ahead is None and found.rows[0].ahead is not None
    expected = (1 / ranks["reranker"] - 1 / ranks["stan"]).mean()
    assert found.rows[0].ahead["mrr@20"].difference == pytest.approx(expected)
    assert found.behind() == {} and "is behind no row" in found.verdict()
    assert json.loads(json.dumps(found.document()))["rows"][0]["hit"]["mean"] == found.rows[0].hit.mean


def test_the_default_system_that_is_behind_is_named() -> None:
    ranks = {"stan": np.full(200, 2), "reranker": np.tile([2, 3, 25, 2], 50)}
    found = compared(ranks)
    assert found.behind() == {"stan": ["hit@20", "mrr@20"]} and found.document()["behind"] == found.behind()
    assert "behind stan (Hit@20 -25.00" in found.verdict()
    assert found.behind(errors=1e6) == {}
    assert "no baseline can be blended in" in found.blend_line()


def test_baselines_follow_the_log() -> None:
    users = _kinds(SPLIT.train)
    assert list(users)[:4] == ["popularity", "item_knn", "session_knn", "stan"] and "up_cf" in users
    plain = gm.split_by_time(fake_log(sessions=60, mixture=Mixture(users=0))).train
    assert "personal_frequency" not in _kinds(plain)
    queries = _queries(SPLIT, BenchOptions(most=7))
    assert len(queries) == 7 and queries.earlier is not None
    assert len(_queries(SPLIT, BenchOptions(most=None))) == SPLIT.test.num_sessions
    assert summary(compared({"reranker": np.arange(1, 30)})).startswith("log: 1 training session, 30 items, 12 users")


def test_a_log_that_is_made_of_a_mixture_has_its_shares() -> None:
    log = fake_log(sessions=2000, items=100, mixture=Mixture(repeats=0.4, users=0))
    assert log.users is None
    step = np.arange(log.num_events) - log.ptr[log.session]
    seen = [log.item[at] in log.item[log.ptr[log.session[at]] : at] for at in np.flatnonzero(step == 1)]
    assert np.mean(seen) == pytest.approx(0.4, abs=0.03)
    own = fake_log(sessions=2000, items=1000, mixture=Mixture(favourites=0.5, users=10))
    assert own.session_user is not None
    often = [np.sort(np.bincount(own.item[own.session_user[own.session] == u]))[-5:].sum() for u in range(10)]
    assert sum(often) / own.num_events == pytest.approx(0.5, abs=0.03)
    assert np.array_equal(fake_log(sessions=50).item, fake_log(sessions=50, mixture=Mixture()).item)


def test_the_command_refuses_a_split_without_test(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "log.csv"
    SPLIT.train.to_frame().to_csv(path, index=False)
    given = ["bench", str(path), "--session", "session", "--item", "item", "--time", "time", "--test", "0"]
    assert commands.main(given) == 2 and "leave out --test 0" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_prints_a_table_for_each_log(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    paths = []
    for number in range(2):
        log = fake_log(sessions=300, items=40, seed=number, mixture=Mixture(random=0.3, favourites=0.2, users=30))
        paths.append(tmp_path / f"log{number}.csv")
        log.to_frame().to_csv(paths[-1], index=False)
    columns = ["--session", "session", "--item", "item", "--time", "time", "--user", "user"]
    assert commands.main(["bench", *map(str, paths), *columns, "--out", str(tmp_path / "bench.json")]) == 0
    out = capsys.readouterr().out
    document = json.loads((tmp_path / "bench.json").read_text())
    assert [one["log"] for one in document["logs"]] == ["log0.csv", "log1.csv"]
    for one in document["logs"]:
        names = {row["name"] for row in one["rows"]}
        assert names >= {"popularity", "stan", "tifu_knn", "up_cf", "niser", "personal_reranker"} and len(names) == 9
        blend = Blended(**one["blend"])
        assert blend.line() in " ".join(out.split())
    assert out.count("by more than one standard error of the paired difference") == 2


@pytest.mark.slow
def test_the_audit_command_writes_text_json_and_a_page(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "log.csv"
    fake_log(sessions=200).to_frame().to_csv(path, index=False)
    columns = [str(path), "--session", "session", "--item", "item", "--time", "time", "--user", "user"]
    assert commands.main(["fit", *columns, "--out", str(tmp_path / "shop"), "--system", "stan"]) == 0
    capsys.readouterr()
    assert commands.main(["audit", *columns, "--model", str(tmp_path / "shop"), "--out", str(tmp_path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] and document == json.loads((tmp_path / "audit.json").read_text())
    page = (tmp_path / "audit.html").read_text()
    assert page.count("<svg") == page.count("</svg>") == 5 and "http" not in page.replace("http://www.w3.org", "")
    assert commands.main(["audit", *columns, "--sep", ","]) == 0
    assert "alone = in a batch" in page and "checks: 0 faults" in capsys.readouterr().out
