"""The baselines against slow loops that spell out each formula, and the promises every scorer makes."""

import math
import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from graphmeta.baselines import (
    ItemKNN,
    NoRepeats,
    Popularity,
    SessionKNN,
    SessionPopularity,
    Stan,
    has_repeats,
    match_repeats,
)
from graphmeta.data.events import EventLog
from graphmeta.datasets import session_logs as datasets
from graphmeta.errors import InputError
from graphmeta.evaluation.ranking import evaluate
from graphmeta.sampling.samples import Samples, prefixes, sessions_without_target

Sessions = list[list[int]]
MODELS = [Popularity, SessionPopularity, ItemKNN, SessionKNN, Stan]
DAY = 86_400.0
HALF = 1 / math.log(2)  # the λ at which a weight halves with each step or day


def log_of(sessions: Sessions, *, starts: list[float] | None = None) -> EventLog:
    """Sessions that begin at these days, with an hour between clicks; without times if there are none."""
    begins = [0.0] * len(sessions) if starts is None else starts
    rows = [
        (number, item, DAY * begins[number] + 3600 * at)
        for number, items in enumerate(sessions)
        for at, item in enumerate(items)
    ]
    frame = pd.DataFrame(rows, columns=["session", "item", "time"])
    return EventLog.read(frame, session="session", item="item", time=None if starts is None else "time")


def random_sessions(seed: int, *, sessions: int = 40, items: int = 12, longest: int = 7) -> Sessions:
    generator = np.random.default_rng(seed)
    lengths = generator.integers(1, longest + 1, size=sessions)
    return [generator.zipf(1.4, size=n).clip(max=items).tolist() for n in lengths]


def numbered(log: EventLog) -> Sessions:
    return [log.item[a:b].tolist() for a, b in zip(log.ptr[:-1], log.ptr[1:], strict=True)]


def known(samples: Samples) -> Sessions:
    return [samples.item[a:b].tolist() for a, b in zip(samples.begin, samples.end, strict=True)]


def slow_session_popularity(log: EventLog, clicks: list[int]) -> list[float]:
    support = Counter(item for session in numbered(log) for item in session)
    scores = [support[item] / (1 + max(support.values())) for item in range(log.num_items)]
    for at, item in enumerate(clicks):
        scores[item] = clicks.count(item) + (at + 1) / (len(clicks) + 1)
    return scores


def slow_item_knn(log: EventLog, clicks: list[int], neighbours: int, alpha: float) -> list[float]:
    sets = [set(session) for session in numbered(log)]
    number = [sum(i in s for s in sets) for i in range(log.num_items)]
    scores = [0.0] * log.num_items
    for j in set(clicks):
        step = list(reversed(clicks)).index(j) + 1
        together = [sum(i in s and j in s for s in sets) for i in range(log.num_items)]
        alike = {i: n / (number[j] ** alpha * number[i] ** (1 - alpha)) for i, n in enumerate(together) if n > 0}
        for i in sorted(alike, key=lambda i: (-round(alike[i], 12), i))[:neighbours]:
            scores[i] += alike[i] / step
    return scores


def slow_session_knn(log: EventLog, clicks: list[int], limits: dict[str, int]) -> list[float]:
    sets = [set(session) for session in numbered(log)]
    place = {item: at + 1 for at, item in enumerate(clicks)}
    candidates = [n for n in reversed(range(len(sets))) if sets[n] & place.keys()][: limits["recent"]]
    similarity = {n: sum(place[j] for j in sets[n] & place.keys()) / len(clicks) for n in candidates}
    scores = [0.0] * log.num_items
    for n in sorted(candidates, key=lambda n: (-similarity[n], -n))[: limits["neighbours"]]:
        step = min(len(clicks) + 1 - place[j] for j in sets[n] & place.keys())
        for i in sets[n]:
            rare = 1 + math.log(len(sets) / sum(i in s for s in sets)) if limits["idf"] else 1
            scores[i] += similarity[n] / step * rare
    return scores


def slow_decay(distance: float, scale: float | None) -> float:
    return 1.0 if scale is None else float(np.exp(-distance / scale))


def slow_stan(log: EventLog, clicks: list[int], query_time: float, options: dict[str, Any]) -> list[float]:
    sessions = numbered(log)
    own = {item: len(clicks) - 1 - at for at, item in enumerate(clicks)}  # clicks since an item's last one
    candidates = [n for n in reversed(range(len(sessions))) if set(sessions[n]) & own.keys()][: options["recent"]]
    similarity = {}
    for n in candidates:
        cosine = sum(slow_decay(own[j], options["lambda1"]) for j in sorted(set(sessions[n]) & own.keys()))
        cosine /= math.sqrt(len(own) * len(set(sessions[n])))
        days = max(query_time - log.time[log.ptr[n + 1] - 1], 0) / DAY
        similarity[n] = cosine * slow_decay(days, options["lambda2"] if log.has_time else None)
    scores = [0.0] * log.num_items
    for n in sorted(candidates, key=lambda n: (-similarity[n], -n))[: options["neighbours"]]:
        place = {item: at for at, item in enumerate(sessions[n])}
        shared = min(place.keys() & own.keys(), key=lambda j: own[j])
        for i, at in place.items():
            rare = 1 + math.log(len(sessions) / sum(i in s for s in sessions)) if options["idf"] else 1
            scores[i] += similarity[n] * slow_decay(abs(at - place[shared]), options["lambda3"]) * rare
    return scores


def assert_scores(model, samples: Samples, slow: Callable[[list[int]], list[float]]) -> None:
    expected = torch.tensor([slow(clicks) for clicks in known(samples)], dtype=torch.float32)
    torch.testing.assert_close(model.scores(samples), expected, rtol=1e-6, atol=1e-6)


@pytest.fixture(params=range(4))
def logs(request) -> tuple[EventLog, Samples]:
    """Training log and prefixes; in the odd ones with times, the prefixes from the middle of the log on."""
    starts, later = None, None
    if request.param % 2:
        starts = np.sort(np.random.default_rng(request.param).uniform(0, 10, size=40)).tolist()
        later = np.linspace(5, 12, 15).tolist()
    train = log_of(random_sessions(request.param), starts=starts)
    test = log_of(random_sessions(100 + request.param, sessions=15, items=20), starts=later)
    return train, prefixes(test.aligned_to(train.items))


def test_popularity_counts_events() -> None:
    log = log_of([[1, 2, 2], [2, 3]])
    assert Popularity(log).scores(sessions_without_target([np.array([0]), np.array([1])])).tolist() == [[1, 3, 1]] * 2


def test_session_popularity_is_its_formula(logs) -> None:
    train, samples = logs
    assert_scores(SessionPopularity(train), samples, lambda clicks: slow_session_popularity(train, clicks))


def test_session_popularity_ranks_counts_then_recency_then_training_events() -> None:
    log = log_of([[0, 1, 2, 3, 4], [3, 4], [4]])
    scores = SessionPopularity(log).scores(sessions_without_target([np.array([0, 2, 0, 1])]))
    assert scores[0].argsort(descending=True).tolist() == [0, 1, 2, 4, 3]


@pytest.mark.covering
@pytest.mark.parametrize(("neighbours", "alpha"), [(1, 0.5), (3, 0.5), (100, 0.5), (3, 0.75), (2, 0.0), (100, 1.0)])
def test_item_knn_is_its_formula(logs, neighbours, alpha) -> None:
    train, samples = logs
    model = ItemKNN(train, neighbours=neighbours, alpha=alpha)
    assert_scores(model, samples, lambda clicks: slow_item_knn(train, clicks, neighbours, alpha))


def test_item_knn_by_hand() -> None:
    scores = ItemKNN(log_of([[0, 1], [1, 2], [1]]), alpha=0.5).scores(sessions_without_target([np.array([1, 0])]))
    third, half = 1 / math.sqrt(3), 0.5
    assert scores[0].tolist() == pytest.approx([1 + third * half, third + 1 * half, third * half])


def test_item_knn_fitted_in_blocks_is_the_same(logs, monkeypatch) -> None:
    train, samples = logs
    whole = ItemKNN(train, neighbours=4).scores(samples)
    monkeypatch.setattr("graphmeta.baselines.item_knn._PAIRS_AT_ONCE", 20)
    assert torch.equal(ItemKNN(train, neighbours=4).scores(samples), whole)


@pytest.mark.covering
@pytest.mark.parametrize(("neighbours", "recent", "idf"), [(100, 1000, True), (3, 1000, False), (2, 5, True)])
def test_session_knn_is_its_formula(logs, neighbours, recent, idf) -> None:
    train, samples = logs
    limits = {"neighbours": neighbours, "recent": recent, "idf": idf}
    model = SessionKNN(train, **limits)
    assert_scores(model, samples, lambda clicks: slow_session_knn(train, clicks, limits))


@pytest.mark.parametrize(
    ("limits", "expected"),
    [({}, [0.25, 1.75, 2.5, 1.0]), ({"neighbours": 1}, [0, 1.5, 1.5, 0]), ({"recent": 1}, [0, 0, 1, 1])],
)
def test_session_knn_by_hand(limits, expected) -> None:
    """Known 1, 2: the sessions are similar by 1/2, 3/2 and 1; the first shares the earlier click only."""
    model = SessionKNN(log_of([[0, 1], [1, 2], [2, 3]]), idf=False, **limits)
    assert model.scores(sessions_without_target([np.array([1, 2])])).tolist() == [pytest.approx(expected)]


@pytest.mark.parametrize("build", [SessionKNN, Stan])
def test_of_equally_similar_sessions_the_later_votes(build) -> None:
    model = build(log_of([[0, 1], [0, 2], [3, 4]]), neighbours=1)
    assert model.scores(sessions_without_target([np.array([0])]))[0].nonzero().flatten().tolist() == [0, 2]


STAN = {"neighbours": 100, "recent": 1000, "lambda1": 1.5, "lambda2": 2.0, "lambda3": 2.5, "idf": True}
OFF = {"lambda1": None, "lambda2": None, "lambda3": None}
STAN_CHANGES = [{}, {"idf": False}, *({name: None} for name in OFF), {"neighbours": 3}, {"neighbours": 2, "recent": 5}]


@pytest.mark.covering
@pytest.mark.parametrize("changed", [*STAN_CHANGES, OFF | {"neighbours": 2, "idf": False}], ids=str)
def test_stan_is_its_formula(logs, changed) -> None:
    """And with a factor off, the formula without that factor."""
    train, samples = logs
    options = STAN | changed
    query_times = np.full(len(samples), np.inf) if samples.time is None else samples.time[samples.end - 1]
    expected = [slow_stan(train, *query, options) for query in zip(known(samples), query_times, strict=True)]
    scores = Stan(train, **options).scores(samples)
    torch.testing.assert_close(scores, torch.tensor(expected), rtol=1e-6, atol=1e-7)


def test_stan_by_hand() -> None:
    """Known 1, 2, weights 1/2 and 1: similar by 1/4, 3/4 and 1/2; shared last are 1, 2 and 2."""
    model = Stan(log_of([[0, 1], [1, 2], [2, 3]]), lambda1=HALF, lambda3=HALF, idf=False)
    scores = model.scores(sessions_without_target([np.array([1, 2])]))
    assert scores.tolist() == [pytest.approx([0.125, 0.25 + 0.375, 0.75 + 0.5, 0.25])]


def test_stan_halves_a_session_a_day_before_the_last_click() -> None:
    train = log_of([[0, 1], [0, 2]], starts=[1, 3])
    model = Stan(train, lambda2=HALF, lambda3=None, idf=False)
    query_times = [DAY * 4 + 3600, DAY * 2 + 3600]  # three days and one after the first ends; the second is not over
    times = [np.array([query_times[0]]), np.array([query_times[1]])]
    scores = model.scores(sessions_without_target([np.array([0])] * 2, times=times))
    root = math.sqrt(2)
    assert scores.tolist() == [
        pytest.approx([(1 / 8 + 1 / 2) / root, 1 / 8 / root, 1 / 2 / root]),
        pytest.approx([(1 / 2 + 1) / root, 1 / 2 / root, 1 / root]),
    ]


def test_stan_queries_without_time_are_at_the_end_of_the_log() -> None:
    train = log_of([[0, 1], [0, 2]], starts=[1, 3])
    model, end = Stan(train), [np.array([train.time.max()])]
    without, with_time = (model.scores(sessions_without_target([np.array([0])], times=times)) for times in (None, end))
    assert torch.equal(without, with_time)
    assert without[0, 2] > without[0, 1]


def test_stan_without_training_times_has_no_recency() -> None:
    train, queries = log_of(random_sessions(0)), prefixes(log_of(random_sessions(0), starts=list(range(40))))
    assert torch.equal(Stan(train, lambda2=0.1).scores(queries), Stan(train, lambda2=None).scores(queries))


@pytest.mark.parametrize("scale", [{"lambda1": 0.0}, {"lambda2": -1.0}, {"lambda3": math.nan}])
def test_scales_that_are_not_positive_are_refused(scale) -> None:
    with pytest.raises(InputError, match="must be positive.*None omits the factor"):
        Stan(log_of([[0, 1]]), **scale)


def test_no_repeats_excludes_seen_items_only(logs) -> None:
    train, samples = logs
    own, without = Stan(train).scores(samples), NoRepeats(Stan(train)).scores(samples)
    seen = torch.zeros_like(own, dtype=torch.bool)
    for row, clicks in enumerate(known(samples)):
        seen[row, clicks] = True
    assert (without[seen] == -1).all() and torch.equal(without[~seen], own[~seen])


@pytest.mark.parametrize(("sessions", "expected"), [([[0, 1], [1, 2]], False), ([[0, 1], [1, 2, 1]], True)])
def test_repeats_are_found_and_a_baseline_does_as_its_log(sessions, expected) -> None:
    log = log_of(sessions)
    assert has_repeats(log) is expected
    assert isinstance(match_repeats(log, Popularity(log)), Popularity if expected else NoRepeats)


@pytest.mark.covering
@pytest.mark.parametrize("build", MODELS)
def test_a_row_depends_on_its_sample_only(logs, build) -> None:
    train, samples = logs
    model = build(train)
    together = model.scores(samples)
    assert together.shape == (len(samples), model.num_items) == (len(samples), train.num_items)
    assert together.dtype == torch.float32
    order = np.random.default_rng(0).permutation(len(samples))
    assert torch.equal(model.scores(samples.take(order)), together[torch.from_numpy(order)])
    alone = [model.scores(samples.take(slice(s, s + 1))) for s in range(len(samples))]
    assert torch.equal(torch.cat(alone), together)
    assert torch.equal(model.scores(samples), together)


@pytest.mark.covering
@pytest.mark.parametrize("build", MODELS)
def test_scores_are_the_callers_to_change(logs, build) -> None:
    train, samples = logs
    model = build(train)
    before = model.scores(samples.take([0]))
    model.scores(samples.take([0])).fill_(torch.nan)
    assert torch.equal(model.scores(samples.take([0])), before)


@pytest.mark.parametrize("build", MODELS)
def test_the_future_does_not_reach_a_model_fitted_before_it(build) -> None:
    def fitted(seed_of_the_future: int):
        past, future = random_sessions(0), random_sessions(seed_of_the_future, items=30)
        rows = [(n, i, 60.0 * n) for n, items in enumerate(past + future) for i in items]
        frame = pd.DataFrame(rows, columns=["s", "i", "t"])
        frame["t"] += frame.groupby("s").cumcount()
        return build(EventLog.read(frame, session="s", item="i", time="t").before(60.0 * len(past)))

    queries = prefixes(log_of(random_sessions(9)).aligned_to(log_of(random_sessions(0)).items))
    assert torch.equal(fitted(1).scores(queries), fitted(2).scores(queries))


@pytest.mark.parametrize("build", [ItemKNN, SessionKNN, Stan])
def test_items_without_cooccurrence_score_zero(build) -> None:
    whole = log_of([[0, 1], [2, 3], [4, 5]])
    train = whole.before(4).aligned_to(whole.items)
    scores = build(train).scores(sessions_without_target([np.array([0]), np.array([4]), np.array([], dtype=np.int64)]))
    assert (scores > 0).tolist() == [[True, True, False, False, False, False], [False] * 6, [False] * 6]


@pytest.mark.parametrize("build", MODELS)
def test_a_log_without_events_has_no_opinion(build) -> None:
    log = log_of([[0, 1], [1, 2]])
    empty = log.before(0).aligned_to(log.items)
    assert build(empty).scores(sessions_without_target([np.array([], dtype=np.int64)])).tolist() == [[0, 0, 0]]


@pytest.mark.covering
@pytest.mark.parametrize("build", MODELS)
def test_evaluate_takes_every_baseline(logs, build) -> None:
    train, samples = logs
    result = evaluate(build(train), samples, ks=(3,), batch_size=7)
    assert result.samples == len(samples) and 0 <= result.metrics["mrr@3"] <= result.metrics["hit@3"] <= 1


@pytest.mark.parametrize("build", [SessionPopularity, ItemKNN, SessionKNN, Stan])
def test_clicks_numbered_by_another_log_are_refused(build) -> None:
    with pytest.raises(InputError, match=r"outside the training log's 0 … 1.*aligned_to"):
        build(log_of([[0, 1]])).scores(sessions_without_target([np.array([2])]))


@pytest.mark.parametrize("build", [SessionKNN, Stan])
@pytest.mark.parametrize("limits", [{"neighbours": 0}, {"recent": -1}])
def test_limits_below_one_are_refused(build, limits) -> None:
    with pytest.raises(InputError, match="must be a whole number, 1 or more"):
        build(log_of([[0, 1]]), **limits)


@pytest.mark.parametrize("alpha", [-0.1, 1.1, math.nan])
def test_an_alpha_outside_its_range_is_refused(alpha) -> None:
    with pytest.raises(InputError, match="alpha must be between 0 and 1"):
        ItemKNN(log_of([[0, 1]]), alpha=alpha)


FIGURES = [(SessionPopularity, 0.2109, 0.1397), (ItemKNN, 0.5266, 0.1898), (SessionKNN, 0.5164, 0.1830)]
FIGURES += [(Stan, 0.5221, 0.1855)]


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("GRAPHMETA_DATA"), reason="GRAPHMETA_DATA names no folder of logs")
@pytest.mark.parametrize(("build", "hit", "mrr"), FIGURES)
def test_figures_on_diginetica(build, hit, mrr) -> None:
    """P@20 and MRR@20 of all 60,858 test prefixes, within 3 standard errors of a sample of 5,000."""
    train, test = datasets.diginetica(categories=False)
    chosen = np.random.default_rng(0).choice(60_858, size=5_000, replace=False)
    metrics = evaluate(build(train), prefixes(test).take(np.sort(chosen))).metrics
    assert metrics["hit@20"] == pytest.approx(hit, abs=0.021)
    assert metrics["mrr@20"] == pytest.approx(mrr, abs=0.014)
