"""CBML and its variants against their equations: losses, meta-gradients and scores of ragged sessions."""

import pytest

from graphmeta.training.loop import train
from graphmeta.training.optimizers import Sgd
from tests.oracles import cbml
from tests.oracles.compared import (
    FIELDS,
    SESSIONS,
    built,
    check,
    check_state,
    descended,
    log_of,
    names_below,
    weights_of,
)
from tests.oracles.if_san import if_san
from tests.oracles.sr_gnn import sr_gnn
from tests.oracles.tasks import Oracle, no_start

pytestmark = pytest.mark.usefixtures("float64")
LR = 0.3
CHANGED = ("features.", "encoder.", "head.readout.", cbml.WEIGHT, cbml.BIAS)  # θ^e, θ^s, θ^pre; never φ


def oracle_of(reads, w, *, gate="both", granularity="full", gate_scope="session", changed=CHANGED, **steps):
    """Eqs 9–18 above a base; a rate for each number where the system has learned ones."""
    start, predict, local = no_start, cbml.prediction, names_below(w, *changed)
    if gate != "none" and gate_scope == "session":
        start = cbml.gate_of_session(reads, gate, granularity)
    if gate != "none" and gate_scope == "sample":
        predict = cbml.gated_prediction(gate, granularity)
    return Oracle(reads, predict, local, steps.pop("lr", LR), start=start, **steps)


def around_if_san(name="cbml", fields=FIELDS, layers=1, **arguments):
    """The system, its weights, and IF-SAN's equations for them."""
    options = {"layers": layers, "dropout": 0.0}
    system = built(name, width=4, clusters=3, lr=LR, options=options, **arguments)
    return system, weights_of(system), if_san(fields, layers=layers)


@pytest.mark.parametrize(("steps", "layers"), [(1, 2), (3, 1)])
@pytest.mark.parametrize("order", [1, 2])
def test_cbml(order, steps, layers):
    system, w, reads = around_if_san(layers=layers, order=order, steps=steps)
    check(system, oracle_of(reads, w, order=order, steps=steps), w)


@pytest.mark.covering
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize(
    ("name", "seen", "fields"),
    [("cbml_g", "none", FIELDS), ("cbml_c", "session", FIELDS), ("cbml_s", "cluster", FIELDS), ("cbml_f", "both", {})],
)
def test_its_variants(name, seen, fields, order):
    system, w, reads = around_if_san(name, fields, order=order)
    check(system, oracle_of(reads, w, gate=seen, order=order), w)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("granularity", ["full", "row"])
def test_a_gate_for_each_sample(granularity, order):
    arguments = {"gate_scope": "sample", "granularity": granularity, "order": order, "steps": 3 - order}
    system, w, reads = around_if_san(**arguments)
    check(system, oracle_of(reads, w, **arguments), w)


@pytest.mark.parametrize("gate", ["session", "cluster"])
def test_a_gate_for_each_sample_reads_the_inputs_of_its_variant(gate):
    system, w, reads = around_if_san(gate=gate, gate_scope="sample")
    check(system, oracle_of(reads, w, gate=gate, gate_scope="sample"), w)


@pytest.mark.covering
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("granularity", ["row", "column", "rank1"])
def test_gates_of_fewer_values(granularity, order):
    system, w, reads = around_if_san(granularity=granularity, order=order)
    check(system, oracle_of(reads, w, granularity=granularity, order=order), w)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize(
    ("scope", "changed"),
    [("predictor", (cbml.WEIGHT, cbml.BIAS)), ("attention", ("encoder.", cbml.WEIGHT, cbml.BIAS))],
)
def test_a_task_that_changes_less(scope, changed, order):
    system, w, reads = around_if_san(scope=scope, order=order)
    check(system, oracle_of(reads, w, changed=changed, order=order), w)


@pytest.mark.parametrize("order", [1, 2])
def test_rates_that_are_learned(order):
    system, w, reads = around_if_san(learned=True, order=order, steps=2)
    rates = {name: f"adaptation.step.rates.{name.replace('.', '/')}" for name in names_below(w, *CHANGED)}
    check(system, oracle_of(reads, w, lr=rates, order=order, steps=2), w)


@pytest.mark.parametrize("order", [1, 2])
def test_cbml_around_sr_gnn(order):
    system = built("cbml", width=4, clusters=3, lr=LR, base="sr_gnn", order=order)
    w = weights_of(system)
    check(system, oracle_of(sr_gnn, w, order=order), w)


@pytest.mark.parametrize("session", range(len(SESSIONS)))
def test_a_session_alone(session):
    system, w, reads = around_if_san()
    check(system, oracle_of(reads, w), w, [SESSIONS[session]])


@pytest.mark.parametrize("order", [1, 2])
def test_task_by_task(order):
    system, w, reads = around_if_san(order=order)
    system.adaptation.stacked = False
    check(system, oracle_of(reads, w, order=order), w)


def test_two_global_steps():
    """Eqs 17–18: the mean loss of the sessions that have support, down the gradient of θ and φ."""
    system, w, reads = around_if_san()
    list(train(system, log_of(SESSIONS), epochs=2, batch_size=9, optimizer=Sgd(lr=0.2)))
    longer = [session for session in SESSIONS if len(session) >= 3]
    for _ in range(2):
        w = descended(w, oracle_of(reads, w).losses(w, longer).mean(), 0.2)
    check_state(system, w)
