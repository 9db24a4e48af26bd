"""Sampled softmax: what it estimates, and that it is the full softmax where every item is sampled."""

import numpy as np
import pytest
import torch
from torch import nn

from graphmeta.errors import InputError
from graphmeta.nn.catalogue_softmax import precision
from graphmeta.nn.heads.dot import Cosine, Dot
from graphmeta.nn.heads.target_attention import TargetAttention
from graphmeta.nn.log_partition import log_partition
from graphmeta.nn.losses.losses import SoftmaxLoss
from graphmeta.nn.losses.sampled import InBatch, Popularity, SampledSoftmaxLoss, Uniform
from graphmeta.nn.readout import Mean
from graphmeta.protocols import FitsStatistics
from graphmeta.published.catalogue import build
from graphmeta.sampling.samples import last_clicks, prefixes
from graphmeta.sampling.session_batch import session_batch
from graphmeta.sampling.tasks import task_batch
from graphmeta.testing import fake_log
from graphmeta.training.loop import gradients, train

LOG = fake_log(sessions=60, items=30, seed=3)
V = LOG.num_items


class Everything(nn.Module):
    """Samples every item ``times`` times, and says so."""

    def __init__(self, times=1):
        super().__init__()
        self.times = times

    def sample(self, target, num_items):
        return torch.arange(num_items).repeat(self.times)

    def expected(self, items, sampled, num_items):
        return torch.full((len(items),), float(self.times), dtype=torch.float64)


def parts(head=Dot, size=7, **options):
    torch.manual_seed(0)
    batch = session_batch(last_clicks(LOG).take(slice(0, size)), num_items=V)
    states = torch.randn(batch["event"].num_nodes, 6, dtype=torch.float64, requires_grad=True)
    candidates = torch.randn(V, 6, dtype=torch.float64, requires_grad=True)
    return head(Mean(), **options).double(), states, batch, candidates


def of(loss, head, states, batch, candidates):
    losses = loss(head, states, batch, candidates)
    weights = [states, candidates, *head.parameters()]
    return losses, torch.autograd.grad(losses.sum(), weights, create_graph=True, allow_unused=True)


def attention(readout):
    return TargetAttention(readout, nn.Linear(6, 6), width=6)


@pytest.mark.covering
@pytest.mark.parametrize("head", [Dot, Cosine, attention])
@pytest.mark.parametrize("times", [1, 3])
def test_where_every_item_is_sampled_it_is_the_full_softmax(head, times):
    own = parts(head)
    losses, grads = of(SampledSoftmaxLoss(Everything(times)), *own)
    wanted, full = of(SoftmaxLoss(), *own)
    torch.testing.assert_close(losses, wanted, rtol=0, atol=1e-12)
    for one, other in zip(grads, full, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-11)
    # and once more, as in second order
    again, wanted = (
        torch.autograd.grad(sum((g * g).sum() for g in some if g is not None), own[3], retain_graph=True)[0]
        for some in (grads, full)
    )
    torch.testing.assert_close(again, wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize("terms", [("repeat_bias",), ("cooccurrence",), ("repeat_bias", "cooccurrence"), ("reranker",)])
def test_score_terms_count_for_the_target_and_for_sampled_items(terms):
    torch.manual_seed(1)
    system = build("niser", LOG.items, width=6, score_terms=terms).double().eval()
    system.fit_statistics(LOG)
    for term in system.recommender.head.score_terms.values():
        for weight in term.parameters():
            weight.data += 0.3 * torch.randn_like(weight)
    batch = session_batch(last_clicks(LOG).take(slice(0, 9)), num_items=V)
    wanted = system.recommender(batch, SoftmaxLoss())
    found = system.recommender(batch, SampledSoftmaxLoss(Everything()))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
    weights = [w for w in system.parameters() if w.requires_grad]
    for one, other in zip(
        torch.autograd.grad(found.sum(), weights, allow_unused=True),
        torch.autograd.grad(wanted.sum(), weights, allow_unused=True),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-11)


def test_samples_that_pad_a_batch_have_no_loss():
    batch = task_batch(prefixes(LOG).take(slice(0, 5)), num_items=V).support
    head, _, _, candidates = parts()
    states = torch.randn(batch["event"].num_nodes, 6, dtype=torch.float64)
    found = SampledSoftmaxLoss(Everything())(head, states, batch, candidates)
    assert len(found) == len(batch["sample"].real) < batch["sample"].num_nodes
    torch.testing.assert_close(found, SoftmaxLoss()(head, states, batch, candidates), rtol=0, atol=1e-12)


PROPOSALS = {
    "uniform": lambda: [Uniform(12)],
    "alpha 0": lambda: [Popularity(12, alpha=0.0)],
    "popularity": lambda: [Popularity(12)],
    "between": lambda: [Popularity(12, alpha=0.5)],
    "mixed": lambda: [Uniform(6), Popularity(6)],
}


@pytest.mark.parametrize("name", PROPOSALS)
@pytest.mark.first(2)
def test_the_sum_over_other_items_is_estimated_without_bias(name):
    """The mean of ``Σ n_j exp(s_j) / E[n_j]`` over samples is the catalogue's, within five standard errors."""
    head, states, batch, candidates = parts(size=3)
    candidates = candidates.detach() * 0.4
    loss = SampledSoftmaxLoss(*PROPOSALS[name]())
    for proposal in loss.proposals:
        if isinstance(proposal, FitsStatistics):
            proposal.fit_statistics(LOG)
    scores = head(states, batch, candidates)
    own = scores.gather(1, batch["sample"].target[:, None]).squeeze(1)
    torch.manual_seed(7)
    with torch.no_grad():
        ratio = torch.stack(
            [loss(head, states, batch, candidates).expm1() for _ in range(4000)]
        )  # Z without t / exp s_t
    wanted = (torch.logsumexp(scores, 1) - own).expm1()
    error = ratio.std(0) / len(ratio) ** 0.5
    assert ((ratio.mean(0) - wanted).abs() < 5 * error).all()
    assert (error < 0.05 * wanted).all()  # it would show


def test_in_batch_targets_are_corrected_by_how_often_they_are_targets():
    """Batches of independent targets: the mean over batches is the catalogue's."""
    torch.manual_seed(3)
    query, candidates = torch.randn(1, 6, dtype=torch.float64), 0.4 * torch.randn(V, 6, dtype=torch.float64)
    proposal = InBatch()
    proposal.fit_statistics(LOG)
    loss, target = SampledSoftmaxLoss(proposal), 4
    others = torch.arange(V) != target
    wanted = (query @ candidates.t())[0][others].exp().sum()
    found = []
    for _ in range(4000):
        targets = torch.cat([torch.tensor([target]), torch.multinomial(proposal.share, 15, replacement=True)])
        items, weight = loss.sample(targets, V)
        kept = items != target
        found.append(((candidates[items] @ query[0]).exp() * weight.exp())[kept].sum())
    found = torch.stack(found)
    assert (found.mean() - wanted).abs() < 5 * found.std() / len(found) ** 0.5


def test_the_gradient_approaches_the_full_one_as_more_items_are_sampled():
    head, states, batch, candidates = parts(size=5)
    _, full = of(SoftmaxLoss(), head, states, batch, candidates)
    bias = {}
    for count in (8, 64, 512):
        loss = SampledSoftmaxLoss(Uniform(count))
        torch.manual_seed(5)
        grads = [of(loss, head, states, batch, candidates)[1][1].detach() for _ in range(300)]
        bias[count] = float((torch.stack(grads).mean(0) - full[1]).norm().detach() / full[1].norm().detach())
    assert bias[8] > 3 * bias[64] and bias[64] > 1.5 * bias[512] and bias[512] < 0.02


def test_without_correction_popular_negatives_pull_the_loss_elsewhere():
    """The same samples, uncorrected, do not approach the catalogue's gradient."""
    head, states, batch, candidates = parts(size=5)
    _, full = of(SoftmaxLoss(), head, states, batch, candidates)
    far = {}
    for corrected in (True, False):
        loss = SampledSoftmaxLoss(Popularity(512), corrected=corrected)
        loss.proposals[0].fit_statistics(LOG)
        torch.manual_seed(5)
        grads = [of(loss, head, states, batch, candidates)[1][1].detach() for _ in range(200)]
        far[corrected] = float((torch.stack(grads).mean(0) - full[1]).norm().detach() / full[1].norm().detach())
    assert far[True] < 0.05 < 0.2 < far[False]


@pytest.mark.parametrize("with_extra", [False, True])
def test_the_log_partition_has_every_derivative(with_extra):
    torch.manual_seed(2)
    query, vectors = (torch.randn(n, 3, dtype=torch.float64, requires_grad=True) for n in (4, 5))
    value = torch.randn(3, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(5, dtype=torch.float64)
    row, column = torch.tensor([0, 0, 3]), torch.tensor([1, 4, 2])

    def function(q, v, x):
        return log_partition(q, v, bias=bias, extra=(row, column, x) if with_extra else None)

    scores = (query @ vectors.t() + bias).index_put((row, column), value * with_extra, accumulate=True)
    torch.testing.assert_close(function(query, vectors, value), torch.logsumexp(scores, 1), rtol=0, atol=1e-12)
    assert torch.autograd.gradcheck(function, (query, vectors, value))
    assert torch.autograd.gradgradcheck(function, (query, vectors, value))


def test_entries_are_left_out_and_a_row_without_any_is_minus_infinity():
    query, vectors = torch.randn(2, 3, requires_grad=True), torch.randn(2, 3, requires_grad=True)
    out = (torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1]), torch.full((3,), -torch.inf))
    found = log_partition(query, vectors, extra=out)
    assert found[0] == (query[0] @ vectors[1]) and found[1] == -torch.inf
    grad = torch.autograd.grad(torch.nn.functional.softplus(found).sum(), (query, vectors))
    assert all(part.isfinite().all() for part in grad) and not grad[0][1].any()


def test_products_are_rounded_to_16_bits_on_request():
    query, vectors = torch.randn(8, 16), torch.randn(40, 16)
    exact = log_partition(query, vectors)
    with precision("bf16"):
        low = log_partition(query, vectors)
    assert 0 < (low - exact).abs().max() < 0.1


def full_loss(system):
    with torch.no_grad():
        return float(system.eval().recommender(session_batch(prefixes(LOG), num_items=V), SoftmaxLoss()).mean())


@pytest.mark.parametrize("name", ["niser", "tagnn"])
def test_a_system_is_trained_by_it(name):
    torch.manual_seed(0)
    system = build(name, LOG.items, width=8)
    system.loss = SampledSoftmaxLoss(Uniform(20), InBatch())
    before = full_loss(system)
    list(train(system, LOG, epochs=4, batch_size=16))
    after = full_loss(system)
    assert after < before - 0.02


def test_what_it_cannot_use_is_refused():
    with pytest.raises(InputError, match="needs a proposal"):
        SampledSoftmaxLoss()
    with pytest.raises(InputError, match="count=0 must be a whole number, 1 or more"):
        Uniform(0)
    _, states, batch, candidates = parts()
    with pytest.raises(InputError, match="scores by products or has cross_entropy_over, not Linear"):
        SampledSoftmaxLoss(Uniform(4))(nn.Linear(6, V), states, batch, candidates)


class Fixed(nn.Module):
    """Samples given items, some twice."""

    def __init__(self, *items):
        super().__init__()
        self.items = items

    def sample(self, target, num_items):
        return torch.tensor(self.items)

    def expected(self, items, sampled, num_items):
        return torch.full((len(items),), sampled / num_items, dtype=torch.float64)


@pytest.mark.parametrize("head", [Dot, Cosine, attention])
def test_the_loss_is_that_of_the_formula_for_the_sampled_items(head):
    own = parts(head)
    made, states, batch, candidates = own
    target = batch["sample"].target
    sampled = [int(target[0]), 3, 3, 11]
    losses, grads = of(SampledSoftmaxLoss(Fixed(*sampled)), *own)
    scores, rows = made(states, batch, candidates), []
    for row, t in zip(scores, target.tolist(), strict=True):
        weights = {j: sampled.count(j) / (4 / V) for j in set(sampled) if j != t}
        others = sum(weight * row[j].exp() for j, weight in weights.items())
        rows.append((row[t].exp() + others).log() - row[t])
    torch.testing.assert_close(losses, torch.stack(rows), rtol=0, atol=1e-12)
    wanted = torch.autograd.grad(sum(rows), [states, candidates, *made.parameters()], allow_unused=True)
    for one, other in zip(grads, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", ["tagnn", "niser"])
def test_a_table_gets_gradients_of_the_sampled_rows_alone(name):
    torch.manual_seed(0)
    system = build(name, LOG.items, width=8).eval()
    samples = prefixes(LOG).take(slice(0, 4))
    gradients(system, samples, objective=SampledSoftmaxLoss(Fixed(1, 2)))
    (table,) = (w for n, w in system.named_parameters() if w.shape[0] == V)
    touched = {1, 2, *samples.target.tolist(), *samples.flat()[0].tolist()}
    assert set(table.grad.abs().sum(1).nonzero().squeeze(1).tolist()) <= touched
    plain = torch.autograd.grad(
        system.losses(samples, objective=SampledSoftmaxLoss(Fixed(1, 2))).mean(), table, allow_unused=True
    )[0]
    torch.testing.assert_close(table.grad, plain, rtol=1e-5, atol=1e-7)


def test_samples_follow_the_powers_of_popularity():
    proposal = Popularity(200_000, alpha=0.5)
    proposal.fit_statistics(LOG)
    torch.manual_seed(0)
    count = np.bincount(proposal.sample(torch.zeros(1, dtype=torch.long), V).numpy(), minlength=V)
    share = np.sqrt(np.maximum(LOG.support, 1))
    np.testing.assert_allclose(count / count.sum(), share / share.sum(), rtol=0.1)


@pytest.mark.covering
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize(
    ("base", "terms"), [("sr_gnn", []), ("niser", []), ("niser", ["repeat_bias", "cooccurrence"]), ("tagnn", [])]
)
def test_in_meta_training_all_tasks_at_once_are_the_loop(base, terms, order):
    torch.manual_seed(0)
    log = fake_log(sessions=60, items=30)
    options = {"options": {"score_terms": terms}} if terms else {}
    system = build("maml", log.items, width=6, base=base, scope="predictor", order=order, **options).double().eval()
    system.fit_statistics(log)
    tasks, loss, found = system.training_samples(log).take(slice(0, 6)), SampledSoftmaxLoss(Fixed(1, 2, 2, 7)), []
    for stacked in (True, False):
        system.adaptation.stacked = stacked
        losses = system.losses(tasks, objective=loss)
        weights = list(system.recommender.parameters())
        found.append([losses, *torch.autograd.grad(losses.sum(), weights, allow_unused=True)])
    assert not system.adaptation.fell_back
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
