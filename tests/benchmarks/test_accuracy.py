"""The cut by the end of sessions, the refusal of other data than the published, and what a row is trained on."""

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks import accuracy
from benchmarks.accuracy import BASELINES, LAST, Dataset, by_session_end, fitted, parser, without_validation
from graphmeta.data.events import EventLog
from graphmeta.data.splits import last_sessions
from graphmeta.published.catalogue import build
from graphmeta.sampling.samples import prefixes
from graphmeta.testing import fake_log
from graphmeta.training.loop import train

# Session, first click, last click, user, items; by its end a session's rank is its number.
ROWS = [
    (0, 0, 5, "a", "xy"), (1, 1, 6, "b", "yx"), (2, 2, 7, "a", "xz"), (3, 3, 8, "b", "zy"), (4, 4, 9, "a", "xy"),
    (5, 5, 10, "b", "yz"), (6, 3.5, 11, "a", "xz"), (7, 7, 12, "a", "xw"), (8, 0.5, 13, "b", "zx"),
    (9, 9, 14, "c", "xy"),
]  # fmt: skip


def whole() -> EventLog:
    clicks = [(s, t, u, i) for s, first, last, u, items in ROWS for t, i in zip((first, last), items, strict=True)]
    frame = pd.DataFrame(clicks, columns=["s", "t", "u", "i"])
    return EventLog.read(frame, session="s", time="t", user="u", item="i")


def test_the_last_sessions_to_end_are_the_test():
    train, valid, test = by_session_end(whole, test=0.2, valid=0.2)
    assert sorted(train.sessions.tolist()) == [0, 1, 2, 3, 4, 5]
    assert valid is not None
    # Item w is unknown to training, and so is user c: their event and session are left out.
    assert sorted(valid.sessions.tolist()) == [6, 7] and valid.num_events == 3
    assert test.sessions.tolist() == [8]
    for part in (valid, test):
        assert part.items.ids.tolist() == train.items.ids.tolist()
        assert part.users is not None and part.users.ids.tolist() == train.users.ids.tolist() == ["a", "b"]
    assert train.items.ids[test.item].tolist() == ["z", "x"]


def test_other_data_than_the_published_is_refused(capsys):
    log = fake_log(sessions=20)
    load = lambda: without_validation(lambda: (log, log))  # noqa: E731
    assert Dataset("fake", load, LAST, {"asars": (20, 20)}).parts()[1] is None
    assert "20 / 20 samples (asars)" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="fake: found .*20, 20.*published .*20, 21"):
        Dataset("fake", load, LAST, {"asars": (20, 21)}).parts()


def test_the_last_training_sessions_are_held_out():
    log = fake_log(sessions=20)
    learn, valid = last_sessions(log, 5)
    assert (
        learn.sessions.tolist() == log.sessions[:15].tolist() and valid.sessions.tolist() == log.sessions[15:].tolist()
    )
    assert np.array_equal(learn.items.ids, log.items.ids) and np.array_equal(valid.users.ids, log.users.ids)


@pytest.mark.parametrize("name", [name for name in BASELINES if name != "session_popularity"])
def test_a_baseline_excludes_repeats_only_if_sessions_have_none(name):
    once, (model, _) = whole(), fitted(parser().parse_args(["diginetica", name]), whole(), None)
    queries = prefixes(once)
    scores = model.scores(queries)
    assert all(scores[row, item] == -1 for row, item in enumerate(once.item[queries.begin]))
    clicks = pd.DataFrame({"s": [0, 0, 0, 1, 1], "i": list("xyxyz")})
    twice = EventLog.read(clicks, session="s", item="i")
    model, _ = fitted(parser().parse_args(["diginetica", name]), twice, None)
    assert (model.scores(prefixes(twice)) >= 0).all()


LOG, LEARNED = fake_log(sessions=80), "recommender.head.score_terms."


@pytest.fixture
def row(monkeypatch):
    """Trains as the words of a command say: the weights, and the logs that were learned from, counted and chosen by."""
    logs = []

    def seen(system, learn, **rest):
        logs[:] = [learn, rest["options"].statistics_log, rest["valid"]]
        return train(system, learn, **rest)

    def run(name, *words):
        small = ["--arguments", '{"width": 4}', "--epochs", "1", "--held-out", "10"]
        options = parser().parse_args(["diginetica", name, *small, *words])
        system, history = fitted(options, LOG, None)
        assert len(history) == options.epochs
        return {name: weight.clone() for name, weight in system.state_dict().items()}, list(logs)

    monkeypatch.setattr(accuracy, "train", seen)
    return run


def test_a_reranker_learns_on_what_is_not_counted_around_a_base_that_another_replaces(row, tmp_path):
    saved = [str(tmp_path / name) for name in ("base", "whole")]
    base, whole = (row("niser", "--save", path, "--seed", str(seed))[0] for seed, path in enumerate(saved))
    begun = ("reranker", "--warm-start", saved[0], "--statistics-held-out", "20", "--lr", "0.1")
    first, logs = row(*begun)
    assert [log.sessions.tolist() for log in logs] == [[*range(50, 70)], [*range(50)], [*range(70, 80)]]
    last, _ = row(*begun, "--refit-base", saved[1], "--only", f"{LEARNED}repeat_bias", f"{LEARNED}reranker.direct")
    scale = "recommender.head.scale"
    for name in base:
        assert torch.equal(first[name], base[name]) is (name != scale)  # all but the scale stays as it began
        assert torch.equal(last[name], whole[name])  # the scale too: --only leaves it out
    fresh = build("reranker", LOG.items, width=4)
    fresh.fit_statistics(LOG)
    alike = {name for name, weight in fresh.state_dict().items() if torch.equal(weight, last[name])}
    tables = {
        f"{LEARNED}reranker.{name}"
        for name in ("similar", "similarity", "next_share", "previous_share", "item_statistics")
    }
    assert tables <= alike  # in the end all is counted
    assert alike.isdisjoint(
        {f"{LEARNED}repeat_bias.recency.weight", f"{LEARNED}reranker.direct.weight"}
    )  # they learned


def test_what_learns_to_trust_counts_needs_a_base_and_sessions_of_its_own(row):
    with pytest.raises(SystemExit, match="reranker needs a trained base .--warm-start. and --statistics-held-out"):
        row("reranker", "--statistics-held-out", "20")


def test_without_epochs_the_warm_start_is_kept_and_statistics_are_fitted(row, tmp_path):
    saved = str(tmp_path / "base")
    base, _ = row("niser", "--save", saved)
    begun = ("reranker", "--warm-start", saved, "--statistics-held-out", "20", "--recipe")
    kept, _ = row(*begun, "--epochs", "0")
    assert all(torch.equal(kept[name], base[name]) for name in base)
    assert kept[f"{LEARNED}reranker.item_statistics"].any()
