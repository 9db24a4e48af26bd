"""Ranks against sorting, metrics against those of PyTorch Geometric, ties against all orders."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.metrics import LinkPredHitRatio, LinkPredMRR, LinkPredNDCG, LinkPredRecall

from graphmeta.errors import DivergedError, InputError
from graphmeta.evaluation.metrics import Ranks, hit, mrr, ndcg, of_lists, ranks, summary, usable
from graphmeta.evaluation.precision import average_precision

SCORES = st.floats(-2, 2, width=32) | st.sampled_from([0.0, 1.0, math.inf, -math.inf])
ROWS = st.integers(1, 8).flatmap(lambda c: st.lists(st.lists(SCORES, min_size=c, max_size=c), min_size=1, max_size=6))


@pytest.mark.parametrize("k", [1, 5, 20])
def test_metrics_are_those_of_pyg(k: int) -> None:
    generator = torch.Generator().manual_seed(k)
    scores = torch.randn(300, 50, generator=generator)
    target = torch.randint(50, (300,), generator=generator)
    best, relevant = scores.topk(k).indices, torch.stack([torch.arange(300), target])
    found = summary(ranks(scores, target), (k,))
    for name, metric in {
        "hit": LinkPredHitRatio(k), "mrr": LinkPredMRR(k), "ndcg": LinkPredNDCG(k)
    }.items():  # fmt: skip
        metric.update(best, relevant)
        assert found[f"{name}@{k}"] == pytest.approx(float(metric.compute()), abs=1e-6)
    recall = LinkPredRecall(k)
    recall.update(best, relevant)
    assert found[f"hit@{k}"] == pytest.approx(float(recall.compute()), abs=1e-6)


@given(ROWS, st.data())
def test_ranks_are_those_of_sorting_with_ties_in_the_middle(rows: list, data: st.DataObject) -> None:
    target = data.draw(st.lists(st.integers(0, len(rows[0]) - 1), min_size=len(rows), max_size=len(rows)))
    expected = [pd.Series(row).rank(ascending=False, method="average")[t] for row, t in zip(rows, target, strict=True)]
    assert ranks(torch.tensor(rows), torch.tensor(target)).mean.tolist() == expected


@given(st.integers(2, 60), st.floats(-10, 10), st.data())
def test_constant_scores_give_the_values_of_a_random_order(candidates: int, score: float, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, candidates))
    rank = ranks(torch.full((3, candidates), score), torch.tensor([0, candidates // 2, candidates - 1]))
    assert rank.mean.tolist() == [(candidates + 1) / 2] * 3
    places = range(1, k + 1)
    expected = {"hit": k, "mrr": sum(1 / r for r in places), "ndcg": sum(1 / math.log2(1 + r) for r in places)}
    assert summary(rank, (k,)) == pytest.approx({f"{n}@{k}": v / candidates for n, v in expected.items()}, rel=1e-12)


TIED = st.lists(st.integers(0, 2), min_size=2, max_size=6)


def orders(scores: list[int]) -> list[list[int]]:
    """Every order of the candidates by descending score, one for each order of the ties."""
    return [list(o) for o in itertools.permutations(range(len(scores))) if all(
        scores[a] >= scores[b] for a, b in itertools.pairwise(o))]  # fmt: skip


@given(TIED, st.data())
def test_metrics_of_ties_are_means_over_all_orders(scores: list[int], data: st.DataObject) -> None:
    target, k = data.draw(st.integers(0, len(scores) - 1)), data.draw(st.integers(1, len(scores)))
    rank = ranks(torch.tensor([scores], dtype=torch.float32), torch.tensor([target]))
    places = np.array([order.index(target) + 1 for order in orders(scores)])
    inside = places <= k
    assert float(rank.mean) == pytest.approx(places.mean())
    assert float(hit(rank, k)) == pytest.approx(inside.mean(), abs=1e-12)
    assert float(mrr(rank, k)) == pytest.approx((inside / places).mean(), abs=1e-12)
    assert float(ndcg(rank, k)) == pytest.approx((inside / np.log2(1 + places)).mean(), abs=1e-12)


@given(st.lists(TIED, min_size=1, max_size=3), st.data())
def test_metrics_of_several_targets_with_ties_are_means_over_all_orders(
    tasks: list[list[int]], data: st.DataObject
) -> None:
    k = data.draw(st.integers(1, 4))
    wanted = [data.draw(st.sets(st.integers(0, len(scores) - 1), min_size=1)) for scores in tasks]
    rows = [(t, target) for t, chosen in enumerate(wanted) for target in chosen]
    rows = data.draw(st.permutations(rows))
    found = Ranks.empty(len(rows))
    for at, (task, target) in enumerate(rows):
        scores = torch.tensor([tasks[task]], dtype=torch.float64)
        found[at : at + 1] = ranks(scores, torch.tensor([target]))
    owner = torch.tensor([task for task, _ in rows])
    measured = of_lists(found, owner, k) | {"map": average_precision(found, owner, k)}
    for task, (scores, chosen) in enumerate(zip(tasks, wanted, strict=True)):
        best, every = min(k, len(chosen)), []
        ideal = sum(1 / math.log2(1 + r) for r in range(1, best + 1))
        for order in orders(scores):
            top = [place for place, item in enumerate(order, 1) if item in chosen and place <= k]
            gain = sum(1 / math.log2(1 + r) for r in top) / ideal
            precision = sum(number / place for number, place in enumerate(top, 1)) / best
            every.append((len(top) / len(chosen), gain, len(top) / best, float(bool(top)), precision))
        own = [float(measured[name][task]) for name in ("hit", "ndcg", "hit_of_best", "hit_any", "map")]
        assert own == pytest.approx(np.mean(every, 0).tolist(), abs=1e-12)


def test_ranks_without_ties_are_whole_numbers_from_one() -> None:
    assert of_lists(torch.tensor([1.0, 2.0]), torch.tensor([0, 0]), 2)["hit"].tolist() == [1.0]
    assert hit(torch.tensor([5, 6]), 5).tolist() == [1.0, 0.0] and mrr(Ranks.of([4]), 5).tolist() == [0.25]
    for strange in ([2.5], [0.0], [math.nan]):
        with pytest.raises(InputError, match="whole numbers from 1"):
            hit(torch.tensor(strange), 5)


NAN = math.nan


@pytest.mark.parametrize("score", [NAN, math.inf])
def test_scores_that_diverged_are_refused_and_minus_infinity_excludes(score: float) -> None:
    assert (
        usable(torch.tensor([[1.0, -math.inf]])).tolist() == [[1.0, -math.inf]] and len(usable(torch.zeros(0, 3))) == 0
    )
    with pytest.raises(DivergedError, match="not finite"):
        usable(torch.tensor([[1.0, 2.0], [score, 0.0]]))


@pytest.mark.parametrize(
    ("scores", "target", "rank"),
    [
        ([NAN, 1.0, 2.0], 0, 3.0),
        ([NAN, NAN, NAN], 1, 3.0),
        ([NAN, 1.0, 2.0], 2, 2.0),
        ([NAN, 1.0, 2.0], 1, 3.0),
        ([NAN, NAN, 2.0, 2.0], 2, 3.5),
        ([NAN, math.inf], 1, 2.0),
        ([NAN, -math.inf, -math.inf], 1, 2.5),
        ([NAN], 0, 1.0),
    ],
)
def test_not_a_number_never_helps(scores: list[float], target: int, rank: float) -> None:
    """As the target it is last, as a rival it is first; rows without it are as they were."""
    found = ranks(torch.tensor([scores, list(range(len(scores)))], dtype=torch.float32), torch.tensor([target] * 2))
    assert found.mean.tolist() == [rank, len(scores) - target]


@given(ROWS, st.data())
def test_a_score_lost_to_nan_never_lowers_the_rank(rows: list, data: st.DataObject) -> None:
    scores, target = torch.tensor(rows), torch.tensor([data.draw(st.integers(0, len(rows[0]) - 1)) for _ in rows])
    broken = scores.clone()
    broken[data.draw(st.integers(0, len(rows) - 1)), data.draw(st.integers(0, len(rows[0]) - 1))] = math.nan
    assert (ranks(broken, target).mean >= ranks(scores, target).mean).all()


@given(st.lists(st.tuples(st.integers(1, 200), st.integers(1, 40)), min_size=1, max_size=20), st.integers(1, 30))
def test_hit_is_never_below_ndcg_and_ndcg_never_below_mrr(found: list[tuple[int, int]], k: int) -> None:
    rank = Ranks(*torch.tensor(found, dtype=torch.float64).T)
    assert (hit(rank, k) >= ndcg(rank, k) - 1e-12).all() and (ndcg(rank, k) >= mrr(rank, k) - 1e-12).all()
    assert (mrr(rank, k) >= 0).all() and (hit(rank, k) <= 1).all()
    assert (hit(rank, k + 1) >= hit(rank, k)).all()


@given(ROWS, st.data())
def test_ranks_do_not_depend_on_scale_order_or_the_other_samples(rows: list, data: st.DataObject) -> None:
    scores, target = torch.tensor(rows), torch.tensor([data.draw(st.integers(0, len(rows[0]) - 1)) for _ in rows])
    order = torch.tensor(data.draw(st.permutations(range(len(rows[0])))))
    found = ranks(scores, target)
    others = (ranks(scores[:, order], order.argsort()[target]), ranks(scores.double() * 4, target))
    alone = [ranks(scores[s : s + 1], target[s : s + 1]) for s in range(len(rows))]
    for one in (*others, Ranks(torch.cat([r.best for r in alone]), torch.cat([r.tied for r in alone]))):
        assert torch.equal(found.best, one.best) and torch.equal(found.tied, one.tied)


def test_the_summary_names_every_metric_and_is_empty_without_samples() -> None:
    rank = torch.tensor([1.0, 2.0, 6.0, 100.0], dtype=torch.float64)
    assert summary(rank, (1, 5)) == {
        "hit@1": 0.25, "mrr@1": 0.25, "ndcg@1": 0.25,
        "hit@5": 0.5, "mrr@5": 0.375, "ndcg@5": pytest.approx((1 + 1 / math.log2(3)) / 4),
    }  # fmt: skip
    assert summary(rank[:0], (1, 5)) == {}
