"""What neighbours say inside a model: by hand, beside ItemKNN, in scores, losses, gradients and every engine."""

import math
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from graphmeta.baselines import ItemKNN
from graphmeta.data.events import EventLog
from graphmeta.errors import InputError
from graphmeta.nn.catalogue_softmax import plus
from graphmeta.nn.encoders.gated_graph import GatedSessionGraph
from graphmeta.nn.features.tables import ItemFeatures
from graphmeta.nn.heads.dot import Cosine, Dot
from graphmeta.nn.losses.losses import SoftmaxLoss
from graphmeta.nn.readout import Last
from graphmeta.nn.score_terms.cooccurrence import Cooccurrence
from graphmeta.nn.score_terms.repeat import RepeatBias
from graphmeta.published.catalogue import build
from graphmeta.published.load import load
from graphmeta.recommender import Recommender
from graphmeta.sampling.samples import Samples, last_clicks
from graphmeta.sampling.session_batch import session_batch
from graphmeta.testing import fake_log
from graphmeta.training.loop import train
from graphmeta.training.optimizers import Adam
from graphmeta.training.run import Checkpoint
from graphmeta.training.settings import TrainOptions

pytestmark = pytest.mark.usefixtures("float64")
WIDTH, LOG = 4, fake_log(sessions=60, items=12, seed=3)


def fitted() -> Cooccurrence:
    torch.manual_seed(5)
    cooccurrence = Cooccurrence(LOG.num_items, neighbours=5)
    cooccurrence.fit_statistics(LOG)
    for table in (cooccurrence.weight, cooccurrence.recency):
        torch.nn.init.normal_(table.weight)
    torch.nn.init.normal_(cooccurrence.floor.weight, mean=-3)
    return cooccurrence


def queries() -> Samples:
    return last_clicks(LOG, min_length=2).take(np.arange(12))


def by_hand(cooccurrence: Cooccurrence, clicks: list[int]) -> dict[int, float]:
    """What is added to the scores of one session, click by click."""
    knn, length = ItemKNN(LOG, neighbours=5), len(clicks)
    band = next(n for n, most in enumerate([1, 2, 4, 8, 16, math.inf]) if length <= most)
    click, weight, floor = (
        table.weight.exp().tolist() for table in (cooccurrence.recency, cooccurrence.weight, cooccurrence.floor)
    )
    given: dict[int, float] = {}
    for item in set(clicks):
        ago = next(n for n in range(1, length + 1) if clicks[-n] == item)
        for at in range(knn.similar.ptr[item], knn.similar.ptr[item + 1]):
            other = int(knn.similar.value[at])
            given[other] = given.get(other, 0.0) + click[min(ago, 8) - 1][0] * knn.similarity[at]
    total = sum(given.values())
    return {i: math.log(weight[band][0]) * math.log1p(p / total / floor[band][0]) for i, p in given.items()}


def test_the_score_term_by_hand() -> None:
    cooccurrence, samples = fitted(), queries()
    row, column, value = cooccurrence(session_batch(samples, num_items=LOG.num_items))
    assert len(value) > 20
    for s in range(len(samples)):
        got = dict(zip(column[row == s].tolist(), value[row == s].tolist(), strict=True))
        expected = by_hand(cooccurrence, samples.item[samples.begin[s] : samples.end[s]].tolist())
        assert got == pytest.approx(expected, rel=1e-5)


def test_untrained_it_ranks_as_item_knn_does() -> None:
    """Beside scores of zero, with weight 1."""
    cooccurrence, samples = Cooccurrence(LOG.num_items, neighbours=5), queries()
    cooccurrence.fit_statistics(LOG)
    batch = session_batch(samples, num_items=LOG.num_items)
    assert not cooccurrence(batch)[2].any()
    torch.nn.init.ones_(cooccurrence.weight.weight)
    short = samples.lengths <= 8  # older clicks share a weight here
    knn = ItemKNN(LOG, neighbours=5).scores(samples).double()
    found = plus(torch.zeros_like(knn), cooccurrence(batch))
    expected = torch.log1p(knn / knn.sum(1, keepdim=True) / 0.001)
    torch.testing.assert_close(found[short], expected[short], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", [Dot, Cosine])
def test_scores_losses_and_gradients(make) -> None:  # noqa: ANN001
    torch.manual_seed(0)
    items, samples = LOG.num_items, queries()
    score_terms = {"repeat_bias": RepeatBias(), "cooccurrence": fitted()}
    torch.nn.init.normal_(score_terms["repeat_bias"].recency.weight)
    model = Recommender(ItemFeatures(items, WIDTH), GatedSessionGraph(WIDTH), make(Last(), score_terms=score_terms))
    without = Recommender(model.features, model.encoder, make(Last()))
    batch = session_batch(samples, num_items=items)
    more = torch.zeros(len(samples), items)
    for extra in score_terms.values():
        row, column, value = extra(batch)
        for r, c, v in zip(row.tolist(), column.tolist(), value.tolist(), strict=True):
            more[r, c] += v
    torch.testing.assert_close(model(batch), without(batch) + more)
    fused, plain = model(batch, SoftmaxLoss()), F.cross_entropy(model(batch), batch["sample"].target, reduction="none")
    torch.testing.assert_close(fused, plain)
    learned = [weight for weight in model.parameters() if weight.requires_grad]
    one, other = (torch.autograd.grad(losses.square().sum(), learned) for losses in (fused, plain))
    torch.testing.assert_close(one, other)


def test_a_session_without_neighbours_changes_nothing() -> None:
    """Neither its scores nor, through its gradient, those of others."""
    frame = pd.DataFrame({"s": [0, 0, 1, 1, 2], "i": [0, 1, 0, 1, 3]})
    whole = EventLog.read(frame, session="s", item="i")
    counted = whole.of_sessions(np.arange(3) < 2).aligned_to(whole.items)
    cooccurrence = Cooccurrence(3)
    cooccurrence.fit_statistics(counted)
    torch.nn.init.ones_(cooccurrence.weight.weight)
    queries = Samples(np.array([2, 0]), np.array([0, 1]), np.array([1, 2]), np.array([1, 1]), np.array([0, 1]))
    row, column, value = cooccurrence(session_batch(queries, num_items=3))
    assert row.tolist() == [1, 1]
    assert column.tolist() == [0, 1]
    value.sum().backward()
    assert all(bool(weight.grad.isfinite().all()) for weight in cooccurrence.parameters() if weight.grad is not None)


def test_statistics_are_fitted_on_statistics_log_only() -> None:
    early = np.arange(LOG.num_sessions) < 40
    counted, learn = (LOG.of_sessions(part).aligned_to(LOG.items) for part in (early, ~early))
    torch.manual_seed(0)
    system = build("sr_gnn", LOG.items, width=WIDTH, score_terms=["cooccurrence"])
    for _ in train(system, learn, epochs=1, options=TrainOptions(statistics_log=counted)):
        pass
    alone = Cooccurrence(LOG.num_items)
    alone.fit_statistics(counted)
    found = system.recommender.get_submodule("head.score_terms.cooccurrence")
    torch.testing.assert_close(found.similarity, alone.similarity)
    assert found.weight.weight.any()


def test_a_checkpoint_of_other_counts_is_not_taken_up(tmp_path: Path) -> None:
    early = np.arange(LOG.num_sessions) < 40
    counted, learn = (LOG.of_sessions(part).aligned_to(LOG.items) for part in (early, ~early))
    place = Checkpoint(tmp_path, resume=True)
    list(
        train(
            build("sr_gnn", LOG.items, width=WIDTH),
            learn,
            epochs=1,
            options=TrainOptions(statistics_log=counted, checkpoint=place),
        )
    )
    with pytest.raises(InputError, match="another training"):
        list(
            train(
                build("sr_gnn", LOG.items, width=WIDTH),
                learn,
                epochs=1,
                options=TrainOptions(statistics_log=LOG, checkpoint=place),
            )
        )


def test_saved_and_loaded_it_gives_equal_scores(tmp_path: Path) -> None:
    torch.manual_seed(0)
    system = build("niser", LOG.items, width=WIDTH, score_terms=["cooccurrence", "repeat_bias"])
    with pytest.warns(UserWarning, match="statistics_log="):
        list(train(system, LOG, epochs=1, optimizer=Adam(lr=0.01)))
    system.save(tmp_path / "saved")
    torch.testing.assert_close(load(tmp_path / "saved").scores(queries()), system.scores(queries()))


def test_another_numbering_is_refused() -> None:
    with pytest.raises(InputError, match="aligned_to"):
        Cooccurrence(LOG.num_items + 1).fit_statistics(LOG)


def test_weights_trained_on_counted_sessions_overfit() -> None:
    """Pairs of items sampled at random: what shared a session says nothing of a new one."""
    random = np.random.default_rng(0)
    frame = pd.DataFrame({"s": np.repeat(np.arange(400), 2), "i": random.integers(0, 40, 800), "t": np.arange(800)})
    log = EventLog.read(frame, session="s", item="i", time="t")
    half = np.arange(log.num_sessions) < 200
    counted, learn = (log.of_sessions(part).aligned_to(log.items) for part in (half, ~half))
    trust = []
    for fitted_to in (counted, learn):
        torch.manual_seed(0)
        system = build("sr_gnn", log.items, width=WIDTH, score_terms=["cooccurrence"])
        for name, weight in system.named_parameters():
            weight.requires_grad_("cooccurrence" in name)
        with pytest.warns(UserWarning, match="statistics_log=") if fitted_to is learn else nullcontext():
            list(
                train(
                    system,
                    learn,
                    epochs=10,
                    optimizer=Adam(lr=0.05),
                    batch_size=20,
                    options=TrainOptions(statistics_log=fitted_to),
                )
            )
        trust.append(system.recommender.get_submodule("head.score_terms.cooccurrence").weight.weight[0].item())
    assert abs(trust[0]) < 0.2 < 0.5 < trust[1], trust
