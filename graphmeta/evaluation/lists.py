"""Lengths of the lists that metrics are measured at."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from numbers import Integral

from graphmeta.errors import InputError, counted

KS = (5, 10, 20)
COMPARED_KS = (5, 20)  # of comparisons with baselines, and of validation


def lengths(metrics: Iterable[str]) -> list[int]:
    """The lengths of the lists of these metrics, ascending.

    >>> lengths(["hit@5", "hit@20", "mrr@20", "mean rank"])
    [5, 20]
    """
    return sorted({int(name[4:]) for name in metrics if name.startswith("hit@") and name[4:].isdigit()})


def shown(metric: str) -> str:
    """The display name of a metric.

    >>> shown("hit@20"), shown("ndcg@5")
    ('Hit@20', 'NDCG@5')
    """
    return metric.replace("mrr", "MRR").replace("hit", "Hit").replace("ndcg", "NDCG")


def hit_and_mrr(metrics: Iterable[str]) -> dict[str, str]:
    """Hit and MRR at each length of these metrics, and their display names.

    >>> hit_and_mrr(["hit@5", "ndcg@5"])
    {'hit@5': 'Hit@5', 'mrr@5': 'MRR@5'}
    """
    names = [f"{name}@{k}" for k in lengths(metrics) for name in ("hit", "mrr")]
    return {name: shown(name) for name in names}


def lists_of(ks: tuple[int, ...] | None, candidates: int) -> tuple[int, ...]:
    """The given lengths after a check, or those of :data:`KS` that are below the number of candidates.

    Warns:
        UserWarning: shorter lists than those of :data:`KS`.

    Raises:
        InputError: as :func:`check_ks`.
    """
    if ks is None:
        ks = lists_below(candidates, KS)
        if ks != KS:
            warnings.warn(shorter(candidates, KS), stacklevel=3)
    check_ks(ks, candidates)
    return ks


def check_ks(ks: tuple[int, ...], candidates: int) -> None:
    """Check list lengths.

    Raises:
        InputError: lengths that are not whole numbers from 1 and below the number of candidates.
    """
    if not isinstance(ks, Iterable) or isinstance(ks, str):
        raise InputError(f"ks={ks!r} must be several numbers; for one write ks=({ks},)")
    strange = [k for k in ks if isinstance(k, bool) or not isinstance(k, Integral) or k < 1]
    if strange or len(tuple(ks)) == 0:
        raise InputError(f"ks={ks!r} must be whole numbers, 1 or more, such as ks=(5, 10, 20)")
    if max(ks) >= candidates:
        raise InputError(f"k={max(ks)} is not below the number of candidates, {candidates}: every model would score 1")


def lists_below(candidates: int, ks: tuple[int, ...]) -> tuple[int, ...]:
    """The lengths that are below the number of candidates; half of it if none is, because k = C is 1 for any model.

    >>> lists_below(10, (5, 20)), lists_below(5, (5, 20)), lists_below(2, (5, 20))
    ((5,), (2,), (1,))
    """
    return tuple(k for k in ks if k < candidates) or (max(candidates // 2, 1),)


def shorter(candidates: int, ks: tuple[int, ...]) -> str:
    """A text about the lists of a small catalogue."""
    few = ", ".join(map(str, lists_below(candidates, ks)))
    return (
        f"only {counted(candidates, 'item')} can be ranked, so lists of {few} are measured instead of "
        f"{', '.join(map(str, ks))}; do not compare the figures with those of larger catalogues"
    )
