"""How good a model is: the rank of the true next item among all items, and where it is good and where not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from graphmeta.batch import Samples
from graphmeta.errors import InputError
from graphmeta.metrics import ranks, summary

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
