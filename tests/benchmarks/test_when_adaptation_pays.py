"""What the page on adaptation claims is true of the rows, and its tables are those of the rows."""

import pytest

from benchmarks.report import with_table
from benchmarks.rows import results
from benchmarks.when_adaptation_pays import DATA, PAGE, PICTURE, WAYS, draw, sessions, tables, users

ROWS = results()
FEATURES, STEP_RERANKER, COUNTS, STEP, AMORTISED, RERANKER, ENCODER = WAYS


def curve(way):
    """Hit@20 by the number of known earlier sessions, the mean over seeds."""
    runs = users(ROWS, "users-time")[way]
    return {
        n: sum(run["known_sessions"][n]["hit@20"] for run in runs) / len(runs) for n in runs[0]["known_sessions"]
    }  # fmt: skip


def test_features_are_first_with_any_number_of_known_sessions():
    others = [curve(way) for way in (COUNTS, STEP, AMORTISED, RERANKER, ENCODER)]
    assert all(value > max(other[n] for other in others) for n, value in curve(FEATURES).items())


def test_one_step_pays_over_the_encoder_at_once_and_over_the_reranker_from_ten_sessions():
    step, encoder, reranker = curve(STEP), curve(ENCODER), curve(RERANKER)
    assert all(step[n] > encoder[n] + 0.01 for n in step if n != "0")
    assert [n for n in step if step[n] > reranker[n]] == ["10", "20", "all"]
    found = {way: runs[0]["metrics"]["hit@20"] for way, runs in users(ROWS, "users-time").items()}
    assert found[STEP_RERANKER] > max(found[STEP], found[RERANKER]) + 0.02


def test_counts_are_behind_one_step_with_few_sessions_and_ahead_from_twenty():
    step, counts, amortised = curve(STEP), curve(COUNTS), curve(AMORTISED)
    assert all(step[n] > counts[n] for n in ("0", "1", "2", "5", "10"))
    assert all(step[n] < counts[n] for n in ("20", "all"))
    assert all(step[n] > amortised[n] for n in step)


def test_a_step_on_the_sessions_clicks_adds_to_weak_encoders_only():
    for dataset in DATA:
        for gain in sessions(ROWS, dataset):
            weak = gain.base["system"] == "if_san" and dataset == "diginetica"  # on Yoochoose it is trained well
            assert gain.points("hit@5") > 0.5 if weak else gain.points("hit@5") < gain.bar, gain.name
            if gain.without is not None:
                assert gain.points("hit@5", over=gain.without) < 0.5
                assert gain.without["system"] == gain.adapted["system"] and gain.without["arguments"]["steps"] == 0


def test_an_adapter_is_compared_with_the_base_that_it_loads():
    for gain in sessions(ROWS, "diginetica"):
        words = gain.adapted["command"].split()
        folder = words[words.index("--warm-start") + 1]
        assert "--refit-base" in words or f"--save {folder}" in f"{gain.base['command']} "


def test_the_figure_is_drawn(tmp_path):
    draw(ROWS, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 50_000 and PICTURE.exists()


@pytest.mark.slow
def test_the_tables_are_those_of_the_rows():
    """Otherwise run ``python -m benchmarks.when_adaptation_pays``."""
    assert with_table(PAGE.read_text(), tables(ROWS)) == PAGE.read_text()
