"""Transition counts against a loop, item vectors with those of their neighbours, and what the counts may know."""

import numpy as np
import pandas as pd
import pytest
import torch

from graphmeta.adapt.adaptation import Adaptation
from graphmeta.adapt.scope import Scope
from graphmeta.adapt.step import Gradient
from graphmeta.data.events import EventLog
from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError
from graphmeta.nn.encoders.global_context import GlobalContext, PositionAttention
from graphmeta.nn.features.tables import row_gradients
from graphmeta.nn.features.transitions import TransitionFeatures, count_transitions, strongest
from graphmeta.nn.heads.dot import Dot
from graphmeta.nn.losses.losses import SoftmaxLoss
from graphmeta.nn.readout import Last
from graphmeta.recommender import Recommender
from graphmeta.sampling.samples import last_clicks, prefixes
from graphmeta.sampling.tasks import task_batch
from graphmeta.system import System
from graphmeta.training.loop import train

pytestmark = pytest.mark.usefixtures("float64")


def random_log(*, sessions=40, items=12, length=6, seed=0):
    """Sessions of items sampled uniformly: nothing in one tells anything about another."""
    random = np.random.default_rng(seed)
    lengths = random.integers(2, length + 1, sessions)
    number = np.repeat(np.arange(sessions), lengths)
    frame = pd.DataFrame({"s": number, "i": random.integers(0, items, len(number)), "t": np.arange(len(number))})
    known = EntityTable.read(pd.DataFrame({"i": np.arange(items)}), key="i")
    return EventLog.read(frame, session="s", item="i", time="t", items=known).aligned_to(known)


LOG = random_log()


def sessions_of(log):
    return [log.item[a:b].tolist() for a, b in zip(log.ptr, log.ptr[1:], strict=False)]


@pytest.mark.parametrize("window", [1, 3])
def test_counts_are_the_loop(window):
    wanted: dict[tuple[int, int], int] = {}
    for session in sessions_of(LOG):
        near = {
            pair
            for at, one in enumerate(session)
            for other in session[at + 1 : at + window + 1]
            if one != other
            for pair in ((one, other), (other, one))
        }
        for pair in near:
            wanted[pair] = wanted.get(pair, 0) + 1
    pairs, count = count_transitions(LOG, window=window)
    assert dict(zip(map(tuple, pairs.T.tolist()), count.tolist(), strict=True)) == wanted


def test_the_strongest_are_kept_ties_by_number():
    pairs = np.array([[0, 0, 0, 0, 2, 2], [3, 1, 2, 4, 0, 1]])
    neighbour, weight = strongest(pairs, np.array([1, 5, 1, 3, 2, 0]), num_items=5, max_neighbours=3)
    assert neighbour.tolist() == [[1, 4, 2], [1, 1, 1], [0, 2, 2], [3, 3, 3], [4, 4, 4]]
    np.testing.assert_allclose(weight, [[5 / 9, 3 / 9, 1 / 9], [0] * 3, [1, 0, 0], [0] * 3, [0] * 3], atol=1e-15)


def fitted(log=LOG, **arguments):
    torch.manual_seed(0)
    features = TransitionFeatures(log.num_items, 4, neighbours=3, **arguments)
    features.fit_statistics(log)
    return features


@torch.no_grad()
@pytest.mark.parametrize("normalised", [False, True])
def test_an_item_is_its_vector_with_those_of_its_neighbours(normalised):
    features = fitted(normalised=normalised)
    n_id, table = torch.tensor([3, 5, 0, 3]), features.item.weight
    wanted = table / table.norm(dim=1, keepdim=True) if normalised else table
    x, candidates = features(n_id)
    for row, item in zip(x, n_id.tolist(), strict=True):
        vectors = row[: 4 * 4].reshape(4, 4)
        torch.testing.assert_close(vectors[0], wanted[item])
        torch.testing.assert_close(vectors[1:], wanted[features.neighbour[item]])
        assert torch.equal(row[16:], features.weight[item])
    assert candidates is table


@torch.no_grad()
def test_before_it_is_fitted_an_item_has_no_neighbours():
    x, _ = TransitionFeatures(6, 4)(torch.tensor([2, 4]))
    assert not x[:, -12:].any()


def test_row_gradients_are_the_gradients():
    n_id, found = torch.tensor([1, 1, 7]), []
    for rows in (False, True):
        features = fitted()
        if rows:
            with row_gradients(features):
                features(n_id)[0].square().sum().backward()
        else:
            features(n_id)[0].square().sum().backward()
        found.append(features.item.weight.grad)
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-12)


def test_adapted_all_tasks_at_once_is_the_loop():
    recommender = Recommender(fitted(), GlobalContext(4, neighbours=3), Dot(PositionAttention(4))).double().eval()
    tasks = task_batch(last_clicks(LOG, min_length=3).take(slice(0, 5)), num_items=LOG.num_items)
    losses = []
    for stacked in (True, False):
        adaptation = Adaptation(Scope(""), step=Gradient(0.1), order=2, stacked=stacked)
        adaptation.bind(recommender)
        losses.append(adaptation.run(recommender, tasks, SoftmaxLoss()))
        assert not adaptation.fell_back  # it did not fall back
    torch.testing.assert_close(losses[0], losses[1], rtol=0, atol=1e-9)


def test_statistics_use_the_training_log_only():
    log = random_log(sessions=30, seed=1)
    past = log.before(float(log.starts[20])).aligned_to(log.items)
    future = log.after(float(log.starts[20])).aligned_to(log.items)
    torch.manual_seed(0)
    features = TransitionFeatures(log.num_items, 4, neighbours=3)
    system = System(Recommender(features, GlobalContext(4, neighbours=3), Dot(Last())), log.items)
    list(train(system, past, epochs=1, valid=future))
    assert torch.equal(features.neighbour, fitted(past).neighbour)
    assert not torch.equal(features.neighbour, fitted(log).neighbour)


def targets_beside_last(features, log):
    """The share of samples whose target is a neighbour of their last click."""
    samples = prefixes(log)
    last, target = samples.item[samples.end - 1], samples.target
    known = torch.where(features.weight > 0, features.neighbour, -1)
    return (
        float(((known[last] == torch.from_numpy(target)[:, None]).any(1) & torch.from_numpy(target != last)).sum())
        / (target != last).sum()
    )


def test_the_discount_hides_a_samples_own_transition():
    """Where sessions have nothing in common, a graph that knows the answers of its own log knows no others."""
    seen, unseen = random_log(sessions=60, items=300), random_log(sessions=60, items=300, seed=9)
    features = TransitionFeatures(300, 4, neighbours=12, discount=0)
    features.fit_statistics(seen)
    assert targets_beside_last(features, seen) > 0.95 and targets_beside_last(features, unseen) < 0.05
    features.discount = 1
    features.fit_statistics(seen)
    assert targets_beside_last(features, seen) < 0.05


def test_an_edge_needs_a_second_session():
    frame = pd.DataFrame({"s": [1, 1, 1, 1, 2, 2, 3, 3], "i": list("ababbcbc"), "t": range(8)})
    log = EventLog.read(frame, session="s", item="i", time="t")
    features = TransitionFeatures(3, 4, neighbours=2)
    features.fit_statistics(log)  # a-b twice, but in one session
    assert features.weight.tolist() == [[0, 0], [1, 0], [1, 0]]
    assert features.neighbour[1:, 0].tolist() == [2, 1]


def test_a_log_that_is_numbered_otherwise_is_refused():
    with pytest.raises(InputError, match="aligned_to"):
        TransitionFeatures(5, 4).fit_statistics(LOG)
