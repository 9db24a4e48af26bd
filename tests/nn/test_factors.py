"""Factors of a domain and maps between domains, against loops."""

import pytest
import torch
from torch import nn

from graphmeta.nn.cross_domain.factors import (
    Autoencoder,
    DenoisingFactors,
    Factors,
    Mapping,
    PersonalMapping,
    SimilarityFactors,
    user_similarity,
    user_table,
)

RATINGS = torch.tensor([[5.0, 3, 0], [5, 3, 0], [0, 1, 4], [0, 0, 0]])
THERE = (RATINGS > 0).float()


@pytest.mark.usefixtures("float64")
def test_factors_rate_and_lose_by_their_formula() -> None:
    part = Factors(user_table(3, 2), torch.tensor([4.0, 2.0]), shrink=0.1)
    part.bias.data += 0.5
    user, item = torch.tensor([2, 0]), torch.tensor([1, 1])
    for n in range(2):
        u, v, b = part.users.weight[user[n]], part.items.weight[item[n]], part.bias[item[n]]
        rating = b + u[0] * v[0] + u[1] * v[1] + u[2]
        torch.testing.assert_close(part.rate(part.vectors(user), item)[n], rating)
        size = u.square().sum() + v.square().sum() + (b - 2) ** 2
        torch.testing.assert_close(part.losses(user, item, torch.ones(2))[n], (rating - 1) ** 2 + 0.1 * size)


@pytest.mark.usefixtures("float64")
def test_the_regulariser_pulls_similar_users_together() -> None:
    weight = torch.tensor([[0.0, 3, 1], [3, 0, 0], [1, 0, 0]])
    part = SimilarityFactors(user_table(3, 2), torch.zeros(2), weight, pull=0.5)
    plain = Factors(part.users, torch.zeros(2))
    plain.items = part.items
    row = torch.tensor([0]), torch.tensor([1]), torch.ones(1)
    u = part.users.weight
    pull = 0.5 * (0.75 * (u[0] - u[1]).square().sum() + 0.25 * (u[0] - u[2]).square().sum())
    torch.testing.assert_close(part.losses(*row)[0] - plain.losses(*row)[0], pull)


def test_user_similarity_by_hand() -> None:
    found = user_similarity(RATINGS, THERE)
    assert found[0, 1] == pytest.approx(1.0)  # the same in all three
    # Users 0 and 2: cosine of (1, -1, 0) and (0, -1.5, 1.5) is 1/2, one item of three in common, no rating in common.
    assert found[0, 2] == pytest.approx((0.5 + 1 / 3 + 0) / 3)
    assert not found[3].any() and not found.diagonal().any() and torch.equal(found, found.T)


@pytest.mark.usefixtures("float64")
def test_the_autoencoder_reads_side_information_in_every_layer() -> None:
    part = Autoencoder(3, 2, hidden=4, side=1, noise=0.3).eval()
    row, side = torch.randn(3), torch.randn(1)
    state, states = row, []
    for number, layer in enumerate(part.layers):
        state = layer.weight @ torch.cat([state, side]) + layer.bias
        state = state.tanh() if number in (0, 2) else state
        states.append(state)
    code, back = part(row[None], side[None])
    torch.testing.assert_close(code[0], states[1])
    torch.testing.assert_close(back[0], states[3])


@pytest.mark.usefixtures("float64")
def test_denoised_factors_reconstruct_only_the_ratings_there_are() -> None:
    ratings, there = RATINGS.double() - THERE * 3, THERE.double()
    part = DenoisingFactors(ratings, there, torch.zeros(3), width=2, shrink=0.0).eval()
    found = part.losses(torch.tensor([2]), torch.tensor([1]), torch.tensor([1.0]))
    none = torch.zeros(1, 0)
    u, row = (x[0] for x in part.users(ratings[2:3], none))
    v, column = (x[0] for x in part.items(ratings.T[1:2], none))
    wrong = (u[:2] @ v + u[2] - 1) ** 2
    wrong = wrong + ((row[1] - ratings[2, 1]) ** 2 + (row[2] - ratings[2, 2]) ** 2) / 2
    wrong = wrong + sum((column[n] - ratings[n, 1]) ** 2 for n in range(3)) / 3
    torch.testing.assert_close(found[0], wrong)
    assert part.vectors(torch.tensor([3])).isfinite().all()  # who rated nothing


@pytest.mark.usefixtures("float64")
def test_personal_maps_are_one_network_each() -> None:
    learners, near = torch.tensor([4, 1]), torch.tensor([[0, 2], [2, 3]])
    part = PersonalMapping(learners, near, torch.tensor([[1.0, 3], [1, 1]]), users=5, width=3)
    for weight in part.parameters():
        nn.init.normal_(weight)
    source, target = torch.randn(2, 5, 3)

    def mapped(place: int, x: torch.Tensor) -> torch.Tensor:
        hidden = (x @ part.first[place, :3] + part.first[place, 3]).tanh()
        return hidden @ part.second[place, :6] + part.second[place, 6]

    found = part(torch.tensor([1, 4]), source.__getitem__)
    torch.testing.assert_close(found, torch.stack([mapped(1, source[1]), mapped(0, source[4])]))
    losses = part.losses(learners, source.__getitem__, target.__getitem__)
    expected = [
        sum(w * (mapped(n, source[p]) - target[p]).square().sum() for w, p in zip(weights, near[n], strict=True))
        for n, weights in enumerate(((0.25, 0.75), (0.5, 0.5)))
    ]
    torch.testing.assert_close(losses, torch.stack(expected))


def test_a_map_loses_the_distance_it_leaves() -> None:
    part = Mapping(nn.Identity(), torch.tensor([0, 1]))
    source, target = torch.zeros(2, 3), torch.tensor([[1.0, 2, 2], [0, 0, 0]])
    assert part.losses(torch.tensor([0, 1]), source.__getitem__, target.__getitem__).tolist() == [9, 0]
