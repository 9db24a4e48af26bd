"""Every comparison against its formula, one sample and one negative at a time."""

import math

import pytest
import torch

from graphmeta.nn.losses.pairwise import RANKING, BprMax

OWN = [0.3, -1.2, 2.5, 0.7]
OTHER = [[0.1, 2.0, -0.5], [1.0, -3.0, 0.4], [0.2, 0.0, -1.0], [5.0, 6.0, 7.0]]
COUNTS = [[True, True, False], [True, True, True], [False, True, False], [False, False, False]]


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def shares(others):
    total = sum(math.exp(n) for n in others)
    return [math.exp(n) / total for n in others]


def mean(values):
    return sum(values) / len(values)


FORMULAS = {
    "bpr": lambda r, n: mean([-math.log(sigmoid(r - x)) for x in n]),
    "top1": lambda r, n: mean([sigmoid(x - r) + sigmoid(x * x) for x in n]),
    "bpr_max": lambda r, n: (
        -math.log(sum(s * sigmoid(r - x) for s, x in zip(shares(n), n, strict=True)))
        + sum(s * x * x for s, x in zip(shares(n), n, strict=True))
    ),
    "top1_max": lambda r, n: sum(
        s * (sigmoid(x - r) + sigmoid(x * x)) for s, x in zip(shares(n), n, strict=True)
    ),
    "hinge": lambda r, n: mean([max(0, 1 + x - r) for x in n]),
    "hinge_max": lambda r, n: max(0, 1 + max(n) - r),
    "binary": lambda r, n: -math.log(sigmoid(r)) - sum(math.log(sigmoid(-x)) for x in n),
    "sampled_softmax": lambda r, n: -math.log(math.exp(r) / (math.exp(r) + sum(math.exp(x) for x in n))),
}  # fmt: skip


def problem():
    own = torch.tensor(OWN, dtype=torch.float64, requires_grad=True)
    other = torch.tensor(OTHER, dtype=torch.float64, requires_grad=True)
    return own, other, torch.tensor(COUNTS)


def test_every_comparison_has_its_formula_here():
    assert FORMULAS.keys() == RANKING.keys()


@pytest.mark.parametrize("name", RANKING)
def test_value(name):
    own, other, counts = problem()
    found = RANKING[name]()(own, other, counts).detach()
    for row in range(3):
        negatives = [n for n, counted in zip(OTHER[row], COUNTS[row], strict=True) if counted]
        assert float(found[row]) == pytest.approx(FORMULAS[name](OWN[row], negatives), abs=1e-12)


@pytest.mark.parametrize("name", RANKING)
def test_a_sample_without_a_negative(name):
    own, other, counts = problem()
    found = RANKING[name]()(own, other, counts)[3]
    assert float(found.detach()) == pytest.approx(-math.log(sigmoid(OWN[3])) if name == "binary" else 0, abs=1e-12)
    to_own, to_other = torch.autograd.grad(found, (own, other), create_graph=True, allow_unused=True)
    wanted = sigmoid(OWN[3]) - 1 if name == "binary" else 0
    assert float(to_own[3].detach()) == pytest.approx(wanted, abs=1e-12)
    assert (to_other == 0).all()
    if to_own.requires_grad:
        second = torch.autograd.grad(to_own.sum() + to_other.sum(), (own, other), allow_unused=True)
        assert all(part is None or part.isfinite().all() for part in second)


@pytest.mark.parametrize("name", RANKING)
def test_derivatives(name):
    own, other, counts = problem()
    assert torch.autograd.gradcheck(lambda r, n: RANKING[name]()(r, n, counts), (own, other))
    assert torch.autograd.gradgradcheck(lambda r, n: RANKING[name]()(r, n, counts), (own, other))


@pytest.mark.parametrize("name", RANKING)
def test_invalid_negatives_change_nothing(name):
    own, other, counts = problem()
    changed = torch.where(counts, other, other + 100)
    assert torch.equal(RANKING[name]()(own, other, counts), RANKING[name]()(own, changed, counts))


@pytest.mark.covering
@pytest.mark.parametrize("name", RANKING)
@pytest.mark.parametrize("shape", [(4, 0), (0, 3), (0, 0)])
def test_no_negatives_or_no_samples_at_all(name, shape):
    own = torch.tensor(OWN[: shape[0]], requires_grad=True)
    found = RANKING[name]()(own, torch.zeros(shape), torch.zeros(shape, dtype=torch.bool))
    wanted = -torch.nn.functional.logsigmoid(own) if name == "binary" else torch.zeros(shape[0])
    torch.testing.assert_close(found, wanted)


def test_bpr_max_still_learns_where_every_negative_is_far_above():
    own, other = torch.tensor([-200.0], requires_grad=True), torch.tensor([[3.0, 4.0]])
    loss = BprMax(penalty=0.0)(own, other, torch.ones(1, 2, dtype=torch.bool))
    loss.sum().backward()
    mixed = math.log(sum(s * math.exp(-n) for s, n in zip(shares([3, 4]), [3, 4], strict=True)))
    assert float(loss.detach()) == pytest.approx(200 - mixed, rel=1e-6)
    assert float(own.grad) == pytest.approx(-1, rel=1e-5)


def test_the_penalty_of_bpr_max_is_weighted():
    own, other, counts = problem()
    without, single, double = (BprMax(penalty)(own, other, counts) for penalty in (0.0, 1.0, 2.0))
    torch.testing.assert_close(double - single, single - without)
    assert (single[:2] > without[:2]).all()
