"""Scoring and cross-entropy in one operation: equal to the two, with all derivatives."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from graphmeta.errors import InputError
from graphmeta.nn.catalogue_softmax import (
    CrossEntropyInPlace,
    exponentials_,
    precision,
    products_at,
    score_cross_entropy,
)
from graphmeta.nn.features.tables import ItemFeatures
from graphmeta.nn.heads.dot import Dot
from graphmeta.nn.losses.losses import AllPositions, SoftmaxLoss, following
from graphmeta.nn.readout import Last, Mean
from graphmeta.published.catalogue import build
from graphmeta.sampling.samples import Samples, prefixes, sessions_without_target, whole_sessions
from graphmeta.sampling.session_batch import session_batch
from graphmeta.testing import fake_log


def problem():
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(4, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    table = torch.randn(6, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    return query, table, torch.tensor([0, 5, 2, 2])


def test_value_and_derivatives():
    query, table, target = problem()
    wanted = F.cross_entropy(query @ table.t(), target, reduction="none")
    torch.testing.assert_close(score_cross_entropy(query, table, target), wanted)

    def loss(query, table):
        return score_cross_entropy(query, table, target)

    assert torch.autograd.gradcheck(loss, (query, table))
    assert torch.autograd.gradgradcheck(loss, (query, table))


@pytest.mark.parametrize("size", [6, 4096, 9000])
def test_constant_candidates_in_blocks(size):
    """Scores that grow from block to block, so that what was added up before shrinks each time."""
    query, table, target = problem()
    table = table.detach().repeat(size // 6 + 1, 1)[:size] * torch.linspace(1, 300, size)[:, None]
    weight = torch.tensor([0.3, 2.0, 0.0, -1.0])
    found, wanted = (
        score_cross_entropy(query, table, target),
        F.cross_entropy(query @ table.t(), target, reduction="none"),
    )
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10)
    slopes = [torch.autograd.grad((weight * losses).sum(), query)[0] for losses in (found, wanted)]
    torch.testing.assert_close(*slopes, rtol=0, atol=1e-10)
    if size == 6:
        assert torch.autograd.gradgradcheck(lambda query: score_cross_entropy(query, table / 100, target), query)


@pytest.mark.parametrize(("samples", "items"), [(7, 30_000), (300, 5), (0, 4), (1, 300_000)])
def test_exponentials_in_blocks_of_rows(samples, items):
    """More rows than one block has, fewer, none, and a row larger than a block."""
    scores = 50 * torch.randn(samples, items, generator=torch.Generator().manual_seed(0))
    scores[:1] = -torch.inf
    before = scores.clone()
    top, total = exponentials_(scores)
    wanted = before.logsumexp(1)
    torch.testing.assert_close(total.log() + top, wanted, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close((scores / total[:, None])[1:], before.softmax(1)[1:], rtol=0, atol=1e-6)
    assert not scores[:1].any()


@pytest.mark.parametrize("number", [1, 20])  # fewer than a sixteenth of all pairs, and most of them
def test_products_of_few_and_of_most_pairs(number):
    query, table, _ = problem()
    table = table.detach().repeat(4, 1).requires_grad_()
    row, column = torch.arange(number) % 4, torch.arange(number) * 5 % 24
    wanted = torch.stack([query[s] @ table[i] for s, i in zip(row, column, strict=True)])
    torch.testing.assert_close(products_at(query, table, row, column), wanted)
    assert torch.autograd.gradcheck(lambda query, table: products_at(query, table, row, column), (query, table))


def test_large_scores_stay_finite():
    query, table, target = problem()
    losses = score_cross_entropy(1e4 * query, table, target)
    assert losses.isfinite().all()
    torch.testing.assert_close(losses, F.cross_entropy(1e4 * query @ table.t(), target, reduction="none"))


def test_rows_are_only_a_matter_of_memory():
    query, table, target = problem()
    whole, pieces = (score_cross_entropy(query, table, target, rows=rows) for rows in (100, 3))
    torch.testing.assert_close(whole, pieces)


@pytest.mark.parametrize("view", [False, True], ids=["own memory", "view"])
def test_scores_that_become_their_own_gradient(view):
    """Also where the gradient by the scores themselves is asked for, as the adaptation of a table does."""
    random = torch.Generator().manual_seed(0)
    query, table = (torch.randn(*shape, generator=random) for shape in ((6, 3), (9, 3)))
    target, weight = torch.randint(9, (6,), generator=random), torch.rand(6, generator=random)

    def slopes(cross_entropy):
        leaf = query.clone().requires_grad_()
        scores = (leaf.view(2, 3, 3) @ table.t()).flatten(0, 1) if view else leaf @ table.t()
        losses = cross_entropy(scores, target)
        return losses.detach(), *torch.autograd.grad((weight * losses).sum(), [scores, leaf])

    want = slopes(lambda scores, target: F.cross_entropy(scores, target, reduction="none"))
    torch.testing.assert_close(slopes(CrossEntropyInPlace.apply), want)
    losses = CrossEntropyInPlace.apply(query.clone().requires_grad_() @ table.t(), target)
    losses[0].backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="one backward pass"):
        losses[1].backward()


def test_bf16_is_near_and_its_gradients_too():
    query, table, target = (part.detach() for part in problem())
    generator = torch.Generator().manual_seed(1)
    query, table = (torch.randn(n, 16, generator=generator, requires_grad=True) for n in (4, 6))
    exact = score_cross_entropy(query, table, target)
    with precision("bf16"):
        rough = score_cross_entropy(query, table, target)
    assert not torch.equal(exact, rough)
    torch.testing.assert_close(rough, exact, rtol=0, atol=0.1)
    pairs = (torch.autograd.grad(losses.sum(), (query, table)) for losses in (exact, rough))
    for ours, theirs in zip(*pairs, strict=True):
        torch.testing.assert_close(theirs, ours, rtol=0, atol=0.05)
    with pytest.raises(InputError, match="fp32 or bf16"), precision("fp8"):
        pass


def test_a_head_that_scores_anew_is_not_given_its_parents_cross_entropy():
    class Doubled(Dot):
        def forward(self, states, batch, candidates):
            return 2 * super().forward(states, batch, candidates)

    features, head = ItemFeatures(30, 4), Doubled(Last())
    batch = session_batch(sessions_without_target([np.array([n, n + 1]) for n in range(11)]), num_items=30)
    batch["sample"].target = torch.arange(11)
    x, table = features(batch["item"].n_id)
    states = x[batch["event"].item]
    wanted = F.cross_entropy(head(states, batch, table), batch["sample"].target, reduction="none")
    torch.testing.assert_close(SoftmaxLoss()(head, states, batch, table), wanted)


# Every click a target

RUNS = [[1, 2, 3, 4], [5], [6, 6], [7, 8, 9, 7, 8]]
NEXT_ITEMS, OWNERS = [5, 2, -1, 1], [4, -1, 2, 0]


def of_runs(task=None):
    known = sessions_without_target([np.array(run) for run in RUNS], users=np.array(OWNERS))
    samples = Samples(known.item, known.begin, known.end, np.array(NEXT_ITEMS), known.session, user=known.user)
    return session_batch(samples, num_items=30, task=task, num_tasks=3)


def wanted_of(batch, ahead):
    """``(row of the click, its target, its user)`` by a loop over the runs."""
    real, found = batch["sample"].real.tolist() if "real" in batch["sample"] else range(len(RUNS)), []
    for run, target, owner, sample in zip(RUNS, NEXT_ITEMS, OWNERS, real, strict=True):
        whole = [*run, target] if target >= 0 else run
        begin = int(batch["sample"].ptr[sample])
        found += [(begin + t, whole[t + ahead], owner) for t in range(len(run)) if t + ahead < len(whole)]
    return found


@pytest.mark.covering
@pytest.mark.parametrize("task", [None, np.array([0, 0, 2, 2]), np.array([0, 1, 1, 1])])
@pytest.mark.parametrize("ahead", [1, 2, 3, 9])
def test_the_targets_of_each_click_are_those_of_a_loop(ahead, task):
    batch = of_runs(task)
    view = following(batch, ahead)["sample"]
    assert list(zip(view.last.tolist(), view.target.tolist(), view.user.tolist(), strict=True)) == wanted_of(
        batch, ahead
    )
    assert view.num_nodes == len(view.last) and (ahead < 9 or view.num_nodes == 0)


def test_looking_ahead_leaves_the_batch_alone():
    batch = of_runs(np.array([0, 0, 2, 2]))
    before = {name: torch.as_tensor(value).clone() for name, value in batch["sample"].items()}
    following(batch, 2)
    assert before.keys() == dict(batch["sample"].items()).keys()
    assert all(torch.equal(before[name], torch.as_tensor(value)) for name, value in batch["sample"].items())


@pytest.mark.parametrize("task", [None, np.array([0, 0, 2, 2])])
@pytest.mark.parametrize("ahead", [1, 3, 9])
def test_every_click_is_a_sample_of_its_own(ahead, task):
    batch, generator = of_runs(task), torch.Generator().manual_seed(0)
    states = torch.randn(batch["event"].num_nodes, 4, generator=generator)
    table = torch.randn(30, 4, generator=generator)
    found = AllPositions(SoftmaxLoss(), ahead=ahead)(Dot(Last()), states, batch, table)
    clicks = [click for step in range(1, ahead + 1) for click in wanted_of(batch, step)]
    wanted = [F.cross_entropy(table @ states[row], torch.tensor(target)) for row, target, _ in clicks]
    torch.testing.assert_close(found, torch.stack(wanted))


def test_a_readout_of_more_than_the_last_click_is_refused():
    batch = of_runs()
    with pytest.raises(InputError, match="reads the last click, not Mean"):
        AllPositions(SoftmaxLoss())(Dot(Mean()), torch.zeros(12, 4), batch, torch.zeros(30, 4))


@pytest.mark.parametrize("max_length", [1, 2, 3, 50])
def test_whole_sessions_have_the_losses_of_their_prefixes(max_length):
    log = fake_log(sessions=12, length=6)
    pieces, each = whole_sessions(log, max_length=max_length), prefixes(log)
    view = following(session_batch(pieces, num_items=log.num_items))["sample"]
    assert view.target.tolist() == log.item[np.delete(np.arange(72), np.arange(0, 72, 6))].tolist()
    assert sorted(view.target.tolist()) == sorted(each.target.tolist())
    assert view.user.tolist() == np.repeat(log.session_user, 5).tolist()


def test_the_check_for_causal_encoders_leaves_each_mode_alone():
    log = fake_log(sessions=12)
    recommender = build("gru4rec", log.items, width=4).recommender
    recommender.encoder.eval()  # while the rest is in training mode
    AllPositions(SoftmaxLoss()).check(recommender, prefixes(log), num_items=log.num_items)
    assert recommender.training and not any(part.training for part in recommender.encoder.modules())
