"""Intervals and paired tests of means over test sessions, by scipy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from graphmeta.errors import InputError

RESAMPLES = 1000
_CELLS = 2**22  # numbers of one batch of resamples


def scipy_stats() -> Any:
    """The module ``scipy.stats``.

    Raises:
        InputError: scipy is not installed.
    """
    try:
        from scipy import stats
    except ImportError:
        raise InputError("intervals and tests need scipy; pip install 'graphmeta[cli]'") from None
    return stats


@dataclass(frozen=True)
class Interval:
    """A mean with its standard error and the bounds of its confidence interval."""

    mean: float
    standard_error: float
    low: float
    high: float


@dataclass(frozen=True)
class Paired:
    """A mean difference of two models on the same sessions, its standard error, and the p-value of a paired t-test."""

    difference: float
    standard_error: float
    p: float


def bootstrap_interval(values: np.ndarray, *, level: float = 0.95, seed: int = 0) -> Interval:
    """The mean of one value per session with its percentile bootstrap interval over sessions.

    Args:
        values: ``[S]``, such as the reciprocal rank of each session; level: of the interval; seed: of the resamples.

    Raises:
        InputError: no session, or scipy is not installed.

    >>> one = bootstrap_interval(np.array([0.0, 1.0, 1.0, 0.0]))
    >>> one.mean, one.low, one.high
    (0.5, 0.0, 1.0)
    """
    values = np.asarray(values, dtype=np.float64)
    if len(values) == 0:
        raise InputError("there is no session to resample; pass one value per test session")
    mean = float(values.mean())
    if (values == values[0]).all():
        return Interval(mean, 0.0, mean, mean)
    found = scipy_stats().bootstrap(
        (values,),
        np.mean,
        n_resamples=RESAMPLES,
        batch=max(_CELLS // len(values), 1),
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    low, high = found.confidence_interval
    return Interval(mean, _standard_error(values), float(low), float(high))


def paired(one: np.ndarray, other: np.ndarray) -> Paired:
    """How much the mean of ``one`` exceeds that of ``other`` on the same sessions, ``[S]`` each.

    Raises:
        InputError: values of different sessions, or scipy is not installed.

    >>> found = paired(np.array([1.0, 0.0, 1.0]), np.array([0.0, 0.0, 1.0]))
    >>> round(found.difference, 3), round(found.standard_error, 3), round(found.p, 3)
    (0.333, 0.333, 0.423)
    """
    one, other = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    if one.shape != other.shape or len(one) == 0:
        raise InputError(f"{len(one)} and {len(other)} sessions; pass one value per session, the same sessions in both")
    difference = one - other
    if (difference == difference[0]).all():  # no variance: the t-test is not defined
        same = difference[0] == 0
        return Paired(float(difference[0]), 0.0, 1.0 if same or len(one) == 1 else 0.0)
    p = float(scipy_stats().ttest_rel(one, other).pvalue)
    return Paired(float(difference.mean()), _standard_error(difference), p)


def _standard_error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0
