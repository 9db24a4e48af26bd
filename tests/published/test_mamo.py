"""MAMO's memory: what is read is a mixture of slots, what is written the formula, and only training writes."""

import pytest
import torch

from graphmeta.evaluation.ranking import evaluate
from graphmeta.nn.conditioning.memory import MemoryLayer
from graphmeta.published.catalogue import build
from graphmeta.published.load import load
from graphmeta.sampling.samples import last_clicks
from graphmeta.storage import state_hash
from graphmeta.testing import fake_log
from graphmeta.training.loop import train
from graphmeta.training.run import Checkpoint
from graphmeta.training.settings import TrainOptions

LOG = fake_log(sessions=24)
SAMPLES = last_clicks(LOG).take(slice(0, 12))
NAME = "head.project.memory.weight"


def made(**arguments):
    torch.manual_seed(0)
    return build("mamo", LOG.items, width=5, **arguments)


def memory_of(system):
    return system.recommender.head.project.memory


def test_slots_are_tensors_of_their_own():
    memory = memory_of(made(slots=4))
    for one in range(4):
        for other in range(one):
            assert not torch.equal(memory.slots[one], memory.slots[other])
    before = memory.slots.clone()
    memory.slots[2] += 1
    assert [torch.equal(before[k], memory.slots[k]) for k in range(4)] == [True, True, False, True]


@pytest.mark.usefixtures("float64")
def test_a_task_starts_from_the_slots_its_session_is_close_to():
    system = made(steps=0).eval()
    memory, tasks = memory_of(system), system._tasks(SAMPLES)
    start = system.adaptation.adapted(system.recommender, tasks, system.loss)[NAME]
    sessions = system.recommender.summary(tasks.query)
    for t, session in enumerate(sessions.detach()):
        closeness = [float(torch.exp(session @ key)) for key in memory.keys.detach()]
        wanted = sum(c / sum(closeness) * slot for c, slot in zip(closeness, memory.slots, strict=True))
        torch.testing.assert_close(start[t], wanted)


def test_reading_changes_nothing():
    system = made(lr=0.3).eval()
    before = state_hash(system)
    first = system.scores(SAMPLES)
    system.recommend([LOG.items.ids[3], LOG.items.ids[4]], k=3)
    evaluate(system, SAMPLES, ks=(5,))
    system.losses(SAMPLES)
    assert torch.equal(system.scores(SAMPLES), first) and state_hash(system) == before
    system.train()
    system.recommend([LOG.items.ids[3], LOG.items.ids[4]], k=3)
    evaluate(system, SAMPLES, ks=(5,))
    memory_of(system).update_after_step()
    assert state_hash(system) == before


def test_validation_changes_nothing():
    trained = []
    for valid in (None, LOG):
        system = made(lr=0.3)
        torch.manual_seed(1)
        last = [list(train(system, LOG, epochs=1, batch_size=8, valid=valid))[-1]]
        trained.append(state_hash(system))
        assert last[0].valid if valid is not None else not last[0].valid
    assert trained[0] == trained[1]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("stacked", [True, False])
def test_the_write_is_the_formula(stacked):
    system = made(lr=0.3, rate=0.25)
    for part in system.recommender.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    system.adaptation.stacked = stacked
    memory, tasks = memory_of(system), system._tasks(SAMPLES)
    ends = system.eval().adaptation.adapted(system.recommender, tasks, system.loss)[NAME].detach()
    address = torch.softmax(system.recommender.summary(tasks.query) @ memory.keys.t(), 1).detach()
    slots = memory.slots.clone()
    wanted = [
        slots[k] + 0.25 * sum(float(a[k]) * (end - slots[k]) for a, end in zip(address, ends, strict=True)) / 12
        for k in range(3)
    ]
    system.train().losses(SAMPLES)
    assert torch.equal(memory.slots, slots), "nothing is written before the step is taken"
    memory.update_after_step()
    torch.testing.assert_close(memory.slots, torch.stack(wanted))
    torch.testing.assert_close(memory.weight, torch.stack(wanted).mean(0))
    after = memory.slots.clone()
    memory.update_after_step()
    assert torch.equal(memory.slots, after), "it is written once"


@torch.no_grad()
def test_a_memory_whose_tasks_learn_nothing_does_not_decay():
    memory = MemoryLayer(4, slots=3, rate=0.5)
    sessions = torch.randn(8, 4)
    for _ in range(200):
        address = memory.address(sessions)
        memory.note(address, memory.read(address))
        memory.update_after_step()
    torch.testing.assert_close(memory.weight, torch.eye(4), rtol=0, atol=0.2)


def test_training_writes_after_every_step_and_resumes_bit_for_bit(tmp_path):
    whole = made(lr=0.3)
    list(train(whole, LOG, epochs=2, batch_size=8, valid=LOG))
    assert not torch.allclose(memory_of(whole).slots, memory_of(made()).slots, atol=1e-4)
    begun = made(lr=0.3)
    next(train(begun, LOG, epochs=2, batch_size=8, valid=LOG, options=TrainOptions(checkpoint=Checkpoint(tmp_path))))
    torch.manual_seed(5)
    resumed = build("mamo", LOG.items, width=5, lr=0.3)
    list(
        train(
            resumed,
            LOG,
            epochs=2,
            batch_size=8,
            valid=LOG,
            options=TrainOptions(checkpoint=Checkpoint(tmp_path, resume=True)),
        )
    )
    assert state_hash(resumed) == state_hash(whole)
    whole.save(tmp_path / "model")
    assert state_hash(load(tmp_path / "model")) == state_hash(whole)


@torch.no_grad()
def test_with_an_even_memory_and_no_step_it_is_its_base():
    system, base = made(lr=0.0), build("if_san", LOG.items, width=5)
    system.load_matching(base)
    memory_of(system).slots.copy_(torch.eye(10).expand(3, 10, 10))
    torch.testing.assert_close(system.scores(SAMPLES), base.scores(SAMPLES))
