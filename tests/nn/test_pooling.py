"""The running mean, states of users and encoders side by side, each against a plain loop."""

import numpy as np
import pytest
import torch

from graphmeta.nn.encoders.pooling import ConcatenatedEncoders, RunningMean, SampleMean, UserStates
from graphmeta.nn.encoders.recurrent import Recurrent
from graphmeta.nn.features.tables import ItemFeatures, Table, UntiedFeatures, scaled_normal_
from graphmeta.sampling.samples import Samples
from graphmeta.sampling.session_batch import session_batch
from graphmeta.testing import check_encoder

ITEMS, WIDTH = 9, 3
ITEM = np.array([3, 1, 2, 1, 4, 4, 8])
BEGIN, END, USER = np.array([0, 1, 4]), np.array([1, 4, 7]), np.array([2, -1, 0])


pytestmark = pytest.mark.usefixtures("float64")


def batch_of(*, user=USER, task=None):
    samples = Samples(ITEM, BEGIN, END, np.array([5, 6, 7]), np.arange(3), user=user)
    return session_batch(samples, num_items=ITEMS, task=task, num_tasks=2)


def vectors(batch):
    table = torch.randn(ITEMS, WIDTH, generator=torch.Generator().manual_seed(4))
    return table, table[batch["item"].n_id]


def test_the_running_mean_is_the_loop():
    batch = batch_of()
    table, x = vectors(batch)
    found, row = RunningMean()(x, batch), 0
    for begin, end in zip(BEGIN, END, strict=True):
        for t in range(begin, end):
            clicks = [table[ITEM[at]] for at in range(begin, t + 1)]
            torch.testing.assert_close(found[row], sum(clicks) / (len(clicks) + 1), rtol=0, atol=1e-14)
            row += 1
    assert row == len(found)


@pytest.mark.parametrize("task", [None, np.array([0, 0, 1])])
def test_the_mean_of_a_sample_is_the_loop(task):
    batch = batch_of(task=task)
    table, x = vectors(batch)
    real = batch["sample"].get("real", torch.arange(3)).tolist()
    found = SampleMean()(x, batch)
    for sample, begin, end in zip(real, BEGIN, END, strict=True):
        wanted = sum(table[ITEM[at]] for at in range(begin, end)) / (end - begin)
        own = found[batch["event"].batch == sample]
        assert len(own) == end - begin
        torch.testing.assert_close(own, wanted.expand_as(own))


@pytest.mark.parametrize("task", [None, np.array([0, 0, 1])])
def test_a_click_s_state_is_its_user(task):
    batch = batch_of(task=task)
    encoder = UserStates(3, WIDTH)
    found = encoder(vectors(batch)[1], batch)
    owner = batch["event"].batch.tolist()
    real = [0, 1, 2] if task is None else batch["sample"].real.tolist()
    for row, sample in enumerate(owner):
        whose = int(USER[real.index(sample)]) if sample in real else -1
        wanted = torch.zeros(WIDTH) if whose < 0 else encoder.users.user.weight[whose]
        assert torch.equal(found[row], wanted)


def test_without_users_all_states_are_zero():
    batch = batch_of(user=None)
    assert torch.equal(UserStates(3, WIDTH)(vectors(batch)[1], batch), torch.zeros(7, WIDTH))


def test_a_user_whom_training_did_not_see_is_zero():
    batch, encoder = batch_of(), UserStates(3, WIDTH)
    encoder.users.seen[2] = False
    found = encoder(vectors(batch)[1], batch)
    assert (found[:4] == 0).all() and torch.equal(found[4], encoder.users.user.weight[0])


def test_side_by_side_each_reads_the_whole_vector():
    torch.manual_seed(0)
    parts, batch = (RunningMean(), Recurrent(WIDTH, 2)), batch_of()
    x = vectors(batch)[1]
    found = ConcatenatedEncoders(*parts)(x, batch)
    assert found.shape == (7, WIDTH + 2)
    assert torch.equal(found[:, :WIDTH], parts[0](x, batch)) and torch.equal(found[:, WIDTH:], parts[1](x, batch))


@pytest.mark.parametrize(
    "factory",
    [
        lambda width: RunningMean(),
        lambda width: UserStates(4, width),
        lambda width: ConcatenatedEncoders(Recurrent(width, width), UserStates(4, width)),
    ],
)
@pytest.mark.first(1)
def test_they_keep_the_contract_of_an_encoder(factory):
    report = check_encoder(factory, width=4)
    assert report.ok, str(report)
    assert "falls back" not in str(report)


@pytest.mark.parametrize("bias", [False, True])
def test_an_untied_item_is_read_in_one_table_and_scored_in_another(bias):
    torch.manual_seed(0)
    features = UntiedFeatures(5, 3, scored=4, bias=bias)
    x, candidates = features(torch.tensor([2, 2, 4]))
    assert torch.equal(x, features.item.weight[[2, 2, 4]])
    assert candidates is features.output.weight and candidates.shape == (5, 4 + bias)
    assert not bias or (candidates[:, 4] == 0).all()


def test_tables_that_start_like_spotlight_s():
    torch.manual_seed(0)
    features = ItemFeatures(4_000, 5, bias=True)
    scaled_normal_(features)
    vectors = features.item.weight[:, :5].detach()
    assert (features.item.weight[:, 5] == 0).all()
    assert float(vectors.std()) == pytest.approx(1 / 5, rel=0.02)
    assert float(vectors.mean()) == pytest.approx(0, abs=0.01)
    assert float((vectors.abs() < 1 / 5).double().mean()) == pytest.approx(0.6827, abs=0.02)


def test_a_table_without_bias_is_as_it_was_drawn():
    torch.manual_seed(0)
    weight = Table(50, 4).weight
    assert (weight.abs() <= 0.5).all() and (weight != 0).all()
