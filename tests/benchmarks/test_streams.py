"""Streams of the benchmark: months, one pretraining for all strategies, and what a row says."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks import rows, streams
from benchmarks.report import report
from benchmarks.stream_report import grown, over_time
from benchmarks.tables import QUICK
from graphmeta.data.splits import period_edges
from graphmeta.storage import state_hash
from graphmeta.testing import fake_log

LOG = fake_log(sessions=50)
EDGES = period_edges(LOG, events=50)
OF = streams.Stream(lambda: LOG, lambda log: EDGES, 2, 3, epochs=3)


def test_months_begin_on_the_first():
    time = np.array(["2011-05-03", "2012-01-31T23:59:59", "2012-02-01", "2012-03-15"], dtype="datetime64[s]")
    log = fake_log(sessions=1, length=4)
    vars(log)["time"] = time.astype(np.float64)
    edges = streams.months(log, since="2012-01")
    number = np.searchsorted(edges, log.time, "right") - 1
    assert number.tolist() == [0, 1, 2, 3] and len(edges) == 5


def test_strategies_of_a_seed_begin_with_the_same_weights():
    begun = {}
    found = [streams.pretrained(name, LOG, EDGES, begun, of=OF, seed=0) for name in ("sml", "fine_tune")]
    assert state_hash(found[0]) == state_hash(found[1]) and list(begun) == ["mf"]
    torch.nn.init.zeros_(found[0].recommender.features.item.weight)
    assert begun["mf"].recommender.features.item.weight.any()


def test_a_row_is_the_mean_of_its_reported_periods(tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(streams, "EVALUATION", streams.Reported(negatives=20))
    monkeypatch.setattr(rows, "RESULTS", tmp_path)
    of = replace(OF, since=4)
    system = streams.pretrained("fine_tune", LOG, EDGES, {}, of=of, seed=0)
    reports = streams.served("fine_tune", system, LOG, EDGES, of=of, seed=0, state=tmp_path / "state")
    again = streams.served("fine_tune", system, LOG, EDGES, of=of, seed=0, state=tmp_path / "state")
    assert again == reports and [bool(report.rows) for report in reports] == [False, False, True, True]
    streams.write("complete_journey", "fine_tune", reports, seed=0, since=4, facts={"theta_steps": 7})
    row = json.loads((tmp_path / "complete_journey/stream/fine_tune/seed0.json").read_text())
    chosen = [r for r in reports if r.period >= 4]
    assert row["samples"] == sum(r.rows for r in chosen) == 100
    assert row["metrics"]["hit@20"] == pytest.approx(sum(r.rows * r.sampled["hit@20"] for r in chosen) / 100)
    assert row["theta_steps"] == 7 and row["users"] == {  # nobody is new
        "known": {"samples": 100, "metrics": row["metrics"], "full": row["full"]}
    }
    page = report([row])
    assert "| known users" not in page
    parts = row["users"] | {"new": {"samples": 40, "metrics": {"hit@20": 0.125}, "full": {"hit@20": 0.0625}}}
    both = report([row | {"users": parts}])
    assert "| known users (100.0% of the clicks) | new users (40.0% of the clicks) |" in both
    assert "| 12.50 / 6.25 |" in both
    assert "| fine_tune |" in page and "Adressa and SML's Yelp were not available" in page
    other = json.loads(json.dumps(row))
    other["periods"]["4"]["hit@20"] += 0.25
    drawn = over_time({"fine_tune": [row, other]})["fine_tune"]
    assert [(r.period, r.rows) for r in drawn] == [(r.period, r.rows) for r in chosen]
    assert [r.full["hit@20"] for r in drawn] == pytest.approx([r.full["hit@20"] for r in chosen])
    assert drawn[0].sampled["hit@20"] == pytest.approx(chosen[0].sampled["hit@20"] + 0.125)
    row["periods"] = {str(n): {"train_cpu_s": float(n)} for n in range(10, 30)}
    assert grown({"sml": [row]}) == {"sml": {10: 11.0, 20: 20.0}}


def test_a_brief_run_tests_its_last_period_alone_and_reports_it(tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(streams, "STREAMS", {"fake": replace(OF, since=5)})
    monkeypatch.setattr(streams, "EVALUATION", streams.Reported(negatives=20))
    monkeypatch.setattr(rows, "RESULTS", tmp_path)
    for name in ("set_num_threads", "set_flush_denormal"):
        monkeypatch.setattr(torch, name, lambda value: None)
    words = ["fake", "--systems", "fine_tune,popular", *QUICK["streams"].split(), "--seeds", "1"]
    monkeypatch.setattr(sys, "argv", ["streams", *words])
    streams.main()
    for name in ("fine_tune", "popular"):
        row = json.loads((tmp_path / f"fake/stream/{name}/seed1.json").read_text())
        assert {number: period["rows"] for number, period in row["periods"].items()} == {"1": 0, "2": 50}
        assert row["samples"] == 50 and row["command"].endswith(f"fake --systems {name} --periods 3 --seeds 1")


@pytest.mark.parametrize("name", ["gru4rec", "caser", "sml_residual"])
def test_every_system_goes_through_a_stream(name, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(streams, "EVALUATION", streams.Reported(negatives=20))
    system = streams.pretrained(name, LOG, EDGES, {}, of=OF, seed=0)
    reports = streams.served(name, system, LOG, EDGES, of=OF, seed=0, state=None)
    assert len(reports) == 4 and all(0 < report.full["hit@20"] <= 1 for report in reports[1:])


def test_popular_is_what_the_last_period_clicked_most_then_all_before():
    system, now = streams.build("mf", LOG.items, users=LOG.users, width=3), streams.Period.of(LOG, EDGES, 2)
    streams.Popular().retrain(system, {}, now)
    number = np.searchsorted(EDGES, LOG.time, "right") - 1
    last, every = (np.bincount(LOG.item[chosen], minlength=LOG.num_items) for chosen in (number == 2, number <= 2))
    expected = sorted(range(LOG.num_items), key=lambda i: (last[i], every[i]))
    (scores,) = system.scores(streams.EVALUATION.rows(now).take(np.array([0]))).numpy()
    order = np.lexsort((every, last))
    assert (np.diff(scores[order]) >= 0).all() and [last[i] for i in np.argsort(scores)] == [last[i] for i in expected]
    tied = np.diff(last[order] + every[order] / 1e6) == 0
    assert ((np.diff(scores[order]) == 0) == tied).all()


def test_the_steps_of_the_transfer_networks_are_counted(monkeypatch: pytest.MonkeyPatch):
    taken, original = {"offline": 0, "online": 0}, streams.Transfer._step

    def noted(self, learner, samples, period, *, nets, **options):
        kind = "online" if period.number - OF.first >= self.offline else "offline"
        taken[kind] += nets * -(-len(samples) // self.batch_sizes[1])
        return original(self, learner, samples, period, nets=nets, **options)

    monkeypatch.setattr(streams.Transfer, "_step", noted)
    monkeypatch.setattr(streams, "EVALUATION", streams.Reported(negatives=20))
    of, clicks = replace(OF, since=4), np.histogram(LOG.time, EDGES)[0][OF.first :]
    system = streams.pretrained("sml", LOG, EDGES, {}, of=of, seed=0)
    streams.served("sml", system, LOG, EDGES, of=of, seed=0, state=None)
    assert streams.settings("sml", of, clicks)["theta_steps"] == taken and min(taken.values()) > 0
    assert "theta_steps" not in streams.settings("fine_tune", of, clicks)
