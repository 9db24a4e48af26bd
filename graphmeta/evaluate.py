"""How good a model is: the rank of the true next item among all items, and where it is good and where not; or how far
its ratings are from the true ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from graphmeta.batch import Samples, ragged
from graphmeta.errors import InputError
from graphmeta.metrics import list_ndcg, ranks, summary
from graphmeta.tasks import Tasks

KNOWN_CLICKS = {"1": (1, 1), "2": (2, 2), "3-4": (3, 4), "5+": (5, np.inf)}
ITEM_EVENTS = {"0": (0, 0), "1-9": (1, 9), "10-99": (10, 99), "100+": (100, np.inf)}


class Scorer(Protocol):
    """Anything that scores all items for samples: a :class:`~graphmeta.system.System` or a baseline."""

    @property
    def num_items(self) -> int:
        """Number of candidates."""
        ...

    def scores(self, samples: Samples) -> Tensor:
        """``[S, num_items]``."""
        ...


@dataclass(frozen=True)
class Result:
    """Metrics as fractions, with what they mean: candidates, ties, number of samples.

    ``slices["known clicks"]["1"]`` holds the same metrics over the samples with one known click, and their number.
    """

    metrics: dict[str, float]
    slices: dict[str, dict[str, dict[str, float]]]
    samples: int
    candidates: int
    seconds: float
    ranks: Tensor = field(repr=False)
    ties: str = "mean of best and worst rank"


def evaluate(
    model: Scorer,
    samples: Samples,
    *,
    ks: tuple[int, ...] = (5, 10, 20),
    support: np.ndarray | None = None,
    batch_size: int = 100,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> Result:
    """Rank each sample's target among all items (what was clicked before stays a candidate).

    Args:
        samples: e.g. ``last_clicks(log)`` or ``prefixes(log)`` of a test log numbered by the model's items.
        support: training events of each item ``[num_items]``, for the slices by item frequency.
        progress: wraps the batches, e.g. ``tqdm``.

    Raises:
        InputError: no samples, or k not below the number of candidates (the metric would be 1 for any model).
    """
    if max(ks) >= model.num_items:
        raise InputError(
            f"k={max(ks)} is not below the number of candidates, {model.num_items}: every model would score 1"
        )
    if len(samples) == 0:
        raise InputError("there is no sample to evaluate on; bring sessions of at least two known items")
    began = time.perf_counter()
    order = np.argsort(samples.lengths, kind="stable")
    found = torch.empty(len(samples), dtype=torch.float64)
    for at in progress(range(0, len(order), batch_size)):
        rows = order[at : at + batch_size]
        chunk = samples.take(rows)
        scores = model.scores(chunk)
        found[torch.from_numpy(rows)] = ranks(scores, torch.from_numpy(chunk.target).to(scores.device)).cpu()
    slices = {"known clicks": _sliced(found, samples.lengths, KNOWN_CLICKS, ks)}
    if support is not None:
        slices["item events"] = _sliced(found, support[samples.target], ITEM_EVENTS, ks)
    return Result(summary(found, ks), slices, len(samples), model.num_items, time.perf_counter() - began, found)


def _sliced(
    found: Tensor, value: np.ndarray, bounds: dict[str, tuple[float, float]], ks: tuple[int, ...]
) -> dict[str, dict[str, float]]:
    out = {}
    for name, (low, high) in bounds.items():
        inside = torch.from_numpy((value >= low) & (value <= high))
        out[name] = {"samples": int(inside.sum()), **summary(found[inside], ks)}
    return out


class Rater(Protocol):
    """Anything that says what the queries of tasks are rated: a system with a rating head, or a baseline."""

    def scores(self, samples: Tasks) -> Tensor:
        """One number a query, ``[Q, 1]``."""
        ...


@dataclass(frozen=True)
class RatingResult:
    """Errors in points of the rating's scale, nDCG as a fraction, and what they are measured over.

    ``metrics`` has ``mae`` and ``rmse`` over all queries, and as means over tasks ``ndcg@k`` (gains ``2^rating − 1``)
    and ``ndcg_linear@k`` (gains are the ratings); ``predictions [Q]`` are in the order of the queries.
    """

    metrics: dict[str, float]
    tasks: int
    samples: int
    seconds: float
    predictions: Tensor = field(repr=False)
    candidates: str = "the task's own query items"
    ties: str = "entries with equal predictions share the mean of their gains"


@torch.no_grad()
def evaluate_ratings(model: Rater, tasks: Tasks, *, ks: tuple[int, ...] = (1, 3), batch_size: int = 64) -> RatingResult:
    """How far predicted ratings are from the true ones, and how well they order each task's own queries.

    nDCG ranks the few items that a task is asked about, not the catalogue: with ten queries even a random order has a
    high one, above all under linear gains. Never compare it with figures of :func:`evaluate`.

    Raises:
        InputError: queries without ratings, or predictions that are not finite.

    Source: MeLU, section 4.2, with gains ``2^rating − 1``; its figures are near those that linear gains give here.
    """
    if tasks.query.value is None:
        raise InputError("the tasks have no ratings to compare with; name the log's column of ratings (value=)")
    began = time.perf_counter()
    order = np.argsort(tasks.lengths, kind="stable")
    found = torch.empty(len(tasks.query), dtype=torch.float64)
    for at in range(0, len(order), batch_size):
        rows = order[at : at + batch_size]
        where, _ = ragged(tasks.query_ptr[rows], np.diff(tasks.query_ptr)[rows])
        found[torch.from_numpy(where)] = model.scores(tasks.take(rows)).double().squeeze(1).cpu()
    if not found.isfinite().all():
        raise InputError("the model's ratings are not finite numbers; its training diverged, train it again")
    true, ptr = torch.from_numpy(tasks.query.value), torch.from_numpy(tasks.query_ptr)
    metrics = {"mae": float((found - true).abs().mean()), "rmse": float((found - true).square().mean().sqrt())}
    for name, gains in {"ndcg": torch.exp2(true) - 1, "ndcg_linear": true}.items():
        metrics |= {f"{name}@{k}": float(list_ndcg(found, gains, ptr, k).mean()) for k in ks}
    return RatingResult(metrics, len(tasks), len(found), time.perf_counter() - began, found)
