"""A search is bound to validation sessions, to its budget, and to the trials that it has written down."""

import json
import sys

import pytest

pytest.importorskip("optuna")

from optuna.distributions import FloatDistribution, IntDistribution, distribution_to_json  # noqa: E402

from benchmarks import tune  # noqa: E402
from benchmarks.accuracy import Dataset  # noqa: E402
from benchmarks.cold_report import tuning_section  # noqa: E402
from benchmarks.rows import MEASURE, RATE, results  # noqa: E402
from benchmarks.tables import HERE  # noqa: E402
from benchmarks.tune import TAKEN, begun, best, holding, search, space_of  # noqa: E402
from graphmeta.data.splits import last_sessions  # noqa: E402
from graphmeta.published.catalogue import RANKING  # noqa: E402
from graphmeta.testing import fake_log  # noqa: E402

LOG = fake_log(sessions=40)


class Untouchable:
    """A test log that nobody may look at."""

    def __getattribute__(self, name):
        raise AssertionError(f"the test log was asked for its {name}")


def parabola(settings):
    """Best at a rate of 0.003, whatever the rest."""
    return {"valid": {MEASURE: 1.0 - abs(settings[RATE] - 0.003)}}


def run(trials, *, most, minutes=1.0, seed=0):
    space, first = space_of("gc_san", {}, lr=1e-3)
    return [each["settings"] for each in search(space, first, parabola, trials, seed=seed, most=most, minutes=minutes)]


def test_what_is_searched_is_what_the_system_takes():
    space, first = space_of("gc_san", {"layers": 2}, lr=2e-3)
    assert first == {RATE: 2e-3, "width": 100, "dropout": 0.2, "steps": 1} and space.keys() == first.keys()
    assert "lr" in space_of("cbml", {}, lr=1e-3)[0] and "dropout" not in space_of("sr_gnn", {}, lr=1e-3)[0]


@pytest.mark.by_kind
@pytest.mark.parametrize("name", RANKING)
def test_every_system_can_be_searched_from_its_defaults(name):
    for lr in (1e-3, 0.05):
        space, first = space_of(name, {}, lr=lr)
        trials = []
        list(search(space, first, parabola, trials, seed=0, most=2, minutes=1.0))
        assert trials[0]["settings"] == first and trials[1]["settings"].keys() == first.keys()


def test_a_space_is_widened_by_what_lies_outside_alone():
    assert holding(TAKEN["steps"], 3) == TAKEN["steps"] and holding(TAKEN["steps"], 5) == IntDistribution(1, 5)
    assert holding(TAKEN["width"], 64).choices == (50, 100, 150, 64)
    assert holding(TAKEN["dropout"], 0.3) == TAKEN["dropout"]
    assert holding(TAKEN["dropout"], 0.7) == FloatDistribution(0.0, 0.7, step=0.1)
    assert holding(TAKEN["dropout"], 0.25) == FloatDistribution(0.0, 0.5)
    assert holding(TAKEN["lr"], 5.0) == FloatDistribution(1e-3, 5.0, log=True)
    assert holding(TAKEN["lr"], 0.0) == FloatDistribution(0.0, 0.3)


def test_the_search_that_is_kept_can_go_on():
    (stored,) = results("complete_journey", "tuning", "sr_gnn", folder=HERE / "results")
    space, _ = space_of("sr_gnn", {}, lr=1e-3)
    assert stored["space"] == {name: distribution_to_json(each) for name, each in space.items()}


def test_a_stopped_search_goes_on_as_if_it_had_not_been():
    whole, parts = [], []
    run(whole, most=6)
    for most in (2, 3, 6):
        run(parts, most=most)
    assert [each["settings"] for each in whole] == [each["settings"] for each in parts]


def test_a_search_keeps_to_its_space_and_finds_more_than_the_defaults():
    trials = []
    sampled = run(trials, most=12)
    space, first = space_of("gc_san", {}, lr=1e-3)
    assert sampled[0] == first and len({json.dumps(each) for each in sampled}) > 10
    for settings in sampled[1:]:
        assert all(each._contains(each.to_internal_repr(settings[name])) for name, each in space.items())
    assert best(trials)["valid"][MEASURE] > trials[0]["valid"][MEASURE]
    assert run([], most=4, seed=1)[1:] != sampled[1:4]


def test_no_trial_begins_when_the_time_is_up():
    trials = [{"settings": {}, "valid": {MEASURE: 0.1}, "seconds": 61.0}]
    assert run(trials, most=5) == []


@pytest.fixture
def searched(monkeypatch, tmp_path):
    """Runs a search on a fake log whose test log nobody may look at, and returns what it has written."""

    def run(*words):
        learn, valid = last_sessions(LOG, 10)
        dataset = Dataset("fake", lambda: (learn, valid, Untouchable()), {}, {})
        monkeypatch.setattr(tune, "DATASETS", {"fake": dataset})
        monkeypatch.setattr("benchmarks.rows.RESULTS", tmp_path)
        monkeypatch.setattr(sys, "argv", ["tune", "fake", *words])
        tune.main()
        return json.loads((tmp_path / f"fake/tuning/{words[0]}/seed0.json").read_text())

    return run


def test_a_search_reads_validation_alone_and_can_be_resumed(searched):
    few = ("sr_gnn", "--epochs", "1", "--arguments", '{"width": 8}')
    row = searched(*few, "--trials", "1")
    again = searched(*few, "--trials", "2")
    assert len(row["trials"]) == 1 and again["trials"][0] == row["trials"][0] and len(again["trials"]) == 2
    assert again["best"] in again["trials"] and 0 < again["best"]["valid"][MEASURE] < 1
    assert again["budget"]["trials"] == 2 and set(again["space"]) == {RATE, "steps"}
    section = tuning_section("Found", [again], "A text.")
    assert f"{100 * again['best']['valid'][MEASURE]:.2f}" in section and "rate 0.001, steps 1" in section
    with pytest.raises(SystemExit, match="another search .different: epochs"):
        searched("sr_gnn", "--epochs", "2", "--arguments", '{"width": 8}')


def test_a_search_has_the_trials_of_its_own_file_alone(tmp_path):
    assert begun(tmp_path / "tuning-none.json", {}) == []


def test_a_training_that_diverges_is_worth_nothing(searched):
    row = searched(
        "sr_gnn", "--epochs", "1", "--lr", "1e30", "--arguments", '{"width": 8, "steps": 1}', "--trials", "1"
    )
    assert row["trials"][0]["valid"] == {MEASURE: 0.0} and "loss" in row["trials"][0]["diverged"]
