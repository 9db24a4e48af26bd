"""The heterogeneous encoder against a loop over the nodes of one session, written here from its formulas."""

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from graphmeta.data.tables import Categorical, EntityTable
from graphmeta.nn.encoders.hetero import BACK, CONTAINED_IN, CONTAINS, MESSAGES, NEXT, HeteroSession
from graphmeta.sampling.given_graph import item_sampler
from graphmeta.sampling.samples import sessions_without_target
from graphmeta.testing import check_encoder, check_log

RANDOM = np.random.default_rng(3)
# Two attributes of 23 items, code 0 (unknown) among their values; a name with a dot, as columns may have.
ATTRIBUTES = {
    "brand": Categorical(np.arange(23) % 4, np.array(["", "a", "b", "c"], dtype=object)),
    "price.band": Categorical(RANDOM.integers(0, 3, 23), np.array(["", "x", "y"], dtype=object)),
}
SESSIONS = [[3], [1, 2, 1, 5, 9, 8], [4, 4], [7, 8, 12, 7, 0]]


pytestmark = pytest.mark.usefixtures("float64")


def batch_of(sessions, attributes=ATTRIBUTES):
    sampler = item_sampler(EntityTable(np.arange(23), attributes), HeteroSession(1, attributes).neighbourhood)
    return sampler(sessions_without_target([np.array(session) for session in sessions]))


def gru(cell, x, h):
    (xr, xz, xn) = (x @ cell.weight_ih.t() + cell.bias_ih).chunk(3)
    (hr, hz, hn) = (h @ cell.weight_hh.t() + cell.bias_hh).chunk(3)
    reset, update = torch.sigmoid(xr + hr), torch.sigmoid(xz + hz)
    return (1 - update) * torch.tanh(xn + reset * hn) + update * h


def mean_of(one, relation, states, width=3):
    """``W mean + b`` of the states heard along a relation; b alone where there are none."""
    layer = one.messages.convs[relation].lin_l
    mean = torch.stack(states).mean(0) if states else torch.zeros(width)
    return layer.weight @ mean + layer.bias


def by_hand(encoder, session, table):
    """States of the clicks of one session, node after node."""
    nodes = sorted(set(session))
    item = {i: table[i] for i in nodes}
    of_session = torch.stack([table[i] for i in session]).mean(0)
    values = {}  # (kind, value or the item that has none) -> state
    value_of = {}
    for kind, attribute in zip(encoder.nodes, ATTRIBUTES.values(), strict=True):
        for i in nodes:
            code = int(attribute.codes[i])
            value_of[kind, i] = (kind, ("value", code) if code else ("unknown of", i))
            values[value_of[kind, i]] = encoder.fields[kind].weight[code]
    steps = set(zip(session, session[1:], strict=False))
    for one in encoder.rounds:
        of_session = gru(one.cells["session"], mean_of(one, CONTAINED_IN, [item[i] for i in session]), of_session)
        heard = {value: [item[i] for i in nodes if value_of[value[0], i] == value] for value in values}
        values = {
            value: gru(one.cells[value[0]], mean_of(one, ("item", "has", value[0]), heard[value]), state)
            for value, state in values.items()
        }
        told = {}
        for i in nodes:
            told[i] = mean_of(one, NEXT, [item[a] for a, b in steps if b == i])
            told[i] = told[i] + mean_of(one, BACK, [item[b] for a, b in steps if a == i])
            told[i] = told[i] + mean_of(one, CONTAINS, [of_session])
            for kind in encoder.nodes:
                told[i] = told[i] + mean_of(one, (kind, "of", "item"), [values[value_of[kind, i]]])
        item = {i: gru(one.cells["item"], told[i], item[i]) for i in nodes}
    return torch.stack([item[i] for i in session])


@torch.no_grad()
@pytest.mark.parametrize("steps", [1, 2])
def test_mean_messages_are_the_formula(steps):
    torch.manual_seed(0)
    encoder, table = HeteroSession(3, ATTRIBUTES, steps=steps), torch.randn(23, 3)
    batch = batch_of(SESSIONS)
    found = encoder(table[batch["item"].n_id], batch)
    wanted = torch.cat([by_hand(encoder, session, table) for session in SESSIONS])
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["mean", pytest.param("attention", marks=pytest.mark.slow)])
def test_it_keeps_the_contract_stacked(name):
    known = check_log().items.categories
    report = check_encoder(lambda width: HeteroSession(width, known, messages=MESSAGES[name]), width=4)
    assert report.ok, report
    assert "falls back" not in str(report)


@pytest.mark.slow
def test_the_transformer_keeps_the_contract_task_by_task():
    one = {"category": check_log().items.categories["category"]}
    report = check_encoder(lambda width: HeteroSession(width, one, messages=MESSAGES["transformer"]), width=4)
    assert report.ok, report
    assert "falls back" in str(report)


@pytest.mark.slow
def test_it_works_without_attributes():
    report = check_encoder(lambda width: HeteroSession(width, {}), width=4)
    assert report.ok and "falls back" not in str(report), report


@pytest.mark.parametrize("name", MESSAGES)
def test_both_derivatives(name):
    torch.manual_seed(1)
    encoder = HeteroSession(2, ATTRIBUTES, messages=MESSAGES[name])
    batch = batch_of([[1, 5, 1], [2]])
    x = torch.randn(batch["item"].num_nodes, 2, requires_grad=True)
    assert gradcheck(lambda x: encoder(x, batch), x, fast_mode=True)
    assert gradgradcheck(lambda x: encoder(x, batch), x, fast_mode=True)


def test_every_parameter_has_a_gradient():
    torch.manual_seed(2)
    encoder, batch = HeteroSession(3, ATTRIBUTES), batch_of(SESSIONS)
    encoder(torch.randn(batch["item"].num_nodes, 3), batch).square().sum().backward()
    assert [name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.any()] == []
