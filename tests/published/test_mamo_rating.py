"""MAMO on ratings: a person's start, steps, answers and what is written, each person by itself in plain tensors."""

import dataclasses

import numpy as np
import pytest
import torch

from graphmeta.evaluation.ratings import evaluate_ratings
from graphmeta.nn.conditioning.memory import Slots
from graphmeta.published.catalogue import build
from graphmeta.sampling.few_shot import RandomQueries
from graphmeta.sampling.tasks import Tasks
from graphmeta.storage import state_hash
from graphmeta.system import System
from graphmeta.testing import fake_ratings
from graphmeta.training.loop import train
from graphmeta.training.run import Checkpoint
from graphmeta.training.settings import TrainOptions

LOG = fake_ratings()
UNEVEN = LOG.select((LOG.session > 9) | (LOG.item % 7 != LOG.session % 7)).aligned_to(LOG.items, LOG.users)
TASKS = RandomQueries(queries=4, min_events=6)(UNEVEN, max_length=0).take(np.array([0, 3, 5, 20]))
LR, BIAS = 0.1, 0.3


def made(**arguments) -> System:
    torch.manual_seed(0)
    system = build("mamo_rating", LOG.items, users=LOG.users, width=3, size=4, bias=BIAS, lr=LR, **arguments)
    system.fit_statistics(LOG)
    for memory in system.adaptation.start.gradient_slots.values():
        memory.slots.normal_()
    return system


def memories(system: System) -> dict[str, Slots]:
    return {name: part for name, part in system.named_modules() if isinstance(part, Slots)}


def own_name(key: str) -> str:
    """A parameter's name within the head."""
    return key.removeprefix("head/").replace("/", ".")


class ByHand:
    """One person: profile, address, start and end, and the slope of the query there."""

    def __init__(self, system: System, t: int) -> None:
        self.head, self.contents = system.recommender.head, system.recommender.features
        start = system.adaptation.start
        self.profile = self.head.readout.content(torch.tensor([TASKS.query.user[TASKS.query_ptr[t]]]))[0]
        alike = [self.profile @ one / self.profile.norm() / one.norm() for one in start.profiles.slots]
        logits = start.profiles.mix.weight @ torch.stack(alike) + start.profiles.mix.bias
        self.address = logits.exp() / logits.exp().sum()
        weights = dict(self.head.named_parameters())
        for key, memory in start.gradient_slots.items():
            remembered = sum(a * slot for a, slot in zip(self.address, memory.slots, strict=True))
            weights[own_name(key)] = weights[own_name(key)] - BIAS * remembered
        slots = self.head.layers[0].slots
        weights["layers.0.weight"] = sum(a * slot for a, slot in zip(self.address, slots, strict=True))
        self.start = weights
        own = [name for name in weights if not name.startswith("readout")]
        known = self.loss(weights, TASKS.support, TASKS.support_ptr, t)
        slopes = torch.autograd.grad(known, [weights[name] for name in own])
        moved = {name: weights[name] - LR * slope for name, slope in zip(own, slopes, strict=True)}
        self.end = {name: w.detach().requires_grad_() for name, w in {**weights, **moved}.items()}
        self.answers = self.rating(self.end, TASKS.query, TASKS.query_ptr, t)
        personal = [name for name in self.end if name.startswith("user")]
        query_loss = self.loss(self.end, TASKS.query, TASKS.query_ptr, t)
        self.slope = dict(zip(personal, torch.autograd.grad(query_loss, [self.end[n] for n in personal]), strict=True))

    def rating(self, weights: dict[str, torch.Tensor], part, ptr, t: int) -> torch.Tensor:
        own = slice(ptr[t], ptr[t + 1])
        w = weights
        items = self.contents.content(torch.from_numpy(part.target[own]))
        u = w["user.2.weight"] @ torch.relu(w["user.0.weight"] @ self.profile + w["user.0.bias"]) + w["user.2.bias"]
        out = []
        for item in items:
            v = w["item.2.weight"] @ torch.relu(w["item.0.weight"] @ item + w["item.0.bias"]) + w["item.2.bias"]
            x = w["layers.0.weight"] @ torch.cat([u, v]) + w["layers.0.bias"]
            x = torch.relu(w["layers.1.weight"] @ x + w["layers.1.bias"])
            out.append(self.head.mean + w["layers.3.weight"] @ x + w["layers.3.bias"])
        return torch.cat(out)

    def loss(self, weights: dict[str, torch.Tensor], part, ptr, t: int) -> torch.Tensor:
        wrong = self.rating(weights, part, ptr, t) - torch.from_numpy(part.value[ptr[t] : ptr[t + 1]])
        return (wrong**2).mean()


@pytest.mark.usefixtures("float64")
def test_predictions_are_the_formulas_user_by_user() -> None:
    system = made()
    found = system.scores(TASKS).squeeze(1)
    for t in range(len(TASKS)):
        own = slice(TASKS.query_ptr[t], TASKS.query_ptr[t + 1])
        torch.testing.assert_close(found[own], ByHand(system, t).answers.detach(), rtol=0, atol=1e-9)


@pytest.mark.usefixtures("float64")
@pytest.mark.filterwarnings("ignore:.* does not read")
def test_users_start_from_the_memory_of_similar_users() -> None:
    system = made(steps=0)
    starts = system.adaptation.adapted(system.recommender, system._tasks(TASKS), system.loss)
    assert set(starts) == {
        "head.layers.0.weight",
        *(f"head.user.{n}.{kind}" for n in (0, 2) for kind in ("weight", "bias")),
    }
    for t in range(len(TASKS)):
        wanted = ByHand(system, t).start
        for name, start in starts.items():
            torch.testing.assert_close(start[t], wanted[name.removeprefix("head.")])
    assert not torch.allclose(starts["head.layers.0.weight"][0], starts["head.layers.0.weight"][1])


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("stacked", [True, False])
def test_the_writes_are_the_formula(stacked: bool) -> None:
    system = made().train()
    system.adaptation.stacked = stacked
    people = [ByHand(system, t) for t in range(len(TASKS))]
    before = {name: memory.slots.clone() for name, memory in memories(system).items()}
    system.losses(TASKS).mean().backward()
    assert all(torch.equal(memory.slots, before[name]) for name, memory in memories(system).items())
    reached = {
        "adaptation.start.profiles": (0.5, [one.profile for one in people]),
        "recommender.head.layers.0": (0.1, [one.end["layers.0.weight"] for one in people]),
    } | {
        f"adaptation.start.gradient_slots.head/{name.replace('.', '/')}": (0.05, [one.slope[name] for one in people])
        for name in people[0].slope
    }
    assert reached.keys() == before.keys() and len(reached) == 6
    for memory in memories(system).values():
        memory.update_after_step()
    for name, (rate, ends) in reached.items():
        for k, slot in enumerate(before[name]):
            moved = sum(one.address[k] * (end - slot) for one, end in zip(people, ends, strict=True)) / len(people)
            torch.testing.assert_close(memories(system)[name].slots[k], (slot + rate * moved).detach())
    after = {name: memory.slots.clone() for name, memory in memories(system).items()}
    for name, memory in memories(system).items():
        memory.update_after_step()
        assert torch.equal(memory.slots, after[name]), "it is written once"


@pytest.mark.usefixtures("float64")
def test_chunks_of_a_batch_write_what_the_batch_does() -> None:
    found = []
    for chunk in (None, 3):
        system = made()
        system.adaptation.task_chunk = chunk
        next(iter(train(system, LOG, epochs=1, batch_size=10)))
        found.append({name: memory.slots for name, memory in memories(system).items()})
    for name, slots in found[0].items():
        torch.testing.assert_close(slots, found[1][name], rtol=0, atol=1e-9)


def test_reading_and_evaluating_change_nothing() -> None:
    system = made()
    before, first = state_hash(system), system.scores(TASKS)
    for training in (False, True):
        system.train(training)
        evaluate_ratings(system, TASKS)
        assert torch.equal(system.scores(TASKS), first)
        for memory in memories(system).values():
            memory.update_after_step()
        assert state_hash(system) == before
    system.eval().losses(TASKS).mean().backward()
    assert all(memory.noted is None for memory in memories(system).values())


def test_validation_changes_nothing() -> None:
    trained = []
    for valid in (None, lambda model: evaluate_ratings(model, TASKS).metrics):
        system = made()
        list(train(system, LOG, epochs=1, batch_size=8, valid=valid))
        trained.append(state_hash(system))
    assert trained[0] == trained[1]


def test_no_memory_is_another() -> None:
    system = made(slots=4)
    list(train(system, LOG, epochs=1, batch_size=8))
    every = list(memories(system).values())
    assert len({memory.slots.untyped_storage().data_ptr() for memory in every}) == len(every)
    for memory in every:
        before = memory.slots.clone()
        memory.slots[2] += 1
        assert [torch.equal(before[k], memory.slots[k]) for k in range(4)] == [True, True, False, True]
        assert all(not torch.equal(before[k], before[j]) for k in range(4) for j in range(k))


def test_a_training_resumes_with_its_memories(tmp_path) -> None:
    whole, begun = made(), made()
    list(train(whole, LOG, epochs=2, batch_size=8))
    next(train(begun, LOG, epochs=2, batch_size=8, options=TrainOptions(checkpoint=Checkpoint(tmp_path))))
    resumed = made()
    list(
        train(resumed, LOG, epochs=2, batch_size=8, options=TrainOptions(checkpoint=Checkpoint(tmp_path, resume=True)))
    )
    assert state_hash(resumed) == state_hash(whole) != state_hash(made())


@pytest.mark.usefixtures("float64")
@pytest.mark.filterwarnings("ignore:.* does not read")
def test_the_profile_alone_addresses_the_memories() -> None:
    """Neither known nor asked ratings, nor items, have a say in where a person begins."""
    system, random = made(steps=0), np.random.default_rng(0)

    def changed(part):
        return dataclasses.replace(part, value=random.random(len(part)), target=random.permutation(part.target))

    other = Tasks(changed(TASKS.support), changed(TASKS.query), TASKS.support_ptr, TASKS.query_ptr)
    one, two = (
        system.adaptation.adapted(system.recommender, system._tasks(tasks), system.loss) for tasks in (TASKS, other)
    )
    for name, start in one.items():
        torch.testing.assert_close(start, two[name], rtol=0, atol=0)
