"""Scoring and cross-entropy in one operation: equal to the two, with all derivatives."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from graphmeta.batch import open_sessions, session_batch
from graphmeta.errors import InputError
from graphmeta.nn.features import ItemFeatures
from graphmeta.nn.head import Dot
from graphmeta.nn.loss import SoftmaxLoss
from graphmeta.nn.readout import Last
from graphmeta.nn.scoring import precision, score_cross_entropy


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


def test_large_scores_stay_finite():
    query, table, target = problem()
    losses = score_cross_entropy(1e4 * query, table, target)
    assert losses.isfinite().all()
    torch.testing.assert_close(losses, F.cross_entropy(1e4 * query @ table.t(), target, reduction="none"))


def test_rows_are_only_a_matter_of_memory():
    query, table, target = problem()
    whole, pieces = (score_cross_entropy(query, table, target, rows=rows) for rows in (100, 3))
    torch.testing.assert_close(whole, pieces)


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
    batch = session_batch(open_sessions([np.array([n, n + 1]) for n in range(11)]), num_items=30)
    batch["sample"].target = torch.arange(11)
    x, table = features(batch["item"].n_id)
    states = x[batch["event"].item]
    wanted = F.cross_entropy(head(states, batch, table), batch["sample"].target, reduction="none")
    torch.testing.assert_close(SoftmaxLoss()(head, states, batch, table), wanted)
