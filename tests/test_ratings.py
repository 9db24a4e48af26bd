"""Measures of ratings against loops, and the baselines without training."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphmeta.baselines import GlobalMean, ItemMean, ItemUserMean
from graphmeta.errors import InputError
from graphmeta.evaluation.metrics import list_ndcg
from graphmeta.evaluation.ratings import evaluate_ratings
from graphmeta.published.catalogue import build
from graphmeta.sampling.few_shot import RandomQueries
from graphmeta.sampling.tasks import Tasks
from graphmeta.testing import fake_log, fake_ratings

LOG = fake_ratings()
TASKS = RandomQueries(queries=5)(LOG)


def dcg(gains: list[float], k: int) -> float:
    return sum(gain / math.log2(place + 2) for place, gain in enumerate(gains[:k]))


def ndcg_over_orders(scores: list[int], gains: list[float], k: int) -> float:
    """The mean over all orders that sort the scores, ties in every way."""
    orders = [o for o in itertools.permutations(range(len(scores))) if [scores[i] for i in o] == sorted(scores)[::-1]]
    best = dcg(sorted(gains)[::-1], k)
    return 1.0 if best == 0 else sum(dcg([gains[i] for i in o], k) for o in orders) / len(orders) / best


lists = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4)), min_size=1, max_size=5)


@settings(max_examples=60)
@given(st.lists(lists, min_size=1, max_size=4), st.integers(1, 6))
def test_ndcg_of_lists_is_the_mean_over_the_orders_of_ties(groups: list[list[tuple[int, int]]], k: int) -> None:
    ptr = torch.tensor([0, *np.cumsum([len(group) for group in groups])])
    rows = torch.tensor([pair for group in groups for pair in group])
    found = list_ndcg(rows[:, 0].double(), rows[:, 1].double(), ptr, k)
    expected = [ndcg_over_orders([s for s, _ in g], [float(r) for _, r in g], k) for g in groups]
    assert found.tolist() == pytest.approx(expected)


@given(lists, st.data())
def test_a_score_that_is_not_a_number_never_raises_ndcg(entries: list[tuple[int, int]], data: st.DataObject) -> None:
    """Whatever finite or infinite number stands in its place, also if it ties with others."""
    scores, gains = (torch.tensor(column, dtype=torch.float64) for column in zip(*entries, strict=True))
    at, k = data.draw(st.integers(0, len(entries) - 1)), data.draw(st.integers(1, 6))
    ptr, broken = torch.tensor([0, len(entries)]), scores.clone()
    broken[at] = math.nan
    for number in (-math.inf, -1.0, 0.0, 1.0, 2.0, 3.0, math.inf):
        scores[at] = number
        assert list_ndcg(broken, gains, ptr, k) <= list_ndcg(scores, gains, ptr, k) + 1e-12
    assert list_ndcg(torch.tensor([math.nan, 2.0]), torch.tensor([1.0, 0.0]), torch.tensor([0, 2]), 1).tolist() == [0.0]


@pytest.mark.parametrize("score", [math.inf, -math.inf])
def test_ndcg_of_infinite_scores_that_tie_is_that_of_finite_ones(score: float) -> None:
    gains, ptr = torch.tensor([4.0, 1.0, 0.0]), torch.tensor([0, 3])
    found, expected = (list_ndcg(torch.full((3,), one), gains, ptr, 1) for one in (score, 0.0))
    assert found.tolist() == expected.tolist() == pytest.approx([5 / 12])


class Noisy:
    """Ratings that depend on person and item alone."""

    def scores(self, samples: Tasks) -> torch.Tensor:
        query = samples.query
        return torch.from_numpy(query.value + np.sin(7.0 * query.user + 3.0 * query.target))[:, None]


def test_measures_against_a_loop_over_users() -> None:
    result = evaluate_ratings(Noisy(), TASKS, batch_size=7)
    true, guess = TASKS.query.value, Noisy().scores(TASKS).squeeze(1).numpy()
    assert result.predictions.tolist() == guess.tolist()
    errors, lists = [], {1: [], 3: []}
    for t in range(len(TASKS)):
        own = range(TASKS.query_ptr[t], TASKS.query_ptr[t + 1])
        errors += [guess[i] - true[i] for i in own]
        ranked = [2.0 ** true[i] - 1 for i in sorted(own, key=lambda i: -guess[i])]
        for k in lists:
            lists[k].append(dcg(ranked, k) / dcg(sorted(ranked)[::-1], k))
    assert result.metrics["mae"] == pytest.approx(np.mean(np.abs(errors)))
    assert result.metrics["rmse"] == pytest.approx(np.sqrt(np.mean(np.square(errors))))
    assert [result.metrics[f"ndcg@{k}"] for k in lists] == pytest.approx([np.mean(lists[k]) for k in lists])
    assert (result.tasks, result.samples, result.candidates) == (40, 200, "the task's own query items")


def test_custom_metrics_of_ratings_are_averaged_over_queries() -> None:
    ours = {"mse": lambda found, true: (found - true) ** 2, "liked": lambda found, true: (found >= 4) == (true >= 4)}
    result = evaluate_ratings(Noisy(), TASKS, metrics=ours)
    true = torch.from_numpy(TASKS.query.value)
    assert result.metrics["mse"] == pytest.approx(result.metrics["rmse"] ** 2)
    assert result.metrics["liked"] == pytest.approx(float(((result.predictions >= 4) == (true >= 4)).double().mean()))
    with pytest.raises(InputError, match="'ndcg@3' is already the name of a metric"):
        evaluate_ratings(Noisy(), TASKS, metrics={"ndcg@3": ours["mse"]})
    with pytest.raises(InputError, match="functions of the predictions and ratings"):
        evaluate_ratings(Noisy(), TASKS, metrics=[ours["mse"]])
    with pytest.raises(InputError, match=r"metric 'mean' gives values of shape \(\) for 200 samples"):
        evaluate_ratings(Noisy(), TASKS, metrics={"mean": lambda found, true: (found - true).mean()})


def test_a_metric_of_ratings_cannot_change_the_predictions() -> None:
    result = evaluate_ratings(Noisy(), TASKS, metrics={"zero": lambda found, true: found.zero_() + true.zero_()})
    again = evaluate_ratings(Noisy(), TASKS)
    assert torch.equal(result.predictions, again.predictions) and result.metrics.items() >= again.metrics.items()


def test_the_order_of_tasks_changes_no_measure() -> None:
    moved = TASKS.take(np.random.default_rng(0).permutation(len(TASKS)))
    one, two = (evaluate_ratings(Noisy(), tasks, batch_size=9).metrics for tasks in (TASKS, moved))
    assert one == pytest.approx(two)


def test_what_cannot_be_measured_is_refused() -> None:
    unrated = RandomQueries(queries=2, min_events=3).of(fake_log(), np.ones(fake_log().num_events, dtype=bool))
    with pytest.raises(InputError, match="no true ratings"):
        evaluate_ratings(Noisy(), unrated)
    with pytest.raises(InputError, match="name their column"):
        RandomQueries()(fake_log())

    class Broken(Noisy):
        def scores(self, samples: Tasks) -> torch.Tensor:
            return super().scores(samples) * torch.nan

    with pytest.raises(InputError, match="not finite"):
        evaluate_ratings(Broken(), TASKS)


def test_a_model_that_ranks_predicts_no_ratings() -> None:
    system = build("sr_gnn", LOG.items, width=4)
    with pytest.raises(InputError, match=r"scores of \(200, 30\) for 200 queries are not one rating each"):
        evaluate_ratings(system, TASKS)


@pytest.mark.parametrize("damping", [0.5, 5.0])
def test_means_against_a_loop(damping: float) -> None:
    train = LOG.select(LOG.session < 25).aligned_to(LOG.items, LOG.users)
    mean = float(np.mean(train.value))
    item = np.zeros(LOG.num_items)
    for i in range(LOG.num_items):
        rated = train.value[train.item == i]
        item[i] = sum(rated - mean) / (len(rated) + damping)
    person = []
    for t in range(len(TASKS)):
        own = slice(TASKS.support_ptr[t], TASKS.support_ptr[t + 1])
        rest = TASKS.support.value[own] - mean - item[TASKS.support.target[own]]
        person += [sum(rest) / (len(rest) + damping)] * int(np.diff(TASKS.query_ptr)[t])
    by_item = mean + item[TASKS.query.target]
    assert GlobalMean(train).scores(TASKS).squeeze(1).tolist() == pytest.approx([mean] * len(by_item))
    assert ItemMean(train, damping=damping).scores(TASKS).squeeze(1).tolist() == pytest.approx(by_item.tolist())
    found = ItemUserMean(train, damping=damping).scores(TASKS).squeeze(1)
    assert found.tolist() == pytest.approx((by_item + person).tolist())


def test_constant_ratings_order_nothing() -> None:
    """What a list is worth in a random order: the mean gain over the best."""
    true = TASKS.query.value.reshape(-1, 5)
    gains = 2.0**true - 1
    chance = (gains.mean(1) / gains.max(1)).mean()
    assert evaluate_ratings(GlobalMean(LOG), TASKS).metrics["ndcg@1"] == pytest.approx(chance)
