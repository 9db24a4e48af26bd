"""The few-shot protocol: new people, their first three items, and training that knows as much."""

import argparse

import numpy as np
import pytest

from benchmarks import rows
from benchmarks.few_shot import SHOTS, clustered, dealt, fitted
from graphmeta.sampling.few_shot import next_click
from graphmeta.testing import fake_log

LOG = fake_log(sessions=100, length=6).aligned_to(fake_log(sessions=100).items)


def test_test_users_are_new():
    learn, valid, test = dealt(LOG, seed=1)
    assert [part.num_sessions for part in (learn, valid, test)] == [80, 6, 14]
    every = np.concatenate([part.sessions for part in (learn, valid, test)])
    assert len(set(every.tolist())) == 100
    queries = next_click(test, SHOTS)
    assert len(queries) == 14 and (queries.lengths == 3).all() and (queries.begin == test.ptr[:-1]).all()


def test_systems_that_adapt_learn_from_as_much_as_the_test_shows(monkeypatch, tmp_path):
    learn, valid, _ = dealt(fake_log(sessions=100, items=160, length=6), seed=1)
    options = argparse.Namespace(seed=0, epochs=1, width=4, lr=1e-3, batch_size=None, arguments={})
    system, history = fitted("meta_tl", learn, valid, options)
    samples = system.training_samples(learn)
    assert samples.lengths.max() == SHOTS and len(samples) == learn.num_events - learn.num_sessions
    last = np.flatnonzero(np.diff(samples.session, append=-1))
    assert (samples.target[last] == learn.item[learn.ptr[1:] - 1]).all()
    assert [epoch["system"] for epoch in history] == ["meta_tl"]
    system, history = fitted("cluster_seq", learn, valid, options)
    options.dataset = "some"
    monkeypatch.setattr(rows, "RESULTS", tmp_path)
    found = clustered(system, next_click(valid, SHOTS), options)["clusters"]
    assert (
        sum(found["sizes"]) == len(next_click(valid, SHOTS))
        and sum(found["shares"]) == pytest.approx(1)
        and len(found["sizes"]) == 5
    )
    assert (tmp_path / "some" / "metatl" / "clusters.png").exists() and 1 <= found["distinct"] + 1e-6 <= 5
    assert (system.training_samples(learn).target == learn.item[learn.ptr[1:] - 1]).all()
    assert [epoch["system"] for epoch in history] == ["attention_decoder", "cluster_seq"]
    assert clustered(system.recommender, next_click(valid, SHOTS), options) == {}
    system, history = fitted("melu", learn, valid, options)
    assert [epoch["system"] for epoch in history] == ["if_san", "melu"]
