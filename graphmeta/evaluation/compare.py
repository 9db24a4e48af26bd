"""Evaluation of a system and its baselines on the same test queries, and the metrics as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Unpack

import numpy as np

from graphmeta.baselines import UPCF, PersonalFrequency, Popularity, SessionKNN, Stan, TifuKNN, match_repeats
from graphmeta.data.events import EventLog
from graphmeta.errors import InputError
from graphmeta.evaluation.protocol import KS
from graphmeta.evaluation.queries import reads_history
from graphmeta.evaluation.ranking import KNOWN_SESSIONS, Result, evaluate
from graphmeta.protocols import Adapting, Bar
from graphmeta.sampling.samples import Samples
from graphmeta.system import System

USER_BASELINES = {"personal_frequency": PersonalFrequency, "tifu_knn": TifuKNN, "up_cf": UPCF}
_BASELINES = ("popularity", "session_knn", "stan", *USER_BASELINES)
_OF_NEIGHBOURS = ("tifu_knn", "up_cf")
_MOST_USERS = 20_000  # their cost grows with users × queries


def baselines(past: EventLog, known: EventLog | None = None) -> dict[str, Any]:
    """Popularity, session kNN and STAN; they never recommend repeats if no session of the log has any.

    Args:
        known: the same log with its users, if it has any: adds personal frequency, and for up to 20,000 users TIFU-kNN
            and UP-CF.
    """
    models = {"popularity": Popularity(past), "session_knn": SessionKNN(past), "stan": Stan(past)}
    if known is not None and known.users is not None:
        few = len(known.users) <= _MOST_USERS
        models |= {name: kind(known) for name, kind in USER_BASELINES.items() if few or name not in _OF_NEIGHBOURS}
    return {name: match_repeats(past, model) for name, model in models.items()}


def compare(
    system: System,
    queries: Samples,
    *,
    past: EventLog,
    models: Mapping[str, Any],
    base: System | None = None,
    bar: Bar,
) -> dict[str, Result]:
    """Results of the system and of baselines on the same test queries, by their names in JSON.

    For a system that adapts, ``without_steps`` is the ablation without inner steps; for one that reads users' earlier
    sessions, ``without_history`` that without them.

    Args:
        queries: with their users' earlier sessions, if they have users.
        past: the training log, for the slices by item frequency; models: see :func:`baselines`.
        base: a system without adaptation, trained as such.
        bar: ``(batches, name) -> batches``, shows progress.
    """

    plain = replace(queries, earlier=None)

    def measured(scorer: Any, name: str, **adapting: Unpack[Adapting]) -> Result:
        own = queries if reads_history(scorer) else plain
        return evaluate(scorer, own, ks=KS, support=past.support, progress=lambda rows: bar(rows, name), **adapting)

    found = {name: measured(model, name.replace("_", " ")) for name, model in models.items()}
    if base is not None:
        found["base_model"] = measured(base, "base model")
    if system.adaptation is not None:
        # The start (a gate, a memory) is the trained one.
        found["without_steps"] = measured(system, "without steps", steps=0)
    if system.reads_history and queries.earlier is not None:
        unknown = replace(queries, earlier=queries.earlier.last(0))
        found["without_history"] = evaluate(
            system, unknown, ks=KS, support=past.support, progress=lambda rows: bar(rows, "without history")
        )
    return found | {"system": measured(system, "system")}


def metrics(results: Mapping[str, Result], *, system: str, seed: int) -> dict[str, Any]:
    """The flat object of ``metrics.json``: metrics in [0, 1], number of samples and candidates."""
    own = results["system"]
    others = [name for name in (*_BASELINES, "base_model") if name in results]
    ablations = [name for name in ("without_steps", "without_history") if name in results]
    return {
        "system": system,
        "candidates": own.candidates,
        "samples": own.samples,
        "seed": seed,
        **own.metrics,
        "slices": own.slices,
        "baselines": {name: results[name].metrics for name in others},
        **{name: results[name].metrics for name in ablations},
        "ties": own.ties,
    }


# How many of a user's earlier sessions are known in the curve, None: all; the most of each range of KNOWN_SESSIONS.
HISTORIES = tuple(None if np.isinf(most) else int(most) for _, most in KNOWN_SESSIONS.values())


def by_known_sessions(
    models: Mapping[str, Any],
    queries: Samples,
    *,
    ks: tuple[int, ...] = (20,),
    numbers: Sequence[int | None] = HISTORIES,
) -> dict[str, dict[int | None, Result]]:
    """Results of each model when only the last 0, 1, 2 … earlier sessions of every user are known.

    The queries are the same for all numbers, so that the curve shows what a session more adds, and not who has many.

    Args:
        models: those that read users' earlier sessions, by name; queries: with the earlier sessions.

    Raises:
        InputError: queries without earlier sessions.
    """
    if queries.earlier is None:
        raise InputError("the queries have no earlier sessions: UserHistories.of(log).attached(samples, log)")
    earlier = queries.earlier
    limited = {n: replace(queries, earlier=earlier if n is None else earlier.last(n)) for n in numbers}
    return {name: {n: evaluate(model, own, ks=ks) for n, own in limited.items()} for name, model in models.items()}
