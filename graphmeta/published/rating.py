"""Rating recommenders for people and items that nobody has seen: content alone, and a few ratings to adapt to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from graphmeta.adapt.adaptation import Adaptation
from graphmeta.adapt.inner import InnerLoop
from graphmeta.adapt.scope import Scope
from graphmeta.adapt.starts.memory import UserMemoryStart
from graphmeta.adapt.step import Step
from graphmeta.data.tables import EntityTable
from graphmeta.nn.conditioning.memory import Profiles, SlotLayer
from graphmeta.nn.encoders.attention import Clicks
from graphmeta.nn.encoders.metapath import MetaPaths, PathContexts, PathFeatures
from graphmeta.nn.encoders.pooling import SampleMean
from graphmeta.nn.features.content import ContentFeatures, UserContent
from graphmeta.nn.heads.rating import Decision, SquaredError, decision_layers
from graphmeta.nn.readout import Last
from graphmeta.published.options import step_of
from graphmeta.published.parts import path_adaptation
from graphmeta.published.registry import published
from graphmeta.recommender import Recommender
from graphmeta.sampling.few_shot import RandomQueries
from graphmeta.system import System


@published(
    "Lee et al. 2019, MeLU", family="cold_user", equations="1-3, Algorithm 1", adapts="the decision layers", rates=True
)
def melu_rating(
    items: EntityTable,
    *,
    users: EntityTable,
    width: int = 32,
    hidden: int = 64,
    step: Step | float = 5e-6,
    inner: InnerLoop = InnerLoop(),
) -> System:
    """MeLU: a person's known ratings adapt the decision layers; the vectors of contents are shared by all.

    ``r̂ = FC₃ relu(FC₂ relu(FC₁ [u ; i]))``, ``θ_t = θ − lr ∇ mean (r̂ − r)²`` over the person's known ratings, and
    both θ and the vectors are trained so that the person's other ratings come out right.

    Args:
        width: of each field of content; hidden: of the decision layers.
        step, inner: the rate of a person's steps, and how many; none for the twin that does not adapt.

    Source: Lee et al., MeLU: Meta-Learned User Preference Estimator for Cold-Start Recommendation, KDD 2019,
    eqs 1–3, Algorithm 1.
    Differs: a true meta-gradient of the stated order (the released code's is neither); the step goes down the mean
    error of the known ratings; what :class:`~graphmeta.nn.features.content.Field` and
    :class:`~graphmeta.nn.heads.rating.Decision` say. The paper's rate, 5e-6 beside an outer Adam at 5e-5, is the
    default and hardly moves a person's weights; ``lr=0.05, steps=5`` beside Adam at 1e-3 had the least error on
    held-out people of MovieLens-1M.
    """
    features, readout = ContentFeatures(items, width), UserContent(users, width)
    head = Decision(readout, decision_layers(readout.width + features.width, (hidden, hidden)))
    adaptation = Adaptation(Scope("head.layers"), step=step_of(step), inner=inner)
    return _rating(Recommender(features, Clicks(), head), items, users=users, adaptation=adaptation)


@published(
    "Dong et al. 2020, MAMO",
    family="cold_user",
    equations="section 3",
    adapts="all but the contents, from memories",
    rates=True,
)
def mamo_rating(
    items: EntityTable,
    *,
    users: EntityTable,
    width: int = 32,
    size: int = 64,
    slots: int = 3,
    bias: float = 0.01,
    step: Step | float = 0.01,
    inner: InnerLoop = InnerLoop(),
) -> System:
    """MAMO: a person's weights begin as memories of earlier people with a profile like theirs say, and then adapt.

    ``u = f(p)``, ``v = g(e_i)``, ``r̂ = FC(M [u ; v])``. The profile p (the person's contents) addresses the slots:
    ``a = softmax(FC cos(p, M_P))``; f begins as ``φ_f − τ Σ_k a_k M_U,k`` and M as ``Σ_k a_k M_UI,k``; steps on the
    person's known ratings move f, g, M and FC. After each training step, M_P takes in the profiles, M_U the slopes of
    f on the query, M_UI the adapted M.

    Args:
        width: of each field of content; size: of u and v.
        slots: K; bias: τ; the memories' rates are the paper's, 0.5, 0.05 and 0.1.
        step, inner: the rate of a person's steps, their number and order.

    Source: Dong et al., MAMO: Memory-Augmented Meta-Optimization for Cold-start Recommendation, KDD 2020, section 3,
    and, where it is silent, the public code.
    Differs: squared error of a number (the code: five classes, through two softmaxes); plain gradient steps in the
    loop (the code: Adam), a true meta-gradient of the stated order, Adam outside (the code: SGD); the vectors of
    contents are shared and never a person's own, as in MeLU; recommending writes nothing; what
    :class:`~graphmeta.nn.conditioning.memory.Slots`, :class:`~graphmeta.nn.conditioning.memory.Profiles` and
    :class:`~graphmeta.adapt.starts.memory.UserMemoryStart` say. The code clips slopes and this does not: five
    steps at 0.02 ran away for a held-out person of MovieLens-1M, at 0.01 they did not.
    """
    features, readout = ContentFeatures(items, width), UserContent(users, width)
    own = [nn.Sequential(nn.Linear(n, size), nn.ReLU(), nn.Linear(size, size)) for n in (readout.width, features.width)]
    layers = nn.Sequential(SlotLayer(2 * size, slots=slots), *decision_layers(2 * size, (size,)))
    start = UserMemoryStart(
        Scope("head.user"), "head.layers.0", profiles=Profiles(readout.width, slots=slots), bias=bias
    )
    scope = Scope("head.user", "head.item", "head.layers")
    adaptation = Adaptation(scope, step=step_of(step), start=start, inner=inner)
    head = Decision(readout, layers, user=own[0], item=own[1])
    return _rating(Recommender(features, Clicks(), head), items, users=users, adaptation=adaptation)


@dataclass(frozen=True)
class Paths:
    """The meta-paths of :func:`meta_hin_rating`.

    Args:
        paths: the items' attributes that are paths; all if not given.
        size: of a context; known: items of a person that are looked at, the last ones; neighbours: of an item along a
            path, at most, see :class:`~graphmeta.nn.encoders.metapath.MetaPaths`.
        path_lr: rate of the step on the contexts.
    """

    paths: Sequence[str] | None = None
    size: int = 32
    known: int = 20
    neighbours: int = 20
    path_lr: float = 5e-3


@published(
    "Lu et al. 2020, MetaHIN",
    family="cold_user",
    equations="sections 4.2-4.3",
    adapts="contexts, decision layers",
    rates=True,
)
def meta_hin_rating(
    items: EntityTable,
    *,
    users: EntityTable,
    width: int = 32,
    hidden: int = 64,
    graph: Paths = Paths(),
    step: Step | float = 5e-3,
    inner: InnerLoop = InnerLoop(),
) -> System:
    """MetaHIN: each meta-path from a person gives a context, which gates the decision layers; losses weigh the paths.

    Paths lead from a person to the items they are known to have rated (UM), to those that others rated beside these
    (UMUM), and to those with the same attribute (UMAM, one path an attribute). Along path p,
    ``c^p = LeakyReLU(mean_j(e_j W_p + b_p))``, a step on ``W_p, b_p``, ``θ^p = θ · σ(FC(c^p))``, steps on θ^p; then
    ``a = softmax(−ℓ_support)``, ``θ = Σ_p a_p θ^p``, ``c = Σ_p a_p c^p``, ``r̂ = FC_θ([u ; c ; e_i])``.

    The graph holds the training ratings but those that training asks for. A known rating is asked with those known
    before it, so no item that is asked about is in its own context.

    Args:
        width: of each field of content; hidden: of the decision layers; graph: the paths.
        step, inner: the rate of the steps on the decision layers, and their number and order.

    Source: Lu, Fang, Shi, Meta-learning on Heterogeneous Information Networks for Cold-start Recommendation, KDD 2020,
    sections 4.2–4.3.
    Differs: the paths are weighed by the support's loss, where the public code takes the query's, which is what it is
    asked; it reads u, which the code makes and leaves; a context is that of the person's known items, where the code
    takes, for the query, the items that are asked; each path has weights of its own; a known item's neighbours count
    as much as another's; people with 13 to 100 ratings, where the code takes those with at most five known ones;
    first order unless told otherwise.
    """
    names = [*items.attributes, *items.several] if graph.paths is None else list(graph.paths)
    queries, count = RandomQueries(), 2 + len(names)
    around = MetaPaths(len(items), names, most=graph.neighbours, known=queries.known)
    features, who = PathFeatures(ContentFeatures(items, width), around), UserContent(users, width)
    readout = PathContexts(who, paths=count, width=features.width, size=graph.size, mean=Last())
    layers = decision_layers(who.width + graph.size + features.width, (hidden, hidden))
    scope, read = Scope("head.layers"), (who.width, graph.size)
    adaptation = path_adaptation(scope, read, count=count, path_lr=graph.path_lr, step=step, inner=inner)
    model = Recommender(features, SampleMean(), Decision(readout, layers))
    return _rating(model, items, users=users, adaptation=adaptation, queries=queries, known=graph.known)


def _rating(
    recommender: Recommender,
    items: EntityTable,
    *,
    users: EntityTable,
    adaptation: Adaptation,
    queries: RandomQueries | None = None,
    known: int = 0,
) -> System:
    """The system that asks people for ratings; ``known``: how many of a person's items it looks at."""
    return System(
        recommender,
        items,
        users=users,
        adaptation=adaptation,
        loss=SquaredError(),
        samples=queries or RandomQueries(),
        limits={"max_length": known},
    )
