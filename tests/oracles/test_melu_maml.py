"""MeLU and MAML against their equations: MeLU changes the last layer, MAML what its scope says."""

import pytest

from graphmeta.sampling.samples import last_clicks
from graphmeta.training.loop import train
from graphmeta.training.optimizers import Sgd
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
    prediction,
    weights_of,
)
from tests.oracles.if_san import if_san
from tests.oracles.sr_gnn import sr_gnn
from tests.oracles.tasks import Oracle

pytestmark = pytest.mark.usefixtures("float64")
LR = 0.3
SCOPES = {
    "predictor": ("head.project.",),
    "attention": ("encoder.", "head."),
    "all": ("features.", "encoder.", "head."),
}


def made(name, **arguments):
    system = built(name, width=4, lr=LR, **arguments)
    return system, weights_of(system)


def oracle_of(reads, w, changed, **steps):
    return Oracle(reads, prediction, names_below(w, *changed), steps.pop("lr", LR), **steps)


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("order", [1, 2])
def test_melu(order, steps):
    system, w = made("melu", options={"dropout": 0.0}, order=order, steps=steps)
    oracle = oracle_of(if_san(FIELDS, layers=2), w, SCOPES["predictor"], order=order, steps=steps)
    check(system, oracle, w)


@pytest.mark.parametrize("order", [1, 2])
def test_weighted_edges_of_sr_gnn(order):
    """SR-GNN, section 3.2: an edge weighs as often as the session has it; one of the sessions has one twice."""
    system, w = made("maml", scope="all", order=order, options={"weighted": True})
    reads = lambda w, clicks: sr_gnn(w, clicks, weighted=True)  # noqa: E731
    check(system, oracle_of(reads, w, SCOPES["all"], order=order), w)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("learned", [False, True])
def test_the_weights_of_if_san_are_given_or_learned(order, learned):
    """Eqs 5 and 7; a task adapts learned ones with the encoder."""
    weights = {"item_weight": 0.8, "attribute_weight": 0.3, "learned_weights": learned}
    system, w = made("maml", base="if_san", scope="all", order=order, options=IF_SAN["options"] | weights)
    reads = if_san(FIELDS, layers=1, mix=(0.8, 0.3))
    assert len(names_below(w, "encoder.encoders.0.logit", "encoder.encoders.1.logit")) == 2 * learned
    check(system, oracle_of(reads, w, SCOPES["all"], order=order), w)


@pytest.mark.parametrize("session", range(len(SESSIONS)))
def test_a_session_alone(session):
    system, w = made("melu", options=IF_SAN["options"], steps=2)
    check(system, oracle_of(if_san(FIELDS, layers=1), w, SCOPES["predictor"], steps=2), w, [SESSIONS[session]])


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("order", [1, 2])
def test_maml_around_sr_gnn(order, steps):
    system, w = made("maml", order=order, steps=steps)
    check(system, oracle_of(sr_gnn, w, SCOPES["attention"], order=order, steps=steps), w)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("scope", ["predictor", "all"])
def test_its_scopes(scope, order):
    system, w = made("maml", scope=scope, order=order, options={"steps": 2})
    reads = lambda w, clicks: sr_gnn(w, clicks, steps=2)  # noqa: E731
    check(system, oracle_of(reads, w, SCOPES[scope], order=order), w)


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("order", [1, 2])
def test_maml_around_if_san(order, steps):
    system, w = made("maml", scope="all", order=order, steps=steps, **IF_SAN)
    check(system, oracle_of(if_san(FIELDS, layers=1), w, SCOPES["all"], order=order, steps=steps), w)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("scope", ["attention", "all"])
def test_rates_that_are_learned(scope, order):
    """Meta-SGD: a rate for each number in each step; a table has one."""
    system, w = made("maml", scope=scope, learned=True, order=order, steps=2)
    rates = {name: f"adaptation.step.rates.{name.replace('.', '/')}" for name in names_below(w, *SCOPES[scope])}
    check(system, oracle_of(sr_gnn, w, SCOPES[scope], lr=rates, order=order, steps=2), w)


def test_sessions_that_are_longer_than_what_is_looked_at():
    system, w = made("maml")
    system.max_length = 5
    found = system.scores(last_clicks(log_of(SESSIONS)))
    close("scores", found, oracle_of(sr_gnn, w, SCOPES["attention"]).scores(w, [s[-6:] for s in SESSIONS]))


@pytest.mark.parametrize(
    ("name", "arguments", "reads", "scope"),
    [
        ("melu", {"options": IF_SAN["options"]}, if_san(FIELDS, layers=1), "predictor"),
        ("maml", {}, sr_gnn, "attention"),
    ],
)
def test_two_global_steps(name, arguments, reads, scope):
    system, w = made(name, **arguments)
    list(train(system, log_of(SESSIONS), epochs=2, batch_size=9, optimizer=Sgd(lr=0.2)))
    longer = [session for session in SESSIONS if len(session) >= 3]
    for _ in range(2):
        w = descended(w, oracle_of(reads, w, SCOPES[scope]).losses(w, longer).mean(), 0.2)
    check_state(system, w)
