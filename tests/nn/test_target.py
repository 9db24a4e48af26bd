"""Target attention: equal to the dense formula, with all derivatives, whatever the sizes of its pieces."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError
from graphmeta.nn.heads import target_attention as module
from graphmeta.nn.heads.target_attention import (
    AttentionInputs,
    Concatenated,
    TargetAttention,
    attended_cross_entropy,
    attended_scores,
    distinct_states,
)
from graphmeta.nn.losses.losses import SoftmaxLoss
from graphmeta.nn.readout import SoftAttention
from graphmeta.published.catalogue import build
from graphmeta.published.models.session import tagnn
from graphmeta.sampling.samples import sessions_without_target
from graphmeta.sampling.session_batch import session_batch
from graphmeta.testing import fake_log


def problem(lengths=(1, 3, 2, 1, 5), candidates=9, width=3, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def draw(rows):
        return torch.randn(rows, width, dtype=torch.float64, generator=generator, requires_grad=True)

    ptr = F.pad(torch.tensor(lengths).cumsum(0), (1, 0))
    count = torch.randint(1, 4, (int(ptr[-1]),), generator=generator)
    reading = AttentionInputs(draw(len(lengths)), draw(len(count)), draw(len(count)), ptr, count)
    target = torch.randint(0, candidates, (len(lengths),), generator=generator)
    return reading, draw(candidates), target


def dense(reading, table):
    """One softmax for each sample and candidate, a repeated row as often as it counts."""
    rows = []
    for s in range(len(reading.query)):
        at = [e for e in range(int(reading.ptr[s]), int(reading.ptr[s + 1])) for _ in range(int(reading.count[e]))]
        scores = []
        for candidate in table:
            beta = torch.softmax(torch.stack([candidate @ reading.keys[e] for e in at]), 0)
            attended = sum(b * reading.values[e] for b, e in zip(beta, at, strict=True))
            scores.append((reading.query[s] + attended) @ candidate)
        rows.append(torch.stack(scores))
    return torch.stack(rows)


def test_the_plain_form_is_the_formula():
    reading, table, _ = problem()
    torch.testing.assert_close(attended_scores(reading, table), dense(reading, table), rtol=0, atol=1e-12)


@pytest.mark.covering
@pytest.mark.parametrize("columns", [4, 9, 100])
@pytest.mark.parametrize("lengths", [(1, 3, 2, 1, 5), (1, 1), (4,), (6, 6, 6)])
@pytest.mark.parametrize("biased", [False, True])
def test_value_and_gradients_of_the_cross_entropy(monkeypatch, columns, lengths, biased):
    monkeypatch.setattr(module, "_COLUMNS", columns)
    reading, table, target = problem(lengths)
    scores, bias = dense(reading, table), None
    if biased:  # on every candidate but the target; one is left out
        bias = torch.linspace(-1, 1, len(table), dtype=torch.float64)
        bias[2] = -torch.inf
        own = F.one_hot(target, len(table)).bool()
        scores = torch.where(own, scores, scores + bias)
    wanted = F.cross_entropy(scores, target, reduction="none")
    found = attended_cross_entropy(reading, table, target, bias)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
    weight = torch.rand(len(lengths), dtype=torch.float64)
    inputs = (*reading[:3], table)
    pairs = zip(*(torch.autograd.grad(losses, inputs, weight) for losses in (found, wanted)), strict=True)
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-11)


def test_first_and_second_derivatives():
    reading, table, target = problem((1, 3, 2), candidates=4, width=2)

    def losses(query, keys, values, table):
        return attended_cross_entropy(AttentionInputs(query, keys, values, *reading[3:]), table, target)

    assert torch.autograd.gradcheck(losses, (*reading[:3], table))
    assert torch.autograd.gradgradcheck(losses, (*reading[:3], table))


def test_gradients_with_create_graph_are_the_gradients():
    """Queries, keys and values made of each other and of the candidates, as encoders make them: none counts twice."""
    torch.manual_seed(0)
    table, mixed = (torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in ((7, 3), (3, 3)))
    ptr, clicks, target = torch.tensor([0, 3, 4]), torch.tensor([0, 5, 2, 5]), torch.tensor([1, 6])
    states = torch.tanh(table[clicks] @ mixed)
    reading = AttentionInputs(states[ptr[1:] - 1] @ mixed, states @ mixed, states, ptr, torch.ones_like(clicks))
    losses = attended_cross_entropy(reading, table, target)
    wanted = torch.autograd.grad(F.cross_entropy(dense(reading, table), target) * 2, (table, mixed), retain_graph=True)
    for remembered in (True, False):
        found = torch.autograd.grad(losses.sum(), (table, mixed), create_graph=remembered, retain_graph=True)
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-11)


def test_large_scores_stay_finite():
    reading, table, target = problem()
    large = AttentionInputs(*(1e3 * part for part in reading[:3]), *reading[3:])
    losses = attended_cross_entropy(large, table, target)
    assert losses.isfinite().all()
    torch.testing.assert_close(losses, F.cross_entropy(attended_scores(large, table), target, reduction="none"))


def batch_of(*sessions):
    batch = session_batch(sessions_without_target([np.array(s) for s in sessions]), num_items=12)
    batch["sample"].target = torch.arange(len(sessions))
    return batch


def test_repeated_clicks_with_one_state_become_one_row_and_keep_their_gradients():
    batch = batch_of([3, 5, 3, 3], [7], [1, 2])
    x = torch.randn(batch["item"].num_nodes, 4, dtype=torch.float64, requires_grad=True)
    states, ptr, count = distinct_states(x[batch["event"].item], batch)
    torch.testing.assert_close(states, x)
    assert ptr.tolist() == [0, 2, 3, 5] and count.tolist() == [3, 1, 1, 1, 1]
    head = TargetAttention(SoftAttention(4), nn.Linear(8, 4), width=4).double()
    table = torch.randn(12, 4, dtype=torch.float64)
    losses = SoftmaxLoss()(head, x[batch["event"].item], batch, table)
    reading = AttentionInputs(
        head.project(head.readout(x[batch["event"].item], batch)),
        head.attend(x[batch["event"].item]),
        x[batch["event"].item],
        batch["sample"].ptr,
        torch.ones(7, dtype=torch.long),
    )
    wanted = F.cross_entropy(dense(reading, table), batch["sample"].target, reduction="none")
    torch.testing.assert_close(losses, wanted)
    ours, theirs = (torch.autograd.grad(value.sum(), x, retain_graph=True)[0] for value in (losses, wanted))
    torch.testing.assert_close(ours, theirs)


def test_repeated_clicks_with_states_of_their_own_stay_apart():
    batch = batch_of([3, 5, 3], [7])
    states = torch.randn(4, 4)
    kept, ptr, count = distinct_states(states, batch)
    assert kept is states and ptr.tolist() == [0, 3, 4] and count.tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("combine", ["add", "concat"])
@torch.no_grad()
def test_tagnn_is_the_formula(combine):
    torch.manual_seed(0)
    log = fake_log()
    system = build("tagnn", log.items, width=5, combine=combine).double().eval()
    for weight in (system.recommender.head.attend.weight, *system.recommender.head.mix.parameters()):
        weight.uniform_(-0.5, 0.5)
    model, table = system.recommender, system.recommender.features.item.weight
    sessions = [[3, 8, 3, 1], [5], [2, 9, 4], [7, 7]]
    samples = sessions_without_target([np.array(s) for s in sessions])
    found = system.scores(samples)
    batch = session_batch(samples, num_items=log.num_items)
    states, ptr, head = model.encode(batch)[0], batch["sample"].ptr, model.head
    for row in range(len(sessions)):
        h = states[ptr[row] : ptr[row + 1]]
        read = head.readout
        gate = torch.sigmoid(h[-1] @ read.of_last.weight.t() + h @ read.of_each.weight.t() + read.of_each.bias)
        alpha = gate @ read.score.weight.t()
        alpha = torch.softmax(alpha, 0) if combine == "add" else alpha
        bias = 0 if head.project.bias is None else head.project.bias
        session = torch.cat([(alpha * h).sum(0), h[-1]]) @ head.project.weight.t() + bias
        for item in (0, 3, 17):
            beta = torch.softmax(table[item] @ (h @ head.attend.weight.t()).t(), 0)
            read_for_item = beta @ h
            mixed = read_for_item if combine == "add" else read_for_item @ head.mix.weight.t()
            torch.testing.assert_close(found[row, item], (session + mixed) @ table[item], rtol=0, atol=1e-12)


def test_scores_do_not_depend_on_the_batch():
    torch.manual_seed(0)
    system = build("tagnn", EntityTable(np.arange(40), {}), width=6).double()
    samples = sessions_without_target([np.array(s) for s in ([3, 8, 3, 1], [5], [2, 9, 4, 11, 30, 2, 2], [7, 7])])
    together = system.scores(samples)
    for row in range(4):
        torch.testing.assert_close(system.scores(samples.take([row]))[0], together[row], rtol=0, atol=1e-12)


def test_the_papers_form_begins_as_the_sr_gnn_it_starts_from():
    torch.manual_seed(0)
    items, samples = EntityTable(np.arange(40), {}), sessions_without_target([np.array([3, 8, 3, 1]), np.array([5])])
    base, system = build("sr_gnn", items, width=6).double(), build("tagnn", items, width=6, combine="concat").double()
    assert not torch.allclose(system.scores(samples), base.scores(samples))
    system.load_matching(base)
    torch.testing.assert_close(system.scores(samples), base.scores(samples))
    with pytest.raises(InputError, match="add, concat"):
        build("tagnn", items, combine="sum")
    with pytest.raises(InputError, match=r"takes no combine='concat'; pass an object, such as Added\(\), Concatenated"):
        tagnn(items, combine="concat")


def test_a_combination_is_an_object_in_the_function_and_a_name_in_the_build_spec():
    items = EntityTable(np.arange(40), {})
    system = tagnn(items, width=6, combine=Concatenated())
    assert system.spec == build("tagnn", items, width=6, combine="concat").spec
    assert system.spec.arguments["combine"] == "concat"
