"""Encoders that call torch-scatter themselves: all tasks at once, where its operations are known, and never wrong."""

import pytest
import torch
from torch import nn

from graphmeta.sampling.batch_rows import NEXT
from tests.adapt.idioms import LAYERS, PLAIN
from tests.adapt.sweep import QUICK, examine

torch_scatter = pytest.importorskip("torch_scatter")


class Aggregation(nn.Module):
    """What comes in along the edges of a session, aggregated as ``gather`` says, beside the item itself."""

    def __init__(self, width, gather):
        super().__init__()
        self.own, self.other, self.gather = nn.Linear(width, width), nn.Linear(width, width), gather

    def forward(self, x, batch):
        source, target = batch[NEXT].edge_index
        heard = self.gather(self.other(x).sigmoid().index_select(0, source), target, len(x))
        return (self.own(x) + heard).tanh().index_select(0, batch["event"].item)


def softmax(x, index, size):
    return torch_scatter.scatter_add(torch_scatter.scatter_softmax(x, index, 0) * x, index, 0, dim_size=size)


KNOWN = {
    "sum": lambda x, index, size: torch_scatter.scatter(x, index, 0, dim_size=size, reduce="sum"),
    "mean": lambda x, index, size: torch_scatter.scatter(x, index, 0, dim_size=size, reduce="mean"),
    "max": lambda x, index, size: torch_scatter.scatter(x, index, 0, dim_size=size, reduce="max"),
    "min": lambda x, index, size: torch_scatter.scatter_min(x, index, 0, dim_size=size)[0],
    # Where nothing is said, torch-scatter has 1 for it, but 0 if nothing is said anywhere: a session alone is another.
    "mul": lambda x, index, size: torch_scatter.scatter_mul(x, index, 0, out=x.new_ones(size, x.shape[1])),
}


@pytest.mark.parametrize("name", KNOWN)
def test_its_operations_are_followed(name, monkeypatch):
    monkeypatch.setitem(LAYERS, "own", lambda width: Aggregation(width, KNOWN[name]))
    found = examine("own", QUICK)
    assert found.outcome == ("loop" if name == "mul" else "stacked"), found  # it writes into ``out`` unseen


@pytest.mark.parametrize("name", ["softmax"])
def test_what_is_not_followed_is_right_by_the_loop(name, monkeypatch):
    monkeypatch.setitem(LAYERS, "own", lambda width: Aggregation(width, softmax))
    found = examine("own", QUICK)
    assert found.outcome in ("stacked", "loop"), found


def test_which_row_it_was_taken_from_belongs_to_the_same_task(monkeypatch):
    def taken(x, index, size):
        _, at = torch_scatter.scatter_max(x.detach(), index, 0, dim_size=size)
        return torch.cat([x, x.new_zeros(1, x.shape[1])]).gather(0, at)

    monkeypatch.setitem(LAYERS, "own", lambda width: Aggregation(width, taken))
    found = examine("own", QUICK)
    assert found.outcome in ("stacked", "loop"), found


class Segments(nn.Module):
    """Each click beside what its session's clicks come to, by pointers."""

    def __init__(self, width, reduce):
        super().__init__()
        self.own, self.other, self.reduce = nn.Linear(width, width), nn.Linear(width, width), reduce

    def forward(self, x, batch):
        clicks = x.index_select(0, batch["event"].item)
        heard = torch_scatter.segment_csr(self.other(clicks).tanh() ** 2, batch["sample"].ptr, reduce=self.reduce)
        return (self.own(clicks) * heard.index_select(0, batch["event"].batch)).tanh()


def plainly(name):
    """The same without torch-scatter's segments, for the reference: their second derivative is wrong."""

    class Plain(Segments):
        def forward(self, x, batch):
            clicks, owner = x.index_select(0, batch["event"].item), batch["event"].batch
            each = self.other(clicks).tanh() ** 2
            heard = each.new_zeros(batch["sample"].num_nodes, each.shape[1]).index_add(0, owner, each)
            if name == "mean":
                heard = heard / batch["sample"].ptr.diff().clamp(min=1)[:, None]
            return (self.own(clicks) * heard.index_select(0, owner)).tanh()

    return lambda width: Plain(width, name)


@pytest.mark.parametrize("name", ["sum", "mean"])
def test_segments_have_the_right_second_derivative(name, monkeypatch):
    monkeypatch.setitem(LAYERS, "own", lambda width: Segments(width, name))
    monkeypatch.setitem(PLAIN, "own", plainly(name))
    found = examine("own", QUICK)
    assert found.outcome in ("stacked", "loop"), found
