"""Evaluation of a system and its baselines on the same test queries, and the metrics as JSON."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, Unpack

import numpy as np
import pandas as pd

from graphmeta.baselines import UPCF, PersonalFrequency, Popularity, SessionKNN, Stan, TifuKNN, match_repeats
from graphmeta.data.events import EventLog
from graphmeta.data.scan.log import ScannedLog
from graphmeta.errors import InputError, counted
from graphmeta.evaluation.lists import COMPARED_KS, lengths, lists_below, shorter, shown
from graphmeta.evaluation.queries import reads_history
from graphmeta.evaluation.ranking import KNOWN_SESSIONS, Result, evaluate
from graphmeta.protocols import Adapting, Bar
from graphmeta.sampling.samples import Samples
from graphmeta.system import System


class HasSupport(Protocol):
    """Number of events of each item, ``[num_items]``, as a log has it."""

    @property
    def support(self) -> np.ndarray:
        """The numbers."""
        ...


_OF_SESSIONS = {"popularity": Popularity, "session_knn": SessionKNN, "stan": Stan}
USER_BASELINES = {"personal_frequency": PersonalFrequency, "tifu_knn": TifuKNN, "up_cf": UPCF}
_BASELINES = (*_OF_SESSIONS, *USER_BASELINES)
_OF_NEIGHBOURS = ("tifu_knn", "up_cf")
_MOST_USERS = 20_000  # their cost grows with users × queries


def baselines(
    past: EventLog | ScannedLog, known: EventLog | ScannedLog | None = None, *, beside: str | None = None
) -> dict[str, Any]:
    """Popularity, session kNN and STAN, by their names as systems; without repeats if no session of the log has any.

    Args:
        known: the same log with its users, if it has any: adds personal frequency, and for up to 20,000 users TIFU-kNN
            and UP-CF. Of a log on disk, popularity alone: the others read all of its events.
        beside: the name of the system that they are compared with; it is left out.
    """
    if isinstance(past, ScannedLog):
        return {} if beside == "popularity" else {"popularity": Popularity(past)}
    kinds: dict[str, tuple[Any, EventLog]] = {name: (kind, past) for name, kind in _OF_SESSIONS.items()}
    if isinstance(known, EventLog) and known.users is not None:
        few = len(known.users) <= _MOST_USERS
        kinds |= {name: (kind, known) for name, kind in USER_BASELINES.items() if few or name not in _OF_NEIGHBOURS}
    return {name: match_repeats(past, kind(log)) for name, (kind, log) in kinds.items() if name != beside}


def compare(
    system: System,
    queries: Samples,
    *,
    past: HasSupport,
    models: Mapping[str, Any],
    base: System | None = None,
    bar: Bar,
) -> Comparison:
    """Results of the system and of baselines on the same test queries, by their names in JSON.

    For a system that adapts, ``without_steps`` is the ablation without inner steps; for one that reads users' earlier
    sessions, ``without_history`` that without them.

    Args:
        queries: with their users' earlier sessions, if they have users.
        past: the training log, for the slices by item frequency.
        models: see :func:`baselines`.
        base: a system without adaptation, trained as such.
        bar: ``(batches, name) -> batches``, shows progress.

    Warns:
        UserWarning: lists shorter than 5 and 20, because the system has so few items.
    """
    ks = lists_below(system.num_items, COMPARED_KS)
    if ks != COMPARED_KS:
        warnings.warn(shorter(system.num_items, COMPARED_KS), stacklevel=2)
    plain = replace(queries, earlier=None)

    def measured(scorer: Any, name: str, **adapting: Unpack[Adapting]) -> Result:
        own = queries if reads_history(scorer) else plain
        return evaluate(scorer, own, ks=ks, support=past.support, progress=lambda rows: bar(rows, name), **adapting)

    found = {name: measured(model, name) for name, model in models.items()}
    if base is not None:
        found["base_model"] = measured(base, "base model")
    if system.adaptation is not None:
        # The start (a gate, a memory) is the trained one.
        found["without_steps"] = measured(system, "without steps", steps=0)
    if system.reads_history and queries.earlier is not None:
        unknown = replace(queries, earlier=queries.earlier.last(0))
        found["without_history"] = evaluate(
            system, unknown, ks=ks, support=past.support, progress=lambda rows: bar(rows, "without history")
        )
    return Comparison(found | {"system": measured(system, "system")})


class Comparison(dict[str, Result]):
    """Results by name; ``system`` is that of the system, the others are measured beside it. Prints as a table."""

    def behind(self) -> dict[str, list[str]]:
        """The others that are ahead of the system, with the metrics in which they are: Hit or MRR of the longest lists.

        Differences may be within chance; see the number of samples.
        """
        own = self["system"].metrics
        longest = [f"{name}@{max(lengths(own))}" for name in ("hit", "mrr")]
        ahead = {name: [m for m in longest if one.metrics[m] > own[m]] for name, one in self.items()}
        return {name: measures for name, measures in ahead.items() if measures}

    def verdict(self, names: Mapping[str, str] | None = None) -> str | None:
        """One line on the others that are ahead of the system; None if none is.

        Args:
            names: display names.
        """
        names = {name: name for name in self} | dict(names or {})
        others = [
            f"{names[name]} ("
            + ", ".join(
                f"{shown(metric)} {100 * self['system'].metrics[metric]:.2f} against "
                f"{100 * self[name].metrics[metric]:.2f} %"
                for metric in measures
            )
            + ")"
            for name, measures in self.behind().items()
        ]
        if not others:
            return None
        return (
            f"{names['system']} is behind {'; '.join(others)} on the same {counted(self['system'].samples, 'sample')}"
        )

    def __str__(self) -> str:
        """The metrics of all, and in the last line what is ahead of the system."""
        table = pd.DataFrame.from_dict({name: one.metrics for name, one in self.items()}, orient="index")
        return "\n".join(filter(None, [table.to_string(float_format="{:.4f}".format), self.verdict()]))


def metrics(results: Comparison, *, system: str, seed: int) -> dict[str, Any]:
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
        "behind": results.behind(),
        "ties": own.ties,
    }


# How many of a user's earlier sessions are known in the curve, None: all; the most of each range of KNOWN_SESSIONS.
HISTORIES = tuple(None if np.isinf(most) else int(most) for _, most in KNOWN_SESSIONS.values())


def by_known_sessions(
    models: Mapping[str, Any],
    queries: Samples,
    *,
    ks: tuple[int, ...] | None = None,
    numbers: Sequence[int | None] = HISTORIES,
) -> dict[str, dict[int | None, Result]]:
    """Results of each model when only the last 0, 1, 2 … earlier sessions of every user are known.

    The queries are the same for all numbers, so that the curve shows what a session more adds, and not who has many.

    Args:
        models: those that read users' earlier sessions, by name.
        queries: with the earlier sessions.
        ks: lengths of the lists; if not given the longest of :func:`compare`, 20, or less for a small catalogue.

    Raises:
        InputError: queries without earlier sessions.
    """
    if queries.earlier is None:
        raise InputError("the queries have no earlier sessions: UserHistories.of(log).attached(samples, log)")
    if ks is None:
        ks = lists_below(
            min((model.num_items for model in models.values()), default=max(COMPARED_KS) + 1), COMPARED_KS
        )[-1:]
    earlier = queries.earlier
    limited = {n: replace(queries, earlier=earlier if n is None else earlier.last(n)) for n in numbers}
    return {name: {n: evaluate(model, own, ks=ks) for n, own in limited.items()} for name, model in models.items()}
