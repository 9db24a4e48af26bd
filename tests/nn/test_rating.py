"""The rating head and its loss against the formula, and what they must not read."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from graphmeta.errors import InputError
from graphmeta.nn.features.content import UserContent
from graphmeta.nn.heads.rating import Decision, SquaredError, decision_layers
from graphmeta.sampling.few_shot import RandomQueries
from graphmeta.sampling.session_batch import session_batch
from graphmeta.testing import fake_ratings

pytestmark = pytest.mark.usefixtures("float64")

LOG = fake_ratings(users=6)
QUERIES = RandomQueries()(LOG, max_length=0).query


def head() -> Decision:
    torch.manual_seed(0)
    decision = Decision(UserContent(LOG.users, 2), decision_layers(5, (4, 3)))
    decision.fit_statistics(LOG)
    return decision


def test_a_rating_is_the_mean_and_what_the_layers_add() -> None:
    decision, candidates = head(), torch.randn(LOG.num_items, 3)
    batch = session_batch(QUERIES, num_items=LOG.num_items)
    found = decision(torch.zeros(0, 1), batch, candidates)
    one, _, two, _, three = decision.layers
    for row, (user, item) in enumerate(zip(QUERIES.user, QUERIES.target, strict=True)):
        age = decision.readout.content.fields["field_age"].table.weight[LOG.users.attributes["age"].codes[user]]
        x = torch.cat([age, candidates[item]])
        x = torch.relu(two.weight @ torch.relu(one.weight @ x + one.bias) + two.bias)
        torch.testing.assert_close(found[row], LOG.value.mean() + three.weight @ x + three.bias)


def test_the_loss_is_the_squared_error_of_real_samples() -> None:
    decision, candidates = head(), torch.randn(LOG.num_items, 3)
    task = np.repeat(np.arange(3), [10, 20, 30])
    batch = session_batch(QUERIES, num_items=LOG.num_items, task=task, num_tasks=3)
    plain = session_batch(QUERIES, num_items=LOG.num_items)
    losses = SquaredError()(decision, torch.zeros(0, 1), batch, candidates)
    scores = decision(torch.zeros(0, 1), plain, candidates).squeeze(1)
    torch.testing.assert_close(losses, (scores - torch.from_numpy(QUERIES.value)) ** 2)


def test_no_rating_is_read_by_the_head() -> None:
    decision, candidates = head(), torch.randn(LOG.num_items, 3)
    other = dataclasses.replace(QUERIES, value=QUERIES.value[::-1] + 7)
    one, two = (session_batch(part, num_items=LOG.num_items) for part in (QUERIES, other))
    assert torch.equal(*(decision(torch.zeros(0, 1), batch, candidates) for batch in (one, two)))


def test_what_is_missing_is_named() -> None:
    decision, candidates = head(), torch.randn(LOG.num_items, 3)
    nowhere = dataclasses.replace(QUERIES, target=np.full(len(QUERIES), -1))
    with pytest.raises(InputError, match="a sample has none"):
        decision(torch.zeros(0, 1), session_batch(nowhere, num_items=LOG.num_items), candidates)
    unrated = session_batch(dataclasses.replace(QUERIES, value=None), num_items=LOG.num_items)
    with pytest.raises(InputError, match="no ratings to learn from"):
        SquaredError()(nn.Identity(), torch.zeros(0, 1), unrated, candidates)
