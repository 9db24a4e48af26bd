"""Audit: does a split, a model, a training procedure or a metric leak labels or test data?

report = gm.audit(split)                       # overlaps, labels, time order, drift, shuffle test
report = gm.audit(split, system)               # and the model's scores: batch, order, future, target, ties
report = gm.audit(split, fit=train_procedure)  # and the training: it must not depend on the test part
assert report.ok, report
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from graphmeta.data.events import EventLog
from graphmeta.data.splits import Split
from graphmeta.errors import InputError
from graphmeta.evaluation.audit import drift, overlap
from graphmeta.evaluation.audit.findings import Audit, Finding, Verdict
from graphmeta.evaluation.audit.given import LabelledSessions, Part, parts_of
from graphmeta.evaluation.audit.model import Probe, model_checks
from graphmeta.evaluation.audit.training import Fit, Measure, metric_checks, training_checks
from graphmeta.evaluation.metrics import Ranks, mrr, ranks
from graphmeta.evaluation.queries import aligned, with_history
from graphmeta.protocols import LimitsLength, Scorer
from graphmeta.sampling.samples import Samples, prefixes
from graphmeta.sampling.tasks import Tasks

__all__ = ["Audit", "Finding", "LabelledSessions", "Verdict", "audit", "audit_model"]

_QUERIES = 120  # consecutive prefixes of test sessions that a model is checked on


def audit(
    split: Split | Mapping[str, Any],
    model: Scorer | Callable[..., Any] | None = None,
    *,
    fit: Fit | None = None,
    measure: Measure | None = None,
    source: EventLog | None = None,
    seed: int = 0,
    say: Callable[[str], None] = lambda line: None,
) -> Audit:
    """Check a split for leaks, wrong labels and drift, and if given a model, a training procedure and a metric.

    Split: sessions and users in two parts, labels, identical sessions, new items, repeats, time order, popularity
    drift, and whether the order of clicks matters (shuffle test). Model: the scores of a session are the same alone, in
    a batch and in another order, with another target, with other clicks after the context; no NaN; ties. Training: the
    model does not change with the test part. Metric: constant scores and NaN score at chance or below.

    Args:
        split: a :class:`~graphmeta.data.splits.Split`, or parts by name (``train``, ``valid``, ``test``): logs,
            samples, or the :class:`LabelledSessions` of any other code.
        model: a system, a baseline, or any function of a list of sessions (arrays of item numbers of the training
            part) to scores ``[S, C]``.
        fit: a training procedure, ``split -> model``; it is run five times, so pass a small split.
        measure: a metric, ``(scores [S, C], target [S]) -> value``; this library's MRR@20 if not given.
        source: the log that samples were made of, to compare their targets with.
        seed: of random orders and replaced clicks.
        say: called with a line before each group of checks.

    Raises:
        InputError: parts of another type, a model or ``fit`` without logs, or scipy is not installed.

    >>> from graphmeta.baselines import Popularity
    >>> from graphmeta.data.splits import split_by_time
    >>> from graphmeta.testing import fake_log
    >>> split = split_by_time(fake_log(sessions=60))
    >>> report = audit(split, Popularity(split.train))
    >>> report.ok, str(report["target invariance"].verdict)
    (True, 'ok')
    """
    parts = parts_of(split)
    say("checking the split")
    findings, series = _of_split(parts, split.unknown if isinstance(split, Split) else 0, source, seed)
    if model is not None:
        say("checking the model's scores")
        found, more = _of_model(model, parts, split, seed)
        findings, series = findings + found, series | more
    if fit is not None:
        if not isinstance(split, Split):
            raise InputError("fit= needs a Split, whose test part is altered; split a log with split_by_time(log)")
        say("checking the training: five runs")
        findings += training_checks(fit, split, seed)
    findings += metric_checks(_mrr if measure is None else measure, seed)
    return Audit(tuple(findings), series)


def audit_model(
    model: Scorer | Callable[..., Any], samples: Samples | Tasks, *, num_items: int | None = None, seed: int = 0
) -> Audit:
    """The checks of a model alone, on samples or tasks.

    Args:
        num_items: that are ranked; needed for a function, which does not name them.
    """
    if num_items is None:
        if not isinstance(model, Scorer):
            raise InputError("a function does not name how many items it ranks; pass num_items=")
        num_items = model.num_items
    findings, series = model_checks(Probe(model, num_items), samples, seed)
    return Audit(tuple(findings), series)


def _mrr(scores: Any, target: Any) -> float:
    found: Ranks = ranks(scores, target)
    return float(mrr(found, 20).mean())


def _of_split(
    parts: Mapping[str, Part], unknown: int, source: EventLog | None, seed: int
) -> tuple[list[Finding], dict[str, Any]]:
    """All checks of the parts."""
    findings = [
        *overlap.session_overlap(parts),
        *overlap.labels(parts, source),
        *drift.time_order(parts),
        *overlap.user_overlap(parts),
        *overlap.duplicates(parts),
        *overlap.cold(parts, unknown),
        *overlap.repeats(parts),
        *drift.same_times(parts),
    ]
    drifted, series = drift.popularity_drift(parts, seed)
    ordered, more = drift.order_matters(parts, seed)
    return [*findings, *drifted, *ordered], {**drift.sizes(parts), **series, **more}


def _of_model(
    model: Any, parts: Mapping[str, Part], split: Split | Mapping[str, Any], seed: int
) -> tuple[list[Finding], dict[str, Any]]:
    """The checks of a model on prefixes of test sessions."""
    log = parts.get("test", parts["train"])
    if not isinstance(log, EventLog):
        raise InputError("a model is checked on the sessions of logs; pass the parts as logs")
    if not isinstance(model, Scorer) and not callable(model):
        raise InputError(
            f"audit takes a system, a baseline or a function of sessions, not a {type(model).__name__}; see "
            f"graphmeta.protocols.Scorer"
        )
    probe = Probe(model, model.num_items if isinstance(model, Scorer) else log.num_items)
    known = aligned(model, log) if isinstance(model, Scorer) else log
    length = model.max_length if isinstance(model, LimitsLength) else 50
    queries = prefixes(known, max_length=max(length, 1)).take(slice(0, _QUERIES))
    if isinstance(model, Scorer):
        queries = with_history(model, queries, log, split if isinstance(split, Split) else None)
    if len(queries) < 2:
        raise InputError("the test part has no session of three items known to the model; pass a larger one")
    findings, series = model_checks(probe, queries, seed)
    several = queries.lengths > 1
    if several.any():
        own = model if isinstance(model, Scorer) else _Sessions(model, log.num_items)
        found, more = drift.shuffle_test(own, queries.take(np.flatnonzero(several)), seed, "the model")
        findings += [Finding("model", one.check, one.verdict, one.text, one.values) for one in found]
        series |= {"model order": more["order"]}
    return findings, series


class _Sessions:
    """A function of sessions as a scorer."""

    reads_tasks = False

    def __init__(self, model: Any, num_items: int) -> None:
        self.num_items, self.scores = num_items, Probe(model, num_items)
