"""Causal convolutions against a plain loop over clicks, and that no click knows what comes later."""

import numpy as np
import pytest
import torch
from torch import nn

from graphmeta.nn.encoders.convolution import CausalConvStack, GatedConv, RecentPatterns, lagged
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


def stack(width, **sizes):
    """A stack whose ReLUs let something through, narrow as it is."""
    found = CausalConvStack(width, **sizes)
    for layer in (found.output, *(one.skip for one in found.layers)):
        nn.init.ones_(layer.bias)
    return found


CAUSAL = {
    "stack": stack,
    "wider filters": lambda width: stack(width, layers=2, kernel=3, cycle=1),
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


def wavenet_by_hand(encoder, rows, *, kernel, cycle):
    """Figure 4 and eq 2 of WaveNet, click by click: ``z = tanh(V * h) σ(U * h)``, ``h ← h + R z``, the sum of S z."""
    hidden, total = list(rows), [torch.zeros(WIDTH) for _ in rows]
    for number, layer in enumerate(encoder.layers):
        dilation = 2 ** (number % cycle)
        new = []
        for t in range(len(rows)):
            value, gate = layer.filters.bias[:WIDTH].clone(), layer.filters.bias[WIDTH:].clone()
            for j in range(kernel):
                if t >= j * dilation:
                    columns = layer.filters.weight[:, j * WIDTH : (j + 1) * WIDTH]
                    value += columns[:WIDTH] @ hidden[t - j * dilation]
                    gate += columns[WIDTH:] @ hidden[t - j * dilation]
            z = torch.tanh(value) / (1 + torch.exp(-gate))
            total[t] = total[t] + layer.skip.weight @ z + layer.skip.bias
            new.append(hidden[t] + layer.residual.weight @ z + layer.residual.bias)
        hidden = new
    return [(encoder.output.weight @ one.clamp(min=0) + encoder.output.bias).clamp(min=0) for one in total]


@pytest.mark.parametrize(("layers", "kernel", "cycle"), [(4, 2, 4), (5, 3, 2), (1, 2, 1)])
@torch.no_grad()
def test_the_stack_is_the_loop(layers, kernel, cycle):
    torch.manual_seed(1)
    encoder = CausalConvStack(WIDTH, layers=layers, kernel=kernel, cycle=cycle)
    found, table = states_of(encoder, SESSIONS)
    for session, states in zip(SESSIONS, found, strict=True):
        wanted = wavenet_by_hand(encoder, [table[item] for item in session], kernel=kernel, cycle=cycle)
        torch.testing.assert_close(states, torch.stack(wanted), rtol=0, atol=1e-12)


@torch.no_grad()
def test_filters_are_torch_s_dilated_convolution():
    layer = made(lambda width: GatedConv(width, kernel=3, dilation=2))
    table, session = torch.randn(ITEMS, WIDTH), SESSIONS[1]
    found, _ = layer(table[session], batch_of([session]))
    kernel = layer.filters.weight.reshape(2 * WIDTH, 3, WIDTH).permute(0, 2, 1).flip(2)
    padded = nn.functional.pad(table[session].t(), (4, 0))
    value, gate = nn.functional.conv1d(padded[None], kernel, layer.filters.bias, dilation=2)[0].t().chunk(2, 1)
    wanted = table[session] + layer.residual(torch.tanh(value) * torch.sigmoid(gate))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


@torch.no_grad()
def test_four_layers_reach_sixteen_clicks_back():
    encoder, long = made(stack), [n % 5 for n in range(24)]
    (before,), _ = states_of(encoder, [long])
    (after,), _ = states_of(encoder, [[9, *long[1:]]])
    changed = (before != after).any(1)
    assert changed[15] and not changed[16:].any()


def test_dilations_begin_anew_after_a_cycle():
    assert [layer.lags[1] for layer in CausalConvStack(2, layers=7, cycle=3).layers] == [1, 2, 4, 1, 2, 4, 1]


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
@pytest.mark.first(1)
def test_it_keeps_the_contract_of_an_encoder_in_the_stacked_engine(name):
    report = check_encoder(CAUSAL[name], width=WIDTH)
    assert report.ok, str(report)
    assert "falls back" not in str(report)
