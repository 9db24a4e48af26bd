"""Recurrent networks: sessions of like length run together, and each comes out as if it ran alone."""

import numpy as np
import pytest
import torch
from torch import nn

from graphmeta.nn.encoders.attention import length_groups
from graphmeta.nn.encoders.recurrent import Cell, Recurrent
from graphmeta.sampling.samples import sessions_without_target
from graphmeta.sampling.session_batch import session_batch

LENGTHS = (1, 7, 3, 3, 40, 2, 19, 21, 1)


@pytest.mark.parametrize("cell", [nn.GRU, nn.LSTM])
def test_each_session_runs_as_if_alone(cell: Cell, float64: None) -> None:
    random = np.random.default_rng(0)
    sessions = [random.integers(9, size=length) for length in LENGTHS]
    batch = session_batch(sessions_without_target(sessions), num_items=9)
    network, table = Recurrent(4, 5, cell=cell, layers=2), torch.randn(9, 4, requires_grad=True)

    one = [torch.cat([table[torch.from_numpy(s)] for s in sessions]).split(LENGTHS)]
    for layer in network.layers:
        one.append([layer(clicks[None])[0][0] for clicks in one[-1]])
    expected = torch.cat(one[-1])
    found = network(table[batch["item"].n_id], batch)

    torch.testing.assert_close(found, expected)
    weight = torch.randn_like(found)
    for parameters in ([table], list(network.parameters())):
        ours, theirs = (
            torch.autograd.grad((o * weight).sum(), parameters, retain_graph=True) for o in (found, expected)
        )
        torch.testing.assert_close(ours, theirs)


def test_every_click_is_in_one_block_and_no_block_is_half_empty() -> None:
    ptr = torch.tensor([0, *np.cumsum(LENGTHS)])
    blocks = list(length_groups(ptr))
    assert sorted(torch.cat([place[inside] for place, inside in blocks]).tolist()) == list(range(sum(LENGTHS)))
    assert [place.shape[1] for place, _ in blocks] == [40, 19, 7, 3, 1]
    assert all(2 * int(inside.sum(1).min()) > inside.shape[1] for _, inside in blocks)
