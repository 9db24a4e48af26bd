"""Names of systems: those outside of the catalogue, and the nearest match of an unknown name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from graphmeta.data.events import EventLog
from graphmeta.data.splits import Split
from graphmeta.errors import InputError


@dataclass(frozen=True)
class Row:
    """One system: its name, kind, source, adapted parameters, and the function or class that builds it.

    ``kind`` is ``next item`` (:func:`graphmeta.build`, :func:`graphmeta.fit`), ``rating`` (``graphmeta.build``),
    ``cross-domain`` (ratings of cold users, :mod:`graphmeta.published.cross_domain`) or ``baseline``
    (:mod:`graphmeta.baselines`).
    """

    name: str
    kind: str
    family: str
    paper: str
    equations: str
    adapts: str
    where: str


def _other(name: str, kind: str, paper: str, equations: str, where: str) -> Row:
    return Row(name, kind, kind, paper, equations, "nothing", f"graphmeta.{where}")


_CATN = "Zhao et al. 2020, CATN"
_FU = "Fu et al. 2019, RC-DFM"
OTHERS = (
    _other("catn", "cross-domain", _CATN, "1-15", "published.cross_domain.catn"),
    _other("catn_simple", "cross-domain", f"{_CATN} (basic)", "-", 'published.cross_domain.catn(variant="simple")'),
    _other("catn_share", "cross-domain", f"{_CATN} (attn)", "-", 'published.cross_domain.catn(variant="share")'),
    _other("catn_double", "cross-domain", f"{_CATN} (doubleS)", "-", 'published.cross_domain.catn(variant="doubleS")'),
    _other("anr", "cross-domain", "Chin et al. 2018, ANR", "-", "published.anr.anr"),
    _other("cmf", "cross-domain", "Singh & Gordon 2008, CMF", "-", "published.factors.cmf"),
    _other("emcdr", "cross-domain", "Man et al. 2017, EMCDR (linear)", "-", "published.factors.emcdr"),
    _other("emcdr_mlp", "cross-domain", "Man et al. 2017, EMCDR (MLP)", "-", "published.factors.emcdr(mlp=True)"),
    _other("cdlfm", "cross-domain", "Wang et al. 2018, CDLFM", "-", "published.factors.cdlfm"),
    _other("dfm", "cross-domain", f"{_FU} (ratings alone)", "-", "published.factors.dfm"),
    _other("r_dfm", "cross-domain", f"{_FU} (without contents)", "-", "published.factors.r_dfm"),
    _other("popularity", "baseline", "-", "-", "baselines.Popularity"),
    _other("session_popularity", "baseline", "-", "-", "baselines.SessionPopularity"),
    _other("item_knn", "baseline", "Sarwar et al. 2001; Aiolli 2013", "-", "baselines.ItemKNN"),
    _other("session_knn", "baseline", "Ludewig & Jannach 2018, V-SkNN", "-", "baselines.SessionKNN"),
    _other("stan", "baseline", "Garg et al. 2019, STAN", "1-6", "baselines.Stan"),
    _other("global_mean", "baseline", "- (ratings)", "-", "baselines.GlobalMean"),
    _other("item_mean", "baseline", "- (ratings)", "-", "baselines.ItemMean"),
    _other("item_user_mean", "baseline", "- (ratings)", "-", "baselines.ItemUserMean"),
)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The most similar known name, None if none is similar; case, dashes and underscores are ignored.

    >>> nearest("SR-GNN", ["tagnn", "sr_gnn"]), nearest("sasrec", ["tagnn", "sr_gnn"])
    ('sr_gnn', None)
    """
    plain: dict[str, str] = {}
    for one in known:
        plain.setdefault(_plain(one), one)
    near = difflib.get_close_matches(_plain(name), plain, n=1, cutoff=0.7)
    return plain[near[0]] if near else None


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


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
    meant = f"did you mean {near!r}? (graphmeta systems lists all)" if near else "graphmeta systems lists all"
    raise InputError(f"no system is called {name!r}; {meant}")


_KINDS = {"cross-domain": "cross-domain rating model", "baseline": "baseline"}


def _how(row: Row) -> str:
    what = "fit it with {}(log)" if row.kind == "baseline" else "see {}"
    return what.format(row.where)


def check_items(name: str, items: Any) -> None:
    """Check that the argument for the item table is not a log or a split.

    Raises:
        InputError: a log or a split; the message names its item table.
    """
    holders: Mapping[type, str] = {EventLog: "log", Split: "split.train"}
    for kind, place in holders.items():
        if isinstance(items, kind):
            raise InputError(
                f"a system is built from items, not from a log or a split; pass "
                f"build({name!r}, {place}.items, users={place}.users)"
            )
