"""A training job, and its measurement: the trained system and baselines on the test split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from graphmeta.cli.history import anonymous
from graphmeta.cli.model_card import titles
from graphmeta.cli.new_items import with_new_items, with_vocabulary
from graphmeta.data.events import EventLog
from graphmeta.data.merging import merged
from graphmeta.data.scan.log import ScannedLog
from graphmeta.data.splits import Split
from graphmeta.data.stored_columns import Columns
from graphmeta.data.tables import EntityTable
from graphmeta.errors import counted as counted_noun
from graphmeta.evaluation.compare import Comparison, baselines, by_known_sessions, compare, metrics
from graphmeta.evaluation.lists import COMPARED_KS, lists_below
from graphmeta.evaluation.protocol import Rules, test_queries
from graphmeta.evaluation.queries import reads_history
from graphmeta.evaluation.ranking import Result, evaluate
from graphmeta.plots import figures as plots
from graphmeta.protocols import Bar
from graphmeta.published.catalogue import CATALOGUE
from graphmeta.published.training_plan import Plan, Say, TrainedPlan
from graphmeta.sampling.samples import Samples, last_clicks
from graphmeta.sampling.user_histories import UserHistories
from graphmeta.system import System

_PICTURE = "known_sessions.png"


@dataclass(frozen=True)
class Job:
    """A training plan, a log file, split rules and an output folder.

    Args:
        source: name of the log in the model card.
        keep_histories: store the users' sessions with the model.
        catalogue: all items that may be recommended, also those without training events.
    """

    plan: Plan
    columns: Columns
    rules: Rules
    source: str
    folder: Path
    resume: bool = False
    keep_histories: bool = False
    catalogue: EntityTable | None = None


@dataclass(frozen=True)
class Measured:
    """A system, its results and those of baselines on the test split, as objects and as a JSON document."""

    system: System
    results: Comparison
    last_sessions: dict[str, dict[int | None, Result]]
    document: dict[str, Any]

    def draw(self, folder: Path) -> None:
        """Write the picture of the metrics by the number of a user's earlier sessions, if the system reads these."""
        if self.last_sessions:
            names = titles(str(self.document["system"]), self.last_sessions)
            found = {names[name]: self.results[name] for name in names}
            plots.known_sessions(
                found, {names[name]: own for name, own in self.last_sessions.items()}, folder / _PICTURE
            )


def measured_on_test(
    job: Job,
    log: EventLog | ScannedLog,
    split: Split,
    trained: TrainedPlan,
    new: EntityTable | None,
    *,
    say: Say,
    bar: Bar,
) -> tuple[Split, Measured]:
    """The comparison on the test split, and the split with the vocabulary that is ranked."""
    system, base = trained.system, trained.base
    if new is not None and len(new):
        system, base = with_new_items(system, base, new, name=job.plan.system, say=say)
    ranked = split if system.items is trained.system.items else with_vocabulary(split, log, system.items)
    known = counted(job, ranked)
    past = anonymous(known)
    queries = with_earlier(test_queries(ranked.test, job.rules), ranked.test, ranked.parts)
    models = baselines(past, known, beside=job.plan.system)
    tests = counted_noun(len(queries), "test session")
    say(f"evaluating {job.plan.system} and {counted_noun(len(models), 'baseline')} on {tests}:")
    results = compare(system, queries, past=past, models=models, base=base, bar=bar)
    document = metrics(results, system=job.plan.system, seed=job.plan.seed)
    last_sessions = _by_last_sessions({**models, "system": system}, queries)
    if last_sessions:
        document["known_sessions"] = {name: results[name].slices["known sessions"] for name in last_sessions}
        document["last_sessions"] = {
            name: {"all" if n is None else str(n): result.metrics for n, result in own.items()}
            for name, own in last_sessions.items()
        }
    return ranked, Measured(system, results, last_sessions, document)


def counted(job: Job, split: Split) -> Any:
    """The sessions that baselines count: those that the system's own statistics count."""
    return merged(split.train, split.valid) if CATALOGUE[job.plan.system].held_out else split.train


def _by_last_sessions(models: Mapping[str, Any], queries: Samples) -> dict[str, dict[int | None, Result]]:
    """The curves of the models that read users' histories, on at most 250 queries; none if the system does not."""
    if not reads_history(models["system"]) or queries.earlier is None:
        return {}
    few = queries.take(np.linspace(0, len(queries) - 1, min(len(queries), 250)).astype(np.int64))
    return by_known_sessions({name: model for name, model in models.items() if reads_history(model)}, few)


def validation_baselines(past: EventLog | ScannedLog, valid: EventLog | ScannedLog) -> dict[str, dict[str, float]]:
    """Baselines on the validation sessions, to draw with the validation curve.

    Args:
        past: the training sessions, without those of the validation part.
    """
    samples = last_clicks(valid.collect() if isinstance(valid, ScannedLog) else valid)
    if len(samples) == 0:
        return {}
    models = baselines(past)
    ks = lists_below(past.num_items, COMPARED_KS)
    return {name: evaluate(model, samples, ks=ks).metrics for name, model in models.items()}


def with_earlier(queries: Samples, log: EventLog, parts: Sequence[EventLog]) -> Samples:
    """The queries of a log with their users' earlier sessions in these logs, if these have users."""
    if any(part.users is None or isinstance(part, ScannedLog) for part in parts):
        return queries
    return UserHistories.of(*parts).attached(queries, log)
