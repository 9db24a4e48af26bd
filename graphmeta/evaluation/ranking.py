"""Ranking metrics of a model: over all items or sampled negatives, overall and by slices of the samples."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor, nn

from graphmeta.data.events import EventLog
from graphmeta.data.splits import Split
from graphmeta.distributed.group import ALONE, current
from graphmeta.errors import InputError
from graphmeta.evaluation.custom import Metric, RankMetrics, check_metrics, rank_names
from graphmeta.evaluation.lists import check_ks, lists_of
from graphmeta.evaluation.metrics import Ranks, of_lists, ranks, usable
from graphmeta.evaluation.queries import check_model, items_of, left_out, queries_of
from graphmeta.evaluation.result import Result
from graphmeta.nn.features.sharded import row_ranges
from graphmeta.protocols import Adapting, Adapts, ReadsTasks, ReportsMissingUsers, Scorer
from graphmeta.sampling.padding import ragged
from graphmeta.sampling.samples import Samples
from graphmeta.sampling.tasks import Tasks

CONTEXT_LENGTHS = {"1": (1, 1), "2": (2, 2), "3-4": (3, 4), "5+": (5, np.inf)}
KNOWN_SESSIONS = {
    "0": (0, 0),
    "1": (1, 1),
    "2": (2, 2),
    "3-5": (3, 5),
    "6-10": (6, 10),
    "11-20": (11, 20),
    "21+": (21, np.inf),
}
ITEM_EVENTS = {"0": (0, 0), "1-9": (1, 9), "10-99": (10, 99), "100+": (100, np.inf)}


def evaluate(
    model: Scorer,
    samples: EventLog | Samples,
    *,
    ks: tuple[int, ...] | None = None,
    metrics: Mapping[str, Metric] | None = None,
    support: np.ndarray | None = None,
    history: EventLog | Split | None = None,
    batch_size: int = 100,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
    **adapting: Unpack[Adapting],
) -> Result:
    """Rank each sample's target among all items (clicked items stay candidates).

    In several processes (:func:`graphmeta.distributed.joined`) each scores a part of the batches, and all have the
    result of the whole.

    Args:
        samples: a test log, which is aligned to the model's items and whose targets are the last clicks of sessions;
            or samples, e.g. ``prefixes(log)`` of a log with the model's item indices. ``left_out`` of the result counts
            the log's clicks on unknown items, and the sessions that have no two others.
        ks: lengths of the lists; 5, 10 and 20 if not given, of which a small catalogue has those below its size.
        metrics: further metrics by name, beside Hit, MRR and nDCG: functions of the ranks ``[S]`` (from 1, float64;
            of ties the mean) to one value per sample ``[S]``, whose mean is reported.
        support: training events of each item ``[num_items]``, for the slices by item frequency.
        history: for a model that reads users' earlier sessions, a log or split that has them; only sessions that ended
            before a question's session began are read. The model's own histories and the test log are read too.
        batch_size: samples scored at once.
        progress: wraps the batches, e.g. ``tqdm``.
        steps, max_support: for a system that adapts, see :meth:`System.scores <graphmeta.system.System.scores>`.

    Warns:
        UserWarning: a system that reads only users (``mf``, ``bpr_mf``), if no user of the samples is known to it; or
            shorter lists than 20, if ``ks`` is not given.

    Raises:
        InputError: no samples, samples of another vocabulary, k not below the number of candidates (the metric would
            be 1 for any model), a metric without one value per sample, or tasks.
        DivergedError: scores that are NaN or +inf (an InputError too, as everywhere).

    >>> from graphmeta.baselines import Popularity
    >>> from graphmeta.testing import fake_log
    >>> log = fake_log(sessions=30)
    >>> result = evaluate(Popularity(log), log, ks=(20,), metrics={"mean rank": lambda ranks: ranks})
    >>> list(result.metrics), result.samples, result.candidates
    (['hit@20', 'mrr@20', 'ndcg@20', 'mean rank'], 30, 40)
    """
    check_model(model, samples, "evaluate")
    ks = lists_of(ks, model.num_items)
    check_metrics(metrics, rank_names(ks))
    given, samples = samples, queries_of(model, samples, history)
    if len(samples) == 0:
        raise InputError("there is no sample to evaluate; pass sessions with at least two known items")
    _warn_without_users(model, samples)
    score = scoring(model, adapting, "evaluate")
    began = time.perf_counter()
    order = np.argsort(samples.lengths, kind="stable")
    # Ranks that share an item table score the same batches together.
    group = ALONE if isinstance(model, nn.Module) and row_ranges(model) else current()
    found = Ranks.empty(len(samples))
    for at in progress(range(0, len(order), batch_size)[group.rank :: group.size]):
        rows = order[at : at + batch_size]
        chunk = samples.take(rows)
        scores = usable(score(chunk))
        found[torch.from_numpy(rows)] = ranks(scores, torch.from_numpy(chunk.target).to(scores.device))
    found = Ranks(group.maximum(found.best), group.maximum(found.tied))  # those of other ranks' samples are 1 here
    measured = RankMetrics(found, ks, metrics)
    slices = {"context length": sliced(measured, samples.lengths, CONTEXT_LENGTHS)}
    if samples.earlier is not None:
        slices["known sessions"] = sliced(measured, samples.earlier.sessions, KNOWN_SESSIONS)
    if support is not None:
        slices["item events"] = sliced(measured, support[samples.target], ITEM_EVENTS)
    seconds, lost = time.perf_counter() - began, left_out(model, given, samples)
    return Result(measured(), slices, len(samples), model.num_items, seconds, found, left_out=lost)


def _warn_without_users(model: Scorer, samples: Samples) -> None:
    """Warn if a system reads only the user and no user of the samples is known to it."""
    if isinstance(model, ReportsMissingUsers) and model.without_user(samples).all():
        why = "the samples have no users" if samples.user is None else "none of their users is in its training log"
        warnings.warn(
            f"the system reads nothing but the user, and {why}: all samples ({len(samples):,}) get the same ranking; "
            f"name the log's user column (user=, --user), evaluate sessions of known users, or use another system",
            stacklevel=3,
        )


def scoring(model: Scorer, adapting: Adapting, name: str) -> Callable[[Any], Tensor]:
    """The model's scoring function, with ``steps`` and ``max_support`` if given."""
    given = {name: value for name, value in adapting.items() if value is not None}
    strange = given.keys() - Adapting.__annotations__.keys()
    if strange:
        raise TypeError(f"{name}() got an unexpected keyword argument {min(strange)!r}")
    if given and not (isinstance(model, Adapts) and model.adapts):
        said = "" if isinstance(model, Adapts) else ", or give it adapts = True (graphmeta.protocols.Adapts)"
        raise InputError(f"this model does not adapt; leave out steps= and max_support={said}")
    return partial(model.scores, **given)


def sliced(
    of: Callable[[Tensor], dict[str, float]], value: np.ndarray, bounds: dict[str, tuple[float, float]]
) -> dict[str, dict[str, float]]:
    """``of(mask)`` and the number of samples for each slice: the samples whose value lies within the bounds."""
    out = {}
    for name, (low, high) in bounds.items():
        inside = torch.from_numpy((value >= low) & (value <= high))
        out[name] = {"samples": int(inside.sum()), **of(inside)}
    return out


def evaluate_sampled(
    model: Scorer,
    samples: Samples,
    negatives: np.ndarray,
    *,
    ks: tuple[int, ...] = (1, 5, 10),
    metrics: Mapping[str, Metric] | None = None,
    batch_size: int = 100,
) -> Result:
    """Rank each sample's target among sampled negatives, which is much easier than among all items.

    Compare these metrics only with those of the same number of negatives, sampled in the same way.

    Args:
        negatives: items ``[S, N]`` for each sample, see :func:`sampled_negatives`.
        metrics: further metrics by name, functions of the ranks as in :func:`evaluate`.

    Raises:
        InputError: no samples, k not below the number of candidates, a metric without one value per sample, or a
            target among its negatives.
        DivergedError: scores that are NaN or +inf.
    """
    check_model(model, samples, "evaluate_sampled")
    samples.check_items(items_of(model), size=model.num_items)
    began, size = time.perf_counter(), negatives.shape[1] + 1
    check_ks(ks, size)
    check_metrics(metrics, rank_names(ks))
    if len(samples) == 0 or (negatives == samples.target[:, None]).any():
        raise InputError("there is no sample, or a sample's target is among its negatives; sample them again")
    found = Ranks.empty(len(samples))
    chosen = torch.from_numpy(np.concatenate([samples.target[:, None], negatives], 1))
    for at in range(0, len(samples), batch_size):
        rows = slice(at, at + batch_size)
        scores = usable(model.scores(samples.take(rows)))
        few = scores.gather(1, chosen[rows].to(scores.device))
        found[rows] = ranks(few, torch.zeros(len(few), dtype=torch.int64, device=few.device))
    measured = RankMetrics(found, ks, metrics)
    slices = {"context length": sliced(measured, samples.lengths, CONTEXT_LENGTHS)}
    return Result(measured(), slices, len(samples), size, time.perf_counter() - began, found)


def sampled_negatives(samples: Samples, log: EventLog, *, count: int = 100, seed: int = 0) -> np.ndarray:
    """``count`` items without a click in the sample's session, sampled uniformly without replacement: ``[S, count]``.

    Args:
        log: the log of the samples; clicks after the target are excluded too.

    Raises:
        InputError: fewer than ``count`` items without a click.
    """
    random, out = np.random.default_rng(seed), np.empty((len(samples), count), dtype=np.int64)
    for row, session in enumerate(samples.session):
        others = np.setdiff1d(np.arange(log.num_items), log.item[log.ptr[session] : log.ptr[session + 1]])
        if len(others) < count:
            raise InputError(
                f"only {len(others)} items have no click in a session, not {count}; sample fewer negatives"
            )
        out[row] = random.choice(others, count, replace=False)
    return out


def evaluate_tasks(
    model: Scorer, tasks: Tasks, *, ks: tuple[int, ...] = (10,), batch_size: int = 100, **adapting: Unpack[Adapting]
) -> Result:
    """Rank each task's query targets among all items outside its support; means over tasks.

    See :func:`graphmeta.evaluation.metrics.of_lists` for the metrics. A task's other targets are candidates too.

    Args:
        model: a system, or a wrapper of one, gets the tasks and adapts to their support; a model with
            ``reads_tasks = False``, such as a baseline, gets the queries, whose clicks are the support.
        steps: inner steps, for a system that adapts, see :meth:`System.scores <graphmeta.system.System.scores>`.

    Raises:
        InputError: tasks with other item indices, k not below the number of candidates, or a query target that is
            repeated in its task or also in its support.
        DivergedError: scores that are NaN or +inf.
    """
    check_model(model, tasks, "evaluate_tasks")
    if not isinstance(tasks, Tasks):
        raise InputError(f"evaluate_tasks takes tasks, not a {type(tasks).__name__}; use evaluate for logs and samples")
    began = time.perf_counter()
    tasks.query.check_items(items_of(model), size=model.num_items)
    score = scoring(model, adapting, "evaluate_tasks")
    known, counts = tasks.support_sizes, np.diff(tasks.query_ptr)
    candidates = model.num_items - int(known.max(initial=0))
    check_ks(ks, candidates)
    task = np.repeat(np.arange(len(tasks)), counts)
    _check_queries(tasks, task, model.num_items)
    found = Ranks.empty(len(task))
    first = tasks.first_queries()
    order = np.argsort(known, kind="stable")  # tasks of similar size together, to limit padding
    for at in range(0, len(tasks), batch_size):
        rows = order[at : at + batch_size]
        one, chunk = first.take(rows), tasks.take(rows)
        where, _ = ragged(tasks.query_ptr[rows], counts[rows])
        scores = usable(_of_tasks(model, score, one)).clone()
        scores[np.repeat(np.arange(len(rows)), known[rows]), chunk.support.target] = -torch.inf
        scores = scores.repeat_interleave(torch.from_numpy(counts[rows]).to(scores.device), 0)
        target = torch.from_numpy(chunk.query.target).to(scores.device)
        found[torch.from_numpy(where)] = ranks(scores, target)
    measures = {f"{n}@{k}": v for k in ks for n, v in of_lists(found, torch.from_numpy(task), k).items()}

    def means(inside: Tensor) -> dict[str, float]:
        return {name: float(values[inside].mean()) for name, values in measures.items()} if inside.any() else {}

    slices = {"context length": sliced(means, known, CONTEXT_LENGTHS)}
    return Result(
        means(torch.ones(len(tasks), dtype=torch.bool)),
        slices,
        len(tasks),
        candidates,
        time.perf_counter() - began,
        found,
    )


def _of_tasks(model: Scorer, score: Callable[[Any], Tensor], tasks: Tasks) -> Tensor:
    """Scores for tasks with one query each; a model of sessions gets the queries, whose clicks are the support."""
    if isinstance(model, ReadsTasks) and not model.reads_tasks:
        return score(tasks.query)
    try:
        return score(tasks)
    except AttributeError as error:
        if not isinstance(error.obj, Tasks):
            raise
        raise InputError(
            f"{type(model).__name__}.scores reads {error.name!r}, which tasks do not have; give it reads_tasks = False "
            f"to get their queries as samples (graphmeta.protocols.ReadsTasks)"
        ) from None


def _check_queries(tasks: Tasks, task: np.ndarray, num_items: int) -> None:
    query = task * num_items + tasks.query.target
    support = np.repeat(np.arange(len(tasks)), tasks.support_sizes) * num_items + tasks.support.target
    if len(np.unique(query)) < len(query) or np.isin(query, support).any():
        raise InputError("a task has the same item as target of two queries, or in support and query; keep it once")
