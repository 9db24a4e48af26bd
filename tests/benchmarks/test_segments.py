"""All timed operations compute the same."""

import torch

from benchmarks.segments import operations, timed


def test_operations_of_a_kind_agree():
    index = torch.tensor([0, 0, 1, 3, 3, 3])
    x, ptr = torch.arange(12.0).reshape(6, 2) + 1, torch.tensor([0, 2, 3, 3, 6])
    found = {name: run() for name, run in operations(x, index, ptr).items()}
    assert {name.split(",")[0] for name in found} == {"sum", "max"}
    for name, result in found.items():
        expected = [[4, 6], [5, 6], [0, 0], [27, 30]] if name.startswith("sum") else [[3, 4], [5, 6], [0, 0], [11, 12]]
        assert result.tolist() == expected, name
    assert timed(lambda: x.sum(), repeats=3) >= 0
