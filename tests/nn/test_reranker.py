"""A re-ranker: what it reads, counted in Python; where it acts; losses, saves and gradients."""

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from graphmeta.baselines import ItemKNN
from graphmeta.data.events import EventLog
from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError
from graphmeta.nn.encoders.gated_graph import GatedSessionGraph
from graphmeta.nn.features.tables import ItemFeatures
from graphmeta.nn.heads.dot import Cosine, Dot
from graphmeta.nn.losses.losses import SoftmaxLoss
from graphmeta.nn.readout import Last
from graphmeta.nn.score_terms.reranker import Reranker
from graphmeta.published.catalogue import build
from graphmeta.published.load import load
from graphmeta.recommender import Recommender
from graphmeta.sampling.samples import Samples, prefixes
from graphmeta.sampling.session_batch import session_batch
from graphmeta.training.loop import train
from graphmeta.training.optimizers import Adam
from graphmeta.training.settings import TrainOptions

pytestmark = pytest.mark.usefixtures("float64")
ITEMS, WIDTH = 15, 4


def made() -> EventLog:
    """Forty sessions at random, with items that come again; one item is on sale and never clicked."""
    random = np.random.default_rng(1)
    session = np.repeat(np.arange(40), random.integers(2, 8, 40))
    table = pd.DataFrame({"item": [f"i{n}" for n in range(ITEMS)]})
    table["category"] = [None if n == 3 else f"c{n % 4}" for n in range(ITEMS)]
    clicks = random.integers(0, ITEMS - 1, len(session))
    frame = pd.DataFrame({"s": session, "i": [f"i{n}" for n in clicks], "t": np.arange(len(session))})
    known = EntityTable.read(table, key="item")
    return EventLog.read(frame, session="s", item="i", time="t", items=known).aligned_to(known)


LOG = made()


def queries() -> Samples:
    return prefixes(LOG).take(np.arange(0, 60, 3))


def fitted(**options: object) -> Reranker:
    torch.manual_seed(5)
    look = Reranker(ITEMS, list(LOG.items.attributes.values()), neighbours=5, hidden=3, **options)
    look.fit_statistics(LOG)
    for weight in look.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return look


def by_hand(clicks: list[int], products: list[float]) -> dict[int, list[float]]:
    """What is read of each item that is looked at, from the log's sessions as lists."""
    sessions = [LOG.item[LOG.session == s].tolist() for s in range(LOG.num_sessions)]
    knn, follows = ItemKNN(LOG, neighbours=5), Counter(p for s in sessions for p in zip(s, s[1:], strict=False))
    similar = {
        j: dict(zip(knn.similar.value[a:b].tolist(), knn.similarity[a:b].tolist(), strict=True))
        for j, (a, b) in enumerate(zip(knn.similar.ptr, knn.similar.ptr[1:], strict=False))
    }
    last_at = {j: len(clicks) - max(n for n, c in enumerate(clicks) if c == j) for j in clicks}  # 1: the last click
    near = {i for j in clicks for i in similar[j]} | set(clicks)
    total = {i: sum(similar[j].get(i, 0.0) / min(at, 8) for j, at in last_at.items()) for i in near}
    share = {i: total[i] / max(sum(total.values()), 1e-9) for i in near}
    ago = {at: j for j, at in last_at.items()}
    kind = LOG.items.attributes["category"].codes.tolist()

    def next_share(one: int | None, other: int | None, known: int) -> float:
        if one is None or other is None or (other if known == one else one) not in similar[known]:
            return 0.0
        return follows[one, other] / max(sum(n for (a, _), n in follows.items() if a == one), 1)

    def of(i: int) -> list[float]:
        has = [s for s in sessions if i in s]
        n, recent = sum(s.count(i) for s in sessions), sum(s.count(i) for s in sessions[-4:])
        first, second = (next_share(ago.get(at), i, ago.get(at, -1)) for at in (1, 2))
        back = next_share(i, ago[1], ago[1])
        distinct, of_last = len(set(clicks)), sum(ago[1] in s for s in sessions)
        said, top = products[i] / 4, max(products[j] for j in near) / 4
        same = [float(kind[j] == kind[i]) for j in set(clicks)] if kind[i] else [0.0]
        return [
            *(said, said - top, top),
            *(10 * share[i], math.log(share[i] + 1e-4) / 4, 10 * max(share.values())),
            *(5 * first, math.log(first + 1e-3) / 4, 5 * second, 5 * back, math.log(back + 1e-3) / 4),
            *(similar[ago[at]].get(i, 0.0) if at in ago else 0.0 for at in (1, 2, 3)),
            *(float(i in clicks), min(clicks.count(i), 3), math.log(min(last_at.get(i, 1), 8))),
            *(math.log1p(n) / 8, math.log1p(recent) / 6),
            (sum(s.count(i) > 1 for s in has) + 0.5) / (len(has) + 5),
            math.log1p(len(has)) / 6,
            *(math.log(len(clicks)), math.log(distinct), (len(clicks) - distinct) / len(clicks)),
            math.log1p(of_last) / 6,
            *(sum(same) / len(set(clicks)), float(kind[i] > 0 and kind[i] == kind[ago[1]])),
            float(i == ago[1]),
        ]

    return {i: of(i) for i in near}


def test_what_is_read_by_hand() -> None:
    look, samples = fitted(), queries()
    scores = torch.randn(len(samples), ITEMS)
    row, column, value = look(session_batch(samples, num_items=ITEMS), lambda r, c: scores[r, c])
    for s in range(len(samples)):
        read = by_hand(samples.item[samples.begin[s] : samples.end[s]].tolist(), scores[s].tolist())
        assert sorted(column[row == s].tolist()) == sorted(read)
        x = torch.tensor([read[i] for i in column[row == s].tolist()])
        torch.testing.assert_close(value[row == s], (look.direct(x) + look.net(x)).squeeze(1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", [Dot, Cosine])
def test_scores_and_losses(make) -> None:  # noqa: ANN001
    """It reads the products, not what others add; the fused loss and its gradient are those of the scores."""
    torch.manual_seed(0)
    look = fitted()
    model = Recommender(ItemFeatures(ITEMS, WIDTH), GatedSessionGraph(WIDTH), make(Last(), score_terms={"look": look}))
    without = Recommender(model.features, model.encoder, make(Last()))
    batch = session_batch(queries(), num_items=ITEMS)
    plain = without(batch)
    row, column, value = look(batch, lambda r, c: plain[r, c])
    torch.testing.assert_close(model(batch), plain.index_put((row, column), value, accumulate=True))
    fused, dense = model(batch, SoftmaxLoss()), F.cross_entropy(model(batch), batch["sample"].target, reduction="none")
    torch.testing.assert_close(fused, dense)
    one, other = (torch.autograd.grad(losses.square().sum(), list(model.parameters())) for losses in (fused, dense))
    torch.testing.assert_close(one, other)


def test_new_it_changes_nothing_and_a_batch_is_its_samples() -> None:
    torch.manual_seed(0)
    plain = build("sr_gnn", LOG.items, width=WIDTH)
    system = build("sr_gnn", LOG.items, width=WIDTH, score_terms=["reranker"])
    system.load_matching(plain)
    system.fit_statistics(LOG)
    torch.testing.assert_close(system.scores(queries()), plain.scores(queries()))
    torch.nn.init.normal_(system.recommender.get_submodule("head.score_terms.reranker").direct.weight)
    each = torch.cat([system.scores(queries().take(np.array([n]))) for n in range(len(queries()))])
    torch.testing.assert_close(system.scores(queries()), each)
    assert not torch.allclose(each, plain.scores(queries()))


def test_an_item_that_no_session_had_is_no_error() -> None:
    new = Samples(np.array([ITEMS - 1, 0]), np.array([0, 1]), np.array([1, 2]), np.array([1, 1]), np.array([0, 1]))
    scores = torch.randn(2, ITEMS)
    row, column, value = fitted()(session_batch(new, num_items=ITEMS), lambda r, c: scores[r, c])
    assert column[row == 0].tolist() == [ITEMS - 1]
    assert bool(value.isfinite().all())


def test_a_batch_without_clicks() -> None:
    system = build("niser", LOG.items, width=WIDTH, score_terms=["reranker"])
    system.fit_statistics(LOG)
    torch.nn.init.ones_(system.recommender.get_submodule("head.score_terms.reranker").direct.weight)
    whole = system.scores(queries())
    empty = Samples(np.array([0]), np.array([0, 0]), np.array([0, 1]), np.array([1, 1]), np.array([0, 1]))
    assert bool(system.scores(empty.take(np.array([0]))).isfinite().all())
    assert bool(system.scores(empty).isfinite().all())
    assert whole.shape == (len(queries()), ITEMS)


def test_trained_saved_and_loaded_it_gives_equal_scores(tmp_path: Path) -> None:
    early = np.arange(LOG.num_sessions) < 25
    counted, learn = (LOG.of_sessions(part).aligned_to(LOG.items) for part in (early, ~early))
    torch.manual_seed(0)
    system = build("niser", LOG.items, width=WIDTH, score_terms=["reranker", "repeat_bias"])
    list(train(system, learn, epochs=1, optimizer=Adam(lr=0.01), options=TrainOptions(statistics_log=counted)))
    look = system.recommender.get_submodule("head.score_terms.reranker")
    assert all(bool(weight.any()) for name, weight in look.named_parameters())
    system.save(tmp_path / "saved")
    torch.testing.assert_close(load(tmp_path / "saved").scores(queries()), system.scores(queries()))


def test_another_numbering_is_refused() -> None:
    with pytest.raises(InputError, match="aligned_to"):
        Reranker(ITEMS + 1).fit_statistics(LOG)
