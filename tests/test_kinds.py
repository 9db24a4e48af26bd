"""What the quick suite leaves to `make slow`."""

from itertools import product

import pytest

from graphmeta.published.catalogue import CATALOGUE
from tests.kinds import KINDS, covering, values_of


@pytest.mark.parametrize("sizes", [(3,), (2, 5), (4, 4), (2, 3, 4)])
def test_covering_cases_have_every_value_and_are_as_few_as_the_longest_parameter(sizes):
    cases = [set(enumerate(values)) for values in product(*map(range, sizes))]
    chosen = covering(cases)
    assert set().union(*(cases[number] for number in chosen)) == set().union(*cases)
    assert len(chosen) == max(sizes)


def test_covering_cases_share_the_values_of_a_short_parameter_evenly():
    cases = [set(enumerate(values)) for values in product(range(6), range(2))]
    assert sum((1, 0) in cases[number] for number in covering(cases)) == 3


@pytest.fixture(params=[0, 1])
def fixed(request):
    return request.param


@pytest.mark.parametrize(("a", "b"), [(1, 2), (1, 3)])
@pytest.mark.parametrize("c", ["x", "y"])
def test_a_value_is_that_of_a_whole_decorator_or_fixture(request, a, b, c, fixed):
    assert {names for names, _ in values_of(request.node)} == {("a", "b"), ("c",), ("fixed",)}
    assert (("a", "b"), (id(a), id(b))) in values_of(request.node)


def test_every_family_and_both_predictions_have_a_system_of_their_kind():
    rows = [CATALOGUE[name] for name in KINDS]
    for kind in (lambda row: row.family, lambda row: row.predicts_ratings, lambda row: row.base is None):
        assert {kind(row) for row in rows} == {kind(row) for row in CATALOGUE.values()}
