"""Every layer of the catalogue under meta-training is answered as by the reference, or refused: never otherwise.

A layer is "stacked" (all tasks at once, without a word), "loop" (one after the other, with exactly one warning) or
"refused" (an InputError, or what torch itself says where it cannot). A test of its own for each layer; the quick ones
are in every run, all cases of all layers in `make slow`.
"""

import pytest
import torch
import torch_geometric.nn as pyg
from torch_geometric.nn import conv

from tests.adapt.attacks import ABSENT, LAYERS
from tests.adapt.reference import Inner, Reference
from tests.adapt.sweep import GOOD, ITEMS, QUICK, SESSIONS, examine, float64, has_influence, maker, tasks

pytestmark = pytest.mark.filterwarnings("ignore")  # the sweep collects them itself

REPRESENTATIVE = [
    "conv GCNConv", "conv SAGEConv several", "conv GATConv attributes", "conv GATv2Conv shared", "conv RGCNConv bases",
    "conv EdgeConv", "conv HypergraphConv", "conv NNConv", "conv GENConv", "aggr Softmax by channel", "aggr LSTM",
    "norm GraphNorm", "norm torch RMSNorm", "model AttentiveFP", "model HeteroConv, events read", "model GIN",
    "torch GRU of two layers", "torch GRU packed both ways", "torch LSTM proj_size", "torch RNN time first",
    "torch MultiheadAttention batch first", "torch TransformerEncoderLayer norm last", "torch Conv1d causal",
    "torch Embedding padding_idx", "torch PReLU", "torch weight_norm", "idiom one module under two names",
    "idiom one parameter of two modules", "idiom a learned token in front", "idiom where with a learned vector",
    "idiom einsum heads", "idiom recency decay to 50", "idiom sinusoids of learned scales to the longest",
    "idiom 7 computed prototypes", "idiom 16 computed prototypes", "idiom 30 computed prototypes", "idiom heads",
    "idiom baddbmm", "idiom clicks both ways", "idiom a function of one's own beside a product",
    "idiom checkpoint, not reentrant",
    "idiom a frozen weight", "idiom a scripted function", "idiom torch.func.grad", "idiom vmap over rows",
    "idiom message passing, w first", "idiom a layer on edges by hand", "idiom in place", "idiom a loop over sessions",
]  # fmt: skip


@pytest.mark.parametrize(("number", "name"), list(enumerate(REPRESENTATIVE)), ids=str)
def test_a_layer_is_never_silently_wrong(number, name):
    """In second order, and in one of the other cases, in turn."""
    found = examine(name, (QUICK[0], QUICK[1 + number % 4]))
    assert found.outcome in GOOD, found


def test_the_zero_state_of_a_cell_belongs_to_the_rows_of_its_input():
    found = examine("torch GRUCell from nothing", QUICK[:1])
    assert found.outcome == "stacked", found


DISGUISED = [name for name in LAYERS if name.startswith("attack disguised")]


@pytest.mark.parametrize(("number", "name"), list(enumerate(DISGUISED)), ids=str)
def test_an_operation_that_resembles_another_is_never_silently_wrong(number, name):
    """In second order, or where the batch has as many rows as the vectors are wide, in turn."""
    found = examine(name, (QUICK[3 * (number % 2)],))
    assert found.outcome in GOOD, found


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYERS)
def test_every_case_of_a_layer_is_never_silently_wrong(name):
    found = examine(name)
    assert found.outcome in GOOD, found


REENTRANT = {
    "model DeepGCNLayer checkpointed",
    "idiom checkpoint, reentrant",
    "idiom checkpoint of a convolution, reentrant",
}  # torch has no torch.autograd.grad for these, which any reference needs
FREEZES = {"attack disguised, a layer frozen inside"}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(LAYERS.keys() - REENTRANT - FREEZES))
def test_a_layer_has_something_to_learn(name):
    assert has_influence(name)


def test_every_convolution_is_in_the_catalogue_or_listed_with_a_reason():
    assert missing(conv.__all__, "conv") == []


def test_every_aggregation_is_in_the_catalogue_or_listed_with_a_reason():
    names = [name.removesuffix("Aggregation") for name in pyg.aggr.__all__]
    assert missing(names, "aggr") == [""]  # the base class


def missing(names, kind):
    """Names that no layer and no reason begins with."""
    known = [*LAYERS, *ABSENT]
    return [name for name in names if not any(name and name in one for one in known if one.startswith(f"{kind} "))]


def test_the_quick_layers_are_in_the_catalogue():
    assert set(REPRESENTATIVE) <= set(LAYERS)
    assert any(size == 1 for size in SESSIONS["5 tasks"])  # a task without support


def test_the_reference_is_the_derivative():
    """Its second-order gradient against finite differences of its own losses."""
    with float64():
        make, inner = maker(LAYERS["torch GRU"]), Inner(steps=2, order=2)
        reference = Reference(make, tasks("5 tasks"), num_items=ITEMS)
        _, gradients = reference.losses(inner)
        generator = torch.Generator().manual_seed(0)
        direction = [torch.randn(g.shape, generator=generator) for g in gradients]
        begin, values = reference.originals, []
        for sign in (1, -1):
            moved = [p.detach() + sign * 1e-5 * d for p, d in zip(begin, direction, strict=True)]
            reference.originals = [p.requires_grad_() for p in moved]
            values.append(float(reference.losses(inner)[0].mean()))
        slope = sum(float((g * d).sum()) for g, d in zip(gradients, direction, strict=True))
        assert (values[0] - values[1]) / 2e-5 == pytest.approx(slope, rel=1e-6)


def test_the_reference_sees_each_task_alone():
    with float64():
        make, every = maker(LAYERS["conv SAGEConv"]), tasks("8 tasks")
        together, _ = Reference(make, every, num_items=ITEMS).losses(Inner(steps=2))
        alone = [
            Reference(make, every.take(slice(t, t + 1)), num_items=ITEMS).losses(Inner(steps=2))[0] for t in range(8)
        ]
        torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-12)
