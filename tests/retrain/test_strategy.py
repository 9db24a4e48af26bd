"""What strategies learn from, and what they remember."""

import copy

import numpy as np
import pytest
import torch

from graphmeta.data.splits import period_edges
from graphmeta.published.catalogue import build
from graphmeta.retrain import strategy
from graphmeta.retrain.period import Period
from graphmeta.retrain.strategy import FineTune, Full, Reservoir, fill
from graphmeta.sampling.histories import every_event
from graphmeta.testing import fake_log

LOG = fake_log(sessions=40, items=30)
EDGES = period_edges(LOG, events=60)


def period(number: int) -> Period:
    return Period.of(LOG, EDGES, number)


def mf():
    torch.manual_seed(0)
    return build("mf", LOG.items, users=LOG.users, width=4)


def test_the_reservoir_holds_every_event_of_the_stream_as_likely():
    random, runs, size, stream = np.random.default_rng(0), 1500, 10, np.arange(40)
    count = np.zeros(len(stream))
    for _ in range(runs):
        pool = np.full(size, -1)
        for begin, end in ((0, 7), (7, 23), (23, 40)):  # offered in periods, the first before it is full
            fill(pool, begin, stream[begin:end], random)
        assert len(set(pool)) == size and pool.min() >= 0
        count[pool] += 1
    expected = runs * size / len(stream)
    # Samples without replacement vary a little less than independent ones: chi-square with 39 degrees of freedom.
    chi_square = ((count - expected) ** 2 / expected).sum() / (1 - size / len(stream))
    assert 16 < chi_square < 73  # its 0.1 % and 99.9 % points are 16.27 and 72.05


def trained_on(monkeypatch) -> list:
    """Notes the samples of every training instead of training."""
    seen = []
    monkeypatch.setattr(strategy, "train", lambda system, log, **_: seen.append(system.training_samples(log)) or [])
    return seen


def test_full_trains_on_all_so_far_and_fine_tuning_on_the_new_alone(monkeypatch):
    seen, now = trained_on(monkeypatch), period(2)
    for one in (Full(), FineTune()):
        one.retrain(mf(), one.begin(mf(), now), now)
    times = [now.past.time[samples.end] for samples in seen]
    assert sorted(times[0]) == sorted(LOG.time[LOG.time < EDGES[3]])
    assert sorted(times[1]) == sorted(LOG.time[(LOG.time >= EDGES[2]) & (LOG.time < EDGES[3])])


def test_the_reservoir_trains_on_the_new_and_on_what_it_holds_and_is_offered_the_new(monkeypatch):
    seen, one = trained_on(monkeypatch), Reservoir(size=15)
    state = one.begin(mf(), period(1))
    assert int(state["offered"]) == period(1).past.num_events
    after = one.retrain(mf(), state, period(2))
    now = period(2)
    number = now.order[seen[0].end]
    new = np.flatnonzero(np.sort(now.past.time) >= EDGES[2])
    assert set(number) == set(state["pool"].tolist()) | set(new)
    assert int(after["offered"]) == now.past.num_events
    assert set(after["pool"].tolist()) <= set(state["pool"].tolist()) | set(new)


def test_numbers_of_events_stay_as_later_ones_come():
    early, late = period(1), period(3)
    key = [sorted(zip(p.order, p.past.session, p.past.item, strict=True)) for p in (early, late)]
    assert key[1][: len(key[0])] == key[0]


def test_low_scored_samples_are_sampled_more_often():
    system = mf()
    samples = every_event(LOG)
    weight = strategy._sampling_weights(system, samples, size=17)
    own = system.scores(samples).numpy()[np.arange(len(samples)), samples.target]
    order = sorted(range(len(own)), key=lambda s: (-own[s], s))
    expected = np.exp([(1 + order.index(s)) / len(own) for s in range(len(own))])
    np.testing.assert_allclose(weight, expected / expected.sum())
    assert weight[order[-1]] == weight.max() > weight[order[0]]


@pytest.mark.parametrize("from_scratch", [False, True])
def test_from_scratch_forgets_the_last_weights(from_scratch):
    one, first = Full(epochs=1, from_scratch=from_scratch), mf()
    state = one.begin(first, period(0))
    other = copy.deepcopy(first)
    with torch.no_grad():
        for weight in other.parameters():
            weight.add_(0.3)
    for system in (first, other):
        one.retrain(system, state, period(1))
    same = all(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))
    assert same == from_scratch
