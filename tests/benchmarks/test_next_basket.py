"""The settings of a row of next baskets are chosen on the last known baskets, and its section lists them."""

import json

import numpy as np
import pytest

from benchmarks import accuracy, next_basket
from benchmarks.basket_report import basket_section
from benchmarks.next_basket import evaluated, parser, row_of, trials
from graphmeta.data.windows import next_days
from graphmeta.evaluation.next_basket import evaluate_next_basket, last_baskets
from graphmeta.testing import fake_log

LOG = fake_log(sessions=120)
KNOWN, FUTURE = last_baskets(LOG)


def options(*words):
    return parser().parse_args(["tafeng", *words])


def test_each_combination_of_choices_is_tried_on_the_last_known_baskets(monkeypatch):
    logs = []

    def seen(model, log, **rest):
        logs.append((model.histories.log().num_sessions, log.num_sessions, rest["history"].num_sessions))
        return evaluate_next_basket(model, log, **rest)

    monkeypatch.setattr(next_basket, "evaluate_next_basket", seen)
    words = [
        "--arguments",
        '{"popular_rest": false}',
        "--choices",
        '{"decay": [0.5, 1.0], "popular_ties": [true, false]}',
    ]
    row = row_of(options("personal_frequency", *words), KNOWN, FUTURE)[0]
    assert logs == [(80, 20, 80)] * 4 + [(100, 20, 100)]
    tried = row["validation"]
    assert [(t["arguments"]["decay"], t["arguments"]["popular_ties"]) for t in tried] == [
        (0.5, True), (0.5, False), (1.0, True), (1.0, False),
    ]  # fmt: skip
    best = max(tried, key=lambda trial: trial["recall@10"])
    assert row["arguments"] == best["arguments"] and row["arguments"]["popular_rest"] is False
    assert row["samples"] == 20 and row["protocol"] == "next-basket" and "recall_repeat@10" in row["metrics"]
    json.dumps(row)


@pytest.mark.filterwarnings("ignore:.* gives all items the same score")
def test_a_trained_system_is_a_row():
    result, history = evaluated(options("sr_gnn", "--epochs", "1", "--held-out", "20"), {"width": 4}, KNOWN, FUTURE)
    assert len(history) == 1 and result.samples == 20


def test_a_reranker_of_next_baskets_needs_no_base_and_learns_the_last_known_baskets(monkeypatch):
    learned = []

    def seen(options, system, learn, statistics_log, valid):
        learned.append((learn.num_sessions, statistics_log.num_sessions, valid, system.training_samples(learn).lengths))
        return original(options, system, learn, statistics_log, valid)

    original = accuracy._trained
    monkeypatch.setattr(accuracy, "_trained", seen)
    words = ["--recipe", "--epochs", "1", "--held-out", "0", "--statistics-held-out", "30"]
    given = {"empty": 1.0, "options": {"width": 4}}
    chosen = options("personal_reranker", *words, "--arguments", json.dumps(given))
    result, history = evaluated(chosen, given, KNOWN, FUTURE)
    ((sessions, counted, valid, lengths),) = learned
    assert (sessions, counted, valid) == (30, KNOWN.num_sessions - 30, None) and not lengths.any()
    assert len(history) == 1 and result.samples == 20
    with pytest.raises(SystemExit, match="needs a trained base"):
        evaluated(options("personal_reranker", *words), {}, KNOWN, FUTURE)


def test_without_choices_nothing_is_tried():
    assert row_of(options("popularity"), KNOWN, FUTURE)[0]["validation"] == []
    assert list(trials(options("tifu_knn", "--choices", "{}"), KNOWN))[0]["arguments"] == {}
    with pytest.raises(SystemExit):
        options("nobody")


def test_the_items_of_the_next_days_are_chosen_by_map_on_the_days_before(monkeypatch):
    logs = []

    def seen(model, log, **rest):
        logs.append((log.num_sessions, rest["history"].time.max(), float(log.starts.max()), rest["ks"]))
        return evaluate_next_basket(model, log, **rest)

    monkeypatch.setattr(next_basket, "evaluate_next_basket", seen)
    words = ["--days", "0.5", "--choices", '{"decay": [0.5, 1.0]}']
    chosen = parser().parse_args(["complete_journey", "personal_frequency", *words])
    known, future = next_days(LOG, days=0.5)
    row, _ = row_of(chosen, known, future)
    assert row["protocol"] == "next-0.5-days" and [each[3] for each in logs] == [(10, 12, 20)] * 3
    assert all(before < begin for _, before, begin, _ in logs)  # nothing after the time is known
    assert logs[0][2] == np.nextafter(known.time.max() - 86400 / 2, np.inf)  # settings are chosen on the days before
    best = max(row["validation"], key=lambda trial: trial["map@12"])
    assert row["arguments"] == best["arguments"] and 0 < row["metrics"]["map@12"] < 1
    row |= {"command": "python -m benchmarks.next_basket complete_journey personal_frequency --days 0.5"}
    text = basket_section("Next days", [row], "A text.\n")
    assert "MAP@12 by known baskets" in text and f"{100 * row['metrics']['map@12']:.2f}" in text


def test_the_section_lists_systems_best_first_and_known_baskets():
    rows = [row_of(options(name), KNOWN, FUTURE)[0] for name in ("popularity", "tifu_knn")]
    for row, name in zip(rows, ("popularity", "tifu_knn"), strict=True):
        row |= {"dataset": "tafeng", "command": f"python -m benchmarks.next_basket tafeng {name}"}
    text = basket_section("Next", rows, "A text.\n")
    recall = [100 * row["metrics"]["recall@10"] for row in rows]
    lines = [line for line in text.splitlines() if line.startswith(("| popularity", "| tifu_knn"))]
    shown = [line.split(" | ")[1].split()[0] for line in lines[:2]]
    assert shown == [f"{value:.2f}" for value in sorted(recall, reverse=True)]
    assert "20 users, 40 candidates" in text and "benchmarks.command tafeng/next-basket" in text
    assert np.isfinite(recall).all() and len(lines) == 4
