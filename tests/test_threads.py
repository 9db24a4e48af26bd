"""Any number of threads ask one model: the answers of one thread, and the model as it was."""

import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import pytest
import torch

from graphmeta.published.catalogue import build
from graphmeta.published.load import load
from graphmeta.sampling.samples import last_clicks
from graphmeta.storage import state_hash
from graphmeta.testing import fake_log
from graphmeta.training.loop import train
from graphmeta.training.optimizers import Adam

LOG = fake_log(sessions=60, items=23, length=7)
OPTIONS = {"maml": {"base": "if_san"}, "multi_ft": {"lr": 0.1}, "reranker": {}}
ADAPTED = ["maml", "cbml", "melu", "mamo", "multi_ft", "meta_hin"]
PLAIN = ["sr_gnn", "if_san", "gru4rec", "reranker"]
WITH_USERS = ["asars_time_user"]
QUICK = ["maml", "cbml", "sr_gnn", "asars_time_user"]
REST = [name for name in ADAPTED + PLAIN + WITH_USERS if name not in QUICK]
QUERIES = [
    LOG.items.ids[LOG.item[a:b]].tolist()[: 1 + n % 6]
    for n, (a, b) in enumerate(zip(LOG.ptr, LOG.ptr[1:], strict=False))
]


@cache
def trained(name):
    torch.manual_seed(0)
    system = build(name, LOG.items, users=LOG.users if name in WITH_USERS else None, width=6, **OPTIONS.get(name, {}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        list(train(system, LOG, epochs=1, batch_size=30, optimizer=Adam(lr=1e-2)))
    return system


def ask(system, calls, threads):
    """The recommendations of so many calls, in order."""
    which = range(calls) if isinstance(calls, int) else calls
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message="this system reads dwell times")
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(lambda n: system.recommend(QUERIES[n % len(QUERIES)], 5), which))


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in REST)])
def test_threads_give_the_answers_of_one(name, tmp_path):
    trained(name).save(tmp_path)
    system = load(tmp_path)
    assert not system.training
    before, modes = state_hash(system), [part.training for part in system.modules()]
    parameters = [id(p) for p in system.parameters()]
    calls = 8 if name == "meta_hin" else 12
    alone = ask(system, calls, 1)
    numbers = [n % calls for n in range(4 * calls)]
    assert ask(system, numbers, 8) == [alone[n] for n in numbers]  # items and scores, bit for bit
    assert state_hash(system) == before and [part.training for part in system.modules()] == modes
    assert [id(p) for p in system.parameters()] == parameters


@pytest.mark.slow
@pytest.mark.parametrize("name", ADAPTED + PLAIN + WITH_USERS)
def test_eight_threads_five_hundred_calls_each(name):
    system = trained(name)
    before, alone = state_hash(system), ask(system, len(QUERIES), 1)
    found = ask(system, 8 * 500, 8)
    assert found == (alone * (8 * 500 // len(alone) + 1))[: 8 * 500]
    assert state_hash(system) == before


@pytest.mark.covering
@pytest.mark.parametrize("does", ["asks", "saves and loads"])
@pytest.mark.parametrize("name", ["maml", "cbml", "mamo", "sr_gnn"])
def test_nothing_beside_training_changes_training(name, does, tmp_path):
    """Another thread is at work all the time; weights, losses and the random state are those of training alone."""

    def run(beside):
        torch.manual_seed(0)
        system, found = build(name, LOG.items, width=6), []
        stop = threading.Event()

        def keep_asking():
            while not stop.is_set():
                if does == "asks":
                    found.append(system.recommend(QUERIES[3], 5))
                else:
                    system.save(tmp_path)
                    found.append(load(tmp_path))

        asking = threading.Thread(target=keep_asking)
        if beside:
            asking.start()
        try:
            losses = [report.loss for report in train(system, LOG, epochs=2, batch_size=15)]
        finally:
            stop.set()
        if beside:
            asking.join()
        return losses, state_hash(system), len(found)

    losses, weights, _ = run(beside=False)
    other_losses, other_weights, calls = run(beside=True)
    assert calls > (3 if does == "asks" else 1)  # a save waits for the disk
    assert losses == other_losses and weights == other_weights


@pytest.mark.covering
@pytest.mark.parametrize("name", ["maml", "cbml", "mamo", "sr_gnn"])
@pytest.mark.parametrize("context", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_scoring_works_within_any_grad_mode(name, context):
    system = trained(name)
    alone = [system.recommend(one, 5) for one in QUERIES[:6]]
    with context():
        assert [system.recommend(one, 5) for one in QUERIES[:6]] == alone
        scores = system.scores(last_clicks(LOG).take(slice(0, 3)))
    assert not scores.requires_grad and not scores.is_inference()


BASES = {"maml around tagnn": "tagnn", "cbml around niser": "niser"}


@pytest.mark.parametrize("name", ["maml", "cbml", "melu", "mamo", "sr_gnn", *BASES])
def test_scoring_and_training_work_under_autocast(name):
    torch.manual_seed(0)
    options = {"base": BASES[name]} if name in BASES else {}
    system = build(name.split()[0], LOG.items, width=6, **options)
    samples = last_clicks(LOG).take(slice(0, 6))
    wanted = system.scores(samples)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = system.scores(samples)
        losses = system.losses(samples)
        losses.mean().backward()
    assert (found.float() - wanted).abs().max() < 0.1 * wanted.abs().max()
    assert losses.isfinite().all() and all(p.grad is None or p.grad.isfinite().all() for p in system.parameters())


def test_a_model_loaded_in_inference_mode_recommends(tmp_path):
    system = trained("maml")
    system.save(tmp_path)
    with torch.inference_mode():
        loaded = load(tmp_path)
        answers = loaded.recommend(QUERIES[3], 5)
    assert answers == system.recommend(QUERIES[3], 5) == loaded.recommend(QUERIES[3], 5)
