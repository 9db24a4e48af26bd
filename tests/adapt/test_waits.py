"""From the first step's forward pass to the last step's gradient, no adaptation waits for the device.

On a device that is not there (:mod:`tests.pretend`): a machine with a GPU asks PyTorch itself (``tests/gpu``).
"""

import pytest
import torch

from tests.catalogue import made
from tests.pretend import DEVICE, Device, moved
from tests.sync import HostWaits, around_steps

BASES = ("sr_gnn", "if_san", "niser", "gru4rec", "gc_san", "tagnn")
SCOPES = ("predictor", "attention", "all")  # the last with the item table
CASES = [
    *(
        ("maml", {"base": base, "scope": scope, "order": order, "steps": 2})
        for base in BASES
        for scope in SCOPES
        for order in (1, 2)
        if not (scope == "predictor" and base in ("gru4rec", "gc_san"))
    ),
    *(
        ("maml", {"scope": scope, "order": order, "steps": 2, "learned": True, "inner": {"clip": 0.1, "proximal": 0.1}})
        for scope in ("attention", "all")
        for order in (1, 2)
    ),
    *((name, {"base": base}) for name in ("cbml", "mamo", "multi_ft") for base in BASES),
    *((name, {"base": base}) for name in ("melu", "meta_hin") for base in ("sr_gnn", "if_san", "niser")),
    *(("cbml", {"order": 1, "scope": scope}) for scope in ("predictor", "all")),
    *(("cbml", {"granularity": granularity}) for granularity in ("row", "column", "rank1")),
    ("cbml", {"gate_scope": "sample"}),
    *((name, {}) for name in ("cbml_g", "cbml_c", "cbml_s", "cbml_f", "meta_tl", "cluster_seq", "bpr_fold_in")),
    *((name, {}) for name in ("meta_cf_g", "meta_cf_linear", "meta_cf_neural", "melu_id")),
    *((name, {}) for name in ("melu_rating", "mamo_rating", "meta_hin_rating")),
    *(("maml", {"base": base}) for base in ("wavenet", "caser", "hetero_gnn", "global_gnn")),
    *(("maml", {"base": base}) for base in ("asars_user_att", "asars_time_att", "dropout_net")),
]
ALONE = [*{name: (name, arguments) for name, arguments in CASES}.values(), *CASES[:6]]  # and SR-GNN in every way
# What waits in every step all the same, and why. Besides, an encoder of one's own waits where it asks for a value.
WAITING = {
    "same_category": "how many items share a value with a clicked one is known from the clicks alone",
    "cooccurrence": "how many items neighbours speak for is known from the clicks alone",
    "reranker": "as cooccurrence",
}


@pytest.fixture
def waits(monkeypatch):
    """What the steps wait for."""
    found = HostWaits()
    around_steps(monkeypatch, lambda: found)
    return found


def called(case):
    return " ".join(map(str, (case[0], *(value for value in case[1].values() if not isinstance(value, dict)))))


def run(name, arguments, *, stacked, score_terms=()):
    with Device():
        system, samples = made(name, arguments, score_terms)
        system = moved(system)
        system.adaptation.stacked = stacked
        if system.episodic:
            system.losses(samples).sum().backward()
        else:
            system.eval().scores(samples)
    assert not system.adaptation.fell_back


def parts(case):
    """What the quick cases must show: each system, and each value of an argument."""
    return {case[0], *((key, str(value)) for key, value in case[1].items())}


@pytest.mark.covering(of=parts)
@pytest.mark.parametrize("case", CASES, ids=called)
def test_no_step_waits(case, waits):
    run(*case, stacked=True)
    assert not waits.found, "\n".join(map(str, waits.found))


@pytest.mark.covering(of=parts)
@pytest.mark.parametrize("case", ALONE, ids=called)
@pytest.mark.first(6)
def test_no_step_of_a_task_alone_waits(case, waits):
    run(*case, stacked=False)
    assert not waits.found, "\n".join(map(str, waits.found))


@pytest.mark.parametrize("extra", WAITING)
def test_what_waits_all_the_same(extra, waits):
    run("maml", {"base": "niser"}, stacked=True, score_terms=(extra,))
    assert waits.found


def test_returns_are_no_reason_to_wait(waits):
    run("maml", {"base": "niser", "scope": "all"}, stacked=True, score_terms=("repeat_bias",))
    assert not waits.found, "\n".join(map(str, waits.found))


def test_waits_are_seen():
    x = torch.arange(4.0)
    with Device(), HostWaits() as waits:
        there = x.to(DEVICE)
        _ = float(there.sum()), there[there > 1], there.nonzero(), there.tolist(), there.unique(), torch.equal(x, x)
        _ = torch.bincount(there.long(), minlength=9), there.long().repeat_interleave(there.long())
        there.long().repeat_interleave(there.long(), output_size=6)
    seen = [wait.operation for wait in waits.found]
    first = ["a copy to pretend:0", "_local_scalar_dense", "index", "nonzero", "cpu", "a copy to cpu", "tolist"]
    assert seen == [*first, "_unique2", "equal", "bincount", "repeat_interleave"]
    assert all("test_waits.py" in wait.line for wait in waits.found)
