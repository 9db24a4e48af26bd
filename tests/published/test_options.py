"""No option of the catalogue is ignored without a word: another value changes what a system says, or is warned of.

What it says: what it is trained on, its losses, its scores, before and after training, and after a retraining.
"""

import warnings
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from graphmeta.data.events import EventLog
from graphmeta.data.splits import period_edges
from graphmeta.errors import InputError
from graphmeta.evaluation.queries import with_history
from graphmeta.published.catalogue import CATALOGUE, build
from graphmeta.retrain.period import Period
from graphmeta.sampling.few_shot import RandomQueries
from graphmeta.sampling.samples import Samples, last_clicks
from graphmeta.sampling.tasks import Tasks
from graphmeta.system import System
from graphmeta.testing import fake_log, fake_ratings
from graphmeta.training.loop import train
from graphmeta.training.optimizers import Sgd
from tests.catalogue import sized
from tests.option_values import OTHER, OWN

RATED = fake_ratings(users=8)
WIDTH = 4
# Values that say something where all other options have their defaults.
ALONE: dict[str, Any] = {"without": ["encoder"], "width": 6, "sessions": 1, "history": 1, "history_events": 2}


def random_log() -> EventLog:
    """Sessions of few items, so that items and transitions recur in a session; ten sessions of each of four users."""
    random, known = np.random.default_rng(5), fake_log(items=12)
    session = np.repeat(np.arange(40), random.integers(3, 9, 40))
    item = known.items.ids[(session % 4 * 3 + random.integers(0, 5, len(session))) % 12]
    time = 1.7e9 + 3600 * session + np.cumsum(random.integers(1, 300, len(session)))
    frame = pd.DataFrame({"s": session, "i": item, "t": time, "u": [f"u{n}" for n in session // 10]})
    return EventLog.read(frame, session="s", item="i", time="t", user="u", items=known.items)


LOG = random_log()


def log_of(name: str) -> Any:
    return RATED if CATALOGUE[name].predicts_ratings else LOG


def made(name: str, like: dict[str, torch.Tensor] | None = None, *, seed: int = 0, **arguments: Any) -> System:
    """The system; weights that ``like`` has in the same shape are those."""
    torch.manual_seed(seed)
    log = log_of(name)
    arguments = arguments if "width" in arguments or "base" in arguments else {**sized(name, WIDTH), **arguments}
    system = build(name, log.items, users=log.users, **arguments)
    if like is not None:
        own = system.state_dict()
        system.load_state_dict(own | {k: like[k] for k in own if k in like and like[k].shape == own[k].shape})
    system.fit_statistics(log)
    return system


def numbers(samples: Samples | Tasks) -> list[torch.Tensor]:
    """What samples hold."""
    found = [samples.query, samples.support] if isinstance(samples, Tasks) else [samples]
    return [torch.from_numpy(np.asarray(part)) for one in found for part in (one.begin, one.end, one.target)]


def said(name: str, system: System) -> Iterator[list[torch.Tensor]]:
    """What the system says, what costs least first; it is trained on the way."""
    log = log_of(name)
    samples = system.training_samples(log)
    yield numbers(samples)
    some = samples.take(np.arange(min(6, len(samples))))
    torch.manual_seed(1)
    if system.has_weights:
        yield [system.train().losses(some).detach()]
    queries = RandomQueries(queries=4, min_events=6)(RATED).take(np.arange(3)) if log is RATED else last_clicks(LOG)
    queries = queries if log is RATED else with_history(system, queries, LOG)
    yield [system.eval().scores(queries.take(np.arange(3)))]
    list(train(system, log, epochs=1, batch_size=len(samples) // 2 + 1, optimizer=Sgd(lr=0.3)))
    yield [system.eval().scores(queries)]
    if system.retraining is not None:
        yield [retrained(system, queries)]


def retrained(system: System, queries: Samples) -> torch.Tensor:
    """Its scores after a stream of four periods, of which it has seen the first."""
    edges = period_edges(LOG, events=LOG.num_events // 4)
    torch.manual_seed(2)
    state = system.retraining.begin(system, Period.of(LOG, edges, 0, seed=0))
    for number in range(1, 4):
        state = system.retraining.retrain(system, state, Period.of(LOG, edges, number, seed=0))
    return system.eval().scores(queries)


class Usual:
    """A system, and what it says, as far as it has been asked."""

    def __init__(self, name: str, **arguments: Any) -> None:
        own, other = (made(name, seed=seed, **arguments).state_dict() for seed in (0, 1))
        self.random = {key: own[key] for key in own if not torch.equal(own[key], other[key])}  # initialised so
        self.left, self.heard = said(name, made(name, like=self.random, **arguments)), []

    def __iter__(self) -> Iterator[list[torch.Tensor]]:
        for number in count():
            if number == len(self.heard):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    if (found := next(self.left, None)) is None:
                        return
                self.heard.append(found)
            yield self.heard[number]


def alike(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return len(one) == len(other) and all(
        a.shape == b.shape and torch.equal(a, b) for a, b in zip(one, other, strict=True)
    )


def is_noticed(usual: Usual, name: str, option: str, **given: Any) -> bool:
    """Whether something says that the option has another value than in the usual system, of the given ones."""
    known = {**OTHER, **OWN.get(name, {}), **ALONE}
    changed = {one: known[one] for one in (("base", "options") if option == "options" else (option,))}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.filterwarnings("error", message=f".*not read.*{option}|.*{option}.*not read")
            system = made(name, like=usual.random, **{**given, **changed})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return any(not alike(one, other) for one, other in zip(usual, said(name, system), strict=True))
    except (InputError, UserWarning):
        return True


def ignored(name: str, **given: Any) -> list[str]:
    """The options that change nothing, and of which nothing is said."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        usual = Usual(name, **given)
    left = set(given) | ({"without"} if given else set())  # what it names may not be in another scope
    return [one for one in CATALOGUE[name].options if one not in left and not is_noticed(usual, name, one, **given)]


# Of more than a second each; their parts have the options of others.
LONG = {
    "sml", "meta_hin", "meta_hin_rating", "cbml_g", "cbml_c", "cbml_s", "cbml_f", "mamo", "melu", "multi_ft", "melu_id",
    "meta_cf_g", "meta_cf_linear", "meta_cf_neural", "cluster_seq", "asars_user_att", "asars_time_cat",
    "asars_time_att",
}  # fmt: skip


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in LONG else []) for name in CATALOGUE]
)
@pytest.mark.by_kind
def test_no_option_is_ignored(name: str) -> None:
    assert ignored(name) == []


# Options because of which others are not read.
SWITCHES: dict[str, Sequence[Any]] = {
    "loss": ["cross_entropy", "bpr"], "gate": ["none", "both"], "gate_scope": ["sample"], "normalised": [True],
    "anchor": ["user"], "steps": [0], "scope": ["item_bias", "predictor"], "learned": [True, "per group"],
    "carry_state": [True], "temporal": [True], "whole": [False], "residual": [True], "restart_from": ["transferred"],
    "bias": [False], "learned_weights": [True],
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "switch", "value"),
    [(name, key, value) for name, row in CATALOGUE.items() for key in row.options for value in SWITCHES.get(key, [])],
)
def test_no_option_is_ignored_beside_another(name: str, switch: str, value: Any) -> None:
    given = {switch: value} if value != "item_bias" else {switch: value, "anchor": "user"}
    try:
        made(name, **given)
    except (InputError, UserWarning):
        return  # the switch itself is refused
    assert ignored(name, **given) == []
