"""Meta-learned recommenders of the papers: a recommender, and a scope, a start and a step."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from graphmeta.adapt.adaptation import Adaptation
from graphmeta.adapt.scope import Scope
from graphmeta.adapt.start import Full, Gated
from graphmeta.adapt.step import Gradient
from graphmeta.errors import InputError
from graphmeta.nn.cluster import Prototypes
from graphmeta.nn.head import Dot
from graphmeta.nn.readout import Clustered, Last
from graphmeta.published.session import attention_levels, features, if_san_recommender, sr_gnn
from graphmeta.recommender import Recommender
from graphmeta.system import System
from graphmeta.tables import EntityTable


def maml(
    items: EntityTable,
    *,
    users: EntityTable | None = None,
    base: Callable[..., System] | str = sr_gnn,
    width: int = 100,
    scope: Sequence[str] = ("encoder", "head"),
    lr: float = 0.05,
    steps: int = 1,
    order: int = 1,
) -> System:
    """MAML around any recommender: shared weights from which one step on a session's own clicks leads far.

    ``θ_t = θ − lr ∇ L_support(θ)``, trained so that ``L_query(θ_t)`` is small.

    Args:
        users: the people, for a base that knows them.
        base: builds the system whose recommender is wrapped (or its name in the catalogue).
        scope: the parameters a session changes.

    Source: Finn, Abbeel, Levine, Model-Agnostic Meta-Learning, ICML 2017, eq 1 and Algorithm 1.
    """
    from graphmeta.published import CATALOGUE, build  # which imports this module

    name = base if isinstance(base, str) else base.__name__
    known = name in CATALOGUE and (isinstance(base, str) or CATALOGUE[name].function is base)
    if isinstance(base, str) and not known:
        raise InputError(f"no system is called {name!r}; maml goes around one of {', '.join(CATALOGUE)}")
    inner = build(name, items, users=users, width=width) if known else base(items, width=width)  # pyright: ignore
    adaptation = Adaptation(Scope(*scope), step=Gradient(lr), steps=steps, order=order)
    return System(inner.recommender, items, users=inner.users, adaptation=adaptation, max_length=inner.max_length)


def multi_ft(
    items: EntityTable,
    *,
    width: int = 100,
    layers: int = 2,
    dropout: float = 0.2,
    lr: float = 1e-3,
    steps: int = 1,
) -> System:
    """Multi-FT: IF-SAN trained as usual; a session's own clicks fine-tune all of it before it is asked.

    Source: CBML §5 (baseline). Differs: the number of steps and the rate are not given there; one step at 1e-3.
    """
    adaptation = Adaptation(Scope(""), step=Gradient(lr), steps=steps, trained=False)
    return System(if_san_recommender(items, width=width, layers=layers, dropout=dropout), items, adaptation=adaptation)


def melu(
    items: EntityTable,
    *,
    width: int = 100,
    layers: int = 2,
    dropout: float = 0.2,
    lr: float = 1e-3,
    steps: int = 1,
    order: int = 1,
) -> System:
    """MeLU on sessions: the last layer is adapted, everything is meta-trained.

    Source: Lee et al., MeLU, KDD 2019, Algorithm 1, on IF-SAN as in CBML §5. Differs: a true meta-gradient of the
    stated order; the released code copies its fast weights and has none.
    """
    adaptation = Adaptation(Scope("head.project"), step=Gradient(lr), steps=steps, order=order)
    return System(if_san_recommender(items, width=width, layers=layers, dropout=dropout), items, adaptation=adaptation)


def cbml(
    items: EntityTable,
    *,
    width: int = 100,
    layers: int = 2,
    dropout: float = 0.2,
    clusters: int = 8,
    scope: Sequence[str] = ("",),
    lr: float = 1e-3,
    order: int = 1,
) -> System:
    """CBML: a session's cluster gates the prediction layer, then one step on the session's own clicks.

    ``o = σ(FC([S ; C]))``, ``θ_pre ← θ_pre · o``, ``θ ← θ − lr ∇ L_support(θ)``; score_i = ([S ; C] W + b) · e_i.

    Args:
        clusters: prototypes; scope: what a session changes, everything in the paper.

    Source: Song et al., CBML: A Cluster-based Meta-learning Model for Session-based Recommendation, CIKM 2021,
    eqs 9–18.
    Differs: the prediction layer is 3d → d throughout (eqs 8 and 15 disagree); one gate value for each weight; the
    gate reads the session as it stands before the query; the support is the last ten prefixes (``max_support``).
    """
    levels = 2 if items.attributes else 1
    session, code = levels * width, width
    readout = Clustered(Last(), Prototypes(session, code, clusters=clusters))
    encoder = attention_levels(levels, width, layers=layers, dropout=dropout)
    recommender = Recommender(features(items, width), encoder, Dot(readout, nn.Linear(session + code, width)))
    start = Gated("head.project", session + code, granularity=Full())
    names = (
        [n for n, _ in recommender.named_parameters() if not n.startswith("head.readout.prototypes")]
        if tuple(scope) == ("",)
        else scope
    )
    adaptation = Adaptation(Scope(*names), step=Gradient(lr), start=start, order=order)
    return System(recommender, items, adaptation=adaptation)
