"""Negatives by hash: nothing that a task has shown, the same whoever is beside it, others every epoch."""

import numpy as np
import pytest
import torch
from torch import nn

from graphmeta.nn.heads.dot import Dot
from graphmeta.nn.losses.pairwise import Binary
from graphmeta.nn.losses.task_negatives import HashedNoise, UnseenNegativesLoss, hashed
from graphmeta.nn.readout import Mean
from graphmeta.sampling.few_shot import sampled_tasks, support_from_clicks
from graphmeta.sampling.samples import sessions_without_target
from graphmeta.sampling.session_batch import session_batch
from graphmeta.testing import fake_log

ITEMS = 15
PEOPLE = [[3], [1, 2, 7, 9, 4], [4, 4, 0], list(range(8))]


def support(people):
    samples = sessions_without_target([np.array(items) for items in people])
    return support_from_clicks(samples).batch(num_items=ITEMS).support


def sampled(loss, batch):
    """The sampled items of each task and target: {(task, target): items that count}."""
    items, counts = loss.sample(batch, ITEMS)
    sample, found = batch["sample"], {}
    for row in sample.real.tolist():
        kept = items[row][counts[row]].tolist()
        found.setdefault(row // batch.rows["sample"], {})[int(sample.target[row])] = kept
    return found


def test_scrambling_is_splitmix64():
    def finalised(x):
        x = ((x ^ x >> 30) * 0xBF58476D1CE4E5B9) % 2**64
        x = ((x ^ x >> 27) * 0x94D049BB133111EB) % 2**64
        return x ^ x >> 31

    numbers = [0, 1, 2, 12345, 2**40 + 7, -1, -(2**50)]
    found = [x % 2**64 for x in hashed(torch.tensor(numbers)).tolist()]
    assert found == [finalised(x % 2**64) for x in numbers]


def test_known_items_of_a_user_are_never_sampled():
    found = sampled(UnseenNegativesLoss(Binary(), count=6).eval(), support(PEOPLE))
    for number, items in enumerate(PEOPLE):
        assert set(found[number]) == set(items)  # a click that is repeated is asked for again
        for negatives in found[number].values():
            assert len(negatives) == 6 and not set(negatives) & set(items)


def test_a_user_with_clicks_on_all_items_has_no_negatives():
    found = sampled(UnseenNegativesLoss(Binary(), count=4).eval(), support([list(range(ITEMS))]))
    assert all(negatives == [] for negatives in found[0].values())


@pytest.mark.parametrize("training", [False, True])
def test_negatives_do_not_depend_on_the_batch(training):
    loss = UnseenNegativesLoss(Binary(), count=4).train(training)
    together = sampled(loss, support(PEOPLE))
    for number, items in enumerate(PEOPLE):
        assert sampled(loss, support([items]))[0] == together[number]


def test_an_epoch_draws_anew_and_again_the_same():
    loss, batch = UnseenNegativesLoss(Binary(), count=4).train(), support(PEOPLE)
    with torch.random.fork_rng():
        epochs = []
        for seed in (5, 6, 5):
            torch.manual_seed(seed)
            torch.rand(seed)  # a generator that others have used says the same
            epochs.append(sampled(loss, batch))
    assert epochs[0] == epochs[2] != epochs[1]
    assert sampled(loss.eval(), batch) == sampled(loss.eval(), batch)


def test_a_support_does_not_depend_on_its_queries():
    log = fake_log(sessions=30, items=ITEMS)
    tasks = sampled_tasks(log)
    batch = tasks.batch(num_items=ITEMS)
    shown = sampled(UnseenNegativesLoss(Binary(), count=12).eval(), batch.support)
    targets = [set(tasks.query.target[a:b]) for a, b in zip(tasks.query_ptr, tasks.query_ptr[1:], strict=False)]
    assert any(set(negatives) & targets[t] for t, of in shown.items() for negatives in of.values())
    known = [set(tasks.support.target[a:b]) for a, b in zip(tasks.support_ptr, tasks.support_ptr[1:], strict=False)]
    for t, of in sampled(UnseenNegativesLoss(Binary(), count=12).eval(), batch.query).items():
        assert all(not set(negatives) & (known[t] | targets[t]) for negatives in of.values())


def test_every_unseen_item_is_as_likely():
    people = [[n % 3] for n in range(3)]
    loss, count = UnseenNegativesLoss(Binary(), count=50).train(), np.zeros((3, ITEMS))
    with torch.random.fork_rng():
        for seed in range(80):
            torch.manual_seed(seed)
            for person, of in sampled(loss, support(people)).items():
                count[person] += np.bincount(of[person], minlength=ITEMS)
    for person in range(3):
        others = np.delete(count[person], person)
        assert count[person, person] == 0
        expected = others.mean()
        assert ((others - expected) ** 2 / expected).sum() < 34.5  # chi-square, 13 degrees: one in a thousand


def test_plain_training_leaves_a_users_history_out():
    log = fake_log(sessions=60, items=ITEMS)
    at = np.arange(0, log.num_events, 7)
    user = log.session_user[log.session]
    samples = sessions_without_target([np.array([], dtype=np.int64) for _ in at], users=user[at])
    samples.target[:] = log.item[at]
    loss = UnseenNegativesLoss(Binary(), count=8).eval()
    loss.fit_statistics(log)
    items, counts = loss.sample(session_batch(samples, num_items=ITEMS), ITEMS)
    assert counts.any()
    for row, (whose, target) in enumerate(zip(user[at], log.item[at], strict=True)):
        assert not set(items[row][counts[row]].tolist()) & ({int(target)} | set(log.item[user == whose].tolist()))


@pytest.mark.usefixtures("float64")
def test_the_loss_is_the_formula():
    batch, width = support(PEOPLE), 4
    table, head = torch.randn(ITEMS, width), Dot(Mean(), nn.Linear(width, width))
    states = torch.randn(batch["event"].num_nodes, width)
    plain, summed = (UnseenNegativesLoss(Binary(), count=3, penalty=0.1, sums=sums).eval() for sums in (False, True))
    items, counts = plain.sample(batch, ITEMS)
    query, wanted = head.query(states, batch), []
    for row in batch["sample"].real.tolist():
        score = table @ query[row]
        loss = -torch.sigmoid(score[batch["sample"].target[row]]).log() + 0.1 * (query[row] ** 2).sum()
        for item, real in zip(items[row], counts[row], strict=True):
            loss = loss - real * torch.sigmoid(-score[item]).log()
        wanted.append(loss)
    found = plain(head, states, batch, table)
    torch.testing.assert_close(found, torch.stack(wanted))
    sizes = torch.tensor([len(items) for items in PEOPLE for _ in items])
    torch.testing.assert_close(summed(head, states, batch, table), found * sizes)


@pytest.mark.usefixtures("float64")
def test_a_fingerprint_is_normal_noise_of_a_set():
    people = [[1, 2, 3], [3, 1, 2], [4], [1, 2]]
    batch = session_batch(sessions_without_target([np.array(items) for items in people]), num_items=ITEMS)
    states = torch.zeros(batch["event"].num_nodes, 1)
    found = HashedNoise(4000, scale=2.0)(states, batch)
    assert torch.equal(found[0], found[1])
    alone = session_batch(sessions_without_target([np.array([4])]), num_items=ITEMS)
    assert torch.equal(HashedNoise(4000, scale=2.0)(states[:1], alone)[0], found[2])
    different = found[1:]
    assert (different.mean(1).abs() < 0.13).all() and ((different.std(1) - 2).abs() < 0.1).all()  # four deviations
    correlation = torch.corrcoef(different) - torch.eye(3)
    assert (correlation.abs() < 0.07).all()
