"""Custom metrics by name: functions of what was measured to one value per sample, whose mean is reported."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from graphmeta.errors import InputError
from graphmeta.evaluation.metrics import Ranks, summary

Metric = Callable[[Tensor], Tensor]  # mean ranks [S] (from 1, float64) -> one value per sample [S]
RatingMetric = Callable[[Tensor, Tensor], Tensor]  # predictions [Q], ratings [Q] (float64) -> one value per query [Q]


def check_metrics(metrics: Any, taken: Collection[str], *, of: str = "ranks") -> None:
    """Check that custom metrics have names of their own.

    Args:
        taken: names of the other metrics.
        of: what the functions get, for the message.

    Raises:
        InputError: metrics that are not a mapping, or have a name that is in use.
    """
    if metrics is None:
        return
    if not isinstance(metrics, Mapping):
        raise InputError(f'metrics={metrics!r} must map names to functions of the {of}: {{"name": function}}')
    twice = next((name for name in metrics if name in taken), None)
    if twice is not None:
        raise InputError(f"{twice!r} is already the name of a metric; give yours another name")


def values_of(metrics: Mapping[str, Callable[..., Tensor]] | None, *measured: Tensor) -> dict[str, Tensor]:
    """The values of each custom metric, ``[S]`` float64, from copies of what was measured, ``[S]`` each.

    Raises:
        InputError: a metric without one value per sample.
    """
    found: dict[str, Tensor] = {}
    for name, metric in (metrics or {}).items():
        values = torch.as_tensor(metric(*(one.clone() for one in measured)), dtype=torch.float64)
        if values.shape != measured[0].shape:
            raise InputError(
                f"metric {name!r} gives values of shape {tuple(values.shape)} for {len(measured[0])} samples; return "
                f"one value per sample, evaluation takes the mean"
            )
        found[name] = values
    return found


def means_of(values: Mapping[str, Tensor]) -> dict[str, float]:
    """The mean of each metric's values; empty without samples."""
    return {name: float(one.mean()) for name, one in values.items() if len(one)}


class RankMetrics:
    """Hit, MRR and nDCG at ``ks`` and custom metrics of the same ranks, over all samples or some of them.

    Args:
        rank: ranks of each sample's target; custom metrics get their means, which of ties is half-way.

    Raises:
        InputError: a metric without one value per sample.

    >>> RankMetrics(Ranks.of([1.0, 4.0]), (1,), {"mean rank": lambda rank: rank})()["mean rank"]
    2.5
    """

    def __init__(self, rank: Ranks, ks: tuple[int, ...], metrics: Mapping[str, Metric] | None = None) -> None:
        self.rank, self.ks, self.own = rank, ks, values_of(metrics, rank.mean)

    def __call__(self, inside: Tensor | slice = slice(None)) -> dict[str, float]:
        """The means over the samples in this mask ``[S]``; empty without samples."""
        return summary(self.rank[inside], self.ks) | means_of({name: one[inside] for name, one in self.own.items()})


def rank_names(ks: tuple[int, ...]) -> Collection[str]:
    """The names of the metrics that every ranking has."""
    return summary(Ranks.empty(1), ks)
