"""Multi-FT against its equations: trained as its base is, on all prefixes; fine-tuned before it is asked."""

import pytest
import torch

from graphmeta.sampling.samples import last_clicks
from graphmeta.training.loop import train
from graphmeta.training.optimizers import Sgd
from tests.oracles.compared import (
    FIELDS,
    IF_SAN,
    SESSIONS,
    built,
    check_losses,
    check_state,
    close,
    descended,
    log_of,
    names_below,
    prediction,
    weights_of,
)
from tests.oracles.if_san import if_san
from tests.oracles.sr_gnn import sr_gnn
from tests.oracles.tasks import Oracle

pytestmark = pytest.mark.usefixtures("float64")
LR = 0.3
LOG = log_of(SESSIONS)
PREFIXES = [(session[:t], session[t]) for session in SESSIONS for t in range(1, len(session))]
BASES = {"if_san": (IF_SAN["options"], if_san(FIELDS, layers=1)), "sr_gnn": ({}, sr_gnn)}


def made(base, steps=1):
    options, reads = BASES[base]
    system = built("multi_ft", base=base, options=options, width=4, lr=LR, steps=steps)
    w = weights_of(system)
    return system, w, Oracle(reads, prediction, names_below(w, "features.", "encoder.", "head."), LR, steps=steps)


@pytest.mark.parametrize("base", BASES)
def test_it_is_trained_as_its_base_is(base):
    system, w, oracle = made(base)
    wanted = torch.stack([oracle.mean_loss(w, [sample]) for sample in PREFIXES])
    check_losses(system, system.losses(system.training_samples(LOG)), wanted, w)


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("base", BASES)
def test_it_is_fine_tuned_at_inference(base, steps):
    system, w, oracle = made(base, steps)
    close("scores", system.scores(last_clicks(LOG)), oracle.scores(w, SESSIONS))


@pytest.mark.parametrize("base", BASES)
def test_two_global_steps_and_then_its_answers(base):
    system, w, oracle = made(base)
    list(train(system, LOG, epochs=2, batch_size=99, optimizer=Sgd(lr=0.2)))
    for _ in range(2):
        w = descended(w, oracle.mean_loss(w, PREFIXES), 0.2)
    check_state(system, w)
    close("scores", system.scores(last_clicks(LOG)), oracle.scores(w, SESSIONS))
    check_state(system, w)  # what a session changes is its own
