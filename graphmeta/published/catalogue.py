"""The catalogue: every published system by name, with its source and what in it adapts."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError
from graphmeta.published import (
    asars,
    cbml,
    cold_item,
    cold_user,
    few_shot,
    graph,
    meta,
    rating,
    sequence,
    session,
    streaming,
)
from graphmeta.published.recipe import GIVEN, check_types, complete, written
from graphmeta.system import System


@dataclass(frozen=True)
class Entry:
    """One row of the catalogue; ``encoder`` names the plain system that one that adapts begins with.

    ``rates`` says that it answers what rating a person would give an item, and not which item comes next; ``counts``,
    that it learns how far to trust counts, on later sessions than those that are counted.
    """

    name: str
    family: str
    paper: str
    equations: str
    adapts: str
    function: Callable[..., System]
    encoder: str | None = None
    rates: bool = False
    counts: bool = False

    @property
    def needs_users(self) -> bool:
        """Whether it cannot be without users, and so needs a log with a user column."""
        users = self._takes.get("users")
        return users is not None and users.default is inspect.Parameter.empty

    @property
    def _takes(self) -> Mapping[str, inspect.Parameter]:
        return inspect.signature(self.function).parameters

    def build(self, items: EntityTable, *, users: EntityTable | None = None, **arguments: Any) -> System:
        """The untrained system for these items (and users, if it looks at them); it remembers how it was built.

        Raises:
            InputError: users are needed and not given, or an argument that the system does not take, or that could not
                be loaded again.
        """
        known = self._takes
        strange = [name for name in arguments if name not in known]
        if strange:
            raise InputError(
                f"{self.name} takes no {strange[0]!r}; it takes {', '.join(sorted(known.keys() - set(GIVEN)))}"
            )
        self.check_users(users is not None)
        whose = {"users": users} if "users" in known and users is not None else {}
        try:
            written(complete(arguments))
        except InputError as error:
            function = f"{self.function.__module__}.{self.function.__name__}"
            raise InputError(
                f"{self.name}: {error}; pass a name of the catalogue (graphmeta systems), or call {function} and load "
                f"what it makes with build="
            ) from None
        return self.function(items, **whose, **arguments)

    def check_types(self, arguments: Mapping[str, Any]) -> None:
        """Raise an InputError if an argument as JSON has it is of another type than the system's."""
        check_types(self.function, arguments)

    def check_users(self, known: bool) -> None:
        """Raise an InputError if the system needs users and there are none."""
        if self.needs_users and not known:
            raise InputError(f"{self.name} needs to know the users; name the log's user column (--user)")


_META_CF = "Wei et al. 2020, MetaCF"
_SML = "Zhang et al. 2020, SML"
_ROWS = (
    Entry("sr_gnn", "session", "Wu et al. 2019, SR-GNN", "1-8", "nothing", session.sr_gnn),
    Entry("tagnn", "session", "Yu et al. 2020, TAGNN", "1-10", "nothing", session.tagnn),
    Entry("gc_san", "session", "Xu et al. 2019, GC-SAN", "1-13", "nothing", session.gc_san),
    Entry("gru4rec", "session", "Hidasi et al. 2016/2018, GRU4Rec", "1-10", "nothing", session.gru4rec),
    Entry("if_san", "session", "Song et al. 2021, CBML (base)", "1-8", "nothing", session.if_san),
    Entry(
        "youtube_dnn", "sequence", "Covington et al. 2016, YouTube DNN", "section 3", "nothing", sequence.youtube_dnn
    ),
    Entry("wavenet", "sequence", "van den Oord et al. 2016, WaveNet", "section 2", "nothing", sequence.wavenet),
    Entry("caser", "sequence", "Tang & Wang 2018, Caser", "3-10", "nothing", sequence.caser),
    Entry("bpr_mf", "sequence", "Rendle et al. 2009, BPR-MF", "section 4", "nothing", sequence.bpr_mf),
    Entry("asars_user_att", "asars", "ASARS, user attention", "15-20", "nothing", asars.asars_user_att),
    Entry("asars_user_cat", "asars", "ASARS, user beside", "20", "nothing", asars.asars_user_cat),
    Entry("asars_time_att", "asars", "ASARS, time attention", "8, 15-20", "nothing", asars.asars_time_att),
    Entry("asars_time_cat", "asars", "ASARS, time beside", "8, 20", "nothing", asars.asars_time_cat),
    Entry("asars_time_user", "asars", "ASARS, time and user", "8, 15-20", "nothing", asars.asars_time_user),
    Entry("hetero_gnn", "graph", "Schlichtkrull et al. 2018, R-GCN (on sessions)", "2", "nothing", graph.hetero_gnn),
    Entry("global_gnn", "graph", "Wang et al. 2020, GCE-GNN (global level)", "-", "nothing", graph.global_gnn),
    Entry("niser", "graph", "Gupta et al. 2019, NISER+", "-", "nothing", graph.niser),
    Entry("reranker", "graph", "ours, around NISER+", "-", "nothing", graph.reranker, "niser", counts=True),
    Entry("dropout_net", "cold_item", "Volkovs et al. 2017, DropoutNet", "-", "nothing", cold_item.dropout_net),
    Entry("maml", "meta", "Finn et al. 2017, MAML", "1", "encoder and head", meta.maml, "sr_gnn"),
    Entry(
        "multi_ft",
        "meta",
        "Song et al. 2021, CBML (baseline)",
        "-",
        "everything, when recommending",
        meta.multi_ft,
        "if_san",
    ),
    Entry("melu", "meta", "Lee et al. 2019, MeLU", "Algorithm 1", "the prediction layer", meta.melu, "if_san"),
    Entry("mamo", "meta", "Dong et al. 2020, MAMO", "-", "everything, from a memory", meta.mamo, "if_san"),
    Entry("meta_hin", "meta", "Lu et al. 2020, MetaHIN", "-", "contexts, prediction layer", meta.meta_hin, "if_san"),
    Entry("cbml", "meta", "Song et al. 2021, CBML", "9-18", "everything, from a gated start", cbml.cbml, "if_san"),
    Entry("cbml_g", "meta", "Song et al. 2021, CBML-G", "9-18", "everything; no gate", cbml.cbml_g, "if_san"),
    Entry("cbml_c", "meta", "Song et al. 2021, CBML-C", "9-18", "everything; gated by session", cbml.cbml_c, "if_san"),
    Entry("cbml_s", "meta", "Song et al. 2021, CBML-S", "9-18", "everything; gated by cluster", cbml.cbml_s, "if_san"),
    Entry("cbml_f", "meta", "Song et al. 2021, CBML-F", "9-18", "everything; items only", cbml.cbml_f, "if_san"),
    Entry(
        "melu_rating",
        "cold_user",
        "Lee et al. 2019, MeLU",
        "1-3, Algorithm 1",
        "the decision layers",
        rating.melu_rating,
        rates=True,
    ),
    Entry(
        "mamo_rating",
        "cold_user",
        "Dong et al. 2020, MAMO",
        "section 3",
        "all but the contents, from memories",
        rating.mamo_rating,
        rates=True,
    ),
    Entry(
        "meta_hin_rating",
        "cold_user",
        "Lu et al. 2020, MetaHIN",
        "sections 4.2-4.3",
        "contexts, decision layers",
        rating.meta_hin_rating,
        rates=True,
    ),
    Entry("bpr_fold_in", "cold_user", _META_CF, "2-3", "the user, when recommending", cold_user.bpr_fold_in),
    Entry("meta_cf_g", "cold_user", _META_CF, "8", "the user", cold_user.meta_cf_g, "bpr_fold_in"),
    Entry("meta_cf_linear", "cold_user", _META_CF, "9-10", "the user", cold_user.meta_cf_linear, "bpr_fold_in"),
    Entry("meta_cf_neural", "cold_user", _META_CF, "9-10", "the user", cold_user.meta_cf_neural, "bpr_fold_in"),
    Entry(
        "melu_id",
        "cold_user",
        f"{_META_CF} (baseline, reconstructed)",
        "-",
        "the prediction layers",
        cold_user.melu_id,
        "bpr_fold_in",
    ),
    Entry("meta_tl", "cold_user", "Wang et al. 2021, MetaTL", "1-6", "the relation of items", few_shot.meta_tl),
    Entry(
        "cluster_seq",
        "cold_user",
        "arXiv 2307.13766, ClusterSeq (reconstruction)",
        "-",
        "the decoder, from a gated start",
        few_shot.cluster_seq,
    ),
    Entry("mf", "streaming", f"{_SML} (base)", "-", "nothing", streaming.mf),
    Entry("full_retrain", "streaming", f"{_SML} (baseline)", "-", "nothing; retrained", streaming.full_retrain),
    Entry("fine_tune", "streaming", f"{_SML} (baseline)", "-", "nothing; retrained", streaming.fine_tune),
    Entry("spmf", "streaming", "Wang et al. 2018, SPMF", "-", "nothing; retrained", streaming.spmf),
    Entry("sml", "streaming", _SML, "3-8, Algorithms 1, 2", "the tables, by retraining", streaming.sml),
)
CATALOGUE: dict[str, Entry] = {row.name: row for row in _ROWS}
RANKING = [row.name for row in _ROWS if not row.rates]


def build(name: str, items: EntityTable, *, users: EntityTable | None = None, **arguments: Any) -> System:
    """The untrained system of that name for these items, and for these users if it is about them.

    Raises:
        InputError: a name that is not in the catalogue; says which one is nearest.
    """
    if name not in CATALOGUE:
        near = difflib.get_close_matches(name, CATALOGUE, n=1, cutoff=0.0)
        raise InputError(f"no system is called {name!r}; did you mean {near[0]!r}? (graphmeta systems lists all)")
    return CATALOGUE[name].build(items, users=users, **arguments)
