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
    """A mean difference of two models on the same sessions, its standard error, and the p-value of a paired t-test.

    The error and the test treat sessions as independent, not the queries of one session.
    """

    difference: float
    standard_error: float
    p: float


def bootstrap_interval(
    values: np.ndarray, *, weights: np.ndarray | None = None, level: float = 0.95, seed: int = 0
) -> Interval:
    """The mean of one value per session with its percentile bootstrap interval over sessions.

    Args:
        values: ``[S]``, such as the reciprocal rank of each session.
        weights: ``[S]``, for several queries per session: their number, where the value is their mean
            (:func:`per_session`). Sessions are resampled as a whole, as their queries are not independent.
        level: of the interval.
        seed: of the resamples.

    Raises:
        InputError: no session, weights that are not positive, or scipy is not installed.

    >>> one = bootstrap_interval(np.array([0.0, 1.0, 1.0, 0.0]))
    >>> one.mean, one.low, one.high
    (0.5, 0.0, 1.0)
    """
    values, weights = _checked(values, weights)
    mean = float(np.average(values, weights=weights))
    if (values == values[0]).all():
        return Interval(mean, 0.0, mean, mean)
    found = scipy_stats().bootstrap(
        (values * weights, weights),
        lambda sums, counts, axis: sums.sum(axis) / counts.sum(axis),
        paired=True,
        n_resamples=RESAMPLES,
        batch=max(_CELLS // len(values), 1),
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    low, high = found.confidence_interval
    return Interval(mean, _standard_error(values, weights), float(low), float(high))


def paired(one: np.ndarray, other: np.ndarray, *, weights: np.ndarray | None = None) -> Paired:
    """How much the mean of ``one`` exceeds that of ``other`` on the same sessions, ``[S]`` each.

    Args:
        weights: number of queries per session ``[S]``, see :func:`bootstrap_interval`.

    Raises:
        InputError: values of different sessions, weights that are not positive, or scipy is not installed.

    >>> found = paired(np.array([1.0, 0.0, 1.0]), np.array([0.0, 0.0, 1.0]))
    >>> round(found.difference, 3), round(found.standard_error, 3), round(found.p, 3)
    (0.333, 0.333, 0.423)
    """
    one, other = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    if one.shape != other.shape or len(one) == 0:
        raise InputError(f"{len(one)} and {len(other)} sessions; pass one value per session, the same sessions in both")
    difference, weights = _checked(one - other, weights)
    mean = float(np.average(difference, weights=weights))
    if (difference == difference[0]).all():  # no variance: the t-test is not defined
        same = difference[0] == 0
        return Paired(mean, 0.0, 1.0 if same or len(one) == 1 else 0.0)
    error = _standard_error(difference, weights)
    p = float(2 * scipy_stats().t.sf(abs(mean) / error, len(difference) - 1))
    return Paired(mean, error, p)


def per_session(values: np.ndarray, session: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean of each session's values and their number, in ascending order of sessions.

    Shapes: values, session (of each query) ``[Q]`` -> ``[S]``, ``[S]``.

    >>> means, counts = per_session(np.array([1.0, 0.0, 1.0]), np.array([7, 7, 3]))
    >>> means.tolist(), counts.tolist()
    ([1.0, 0.5], [1, 2])
    """
    _, index, counts = np.unique(session, return_inverse=True, return_counts=True)
    return np.bincount(index, weights=values) / counts, counts


def _checked(values: np.ndarray, weights: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Values and weights as float64; weights are 1 if not given."""
    values = np.asarray(values, dtype=np.float64)
    if len(values) == 0:
        raise InputError("there is no session to resample; pass one value per test session")
    weights = np.ones(len(values)) if weights is None else np.asarray(weights, dtype=np.float64)
    if weights.shape != values.shape or not (weights > 0).all():
        raise InputError(f"{len(weights)} weights for {len(values)} sessions; pass one number of queries, from 1, each")
    return values, weights


def _standard_error(values: np.ndarray, weights: np.ndarray) -> float:
    """Of the ratio ``Σ w v / Σ w`` over independent sessions, by linearisation; std / √S for equal weights."""
    size = len(values)
    if size == 1:
        return 0.0
    deviation = weights * (values - np.average(values, weights=weights))
    return float(np.sqrt(size / (size - 1) * np.square(deviation).sum()) / weights.sum())
