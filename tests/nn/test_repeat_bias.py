"""A bonus for a session's own items: what it is, and that scores and losses have it, in every engine."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from graphmeta.data.events import EventLog
from graphmeta.errors import InputError
from graphmeta.evaluation.ranking import evaluate
from graphmeta.nn.encoders.gated_graph import GatedSessionGraph
from graphmeta.nn.features.tables import ItemFeatures
from graphmeta.nn.heads.dot import Cosine, Dot
from graphmeta.nn.losses.losses import AllPositions, SoftmaxLoss
from graphmeta.nn.readout import Last
from graphmeta.nn.score_terms.repeat import COUNTS, LENGTHS, STEPS, RepeatBias
from graphmeta.published.catalogue import build
from graphmeta.recommender import Recommender
from graphmeta.sampling.samples import Samples, last_clicks, sessions_without_target, whole_sessions
from graphmeta.sampling.session_batch import session_batch
from graphmeta.system import System
from graphmeta.testing import fake_log
from graphmeta.training.loop import train
from graphmeta.training.optimizers import Adam

pytestmark = pytest.mark.usefixtures("float64")
ITEMS, WIDTH = 11, 4


def filled() -> RepeatBias:
    torch.manual_seed(5)
    returns = RepeatBias()
    for table in (returns.recency, returns.frequency):
        torch.nn.init.normal_(table.weight)
    return returns


def samples() -> Samples:
    sessions = [[3], [1, 2, 1, 4], [5, 5, 5], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0, 1]]
    known = sessions_without_target([np.array(s) for s in sessions])
    return Samples(known.item, known.begin, known.end, np.array([3, 2, 6, 1]), known.session)


def by_hand(returns: RepeatBias, clicks: list[int]) -> dict[int, float]:
    """The bonus of each item of one session."""
    length, found = len(clicks), {}
    bands = [1, 2, 4, 8, 16, math.inf]
    for item in set(clicks):
        ago = next(n for n in range(1, length + 1) if clicks[-n] == item)
        band = next(n for n, most in enumerate(bands) if length <= most)
        place = (min(ago, STEPS) - 1) * LENGTHS + band
        found[item] = (
            returns.recency.weight[place] + returns.frequency.weight[min(clicks.count(item), COUNTS) - 1]
        ).item()
    return found


def test_the_bonus_of_each_item_by_hand() -> None:
    returns, batch = filled(), session_batch(samples(), num_items=ITEMS)
    got = returns(batch)[2]
    for s in range(4):
        clicks = samples().item[samples().begin[s] : samples().end[s]].tolist()
        rows = (batch["item"].batch == s).nonzero().squeeze(1)
        own = dict(zip(batch["item"].n_id[rows].tolist(), got[rows].tolist(), strict=True))
        assert own == pytest.approx(by_hand(returns, clicks))


@pytest.mark.parametrize("make", [Dot, Cosine])
def test_scores_and_losses_have_it_and_so_do_all_gradients(make) -> None:  # noqa: ANN001
    torch.manual_seed(0)
    features, encoder, queries = ItemFeatures(ITEMS, WIDTH), GatedSessionGraph(WIDTH), samples()
    with_it = Recommender(features, encoder, make(Last(), score_terms={"repeat_bias": filled()}))
    without = Recommender(features, encoder, make(Last()))
    batch = session_batch(queries, num_items=ITEMS)
    more = torch.zeros(4, ITEMS)
    for s in range(4):
        clicks = queries.item[queries.begin[s] : queries.end[s]].tolist()
        for item, bonus in by_hand(with_it.head.score_terms.repeat_bias, clicks).items():
            more[s, item] = bonus
    torch.testing.assert_close(with_it(batch), without(batch) + more)
    target = batch["sample"].target
    fused, plain = with_it(batch, SoftmaxLoss()), F.cross_entropy(with_it(batch), target, reduction="none")
    torch.testing.assert_close(fused, plain)
    every = [weight for weight in with_it.parameters() if weight.requires_grad]
    for one, other in zip(
        torch.autograd.grad(fused.square().sum(), every, create_graph=True),
        torch.autograd.grad(plain.square().sum(), every, create_graph=True),
        strict=True,
    ):
        torch.testing.assert_close(one, other)
    twice = [torch.autograd.grad(g.square().sum(), every, retain_graph=True) for g in (
        torch.autograd.grad(fused.sum(), with_it.head.score_terms.repeat_bias.recency.weight, create_graph=True)[0],
        torch.autograd.grad(plain.sum(), with_it.head.score_terms.repeat_bias.recency.weight, create_graph=True)[0],
    )]  # fmt: skip
    torch.testing.assert_close(twice[0], twice[1])


@pytest.mark.parametrize("repeat_bias", [True, False])
def test_it_learns_repeat_consumption(repeat_bias: bool) -> None:
    """Sessions of random items that end where they began: nothing else tells what is next."""
    random = np.random.default_rng(0)
    first = random.integers(0, 60, (300, 3))
    clicks = np.concatenate([first, first[:, :1]], 1)
    frame = pd.DataFrame({"s": np.repeat(np.arange(300), 4), "i": clicks.ravel(), "t": np.arange(1200)})
    log = EventLog.read(frame, session="s", item="i", time="t")
    learn, queries = (
        log.of_sessions(part).aligned_to(log.items) for part in (np.arange(300) < 200, np.arange(300) >= 200)
    )
    torch.manual_seed(0)
    system = build("sr_gnn", log.items, width=8, score_terms=["repeat_bias"] if repeat_bias else [])
    system.samples = last_clicks
    for _ in train(
        system, learn, epochs=10, optimizer=Adam(lr=0.1, weight_decay=1e-3, decay_tables=True), batch_size=10
    ):
        pass
    found = evaluate(system, last_clicks(queries), ks=(1,)).metrics["hit@1"]
    assert (found > 0.9) == repeat_bias, found


def test_where_it_has_no_meaning_it_is_refused() -> None:
    log = fake_log(sessions=20)
    head = Dot(Last(), score_terms={"repeat_bias": RepeatBias()})
    model = Recommender(ItemFeatures(log.num_items, WIDTH), GatedSessionGraph(WIDTH), head)
    system = System(model, log.items, loss=AllPositions(SoftmaxLoss()), samples=whole_sessions)
    with pytest.raises(InputError, match="train on prefixes|looks ahead"):
        list(train(system, log, epochs=1))
