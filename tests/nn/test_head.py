"""The cosine head: scores by the formula, its own cross-entropy with exact derivatives."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck

from graphmeta.nn.heads.dot import Cosine
from graphmeta.nn.readout import Last
from graphmeta.sampling.samples import sessions_without_target
from graphmeta.sampling.session_batch import session_batch

pytestmark = pytest.mark.usefixtures("float64")


def a_case():
    torch.manual_seed(0)
    batch = session_batch(sessions_without_target([np.array([1, 2]), np.array([3])]), num_items=6)
    batch["sample"].target = torch.tensor([4, 0])
    states, candidates = torch.randn(3, 2, requires_grad=True), torch.randn(6, 3, requires_grad=True)
    return Cosine(Last(), torch.nn.Linear(2, 3), scale=5.0), states, batch, candidates


def by_hand(head, states, candidates):
    query = head.project(states[[1, 2]])
    lengths = query.square().sum(1).sqrt()[:, None] * candidates.square().sum(1).sqrt()
    return 5.0 * (query @ candidates.t()) / lengths


def test_scores_are_scaled_cosines_whatever_the_lengths():
    head, states, batch, candidates = a_case()
    wanted = by_hand(head, states, candidates)
    torch.testing.assert_close(head(states, batch, candidates), wanted, rtol=0, atol=1e-12)
    longer = candidates * torch.arange(1.0, 7.0)[:, None]
    torch.testing.assert_close(head(states, batch, longer), wanted, rtol=0, atol=1e-12)


def test_its_cross_entropy_is_that_of_its_scores_and_so_is_the_gradient():
    head, states, batch, candidates = a_case()
    found = head.cross_entropy(states, batch, candidates)
    wanted = F.cross_entropy(by_hand(head, states, candidates), batch["sample"].target, reduction="none")
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
    for a, b in zip(*(torch.autograd.grad(x.sum(), [states, candidates]) for x in (found, wanted)), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_both_derivatives_of_its_cross_entropy():
    head, states, batch, candidates = a_case()

    def losses(states, candidates):
        return head.cross_entropy(states, batch, candidates)

    assert gradcheck(losses, (states, candidates))
    assert gradgradcheck(losses, (states, candidates))
