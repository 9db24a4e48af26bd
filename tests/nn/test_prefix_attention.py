"""Triangle attention against a masked softmax written out, on scores of any size, with every derivative."""

import numpy as np
import pytest
import torch
from torch import nn

from graphmeta.nn.encoders.prefix_attention import PrefixAttention, WithUser, running_mean
from graphmeta.nn.encoders.recurrent import Recurrent
from graphmeta.nn.features.tables import UserFeatures
from graphmeta.nn.readout import Last
from graphmeta.sampling.samples import sessions_without_target
from graphmeta.sampling.session_batch import session_batch

SESSIONS = [[3], [1, 2, 1, 2, 5], [4, 4], [7, 8, 9, 7]]


@pytest.fixture(autouse=True)
def float64():
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


def batch_of(sessions, users=None):
    samples = sessions_without_target([np.array(s) for s in sessions], users=users)
    return session_batch(samples, num_items=10)


@pytest.mark.covering
@pytest.mark.parametrize("length", [1, 2, 3, 4, 7, 8, 13])
@pytest.mark.parametrize("scale", [1.0, 3000.0])
def test_each_row_is_attention_on_its_prefix_alone(length, scale):
    scores, values = torch.randn(2, length) * scale, torch.randn(2, length, 3)
    found = running_mean(scores, values)
    for t in range(length):
        weight = torch.softmax(scores[:, : t + 1], 1)
        wanted = (weight[:, :, None] * values[:, : t + 1]).sum(1)
        torch.testing.assert_close(found[:, t], wanted, rtol=0, atol=1e-12)


def test_clicks_before_a_huge_score_are_not_lost():
    """The rows before it are the mean of equals; a running sum scaled by the largest score would be 0 / 0 there."""
    scores, values = torch.tensor([[0.0, 0.0, 0.0, 1e5, 0.0]]), torch.tensor([1.0, 3.0, 5.0, 7.0, 9.0])[None, :, None]
    assert running_mean(scores, values).flatten().tolist() == [1.0, 2.0, 3.0, 7.0, 7.0]


def test_first_and_second_derivatives():
    scores, values = torch.randn(2, 5, requires_grad=True), torch.randn(2, 5, 2, requires_grad=True)
    assert torch.autograd.gradcheck(running_mean, (scores, values))
    assert torch.autograd.gradgradcheck(running_mean, (scores, values))


def test_derivatives_stay_finite_on_huge_scores():
    scores = (torch.randn(1, 6) * 1e4).requires_grad_()
    values = torch.randn(1, 6, 2, requires_grad=True)
    first = torch.autograd.grad(running_mean(scores, values).square().sum(), (scores, values), create_graph=True)
    second = torch.autograd.grad(sum(g.square().sum() for g in first), (scores, values))
    assert all(bool(g.isfinite().all()) for g in (*first, *second))


def test_the_module_is_the_formula_session_by_session():
    batch, attention = batch_of(SESSIONS), PrefixAttention(4, 3)
    states, keys = torch.randn(batch["event"].num_nodes, 5), torch.randn(batch["event"].num_nodes, 4)
    against = torch.randn(batch["event"].num_nodes, 3)
    found, ptr = attention(states, batch, keys=keys, against=against), batch["sample"].ptr.tolist()
    for begin, end in zip(ptr, ptr[1:], strict=False):
        for t in range(begin, end):
            scores = [
                torch.tanh(attention.key.weight @ keys[i] + attention.key.bias) @ against[i]
                for i in range(begin, t + 1)
            ]
            weight = torch.softmax(torch.stack(scores), 0)
            torch.testing.assert_close(found[t], weight @ states[begin : t + 1], rtol=0, atol=1e-12)


def test_an_unknown_user_weights_all_clicks_equally():
    users = UserFeatures(3, 4)
    encoder = WithUser(Recurrent(6, 5, cell=nn.LSTM), users, PrefixAttention(5, 4)).eval()
    x = torch.randn(10, 6)
    batch = batch_of(SESSIONS, np.array([2, -1, 0, 1]))
    found, states = encoder(x[batch["item"].n_id], batch), encoder.encoder(x[batch["item"].n_id], batch)
    last = Last()(found, batch)
    assert last[1, 5:].eq(0).all()
    torch.testing.assert_close(last[0, 5:], users.user.weight[2])
    own = states[batch["event"].batch == 1]
    torch.testing.assert_close(last[1, :5], own.mean(0), rtol=0, atol=1e-12)
