"""Baselines as systems: fitted by counting, then saved, loaded, evaluated and queried like all others."""

from __future__ import annotations

from functools import partial

from graphmeta.baselines import (
    UPCF,
    ItemKNN,
    PersonalFrequency,
    Popularity,
    SessionKNN,
    SessionPopularity,
    Stan,
    TifuKNN,
)
from graphmeta.data.tables import EntityTable
from graphmeta.published.counting import Counting
from graphmeta.published.registry import published
from graphmeta.system import System

TIMES, OWNERS = frozenset({"times"}), frozenset({"owners"})


@published("-", family="baseline", counts=True)
def popularity(items: EntityTable) -> System:
    """Items by training events, see :class:`~graphmeta.baselines.Popularity`."""
    return Counting(Popularity, items)


@published("-", family="baseline", counts=True)
def session_popularity(items: EntityTable) -> System:
    """The session's own items, then popularity, see :class:`~graphmeta.baselines.SessionPopularity`."""
    return Counting(SessionPopularity, items)


@published("Sarwar et al. 2001; Aiolli 2013", family="baseline", counts=True)
def item_knn(items: EntityTable, *, neighbours: int = 100, alpha: float = 0.75) -> System:
    """Items that share sessions with the clicked ones, see :class:`~graphmeta.baselines.ItemKNN`."""
    return Counting(partial(ItemKNN, neighbours=neighbours, alpha=alpha), items)


@published("Ludewig & Jannach 2018, V-SkNN", family="baseline", counts=True)
def session_knn(items: EntityTable, *, neighbours: int = 100, recent: int = 1000, idf: bool = True) -> System:
    """Items of similar recent sessions, see :class:`~graphmeta.baselines.SessionKNN`."""
    return Counting(partial(SessionKNN, neighbours=neighbours, recent=recent, idf=idf), items)


@published("Garg et al. 2019, STAN", family="baseline", equations="1-6", counts=True)
def stan(
    items: EntityTable,
    *,
    neighbours: int = 500,
    recent: int = 2500,
    lambda1: float | None = 2.0,
    lambda2: float | None = 365.0,
    lambda3: float | None = 5.0,
    idf: bool = True,
) -> System:
    """Items of similar sessions by order and age, see :class:`~graphmeta.baselines.Stan`."""
    scales = {"lambda1": lambda1, "lambda2": lambda2, "lambda3": lambda3}
    return Counting(partial(Stan, neighbours=neighbours, recent=recent, idf=idf, **scales), items, keeps=TIMES)


@published("Li et al. 2023, P-TopFreq and GP-TopFreq", family="baseline", counts=True)
def personal_frequency(
    items: EntityTable,
    *,
    decay: float = 0.95,
    days: float | None = None,
    popular_ties: bool = True,
    popular_rest: bool = True,
) -> System:
    """The user's own items by how often they occur, see :class:`~graphmeta.baselines.PersonalFrequency`."""
    order = {"popular_ties": popular_ties, "popular_rest": popular_rest}
    return Counting(partial(PersonalFrequency, decay=decay, days=days, **order), items, reads_users=True)


@published("Hu et al. 2020, TIFU-KNN", family="baseline", counts=True)
def tifu_knn(
    items: EntityTable,
    *,
    neighbours: int = 300,
    group: int = 7,
    within: float = 0.9,
    between: float = 0.7,
    alpha: float = 0.7,
) -> System:
    """Item frequencies of the user and the nearest users, see :class:`~graphmeta.baselines.TifuKNN`."""
    settings = {"within": within, "between": between, "alpha": alpha}
    return Counting(
        partial(TifuKNN, neighbours=neighbours, group=group, **settings), items, reads_users=True, keeps=OWNERS
    )


@published("Faggioli et al. 2020, UP-CF@r", family="baseline", counts=True)
def up_cf(
    items: EntityTable,
    *,
    neighbours: int | None = None,
    recent: int | None = 5,
    alpha: float = 0.25,
    locality: float = 5.0,
) -> System:
    """Recent purchases of the user and of users with the same items, see :class:`~graphmeta.baselines.UPCF`."""
    settings = {"alpha": alpha, "locality": locality}
    return Counting(
        partial(UPCF, neighbours=neighbours, recent=recent, **settings), items, reads_users=True, keeps=OWNERS
    )
