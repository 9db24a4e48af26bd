"""The baselines against slow loops that spell out each formula, and the promises every scorer makes."""

import math
import os
from collections import Counter
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import torch

from graphmeta import datasets, neighbours
from graphmeta.batch import Samples, open_sessions, prefixes
from graphmeta.errors import InputError
from graphmeta.evaluate import evaluate
from graphmeta.events import EventLog
from graphmeta.neighbours import ItemKNN, Popularity, SessionKNN, SessionPopularity

Sessions = list[list[int]]
MODELS = [Popularity, SessionPopularity, ItemKNN, SessionKNN]


def log_of(sessions: Sessions) -> EventLog:
    rows = [(number, item) for number, items in enumerate(sessions) for item in items]
    return EventLog.read(pd.DataFrame(rows, columns=["session", "item"]), session="session", item="item")


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


def slow_item_knn(log: EventLog, clicks: list[int], neighbours: int) -> list[float]:
    sets = [set(session) for session in numbered(log)]
    number = [sum(i in s for s in sets) for i in range(log.num_items)]
    scores = [0.0] * log.num_items
    for j in set(clicks):
        step = list(reversed(clicks)).index(j) + 1
        together = [sum(i in s and j in s for s in sets) for i in range(log.num_items)]
        cosine = {i: n / math.sqrt(number[i] * number[j]) for i, n in enumerate(together) if n > 0}
        for i in sorted(cosine, key=lambda i: (-cosine[i], i))[:neighbours]:
            scores[i] += cosine[i] / step
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


def assert_scores(model, samples: Samples, slow: Callable[[list[int]], list[float]]) -> None:
    expected = torch.tensor([slow(clicks) for clicks in known(samples)], dtype=torch.float32)
    torch.testing.assert_close(model.scores(samples), expected, rtol=1e-6, atol=1e-6)


@pytest.fixture(params=range(3))
def logs(request) -> tuple[EventLog, Samples]:
    train = log_of(random_sessions(request.param))
    test = log_of(random_sessions(100 + request.param, sessions=15, items=20)).aligned_to(train.items)
    return train, prefixes(test)


def test_popularity_counts_events() -> None:
    log = log_of([[1, 2, 2], [2, 3]])
    assert Popularity(log).scores(open_sessions([np.array([0]), np.array([1])])).tolist() == [[1, 3, 1]] * 2


def test_session_popularity_is_its_formula(logs) -> None:
    train, samples = logs
    assert_scores(SessionPopularity(train), samples, lambda clicks: slow_session_popularity(train, clicks))


def test_session_popularity_ranks_counts_then_recency_then_training_events() -> None:
    log = log_of([[0, 1, 2, 3, 4], [3, 4], [4]])
    scores = SessionPopularity(log).scores(open_sessions([np.array([0, 2, 0, 1])]))
    assert scores[0].argsort(descending=True).tolist() == [0, 1, 2, 4, 3]


@pytest.mark.parametrize("neighbours", [1, 3, 100])
def test_item_knn_is_its_formula(logs, neighbours) -> None:
    train, samples = logs
    model = ItemKNN(train, neighbours=neighbours)
    assert_scores(model, samples, lambda clicks: slow_item_knn(train, clicks, neighbours))


def test_item_knn_by_hand() -> None:
    scores = ItemKNN(log_of([[0, 1], [1, 2], [1]])).scores(open_sessions([np.array([1, 0])]))
    third, half = 1 / math.sqrt(3), 0.5
    assert scores[0].tolist() == pytest.approx([1 + third * half, third + 1 * half, third * half])


def test_item_knn_fitted_in_blocks_is_the_same(logs, monkeypatch) -> None:
    train, samples = logs
    whole = ItemKNN(train, neighbours=4).scores(samples)
    monkeypatch.setattr(neighbours, "_PAIRS_AT_ONCE", 20)
    assert torch.equal(ItemKNN(train, neighbours=4).scores(samples), whole)


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
    assert model.scores(open_sessions([np.array([1, 2])])).tolist() == [pytest.approx(expected)]


def test_of_equally_similar_sessions_the_later_votes() -> None:
    model = SessionKNN(log_of([[0, 1], [0, 2], [3, 4]]), neighbours=1)
    assert model.scores(open_sessions([np.array([0])]))[0].nonzero().flatten().tolist() == [0, 2]


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


@pytest.mark.parametrize("build", [ItemKNN, SessionKNN])
def test_items_without_evidence_score_zero(build) -> None:
    whole = log_of([[0, 1], [2, 3], [4, 5]])
    train = whole.before(4).aligned_to(whole.items)
    scores = build(train).scores(open_sessions([np.array([0]), np.array([4]), np.array([], dtype=np.int64)]))
    assert (scores > 0).tolist() == [[True, True, False, False, False, False], [False] * 6, [False] * 6]


@pytest.mark.parametrize("build", MODELS)
def test_a_log_without_events_has_no_opinion(build) -> None:
    log = log_of([[0, 1], [1, 2]])
    empty = log.before(0).aligned_to(log.items)
    assert build(empty).scores(open_sessions([np.array([], dtype=np.int64)])).tolist() == [[0, 0, 0]]


@pytest.mark.parametrize("build", MODELS)
def test_evaluate_takes_every_baseline(logs, build) -> None:
    train, samples = logs
    result = evaluate(build(train), samples, ks=(3,), batch_size=7)
    assert result.samples == len(samples) and 0 <= result.metrics["mrr@3"] <= result.metrics["hit@3"] <= 1


@pytest.mark.parametrize("build", [SessionPopularity, ItemKNN, SessionKNN])
def test_clicks_numbered_by_another_log_are_refused(build) -> None:
    with pytest.raises(InputError, match=r"outside 0 … 1.*aligned_to"):
        build(log_of([[0, 1]])).scores(open_sessions([np.array([2])]))


@pytest.mark.parametrize("limits", [{"neighbours": 0}, {"recent": -1}])
def test_limits_below_one_are_refused(limits) -> None:
    with pytest.raises(InputError, match="must be at least 1"):
        SessionKNN(log_of([[0, 1]]), **limits)


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("GRAPHMETA_DATA"), reason="GRAPHMETA_DATA names no folder of logs")
@pytest.mark.parametrize(
    ("build", "hit", "mrr"),
    [(SessionPopularity, 0.2109, 0.1397), (ItemKNN, 0.5157, 0.1869), (SessionKNN, 0.5164, 0.1830)],
)
def test_figures_on_diginetica(build, hit, mrr) -> None:
    """P@20 and MRR@20 of all 60,858 test prefixes, within 3 standard errors of a sample of 5,000."""
    train, test = datasets.diginetica(categories=False)
    chosen = np.random.default_rng(0).choice(60_858, size=5_000, replace=False)
    metrics = evaluate(build(train), prefixes(test).take(np.sort(chosen))).metrics
    assert metrics["hit@20"] == pytest.approx(hit, abs=0.021)
    assert metrics["mrr@20"] == pytest.approx(mrr, abs=0.014)
