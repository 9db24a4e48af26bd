"""A step on a session's own clicks: chosen on held-out sessions, and tested beside the encoder without it."""

import sys
from functools import partial

import pytest

from benchmarks import accuracy, own_clicks, rows
from graphmeta.published.catalogue import build
from graphmeta.sampling.samples import last_clicks
from graphmeta.testing import fake_log


@pytest.mark.filterwarnings("ignore")
def test_the_setting_is_chosen_on_held_out_sessions_and_tested_once(tmp_path, monkeypatch):
    log = fake_log(sessions=60)
    protocols = {"cbml": partial(last_clicks, min_length=3)}
    invented = accuracy.Dataset("diginetica", lambda: (log, None, log), protocols, {})
    monkeypatch.setattr(rows, "RESULTS", tmp_path / "results")
    monkeypatch.setitem(accuracy.DATASETS, "diginetica", invented)
    build("if_san", log.items, width=4).save(tmp_path / "base")
    words = ["diginetica", "if_san", "--warm-start", str(tmp_path / "base"), "--held-out", "20", "--rates", "0.1", "3"]
    monkeypatch.setattr(sys, "argv", ["own_clicks", *words])
    own_clicks.main()
    found = {row["system"]: row for row in rows.results("diginetica", "cbml", folder=tmp_path)}
    tried = found["multi_ft"]["tried"]
    assert [(each.get("rate"), each["steps"]) for each in tried] == [(None, 0), (0.1, 1), (0.1, 3), (3.0, 1), (3.0, 3)]
    best = max(tried[1:], key=lambda each: each["valid"]["mrr@5"])
    assert found["multi_ft"]["arguments"] == {"base": "if_san", "lr": best["rate"], "steps": best["steps"]}
    assert found["if_san"]["samples"] == found["multi_ft"]["samples"] == len(last_clicks(log, min_length=3))
    assert found["if_san"]["metrics"] != found["multi_ft"]["metrics"]
