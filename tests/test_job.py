"""From a log to a folder: what is learned on which sessions."""

from pathlib import Path

import numpy as np
import pytest
import torch

from graphmeta.baselines import SessionKNN
from graphmeta.cli import fit_job as job
from graphmeta.data.merging import merged
from graphmeta.data.splits import Split
from graphmeta.data.stored_columns import Columns
from graphmeta.evaluation import protocol
from graphmeta.evaluation.compare import baselines
from graphmeta.evaluation.lists import COMPARED_KS
from graphmeta.evaluation.ranking import evaluate
from graphmeta.published import training_plan as plan
from graphmeta.sampling.samples import last_clicks
from graphmeta.testing import fake_log
from graphmeta.training.loop import train


def reranking(folder: Path) -> tuple[Split, job.Outcome | None]:
    """A re-ranker fitted to an invented log, one epoch of each stage, without a refit."""
    log, rules = fake_log(sessions=150), protocol.Rules(min_item_support=1)
    split = protocol.cut(log, rules)
    recipe = plan.TrainingRecipe(epochs=1, refit=False)
    columns = Columns("session", "item", "time", None)
    work = job.Job(plan.Plan("reranker", 4, recipe=recipe), columns, rules, "invented", folder)
    return split, job.run_job(work, log, split=split, say=lambda _: None, bar=lambda rows, _: rows)


def test_a_reranker_trains_on_held_out_statistics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The base learns on the earlier sessions, the re-ranker on the last tenth; in the end all before the test
    are counted, and a base trained on them replaces the first."""
    ran, trained = [], []

    def noted(system, learn, **options):  # noqa: ANN001, ANN003, ANN202
        trained.append(system)
        ran.append((set(learn.sessions.tolist()), set((options["options"].statistics_log or learn).sessions.tolist())))
        return train(system, learn, **options)

    monkeypatch.setattr(plan, "train", noted)
    split, outcome = reranking(tmp_path)
    (first, _), (second, counted), (third, _) = ran
    whole = set(split.train.sessions.tolist())
    assert first == counted
    assert not counted & second
    assert counted | second == whole
    assert min(second) > max(first)
    assert len(second) == len(whole) // 10
    known = whole | set(split.valid.sessions.tolist())
    assert third == known
    assert outcome is not None
    last, theirs = outcome.system.recommender.state_dict(), trained[2].recommender.state_dict()
    looked = trained[1].recommender.state_dict()
    own = {name for name in last if name.startswith(("head.score_terms", "head.scale"))}
    assert own < set(last)
    for name in set(last) - own:
        torch.testing.assert_close(last[name], theirs[name], rtol=0, atol=0)
    assert any("reranker.net" in name for name in own)
    assert all(torch.equal(last[name], looked[name]) for name in own if "net" in name)
    assert any(not torch.equal(first, theirs[name]) for name, first in trained[0].recommender.state_dict().items())
    look = outcome.system.recommender.get_submodule("head.score_terms.reranker")
    clicks = split.train.support + split.valid.support
    np.testing.assert_allclose(look.item_statistics[:, 0].numpy(), np.log1p(clicks) / 8, rtol=1e-6)


def test_baselines_beside_the_validation_curve_do_not_count_the_validation_sessions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A re-ranker's baselines on the test count validation sessions, too; those on validation must not."""
    drawn = {}
    monkeypatch.setattr(job.plots, "curves", lambda *_, baselines: drawn.update(baselines))
    split, _ = reranking(tmp_path)
    queries = last_clicks(split.valid)
    for name, model in baselines(split.train).items():
        assert drawn[name] == evaluate(model, queries, ks=COMPARED_KS).metrics
    assert drawn["session_knn"] != evaluate(SessionKNN(merged(split.train, split.valid)), queries).metrics
