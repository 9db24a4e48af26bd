"""Names of systems: those outside of the catalogue, and the nearest match of an unknown name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from graphmeta.data.events import EventLog
from graphmeta.data.splits import Split
from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError, nearest, plain


@dataclass(frozen=True)
class Row:
    """One system: its name, kind, source, adapted parameters, and the function or class that builds it.

    ``kind`` is ``next item`` (:func:`graphmeta.build`, :func:`graphmeta.fit`), ``rating`` (``graphmeta.build``),
    ``cross-domain`` (ratings of cold users, :mod:`graphmeta.published.models.cross_domain`) or ``baseline``
    (:mod:`graphmeta.baselines`).
    """

    name: str
    kind: str
    family: str
    paper: str
    equations: str
    adapts: str
    where: str


def _cross_domain(name: str, paper: str, equations: str, where: str) -> Row:
    return Row(name, "cross-domain", "cross-domain", paper, equations, "nothing", f"graphmeta.published.models.{where}")


def _baseline(name: str, paper: str, equations: str, where: str) -> Row:
    return Row(name, "baseline", "baseline", paper, equations, "nothing", f"graphmeta.baselines.{where}")


_CATN = "Zhao et al. 2020, CATN"
_FU = "Fu et al. 2019, RC-DFM"
OTHERS = (
    _cross_domain("catn", _CATN, "1-15", "cross_domain.catn"),
    _cross_domain("catn_simple", f"{_CATN} (basic)", "-", "cross_domain.catn(variant=SIMPLE)"),
    _cross_domain("catn_share", f"{_CATN} (attn)", "-", "cross_domain.catn(variant=SHARE)"),
    _cross_domain("catn_double", f"{_CATN} (doubleS)", "-", "cross_domain.catn(variant=DOUBLE_S)"),
    _cross_domain("anr", "Chin et al. 2018, ANR", "-", "anr.anr"),
    _cross_domain("cmf", "Singh & Gordon 2008, CMF", "-", "factors.cmf"),
    _cross_domain("emcdr", "Man et al. 2017, EMCDR (linear)", "-", "factors.emcdr"),
    _cross_domain("emcdr_mlp", "Man et al. 2017, EMCDR (MLP)", "-", "factors.emcdr(mlp=True)"),
    _cross_domain("cdlfm", "Wang et al. 2018, CDLFM", "-", "factors.cdlfm"),
    _cross_domain("dfm", f"{_FU} (ratings alone)", "-", "factors.dfm"),
    _cross_domain("r_dfm", f"{_FU} (without contents)", "-", "factors.r_dfm"),
    _baseline("popularity", "-", "-", "Popularity"),
    _baseline("session_popularity", "-", "-", "SessionPopularity"),
    _baseline("item_knn", "Sarwar et al. 2001; Aiolli 2013", "-", "ItemKNN"),
    _baseline("session_knn", "Ludewig & Jannach 2018, V-SkNN", "-", "SessionKNN"),
    _baseline("stan", "Garg et al. 2019, STAN", "1-6", "Stan"),
    _baseline("global_mean", "- (ratings)", "-", "GlobalMean"),
    _baseline("item_mean", "- (ratings)", "-", "ItemMean"),
    _baseline("item_user_mean", "- (ratings)", "-", "ItemUserMean"),
)


def check_name(name: Any, known: Iterable[str]) -> None:
    """Check that a name is one of the known ones.

    Raises:
        InputError: any other name; suggests the nearest, or what builds a system outside of the catalogue.
    """
    known = list(known)
    if name in known:
        return
    if not isinstance(name, str):
        raise InputError(f"{name!r} is not the name of a system; graphmeta.systems() lists them")
    others = {row.name: row for row in OTHERS}
    if name in others:
        raise InputError(f"{name} is not in the catalogue: it is a {_KINDS[others[name].kind]}; {_how(others[name])}")
    near = nearest(name, [*known, *others])
    below = [one for one in known if plain(name) and plain(one).startswith(plain(name))]
    meant = f"did you mean {near!r}? (graphmeta systems lists all)" if near else "graphmeta systems lists all"
    if near is None and below:
        meant = f"did you mean one of {', '.join(below)}? (graphmeta systems lists all)"
    raise InputError(f"no system is called {name!r}; {meant}")


_KINDS = {"cross-domain": "cross-domain rating model", "baseline": "baseline"}


def _how(row: Row) -> str:
    what = "fit it with {}(log)" if row.kind == "baseline" else "see {}"
    return what.format(row.where)


def check_items(name: str, items: Any) -> None:
    """Check that the argument for the item table is one.

    Raises:
        InputError: a log or a split, whose item table the message names, or any other type.
    """
    if isinstance(items, EntityTable):
        return
    holders: Mapping[type, str] = {EventLog: "log", Split: "split.train"}
    for kind, place in holders.items():
        if isinstance(items, kind):
            raise InputError(
                f"a system is built from items, not from a log or a split; pass "
                f"build({name!r}, {place}.items, users={place}.users)"
            )
    raise InputError(
        f"a system is built from an EntityTable of items, not from a {type(items).__name__}; read a log with "
        f"EventLog.read and pass build({name!r}, log.items)"
    )
