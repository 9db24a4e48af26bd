"""The cut by the end of sessions, and the refusal to report on other data than the published."""

import numpy as np
import pandas as pd
import pytest

from benchmarks.accuracy import BASELINES, LAST, Dataset, arguments, by_session_end, fitted, without_validation
from graphmeta.batch import prefixes
from graphmeta.events import EventLog
from graphmeta.splits import last_sessions
from graphmeta.testing import fake_log

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
def test_a_baseline_knows_whether_items_come_twice_in_a_session(name):
    once, (model, _) = whole(), fitted(arguments("", ["d"], BASELINES).parse_args(["d", name]), whole(), None)
    asked = prefixes(once)
    scores = model.scores(asked)
    assert all(scores[row, item] == -1 for row, item in enumerate(once.item[asked.begin]))
    clicks = pd.DataFrame({"s": [0, 0, 0, 1, 1], "i": list("xyxyz")})
    twice = EventLog.read(clicks, session="s", item="i")
    model, _ = fitted(arguments("", ["d"], BASELINES).parse_args(["d", name]), twice, None)
    assert (model.scores(prefixes(twice)) >= 0).all()
