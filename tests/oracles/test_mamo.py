"""MAMO against its equations: what a session finds in the memory, its steps, and what training writes there."""

import pytest
import torch

from graphmeta.training.loop import train
from graphmeta.training.optimizers import Sgd
from tests.oracles import mamo
from tests.oracles.compared import (
    FIELDS,
    IF_SAN,
    SESSIONS,
    built,
    check,
    check_state,
    close,
    descended,
    log_of,
    names_below,
    weights_of,
)
from tests.oracles.if_san import if_san
from tests.oracles.sr_gnn import sr_gnn
from tests.oracles.tasks import Oracle

pytestmark = pytest.mark.usefixtures("float64")
LR, RATE = 0.2, 0.25
LAYER = ("head.project.weight", "head.project.bias", mamo.MEMORY, "head.project.memory.bias")  # but not the keys
EVERYTHING = ("features.", "encoder.", "head.readout.", *LAYER)


def made(base="if_san", **arguments):
    """The system, with slots that are far apart, its weights, and its base's equations for them."""
    options = IF_SAN if base == "if_san" else {"base": base}
    system = built("mamo", **options, width=4, rate=RATE, lr=LR, **arguments)
    memory = system.recommender.head.project.memory
    memory.slots += 0.5 * torch.randn_like(memory.slots)
    return system, weights_of(system), if_san(FIELDS, layers=1) if base == "if_san" else sr_gnn


def oracle_of(reads, w, *, changed=EVERYTHING, **steps):
    return Oracle(reads, mamo.prediction, names_below(w, *changed), LR, start=mamo.read_memory(reads), **steps)


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("order", [1, 2])
def test_mamo(order, steps):
    system, w, reads = made(order=order, steps=steps)
    check(system, oracle_of(reads, w, order=order, steps=steps), w)


@pytest.mark.parametrize("order", [1, 2])
def test_mamo_around_sr_gnn(order):
    system, w, reads = made("sr_gnn", order=order, slots=2)
    check(system, oracle_of(reads, w, order=order), w)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize(("scope", "changed"), [("predictor", LAYER), ("attention", ("encoder.", *LAYER))])
def test_the_memory_layer_is_in_every_scope(scope, changed, order):
    system, w, reads = made(scope=scope, order=order)
    check(system, oracle_of(reads, w, changed=changed, order=order), w)


@pytest.mark.parametrize("session", range(len(SESSIONS)))
def test_a_session_alone(session):
    system, w, reads = made(scope="attention")
    check(system, oracle_of(reads, w, changed=("encoder.", *LAYER)), w, [SESSIONS[session]])


@pytest.mark.parametrize("order", [1, 2])
def test_task_by_task(order):
    system, w, reads = made(order=order)
    system.adaptation.stacked = False
    check(system, oracle_of(reads, w, order=order), w)


@pytest.mark.parametrize(
    ("order", "steps", "at_once", "stacked"),
    [(1, 1, None, True), (1, 1, 2, True), (2, 1, None, True), (2, 3, None, True), (1, 1, None, False)],
)
def test_two_global_steps_and_what_they_write(order, steps, at_once, stacked):
    """The write is of the addresses and of the layers that the weights before the step have led to.

    It is one for the batch, also where so many of its tasks are taken ``at_once``, or one by one.
    """
    system, w, reads = made(order=order, steps=steps)
    system.adaptation.task_chunk, system.adaptation.stacked = at_once, stacked
    begin = w[mamo.SLOTS]
    list(train(system, log_of(SESSIONS), epochs=2, batch_size=9, optimizer=Sgd(lr=0.1)))
    for _ in range(2):
        oracle = oracle_of(reads, w, order=order, steps=steps)
        longer = [session for session in SESSIONS if len(session) >= 3]
        loss = oracle.losses(w, longer).mean()
        noted = [
            (mamo.address(w, reads(w, known)).detach(), oracle.on_adapted(w, known)[mamo.MEMORY].detach())
            for *known, _ in longer
        ]
        w = descended(w, loss, 0.1)
        slots = mamo.written(w[mamo.SLOTS], noted, RATE)
        w |= {mamo.SLOTS: slots, mamo.MEMORY: slots.mean(0)}
    check_state(system, w)
    assert float((w[mamo.SLOTS] - begin).abs().amax((1, 2)).min()) > 1e-3  # of each slot: there is something to compare


def test_a_session_of_one_click_writes_what_it_has_read():
    system, w, reads = made()
    system.losses(system.samples(log_of(SESSIONS[:1]), min_length=2))
    memory = system.recommender.head.project.memory
    memory.update_after_step()
    (*known, _), a = SESSIONS[0], mamo.address(w, reads(w, SESSIONS[0][:-1])).detach()
    noted = [(a, mamo.read_memory(reads)(w, known)[mamo.MEMORY].detach())]
    close("slots", memory.slots, mamo.written(w[mamo.SLOTS], noted, RATE))
