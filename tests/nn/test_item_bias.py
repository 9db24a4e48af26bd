"""The item bias of a head counts in its scores and in every loss."""

import pytest
import torch
from torch import nn

from graphmeta.nn.heads.dot import Dot
from graphmeta.nn.losses.losses import RankingLoss, SoftmaxLoss
from graphmeta.nn.losses.negatives import SharedNegatives
from graphmeta.nn.losses.pairwise import Bpr
from graphmeta.nn.losses.proposed import ProposedSoftmaxLoss
from graphmeta.nn.losses.sampled import SampledSoftmaxLoss, Uniform
from graphmeta.nn.readout import Mean
from graphmeta.sampling.samples import last_clicks
from graphmeta.sampling.session_batch import session_batch
from graphmeta.testing import fake_log

LOG = fake_log(sessions=9, length=5)
V = LOG.num_items


class EveryOther(nn.Module):
    """Proposes the target and every other item, each with a weight of its own."""

    def proposed(self, batch, target):
        chosen = torch.arange(V) % 2 == 0
        mask = chosen.repeat(len(target), 1)
        mask[torch.arange(len(target)), target] = True
        key = mask.flatten().nonzero().squeeze(1)
        return key, (key % 5).double() / 10

    def values_of(self, batch, key, product):
        return (key % 3).double()

    def forward(self, batch, product):
        key = torch.arange(batch["sample"].num_nodes * V)
        return key // V, key % V, self.values_of(batch, key, product)


def scores(head, states, batch, candidates):
    return head(states, batch, candidates)


def of_items(head, states, batch, candidates):
    items = torch.arange(2 * batch["sample"].num_nodes).view(-1, 2) % V
    return head.of_items(states, batch, candidates, items)


@pytest.mark.parametrize(
    "loss",
    [
        scores,
        of_items,
        SoftmaxLoss(),
        RankingLoss(Bpr(), SharedNegatives(sampled=3)),
        SampledSoftmaxLoss(Uniform(8)),
        ProposedSoftmaxLoss(),
    ],
    ids=lambda loss: getattr(loss, "__name__", type(loss).__name__),
)
def test_an_item_bias_is_a_last_column_of_the_candidates(loss):
    """The same values and gradients as ``Dot(bias=True)``, whose candidates hold the bias."""
    torch.manual_seed(0)
    batch = session_batch(last_clicks(LOG), num_items=V)
    states = torch.randn(batch["event"].num_nodes, 4, dtype=torch.float64, requires_grad=True)
    vectors = torch.randn(V, 4, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(V, dtype=torch.float64, requires_grad=True)
    terms = {"term": EveryOther()} if isinstance(loss, ProposedSoftmaxLoss) else {}

    def of(head, candidates, own):
        torch.manual_seed(1)  # the same sampled items
        found = loss(head, states, batch, candidates)
        return found, *torch.autograd.grad((found * torch.arange(1.0, 1 + found.numel()).view_as(found)).sum(), own)

    head = Dot(Mean(), score_terms=terms)
    head.add_item_bias(V)
    head.item_bias = nn.Parameter(bias.detach().clone())
    found = of(head, vectors, [states, vectors, head.item_bias])
    other = Dot(Mean(), bias=True, score_terms=terms)
    expected = of(other, torch.cat([vectors, bias[:, None]], 1), [states, vectors, bias])
    for one, two in zip(found, expected, strict=True):
        torch.testing.assert_close(one, two)
