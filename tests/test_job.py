"""From a log to a folder: what is learned on which sessions."""

from pathlib import Path

import numpy as np
import pytest

from graphmeta import job, report
from graphmeta.testing import fake_log
from graphmeta.train import train


def test_who_trusts_counts_learns_on_sessions_that_were_not_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The base learns on the earlier sessions, the second look on the last tenth; in the end all are counted."""
    ran = []

    def noted(system, learn, **options):  # noqa: ANN001, ANN003, ANN202
        ran.append((set(learn.sessions.tolist()), set((options["counted"] or learn).sessions.tolist())))
        return train(system, learn, **options)

    monkeypatch.setattr(job, "train", noted)
    log, rules = fake_log(sessions=150), report.Rules(min_item_support=1)
    split = report.cut(log, rules)
    columns = report.Columns("session", "item", "time", None)
    work = job.Job(job.Plan("second_look", 1, 0, 4), columns, rules, "invented", tmp_path)
    outcome = job.carry_out(work, log, split=split, say=lambda _: None, bar=lambda rows, _: rows)
    (first, _), (second, counted) = ran
    whole = set(split.train.sessions.tolist())
    assert first == counted
    assert not counted & second
    assert counted | second == whole
    assert min(second) > max(first)
    assert len(second) == len(whole) // 10
    assert outcome is not None
    look = outcome.system.recommender.get_submodule("head.extras.second_look")
    clicks = np.bincount(split.train.item, minlength=split.train.num_items)
    np.testing.assert_allclose(look.known[:, 0].numpy(), np.log1p(clicks) / 8, rtol=1e-6)
