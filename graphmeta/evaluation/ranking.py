"""How good a model is: the rank of the true next item among all items, and where it is good and where not; or how far
its ratings are from the true ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from numbers import Integral
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor

from graphmeta.data.events import EventLog
from graphmeta.errors import InputError
from graphmeta.evaluation.metrics import of_lists, ranks, summary, usable
from graphmeta.evaluation.queries import queries_of
from graphmeta.evaluation.result import Result
from graphmeta.protocols import Adapting, Scorer
from graphmeta.sampling.padding import ragged
from graphmeta.sampling.samples import Samples
from graphmeta.sampling.tasks import Tasks
from graphmeta.system import System

KNOWN_CLICKS = {"1": (1, 1), "2": (2, 2), "3-4": (3, 4), "5+": (5, np.inf)}
ITEM_EVENTS = {"0": (0, 0), "1-9": (1, 9), "10-99": (10, 99), "100+": (100, np.inf)}


Metric = Callable[[Tensor], Tensor]


def evaluate(
    model: Scorer,
    samples: EventLog | Samples,
    *,
    ks: tuple[int, ...] = (5, 10, 20),
    metrics: Mapping[str, Metric] | None = None,
    support: np.ndarray | None = None,
    batch_size: int = 100,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
    **adapting: Unpack[Adapting],
) -> Result:
    """Rank each sample's target among all items (what was clicked before stays a candidate).

    Args:
        samples: a test log, which is brought to the model's items and asked for the last click of each session; or
            samples, e.g. ``prefixes(log)`` of a log numbered by the model's items.
        metrics: your own beside Hit, MRR and nDCG, by name: functions of the ranks ``[S]`` (from 1, float64) to one
            value for each sample ``[S]``, whose mean is reported.
        support: training events of each item ``[num_items]``, for the slices by item frequency.
        progress: wraps the batches, e.g. ``tqdm``.
        steps, max_support: of a system that adapts, see :meth:`System.scores <graphmeta.system.System.scores>`.

    Raises:
        InputError: no samples, samples numbered by other items, k not below the number of candidates (the metric would
            be 1 for any model), a metric without a value a sample; tasks.
        DivergedError: scores that are NaN or +inf (an InputError too, as everywhere).

    >>> from graphmeta.baselines import Popularity
    >>> from graphmeta.testing import fake_log
    >>> log = fake_log(sessions=30)
    >>> result = evaluate(Popularity(log), log, ks=(20,), metrics={"mean rank": lambda ranks: ranks})
    >>> list(result.metrics), result.samples, result.candidates
    (['hit@20', 'mrr@20', 'ndcg@20', 'mean rank'], 30, 40)
    """
    _check_ks(ks, model.num_items)
    samples = queries_of(model, samples)
    if len(samples) == 0:
        raise InputError("there is no sample to evaluate on; bring sessions of at least two known items")
    score = _scoring(model, adapting)
    began = time.perf_counter()
    order = np.argsort(samples.lengths, kind="stable")
    found = torch.empty(len(samples), dtype=torch.float64)
    for at in progress(range(0, len(order), batch_size)):
        rows = order[at : at + batch_size]
        chunk = samples.take(rows)
        scores = usable(score(chunk))
        found[torch.from_numpy(rows)] = ranks(scores, torch.from_numpy(chunk.target).to(scores.device)).cpu()
    own = {name: _values(name, metric, found) for name, metric in (metrics or {}).items()}

    def measured(inside: Tensor) -> dict[str, float]:
        means = {name: float(values[inside].mean()) for name, values in own.items()} if inside.any() else {}
        return summary(found[inside], ks) | means

    slices = {"known clicks": _sliced(measured, samples.lengths, KNOWN_CLICKS)}
    if support is not None:
        slices["item events"] = _sliced(measured, support[samples.target], ITEM_EVENTS)
    every = measured(torch.ones(len(found), dtype=torch.bool))
    return Result(every, slices, len(samples), model.num_items, time.perf_counter() - began, found)


def _scoring(model: Scorer, adapting: Adapting) -> Callable[[Any], Tensor]:
    """The model's scores, of a system with other steps or support where they are given."""
    given = {name: value for name, value in adapting.items() if value is not None}
    strange = given.keys() - Adapting.__annotations__.keys()
    if strange:
        raise TypeError(f"evaluate() got an unexpected keyword argument {min(strange)!r}")
    if given and getattr(model, "adaptation", None) is None:
        raise InputError("this model does not adapt; leave out steps= and max_support=")
    return partial(model.scores, **given)


def _values(name: str, metric: Metric, found: Tensor) -> Tensor:
    values = torch.as_tensor(metric(found.clone()), dtype=torch.float64)
    if values.shape != found.shape:
        raise InputError(
            f"metric {name!r} gives values of shape {tuple(values.shape)} for {len(found)} samples; return one value "
            f"for each rank, its mean is taken afterwards"
        )
    return values


def _check_ks(ks: tuple[int, ...], candidates: int) -> None:
    if not isinstance(ks, Iterable) or isinstance(ks, str):
        raise InputError(f"ks={ks!r} must be several numbers; for one write ks=({ks},)")
    strange = [k for k in ks if isinstance(k, bool) or not isinstance(k, Integral) or k < 1]
    if strange or len(tuple(ks)) == 0:
        raise InputError(f"ks={ks!r} must be whole numbers, 1 or more, such as ks=(5, 10, 20)")
    if max(ks) >= candidates:
        raise InputError(f"k={max(ks)} is not below the number of candidates, {candidates}: every model would score 1")


def _sliced(
    of: Callable[[Tensor], dict[str, float]], value: np.ndarray, bounds: dict[str, tuple[float, float]]
) -> dict[str, dict[str, float]]:
    """What ``of`` says of the samples (a mask) whose value lies within each of the bounds, and their number."""
    out = {}
    for name, (low, high) in bounds.items():
        inside = torch.from_numpy((value >= low) & (value <= high))
        out[name] = {"samples": int(inside.sum()), **of(inside)}
    return out


def evaluate_sampled(
    model: Scorer, samples: Samples, against: np.ndarray, *, ks: tuple[int, ...] = (1, 5, 10), batch_size: int = 100
) -> Result:
    """Rank each sample's target among a few items that were drawn for it: much easier than among all.

    Figures found so are comparable with others found so, with as many items drawn alike, and with nothing else.

    Args:
        against: of each sample, the other items ``[S, N]``, see :func:`drawn_against`.

    Raises:
        InputError: no samples, k not below the number of candidates, or a target among the others.
        DivergedError: scores that are NaN or +inf.
    """
    samples.check_items(getattr(model, "items", None))
    began, size = time.perf_counter(), against.shape[1] + 1
    _check_ks(ks, size)
    if len(samples) == 0 or (against == samples.target[:, None]).any():
        raise InputError("there is no sample, or one whose target stands among the items it is compared with")
    found = torch.empty(len(samples), dtype=torch.float64)
    chosen = torch.from_numpy(np.concatenate([samples.target[:, None], against], 1))
    for at in range(0, len(samples), batch_size):
        rows = slice(at, at + batch_size)
        scores = usable(model.scores(samples.take(rows)))
        few = scores.gather(1, chosen[rows].to(scores.device))
        found[rows] = ranks(few, torch.zeros(len(few), dtype=torch.int64, device=few.device)).cpu()
    slices = {"known clicks": _sliced(lambda inside: summary(found[inside], ks), samples.lengths, KNOWN_CLICKS)}
    return Result(summary(found, ks), slices, len(samples), size, time.perf_counter() - began, found)


def drawn_against(samples: Samples, log: EventLog, *, count: int = 100, seed: int = 0) -> np.ndarray:
    """``count`` items for each sample that its session never clicked, each as likely and none twice: ``[S, count]``.

    Args:
        log: the samples' own, whose sessions say what was clicked, also after the target.

    Raises:
        InputError: a session that clicked nearly everything.
    """
    random, out = np.random.default_rng(seed), np.empty((len(samples), count), dtype=np.int64)
    for row, session in enumerate(samples.session):
        others = np.setdiff1d(np.arange(log.num_items), log.item[log.ptr[session] : log.ptr[session + 1]])
        if len(others) < count:
            raise InputError(f"a session leaves {len(others)} items, not {count}, to compare with; draw fewer")
        out[row] = random.choice(others, count, replace=False)
    return out


def evaluate_tasks(
    model: Scorer, tasks: Tasks, *, ks: tuple[int, ...] = (10,), batch_size: int = 100, **adapting: Unpack[Adapting]
) -> Result:
    """Rank what each task is asked among all items but those of its support; means over tasks.

    :func:`graphmeta.evaluation.metrics.of_lists` says what the measures are. A task's other targets are candidates too.

    Args:
        model: a system adapts to the support; a baseline reads the clicks of the queries, which are the support.
        steps: inner steps of a system that adapts, see :meth:`System.scores <graphmeta.system.System.scores>`.

    Raises:
        InputError: tasks numbered by other items, k not below the number of candidates, or a task that asks for an
            item twice, or for one it knows.
        DivergedError: scores that are NaN or +inf.
    """
    began = time.perf_counter()
    tasks.query.check_items(getattr(model, "items", None))
    score = _scoring(model, adapting)
    known, counts = tasks.lengths, np.diff(tasks.query_ptr)
    candidates = model.num_items - int(known.max(initial=0))
    _check_ks(ks, candidates)
    task = np.repeat(np.arange(len(tasks)), counts)
    _check_asked(tasks, task, model.num_items)
    found = torch.empty(len(task), dtype=torch.float64)
    first = tasks.first_queries()
    order = np.argsort(known, kind="stable")  # of like size together, so that little is padded
    for at in range(0, len(tasks), batch_size):
        rows = order[at : at + batch_size]
        one, chunk = first.take(rows), tasks.take(rows)
        where, _ = ragged(tasks.query_ptr[rows], counts[rows])
        scores = usable(score(one if isinstance(model, System) else one.query)).clone()
        scores[np.repeat(np.arange(len(rows)), known[rows]), chunk.support.target] = -torch.inf
        scores = scores.repeat_interleave(torch.from_numpy(counts[rows]).to(scores.device), 0)
        target = torch.from_numpy(chunk.query.target).to(scores.device)
        found[torch.from_numpy(where)] = ranks(scores, target).cpu()
    measures = {f"{n}@{k}": v for k in ks for n, v in of_lists(found, torch.from_numpy(task), k).items()}

    def means(inside: Tensor) -> dict[str, float]:
        return {name: float(values[inside].mean()) for name, values in measures.items()} if inside.any() else {}

    slices = {"known clicks": _sliced(means, known, KNOWN_CLICKS)}
    return Result(
        means(torch.ones(len(tasks), dtype=torch.bool)),
        slices,
        len(tasks),
        candidates,
        time.perf_counter() - began,
        found,
    )


def _check_asked(tasks: Tasks, task: np.ndarray, num_items: int) -> None:
    asked = task * num_items + tasks.query.target
    known = np.repeat(np.arange(len(tasks)), tasks.lengths) * num_items + tasks.support.target
    if len(np.unique(asked)) < len(asked) or np.isin(asked, known).any():
        raise InputError("a task asks for an item twice, or for one that it knows; ask for each item once")
