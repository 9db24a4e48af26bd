"""Causal convolutions against a plain loop over clicks, and that no click knows what comes later."""

import numpy as np
import pytest
import torch
from torch import nn

from graphmeta.nn.encoders.convolution import CausalConvStack, RecentPatterns, lagged
from graphmeta.nn.encoders.pooling import RunningMean
from graphmeta.nn.encoders.recurrent import Recurrent
from graphmeta.sampling.samples import sessions_without_target
from graphmeta.sampling.session_batch import session_batch
from graphmeta.testing import check_encoder

ITEMS, WIDTH = 11, 4
SESSIONS = [[3], [1, 2, 1, 2, 5, 9, 9, 0], [4, 4], [7, 8, 10, 7]]


pytestmark = pytest.mark.usefixtures("float64")


def batch_of(sessions):
    return session_batch(sessions_without_target([np.array(session) for session in sessions]), num_items=ITEMS)


def states_of(encoder, sessions):
    """The states of each session, and the table that they were made from."""
    table = torch.randn(ITEMS, WIDTH, generator=torch.Generator().manual_seed(4))
    batch = batch_of(sessions)
    states = encoder(table[batch["item"].n_id], batch)
    return states.split([len(session) for session in sessions]), table


def made(factory):
    torch.manual_seed(0)
    return factory(WIDTH).eval()


CAUSAL = {
    "stack": lambda width: CausalConvStack(width, layers=3, multiplier=2),
    "no residual, relu": lambda width: CausalConvStack(width, layers=2, residual=False, activation=torch.relu),
    "gated": lambda width: CausalConvStack(width, layers=2, kernel=2, gated=True),
    "patterns": lambda width: RecentPatterns(width, length=3),
    "mean": lambda width: RunningMean(),
    "gru": lambda width: Recurrent(width, width),
}
WITH_WEIGHTS = [name for name in CAUSAL if name != "mean"]


def test_lagged_is_the_click_so_many_before():
    batch, states = batch_of(SESSIONS), torch.randn(15, 2)
    found, row = lagged(states, batch, (0, 1, 3)), 0
    for session in SESSIONS:
        for at in range(len(session)):
            for column, lag in enumerate((0, 1, 3)):
                wanted = states[row + at - lag] if at >= lag else torch.zeros(2)
                assert torch.equal(found[row + at, column], wanted)
        row += len(session)


def test_nan_in_another_session_does_not_leak():
    states = torch.zeros(15, 2)
    states[0] = torch.nan
    assert lagged(states, batch_of(SESSIONS), (0, 1, 2))[1:].isfinite().all()


@pytest.mark.covering
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("activation", [torch.tanh, torch.relu])
@torch.no_grad()
def test_the_stack_is_the_loop(activation, residual, gated):
    torch.manual_seed(1)
    encoder = CausalConvStack(
        WIDTH, layers=3, kernel=3, multiplier=2, residual=residual, activation=activation, gated=gated
    )
    found, table = states_of(encoder, SESSIONS)
    for session, states in zip(SESSIONS, found, strict=True):
        hidden = [table[item] for item in session]
        for number, layer in enumerate(encoder.layers):
            new = []
            for t in range(len(session)):
                value = layer.filters.bias.clone()
                for j in range(3):
                    if t - j * 2**number >= 0:
                        value += layer.filters.weight[:, j * WIDTH : (j + 1) * WIDTH] @ hidden[t - j * 2**number]
                value = activation(value[:WIDTH]) * (torch.sigmoid(value[WIDTH:]) if gated else 1)
                new.append(value + hidden[t] if residual else value)
            hidden = new
        torch.testing.assert_close(states, torch.stack(hidden), rtol=0, atol=1e-12)


@torch.no_grad()
def test_one_layer_is_torch_s_convolution():
    encoder = made(lambda width: CausalConvStack(width, kernel=3, residual=False))
    found, table = states_of(encoder, SESSIONS)
    filters = encoder.layers[0].filters
    kernel = filters.weight.reshape(WIDTH, 3, WIDTH).permute(0, 2, 1).flip(2)
    for session, states in zip(SESSIONS, found, strict=True):
        padded = nn.functional.pad(table[session].t(), (2, 0))
        wanted = torch.tanh(nn.functional.conv1d(padded[None], kernel, filters.bias))[0].t()
        torch.testing.assert_close(states, wanted, rtol=0, atol=1e-12)


def test_dilation_begins_anew_after_eight_layers():
    encoder = CausalConvStack(2, layers=10, kernel=2, multiplier=2)
    assert [layer.lags[1] for layer in encoder.layers] == [1, 2, 4, 8, 16, 32, 64, 128, 1, 2]


@torch.no_grad()
def test_patterns_are_the_loop():
    encoder = made(lambda width: RecentPatterns(width, length=5, horizontal=3, vertical=2))
    found, table = states_of(encoder, SESSIONS)
    for session, states in zip(SESSIONS, found, strict=True):
        for t in range(len(session)):
            image = torch.zeros(5, WIDTH)
            known = [table[item] for item in session[max(0, t - 4) : t + 1]]
            image[5 - len(known) :] = torch.stack(known)
            parts = []
            for height, layer in enumerate(encoder.horizontal, 1):
                answers = [
                    [
                        max(0.0, float((layer.weight[f].reshape(height, WIDTH) * image[p : p + height]).sum()
                                       + layer.bias[f]))
                        for p in range(5 - height + 1)
                    ]
                    for f in range(3)
                ]  # fmt: skip
                parts.append(torch.tensor([max(each) for each in answers]))
            vertical = torch.stack([(weight[:, None] * image).sum(0) for weight in encoder.vertical.weight], 1)
            wanted = torch.relu(encoder.join.weight @ torch.cat([*parts, vertical.flatten()]) + encoder.join.bias)
            torch.testing.assert_close(states[t], wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", CAUSAL)
@torch.no_grad()
def test_causality_no_state_depends_on_later_clicks(name):
    encoder, session = made(CAUSAL[name]), SESSIONS[1]
    (before,), _ = states_of(encoder, [session])
    for t in range(1, len(session)):
        changed = session[:t] + [(item + 1) % ITEMS for item in session[t:]]
        (after,), _ = states_of(encoder, [changed])
        assert torch.equal(before[:t], after[:t])
        assert not torch.equal(before[t], after[t])


@pytest.mark.parametrize("name", CAUSAL)
@torch.no_grad()
def test_a_longer_neighbour_changes_nothing(name):
    encoder = made(CAUSAL[name])
    together, _ = states_of(encoder, [*SESSIONS, [5] * 40])
    for session, states in zip(SESSIONS, together, strict=False):
        (alone,), _ = states_of(encoder, [session])
        torch.testing.assert_close(states, alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_it_keeps_the_contract_of_an_encoder_in_the_stacked_engine(name):
    report = check_encoder(CAUSAL[name], width=WIDTH)
    assert report.ok, str(report)
    assert "falls back" not in str(report)
