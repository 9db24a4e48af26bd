"""Ranks against sorting, metrics against those of PyTorch Geometric."""

import math

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.metrics import LinkPredHitRatio, LinkPredMRR, LinkPredNDCG, LinkPredRecall

from graphmeta.evaluation.metrics import hit, mrr, ndcg, ranks, summary

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
    assert ranks(torch.tensor(rows), torch.tensor(target)).tolist() == expected


@given(st.integers(1, 200), st.floats(-10, 10))
def test_constant_scores_give_chance_level(candidates: int, score: float) -> None:
    scores = torch.full((candidates, candidates), score)
    assert (ranks(scores, torch.arange(candidates)) == (candidates + 1) / 2).all()


def test_a_model_with_equal_scores_has_no_hits() -> None:
    found = summary(ranks(torch.zeros(10, 100), torch.arange(10)), (20,))
    assert found == {"hit@20": 0.0, "mrr@20": 0.0, "ndcg@20": 0.0}


NAN = math.nan


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
    assert found.tolist() == [rank, len(scores) - target]


@given(ROWS, st.data())
def test_a_score_lost_to_nan_never_lowers_the_rank(rows: list, data: st.DataObject) -> None:
    scores, target = torch.tensor(rows), torch.tensor([data.draw(st.integers(0, len(rows[0]) - 1)) for _ in rows])
    broken = scores.clone()
    broken[data.draw(st.integers(0, len(rows) - 1)), data.draw(st.integers(0, len(rows[0]) - 1))] = math.nan
    assert (ranks(broken, target) >= ranks(scores, target)).all()


@given(st.lists(st.integers(2, 400).map(lambda r: r / 2), min_size=1, max_size=20), st.integers(1, 30))
def test_hit_is_never_below_ndcg_and_ndcg_never_below_mrr(found: list[float], k: int) -> None:
    rank = torch.tensor(found, dtype=torch.float64)
    assert (hit(rank, k) >= ndcg(rank, k)).all() and (ndcg(rank, k) >= mrr(rank, k)).all()
    assert (mrr(rank, k) >= 0).all() and (hit(rank, k) <= 1).all()
    assert (hit(rank, k + 1) >= hit(rank, k)).all()


@given(ROWS, st.data())
def test_ranks_do_not_depend_on_scale_order_or_the_other_samples(rows: list, data: st.DataObject) -> None:
    scores, target = torch.tensor(rows), torch.tensor([data.draw(st.integers(0, len(rows[0]) - 1)) for _ in rows])
    order = torch.tensor(data.draw(st.permutations(range(len(rows[0])))))
    found = ranks(scores, target)
    assert torch.equal(found, ranks(scores[:, order], order.argsort()[target]))
    assert torch.equal(found, ranks(scores.double() * 4, target))
    assert found.tolist() == [float(ranks(scores[s : s + 1], target[s : s + 1])) for s in range(len(rows))]


def test_the_summary_names_every_metric_and_is_empty_without_samples() -> None:
    rank = torch.tensor([1.0, 2.0, 6.0, 100.0], dtype=torch.float64)
    assert summary(rank, (1, 5)) == {
        "hit@1": 0.25, "mrr@1": 0.25, "ndcg@1": 0.25,
        "hit@5": 0.5, "mrr@5": 0.375, "ndcg@5": pytest.approx((1 + 1 / math.log2(3)) / 4),
    }  # fmt: skip
    assert summary(rank[:0], (1, 5)) == {}
