"""Evaluation of predicted ratings: errors and rankings within a user's rated items."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from graphmeta.errors import DivergedError, InputError
from graphmeta.evaluation.custom import RatingMetric, check_metrics, means_of, values_of
from graphmeta.evaluation.metrics import list_ndcg
from graphmeta.sampling.padding import ragged
from graphmeta.sampling.tasks import Tasks


class Rater(Protocol):
    """Anything that predicts the ratings of queries: a system with a rating head, or a baseline."""

    def scores(self, samples: Tasks) -> Tensor:
        """One rating per query, ``[Q, 1]``."""
        ...


@dataclass(frozen=True)
class RatingResult:
    """Errors in units of the rating scale, nDCG as a fraction, and the numbers of tasks and queries.

    ``metrics`` has ``mae``, ``rmse`` and custom metrics over all queries, and as means over tasks ``ndcg@k`` (gains
    ``2^rating − 1``) and ``ndcg_linear@k`` (gains are the ratings); ``predictions [Q]`` are in the queries' order.
    """

    metrics: dict[str, float]
    tasks: int
    samples: int
    seconds: float
    predictions: Tensor = field(repr=False)
    candidates: str = "the task's own query items"
    ties: str = "entries with equal predictions share the mean of their gains"


@torch.no_grad()
def evaluate_ratings(
    model: Rater,
    tasks: Tasks,
    *,
    ks: tuple[int, ...] = (1, 3),
    metrics: Mapping[str, RatingMetric] | None = None,
    batch_size: int = 64,
) -> RatingResult:
    """Errors of predicted ratings, and nDCG of their order within each task's queries.

    nDCG ranks a task's query items only, not the catalogue: with ten queries even a random order has a high nDCG,
    above all under linear gains. It is not comparable with the metrics of :func:`evaluate`.

    Args:
        metrics: further metrics by name: functions of predictions and true ratings, ``[Q]`` float64 each, to one value
            per query ``[Q]``, whose mean is reported.

    Raises:
        InputError: queries without ratings, a ranking model, or a metric without one value per query.
        DivergedError: predictions that are not finite.

    Source: MeLU, section 4.2, with gains ``2^rating − 1``; its figures are near those that linear gains give here.
    """
    if tasks.query.value is None:
        raise InputError("the tasks have no true ratings; name the log's column of ratings (value=)")
    check_metrics(metrics, _names(ks), of="predictions and ratings")
    began = time.perf_counter()
    order = np.argsort(tasks.support_sizes, kind="stable")
    found = torch.empty(len(tasks.query), dtype=torch.float64)
    for at in range(0, len(order), batch_size):
        rows = order[at : at + batch_size]
        where, _ = ragged(tasks.query_ptr[rows], np.diff(tasks.query_ptr)[rows])
        scores = model.scores(tasks.take(rows))
        if scores.shape != (len(where), 1):
            raise InputError(
                f"scores of {tuple(scores.shape)} for {len(where)} queries are not one rating each; use evaluate or "
                f"evaluate_tasks for ranking models"
            )
        found[torch.from_numpy(where)] = scores.double().squeeze(1).cpu()
    if not found.isfinite().all():
        raise DivergedError("the model's ratings are not finite numbers; its training diverged, train it again")
    true, ptr = torch.from_numpy(tasks.query.value), torch.from_numpy(tasks.query_ptr)
    every = {"mae": float((found - true).abs().mean()), "rmse": float((found - true).square().mean().sqrt())}
    for name, gains in {"ndcg": torch.exp2(true) - 1, "ndcg_linear": true}.items():
        every |= {f"{name}@{k}": float(list_ndcg(found, gains, ptr, k).mean()) for k in ks}
    every |= means_of(values_of(metrics, found, true))
    return RatingResult(every, len(tasks), len(found), time.perf_counter() - began, found)


def _names(ks: tuple[int, ...]) -> set[str]:
    """The names of the metrics that every evaluation of ratings has."""
    return {"mae", "rmse", *(f"{name}@{k}" for name in ("ndcg", "ndcg_linear") for k in ks)}
