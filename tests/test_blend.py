"""A baseline blended into a trained system: chosen on validation, saved, explained; without one nothing changes."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

import graphmeta as gm
from graphmeta.cli.model_card import _blend
from graphmeta.data.merging import merged
from graphmeta.evaluation.intervals import paired
from graphmeta.evaluation.metrics import mrr, ranks
from graphmeta.published.blending import Blended, choose_blend, chosen_key
from graphmeta.published.training_plan import Plan, refit, train_plan
from graphmeta.sampling.samples import last_clicks
from graphmeta.sampling.user_histories import UserHistories
from graphmeta.system.blend import FLOOR, KINDS, Blend
from graphmeta.testing import Mixture, fake_log
from graphmeta.training.recipes import TrainingRecipe
from graphmeta.training.run import Checkpoint

LOG = fake_log(sessions=150, items=40, mixture=Mixture(random=0.2, repeats=0.2, favourites=0.2, users=15))
SPLIT = gm.split_by_time(LOG, test=0.2, valid=0.2)


def untrained(name: str = "personal_reranker") -> gm.System:
    torch.manual_seed(0)
    system = gm.build(name, SPLIT.train.items, users=SPLIT.train.users, width=4)
    system.fit_statistics(SPLIT.train)
    return system.eval()


def queries(system: gm.System):
    samples = last_clicks(SPLIT.valid)
    if not system.reads_history:
        return samples
    return UserHistories.of(SPLIT.train, SPLIT.valid).attached(samples, SPLIT.valid)


QUICK = ("stan", "up_cf")


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in KINDS]
)
def test_the_scores_are_those_of_the_system_plus_the_baselines_logarithm(name: str) -> None:
    system = untrained()
    assert system.blend is not None
    samples, alone = queries(system), system.scores(queries(system))
    system.blend.choose(name, 0.5)
    system.fit_statistics(SPLIT.train)
    own = gm.build(name, SPLIT.train.items)
    own.fit_statistics(SPLIT.train)
    counts = own.scores(samples).double().clamp(min=0)
    share = counts / counts.sum(1, keepdim=True).clamp(min=1e-30)
    expected = alone.double() + 0.5 * torch.log(1 + share / FLOOR)
    assert torch.allclose(system.scores(samples).double(), expected, atol=1e-4)
    # With a large weight the ranking is the baseline's, where it has no ties.
    system.blend.choose(name, 1e4)
    system.fit_statistics(SPLIT.train)
    found, target = system.scores(samples).double(), torch.from_numpy(samples.target)
    theirs = ranks(counts, target)
    mine = ranks(found, target)
    clear = (theirs.tied == 1) & (counts.gather(1, target[:, None])[:, 0] > 0)
    assert clear.any() and (mine.best - theirs.best)[clear].abs().max() <= 1


@pytest.mark.parametrize("name", ["stan", pytest.param("tifu_knn", marks=pytest.mark.slow)])
def test_a_saved_blend_is_the_same(name: str, tmp_path: Path) -> None:
    system = untrained()
    assert system.blend is not None
    system.blend.choose(name, 2.0)
    system.fit_statistics(SPLIT.train)
    system.save(tmp_path / "model")
    samples = queries(system)
    loaded = gm.load(tmp_path / "model")
    if name == "stan":
        assert torch.equal(loaded.scores(samples), system.scores(samples))
    assert loaded.blend is not None and loaded.blend.name == name and float(loaded.blend.weight) == 2.0
    assert torch.equal(copy.deepcopy(system).scores(samples), system.scores(samples))


def test_a_model_saved_before_there_were_blends_loads(tmp_path: Path) -> None:
    system, samples = untrained("reranker"), queries(untrained("reranker"))
    old = {key: value for key, value in system.state_dict().items() if not key.startswith("blend.")}
    other = untrained("reranker")
    assert other.blend is not None
    other.blend.choose("stan", 1.0)
    other.fit_statistics(SPLIT.train)
    fresh = gm.build("reranker", SPLIT.train.items, width=4)
    fresh.load_state_dict(old)
    assert torch.equal(fresh.eval().scores(samples), system.scores(samples))


def test_a_baseline_that_this_version_lacks_is_an_input_error() -> None:
    blend = Blend()
    blend.number.fill_(99)
    with pytest.raises(gm.InputError, match="update graphmeta"):
        _ = blend.name


def test_an_untrained_system_takes_the_best_baseline_and_is_not_behind_it() -> None:
    system = untrained()
    chosen = choose_blend(system, SPLIT.valid, SPLIT.train)
    assert chosen is not None and chosen.baseline in KINDS and system.blend is not None
    alone, blended, _ = (list(one.values()) for one in chosen.validation.values())
    assert sum(blended) > sum(alone)
    result = gm.evaluate(system, queries(system), ks=(20,)).metrics  # the reported figures are those of the system
    assert result["hit@20"] == pytest.approx(blended[0]) and result["mrr@20"] == pytest.approx(blended[1])
    mine = mrr(gm.evaluate(system, queries(system), ks=(20,)).positions, 20).numpy()
    for name in KINDS:
        baseline = gm.build(name, SPLIT.train.items)
        baseline.fit_statistics(SPLIT.train)
        theirs = mrr(gm.evaluate(baseline, queries(system), ks=(20,)).positions, 20).numpy()
        found = paired(mine, theirs)
        assert found.difference >= -2 * found.standard_error, name
    assert "blended with" in chosen.line() and "on validation" in chosen.line()


def values_of(hit: list[float], mrr: list[float]) -> dict[str, torch.Tensor]:
    return {"hit@20": torch.tensor(hit * 50).double(), "mrr@20": torch.tensor(mrr * 50).double()}


def test_the_choice_is_not_behind_a_baseline_in_either_metric() -> None:
    inf = float("inf")
    values = {
        ("", 0.0): values_of([1, 1, 1, 1], [0.2, 0.2, 0.2, 0.3]),
        ("stan", inf): values_of([1, 1, 0, 0], [1.0, 0.9, 0.0, 0.0]),
        ("stan", 0.5): values_of([1, 1, 1, 1], [0.3, 0.3, 0.2, 0.3]),  # better in both, behind STAN's MRR
        ("stan", 4.0): values_of([1, 1, 1, 1], [1.0, 0.9, 0.1, 0.1]),  # behind neither
        ("stan", 8.0): values_of([1, 1, 1, 0], [1.2, 1.2, 0.4, 0.4]),  # a larger gain, behind the system's hit rate
    }
    assert chosen_key(values) == ("stan", 4.0)
    del values["stan", 4.0], values["stan", 8.0]
    assert chosen_key(values) == ("stan", 0.5)  # all are behind: the least so
    better = values | {("", 0.0): values_of([1, 1, 1, 1], [0.9, 0.9, 0.8, 0.9])}
    assert chosen_key(better) == ("", 0.0)
    noise = better | {("stan", 0.5): values_of([1, 1, 1, 1], [1.0, 0.81, 0.8, 0.9])}  # a gain within its error
    assert chosen_key(noise) == ("", 0.0)


def test_without_an_improvement_nothing_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that always has the target first cannot be improved."""
    system = untrained()
    before = system.scores(queries(system))

    def perfect(samples, **given):
        return torch.nn.functional.one_hot(torch.from_numpy(samples.target), system.num_items) * 1e6

    with monkeypatch.context() as patch:
        patch.setattr(system, "own_scores", perfect, raising=False)
        chosen = choose_blend(system, SPLIT.valid, SPLIT.train)
    assert chosen is not None and chosen.baseline is None and "none improves" in chosen.line()
    assert system.blend is not None and system.blend.counted.is_empty
    assert torch.equal(system.scores(queries(system)), before)


def test_the_explanation_has_the_baselines_part() -> None:
    system = untrained()
    assert system.blend is not None
    system.blend.choose("item_knn", 1.0)
    system.fit_statistics(SPLIT.train)
    session = list(SPLIT.train.items.ids[[3, 4]])
    best = system.recommend(session, k=1)[0]
    explained = system.explain(session, best.item)
    assert explained.parts["blended baseline"] > 0
    assert explained.score == pytest.approx(best.score, abs=1e-4)
    assert explained.without_clicks + sum(share.value for share in explained.clicks) == pytest.approx(
        best.score, abs=1e-4
    )


def test_the_plan_chooses_on_validation_and_a_refit_keeps_the_choice(tmp_path: Path) -> None:
    recipe = TrainingRecipe(epochs=1)
    quiet = {"say": lambda line: None, "bar": lambda batches, name: batches}
    plan = Plan("reranker", width=4, recipe=recipe)
    made = train_plan(plan, SPLIT, Checkpoint(tmp_path), **quiet)
    assert made.blend is not None and made.system.notes["blend"]["baseline"] == made.blend.baseline
    again = refit(plan, made, merged(SPLIT.train, SPLIT.valid), Checkpoint(tmp_path), **quiet)
    assert again.blend == made.blend and again.system.blend is not None
    assert again.system.blend.name == made.blend.baseline
    if made.blend.baseline is not None:
        events = SPLIT.train.num_events + SPLIT.valid.num_events
        assert len(again.system.blend.counted.item) == len(made.system.blend.counted.item) == events  # pyright: ignore
    assert made.blend.queries == len(last_clicks(SPLIT.valid))


def test_the_card_describes_the_choice() -> None:
    metrics = {"alone": {"hit@20": 0.5, "mrr@20": 0.25}, "blended": {"hit@20": 0.6, "mrr@20": 0.3}}
    text = _blend({"blend": vars(Blended("stan", 0.5, 300, metrics))})
    assert "blended with stan, weight 0.5: Hit@20 / MRR@20 60.00 / 30.00 on validation, 50.00 / 25.00 without" in text
    assert "300 validation sessions" in text and "0.5 · log(1 + p_i / 0.001)" in text
    assert "no baseline is blended in" in _blend({"blend": vars(Blended(None, 0.0, 300, metrics))}) and _blend({}) == ""


def test_numbers_of_saved_baselines_do_not_change() -> None:
    names = ["popularity", "item_knn", "session_knn", "stan", "personal_frequency", "tifu_knn", "up_cf"]
    assert list(KINDS)[: len(names)] == names
