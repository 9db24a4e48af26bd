"""The encoders against a dense formula for one session at a time, written here from the papers."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from graphmeta.nn.encoders.attention import Blend, SelfAttentionStack, SplitEncoders, from_dense, to_dense
from graphmeta.nn.encoders.gated_graph import GatedSessionGraph
from graphmeta.nn.encoders.recurrent import Recurrent
from graphmeta.published.catalogue import build
from graphmeta.sampling.samples import sessions_without_target
from graphmeta.sampling.session_batch import session_batch
from graphmeta.testing import check_encoder, fake_log

LOG = fake_log(sessions=50)
SESSIONS = [[3], [1, 2, 1, 2, 5], [4, 4], [7, 8, 9, 7]]


pytestmark = pytest.mark.usefixtures("float64")


def scores(system):
    samples = sessions_without_target([np.array(session) for session in SESSIONS])
    return system.eval().recommender(session_batch(samples, num_items=LOG.num_items))


@pytest.mark.parametrize("sessions", [[[3, 4], [1, 2], [4, 4]], [[5], [6]], [[1, 2, 1], [4], [4, 5]]])
def test_padded_blocks_of_clicks(sessions):
    """Of sessions of equal length, which need no padding, and of others."""
    batch = session_batch(sessions_without_target([np.array(one) for one in sessions]), num_items=LOG.num_items)
    x = torch.randn(sum(map(len, sessions)), 3)
    dense, known = to_dense(x, batch)
    parts = x.split([len(one) for one in sessions])
    torch.testing.assert_close(dense, torch.nn.utils.rnn.pad_sequence(parts, batch_first=True), rtol=0, atol=0)
    longest = max(map(len, sessions))
    assert known.tolist() == [[place < len(one) for place in range(longest)] for one in sessions]
    torch.testing.assert_close(from_dense(dense, batch), x, rtol=0, atol=0)


def linear(x, layer):
    return x @ layer.weight.t() + (0 if layer.bias is None else layer.bias)


@torch.no_grad()
def test_sr_gnn_is_the_formula():
    torch.manual_seed(0)
    system = build("sr_gnn", LOG.items, width=5, steps=2).double()
    model, table = system.recommender, system.recommender.features.item.weight
    found = scores(system)
    for row, session in enumerate(SESSIONS):
        nodes = sorted(set(session))
        at = [nodes.index(item) for item in session]
        adjacency = torch.zeros(len(nodes), len(nodes))
        for a, b in zip(at, at[1:], strict=False):
            adjacency[a, b] = 1
        out = adjacency / adjacency.sum(1, keepdim=True).clamp(min=1)
        into = (adjacency / adjacency.sum(0, keepdim=True).clamp(min=1)).t()
        hidden, graph = table[nodes], model.encoder
        for _ in range(2):
            a = torch.cat([into @ linear(hidden, graph.incoming), out @ linear(hidden, graph.outgoing)], 1) + graph.bias
            gates = a @ graph.cell.weight_ih.t() + graph.cell.bias_ih
            old = hidden @ graph.cell.weight_hh.t() + graph.cell.bias_hh
            reset, update = (torch.sigmoid(gates[:, s] + old[:, s]) for s in (slice(0, 5), slice(5, 10)))
            new = torch.tanh(gates[:, 10:] + reset * old[:, 10:])
            hidden = (1 - update) * new + update * hidden
        states, read = hidden[at], model.head.readout
        alpha = linear(torch.sigmoid(linear(states[-1], read.of_last) + linear(states, read.of_each)), read.score)
        session_vector = linear(torch.cat([(alpha * states).sum(0), states[-1]]), model.head.project)
        torch.testing.assert_close(found[row], table @ session_vector, rtol=0, atol=1e-12)


@torch.no_grad()
def test_gc_san_is_the_formula():
    torch.manual_seed(0)
    system = build("gc_san", LOG.items, width=6, layers=2, weight=0.6).double()
    model, table, found = system.recommender, system.recommender.features.item.weight, scores(system)
    for row, session in enumerate(SESSIONS):
        alone = session_batch(sessions_without_target([np.array(session)]), num_items=LOG.num_items)
        graph = model.encoder.below(table[alone["item"].n_id], alone)  # SR-GNN's encoder has its own oracle
        states = graph
        for block in model.encoder.block.blocks:
            q, k, v = (linear(states, part) for part in (block.query, block.key, block.value))
            mixed = torch.softmax(q @ k.t() / math.sqrt(6), 1) @ v
            states = linear(torch.relu(linear(mixed, block.inner)), block.outer) + mixed
        wanted = table @ (0.6 * states[-1] + 0.4 * graph[-1])
        torch.testing.assert_close(found[row], wanted, rtol=0, atol=1e-12)


def gru(x, h, cell):
    """One step of a GRU from its definition; weights in PyTorch's order reset, update, new."""
    w_x, w_h, b_x, b_h = (getattr(cell, f"{name}_l0") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    from_x, from_h = (w_x @ x + b_x).chunk(3), (w_h @ h + b_h).chunk(3)
    reset, update = (torch.sigmoid(from_x[k] + from_h[k]) for k in range(2))
    return (1 - update) * torch.tanh(from_x[2] + reset * from_h[2]) + update * h, None


def lstm(x, h, cell, memory):
    """One step of an LSTM from its definition; weights in PyTorch's order input, forget, cell, output."""
    w_x, w_h, b_x, b_h = (getattr(cell, f"{name}_l0") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    into, forget, new, out = (w_x @ x + b_x + w_h @ h + b_h).chunk(4)
    memory = torch.sigmoid(forget) * memory + torch.sigmoid(into) * torch.tanh(new)
    return torch.sigmoid(out) * torch.tanh(memory), memory


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@torch.no_grad()
def test_gru4rec_is_the_recurrence(cell):
    torch.manual_seed(0)
    system = build("gru4rec", LOG.items, width=5, cell=cell, layers=2).double()
    model, found = system.recommender, scores(system)
    table = model.features.item.weight
    table[:, 5] = torch.rand(LOG.num_items)
    found = scores(system)
    for row, session in enumerate(SESSIONS):
        below = [table[item, :5] for item in session]
        for layer in model.encoder.layers:
            h, memory, above = torch.zeros(5), torch.zeros(5), []
            for x in below:
                h, memory = gru(x, h, layer) if cell == "gru" else lstm(x, h, layer, memory)
                above.append(h)
            below = above
        torch.testing.assert_close(found[row], table[:, :5] @ below[-1] + table[:, 5], rtol=0, atol=1e-12)


@torch.no_grad()
def test_if_san_is_the_formula():
    torch.manual_seed(0)
    system = build("if_san", LOG.items, width=6).double()
    model = system.recommender
    features, found = model.features, scores(system)
    for row, session in enumerate(SESSIONS):
        fields = torch.stack(
            [
                features.fields[f"field_{n}"].weight[features.codes[session, at]]
                for at, n in enumerate(("category", "brand"))
            ],
            1,
        )
        alpha = torch.softmax(linear(fields, features.fuse.score), 1)
        levels = [features.item.weight[session], (alpha * fields).sum(1)]
        last = []
        for level, blend in zip(levels, model.encoder.encoders, strict=True):
            states = level
            for block in blend.block.blocks:
                q, k, v = (linear(states, part) for part in (block.query, block.key, block.value))
                mixed = torch.softmax(q @ k.t() / math.sqrt(6), 1) @ v
                states = linear(torch.relu(linear(mixed, block.inner)), block.outer) + mixed
            last.append(0.5 * states[-1] + 0.5 * level[-1])
        wanted = features.item.weight @ linear(torch.cat(last), model.head.project)
        torch.testing.assert_close(found[row], wanted, rtol=0, atol=1e-12)


@torch.no_grad()
def test_scores_do_not_depend_on_the_batch():
    for name in ("sr_gnn", "gc_san", "gru4rec", "if_san", "cbml"):
        torch.manual_seed(0)
        system = build(name, LOG.items, width=6).double()
        samples = sessions_without_target([np.array(session) for session in SESSIONS])
        together = system.scores(samples)
        for row in range(len(SESSIONS)):
            torch.testing.assert_close(system.scores(samples.take([row]))[0], together[row], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "factory",
    [
        GatedSessionGraph,
        lambda width: Blend(SelfAttentionStack(width)),
        lambda width: Recurrent(width, width + 1, layers=2),
        lambda width: Recurrent(width, width, cell=nn.LSTM),
        lambda width: SplitEncoders(Blend(SelfAttentionStack(width // 2)), GatedSessionGraph(width // 2)),
    ],
)
@pytest.mark.first(2)
def test_encoders_keep_the_contract(factory):
    report = check_encoder(factory)
    assert report.ok, str(report)
    assert "falls back" not in str(report)
