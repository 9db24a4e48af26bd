"""Approximate retrieval: what it finds, its warning, and when it is chosen."""

import warnings

import numpy as np
import pytest
import torch

import graphmeta as gm
from graphmeta.inference import retrieval
from graphmeta.published.catalogue import CATALOGUE
from graphmeta.testing import fake_log

pytest.importorskip("faiss")

LOG = fake_log(sessions=80, items=60)


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> gm.System:
    """A system with more items than are ranked exactly."""
    monkeypatch.setattr(retrieval, "EXACT_UP_TO", 50)
    torch.manual_seed(0)
    return gm.build("sr_gnn", LOG.items, width=8).eval()


def sessions(log: gm.EventLog = LOG) -> list[list]:
    return [log.items.ids[log.item[a:b]].tolist() for a, b in zip(log.ptr[:-1], log.ptr[1:], strict=True)][:20]


def exact(system: gm.System, k: int, **options) -> list:
    system.retrieval = "exact"
    try:
        return system.recommend_many(sessions(), k, **options)
    finally:
        system.retrieval = "auto"


@pytest.mark.filterwarnings("ignore:approximate retrieval", "ignore:this system reads dwell times")
@pytest.mark.parametrize("exclude_seen", [False, True])
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name == "niser" else pytest.mark.slow)
        for name, one in CATALOGUE.items()
        if not (one.predicts_ratings or one.needs_users)
    ],
)
def test_with_all_lists_searched_it_is_exact(system, monkeypatch, name: str, exclude_seen: bool) -> None:
    monkeypatch.setattr(retrieval, "RECALL", 1.0)
    torch.manual_seed(1)
    try:
        other = gm.build(name, LOG.items)
    except gm.InputError as error:
        pytest.skip(str(error))
    other.fit_statistics(LOG)
    other.eval()
    if not retrieval.can_search(other):
        pytest.skip("its scores are no products")
    other.retrieval = "approximate"
    found = other.recommend_many(sessions(), 7, exclude_seen=exclude_seen)
    for one, wanted in zip(found, exact(other, 7, exclude_seen=exclude_seen), strict=True):
        np.testing.assert_allclose([a.score for a in one], [a.score for a in wanted], rtol=1e-5, atol=1e-5)
        score = {a.item: a.score for a in wanted}
        least = wanted[-1].score + 1e-4  # of two items whose scores differ by rounding, either may be in the list
        assert {a.item for a in one if a.score > least} <= score.keys()
        assert {a.why for a in one} == {"approximate"} and {a.why for a in wanted} == {"model"}


def test_recall_is_the_share_of_the_exact_best_that_is_found() -> None:
    random = torch.Generator().manual_seed(0)
    vectors, queries = torch.randn(2000, 16, generator=random), torch.randn(10, 16, generator=random)
    index = retrieval.built(vectors, queries, k=20, recall=0.5)
    scores = queries @ vectors.T
    wanted = [set(row.argsort(descending=True)[:20].tolist()) for row in scores]
    items, found = index.search(queries, 20)
    shares = [len(one & set(row.tolist())) / 20 for one, row in zip(wanted, items, strict=True)]
    assert index.recall == pytest.approx(np.mean(shares)) and 0.5 <= index.recall < 1
    assert index.probes < index.lists
    torch.testing.assert_close(found, scores.gather(1, items))
    assert (found.diff(dim=1) <= 0).all()
    more = retrieval.built(vectors, queries, k=20, recall=0.9)
    assert more.recall >= 0.9 and more.probes > index.probes


def test_exact_in_blocks_is_the_whole_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval, "_ROWS", 7)
    random = torch.Generator().manual_seed(0)
    vectors, queries = torch.randint(0, 3, (50, 2), generator=random).float(), torch.ones(4, 2)
    items, scores = retrieval.exact_best(vectors, queries, 10)
    wanted = (queries @ vectors.T).sort(dim=1, descending=True, stable=True)
    assert torch.equal(items, wanted.indices[:, :10]) and torch.equal(scores, wanted.values[:, :10])


@pytest.mark.filterwarnings("ignore:exact retrieval")
def test_an_index_that_is_no_faster_is_not_searched(system, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval, "RECALL", 1.0)
    monkeypatch.setattr(retrieval, "EXACT_UP_TO", 0)
    found = system.recommend_many(sessions(), 7, exclude_seen=True)
    for one, wanted in zip(found, exact(system, 7, exclude_seen=True), strict=True):
        np.testing.assert_allclose([a.score for a in one], [a.score for a in wanted], rtol=1e-5, atol=1e-5)
        assert {a.why for a in one} == {"model"}
    with torch.no_grad():
        next(system.parameters()).mul_(1.5)
    with pytest.warns(UserWarning, match="exact retrieval among 60 items: an index is no faster"):
        system.recommend_many(sessions())


def test_one_warning_that_lists_are_approximate_and_one_after_training(system) -> None:
    system.retrieval = "approximate"
    with pytest.warns(
        UserWarning, match=r"approximate retrieval among 60 items: recall@60 \d\.\d+ against .* 20 sessions"
    ):
        system.recommend_many(sessions())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        system.recommend_many(sessions())
    with torch.no_grad():
        next(system.parameters()).mul_(1.5)
    with pytest.warns(UserWarning, match="approximate retrieval"):
        system.recommend_many(sessions())


def test_a_small_catalogue_filters_and_other_scores_are_exact(system, monkeypatch: pytest.MonkeyPatch) -> None:
    among = LOG.items.ids[:30]
    assert {one.why for one in system.recommend(sessions()[0], among=among)} == {"model"}
    for name in ("maml", "item_knn"):
        other = gm.build(name, LOG.items, **({"width": 4} if name == "maml" else {}))
        other.fit_statistics(LOG)
        assert not retrieval.chooses_index(other, filtered=False)
        other.retrieval = "approximate"
        with pytest.raises(gm.InputError, match="not products"):
            other.recommend(sessions()[0])
    monkeypatch.setattr(retrieval, "EXACT_UP_TO", 60)
    assert {one.why for one in system.recommend(sessions()[0])} == {"model"}
    system.retrieval = "fast"
    with pytest.raises(gm.InputError, match="'auto', 'exact' or 'approximate'"):
        system.recommend(sessions()[0])
