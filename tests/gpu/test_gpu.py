"""On a GPU: all tasks at once, one by one and on the CPU give the same numbers, and no step waits.

Left out as a whole without a GPU. ``GRAPHMETA_TEST_DEVICE=cpu`` runs the same on another device, to try the tests.
"""

import copy
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import torch

from graphmeta.adapt.stacked.operations.fused import ExactDerivatives
from graphmeta.published.catalogue import build
from graphmeta.sampling.samples import last_clicks
from graphmeta.testing import fake_log
from tests.sync import around_steps

DEVICE = os.environ.get("GRAPHMETA_TEST_DEVICE", "cuda")
if DEVICE == "cuda" and not torch.cuda.is_available():
    pytest.skip("PyTorch sees no GPU", allow_module_level=True)

LOG = fake_log(sessions=60, items=30)
QUERIES = last_clicks(LOG).take(slice(0, 8))
EVERY = {
    f"{name}, order {order}{', table' * (scope == 'all')}": (name, {"order": order, "scope": scope})
    for name in ("maml", "cbml", "melu", "mamo")
    for order in (1, 2)
    for scope in ("predictor", "all")
    if scope == "all" or name not in ("maml", "melu")
}
EVERY |= {
    f"{base}, order {order}, {scope}": ("maml", {"base": base, "order": order, "scope": scope, "steps": 2})
    for base in ("gru4rec", "sr_gnn", "tagnn")
    for order in (1, 2)
    for scope in ("attention", "all")
}
EVERY["multi_ft"] = ("multi_ft", {})
LEFT_OUT = {("melu", "scope")}  # whose scope is its own
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}


def made(name, arguments, dtype=torch.float64):
    """A system in eval mode, without dropout: recurrent layers have their gradients there too."""
    torch.manual_seed(0)
    known = {key: value for key, value in arguments.items() if (name, key) not in LEFT_OUT}
    system = build(name, LOG.items, users=LOG.users, width=16, **known)
    system.fit_statistics(LOG)
    return system.to(dtype).eval()


def there(system):
    return copy.deepcopy(system).to(DEVICE)


def answers(system, *, stacked=True):
    """Losses, slopes of all parameters and scores, on the CPU."""
    system.adaptation.stacked = stacked
    found = {}
    if system.episodic:
        losses = system.losses(QUERIES)
        losses.mean().backward()
        found = {name: p.grad for name, p in system.named_parameters() if p.grad is not None} | {"losses": losses}
    return {name: x.detach().cpu() for name, x in found.items()} | {"scores": system.scores(QUERIES).cpu()}


def close(found, wanted, tolerance):
    assert found.keys() == wanted.keys()
    for name, right in wanted.items():
        share = float((found[name] - right).abs().max() / right.abs().max().clamp(min=1e-3))
        assert share < tolerance, f"{name} differs by {share:.1e}"


@pytest.mark.parametrize("dtype", TOLERANCE, ids=["float64", "float32"])
@pytest.mark.parametrize("case", EVERY)
def test_stacked_and_loop_are_the_cpu(case, dtype):
    system = made(*EVERY[case], dtype)
    wanted = answers(copy.deepcopy(system))
    for stacked in (True, False):
        own = there(system)
        close(answers(own, stacked=stacked), wanted, TOLERANCE[dtype])
        assert not own.adaptation.fell_back


@contextmanager
def refused():
    """Within it, PyTorch raises where the program would wait for the GPU."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


@pytest.mark.skipif(DEVICE != "cuda", reason="only a GPU is waited for")
@pytest.mark.parametrize("stacked", [True, False], ids=["stacked", "loop"])
@pytest.mark.parametrize("case", EVERY)
def test_no_step_waits(case, stacked, monkeypatch):
    system = there(made(*EVERY[case], torch.float32))
    answers(system, stacked=stacked)  # libraries that are loaded at their first use may wait
    around_steps(monkeypatch, refused)
    answers(system, stacked=stacked)
    assert not system.adaptation.fell_back


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", [torch.nn.GRU, torch.nn.LSTM, torch.nn.RNN])
def test_recurrent_layers_have_every_derivative_in_eval_mode(kind, packed):
    """cuDNN's have none there; within an adaptation they are computed otherwise."""
    layer = kind(3, 4, num_layers=2, bidirectional=True, batch_first=True).double().eval()
    block, found = torch.randn(2, 5, 3, dtype=torch.float64), []
    for device in ("cpu", DEVICE):
        own, x = copy.deepcopy(layer).to(device), block.to(device).requires_grad_()
        for again in (False, True):
            read = torch.nn.utils.rnn.pack_padded_sequence(x, torch.tensor([5, 3]), batch_first=True) if packed else x
            with ExactDerivatives(again=again):
                out = own(read)[0]
            out = out.data if packed else out
            (slope,) = torch.autograd.grad(out.square().sum(), x, create_graph=again)
            found.append(slope)
        found += torch.autograd.grad(slope.square().sum(), [x, *own.parameters()])
    half = len(found) // 2
    for one, other in zip(found[:half], found[half:], strict=True):
        torch.testing.assert_close(other.cpu(), one, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["sr_gnn", "gru4rec", "tagnn", "cbml", "multi_ft"])
def test_recommendations_are_those_of_the_cpu(name):
    system = made(name, {})
    sessions = [list(LOG.items.ids[[3, 4, 5]]), list(LOG.items.ids[[7]]), list(LOG.items.ids[[9, 9, 2, 9]])]
    wanted, found = system.recommend_many(sessions, k=5), there(system).recommend_many(sessions, k=5)
    for one, other in zip(found, wanted, strict=True):
        assert [pick.item for pick in one] == [pick.item for pick in other]
        assert [pick.score for pick in one] == pytest.approx([pick.score for pick in other], rel=1e-9)


@pytest.mark.parametrize("name", ["cbml", "maml", "multi_ft"])
def test_threads_get_the_answers_of_one(name):
    system = there(made(name, {}))
    queries = [QUERIES.take(slice(at, at + 1)) for at in range(0, 8)] * 4
    wanted = [system.scores(samples).cpu() for samples in queries[:8]] * 4
    before = {key: tensor.clone() for key, tensor in system.state_dict().items()}
    with ThreadPoolExecutor(4) as pool:
        found = [scores.cpu() for scores in pool.map(system.scores, queries)]
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    assert all(torch.equal(tensor, before[key]) for key, tensor in system.state_dict().items())
