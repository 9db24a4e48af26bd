"""Rating predictors for cold-start users and items: content features only, adapted to a few known ratings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from graphmeta.adapt.adaptation import Adaptation
from graphmeta.adapt.inner import InnerLoop
from graphmeta.adapt.scope import Scope
from graphmeta.adapt.starts.memory import UserMemoryStart
from graphmeta.adapt.step import Step
from graphmeta.adapt.support import SessionSupport
from graphmeta.data.tables import EntityTable
from graphmeta.nn.conditioning.memory import Profiles, SlotLayer
from graphmeta.nn.encoders.attention import Clicks
from graphmeta.nn.encoders.metapath import MetaPaths, PathContexts, PathFeatures
from graphmeta.nn.encoders.pooling import SampleMean
from graphmeta.nn.features.content import ContentFeatures, UserContent
from graphmeta.nn.heads.rating import Decision, SquaredError, decision_layers
from graphmeta.nn.readout import Last
from graphmeta.published.options import step_of
from graphmeta.published.parts import Anchored, path_adaptation
from graphmeta.published.registry import published
from graphmeta.recommender import Recommender
from graphmeta.sampling.few_shot import RandomQueries
from graphmeta.system import System


@published(
    "Lee et al. 2019, MeLU",
    family="cold_user",
    equations="1-3, Algorithm 1",
    adapts="the decision layers",
    predicts_ratings=True,
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
    """MeLU: the decision layers adapt to a user's known ratings; content embeddings are shared by all users.

    ``r̂ = FC₃ relu(FC₂ relu(FC₁ [u ; i]))``, ``θ_t = θ − lr ∇ mean (r̂ − r)²`` over the user's known ratings; θ and the
    embeddings are trained to minimise the error on the user's other ratings.

    Args:
        width: of each content field.
        hidden: widths of the decision layers.
        step, inner: learning rate and number of a user's steps; 0 steps for the model without adaptation.

    Source: Lee et al., MeLU: Meta-Learned User Preference Estimator for Cold-Start Recommendation, KDD 2019,
    eqs 1–3, Algorithm 1.
    Differs: a true meta-gradient of the stated order (the released code's is neither); the inner loss is the mean
    squared error of the known ratings; see :class:`~graphmeta.nn.features.content.Field` and
    :class:`~graphmeta.nn.heads.rating.Decision`. The default is the paper's rate, 5e-6 with outer Adam at 5e-5, which
    hardly changes a user's weights; ``lr=0.05, steps=5`` with Adam at 1e-3 had the lowest error on held-out users of
    MovieLens-1M.
    """
    features, readout = ContentFeatures(items, width), UserContent(users, width)
    head = Decision(readout, decision_layers(readout.width + features.width, (hidden, hidden)))
    adaptation = Adaptation(Scope("head.layers"), step=step_of(step), inner=inner)
    return _rating(Recommender(features, Clicks(), head), items, users=users, adaptation=adaptation)


@published(
    "Dong et al. 2020, MAMO",
    family="cold_user",
    equations="section 3",
    adapts="all but the content embeddings, from memories",
    predicts_ratings=True,
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
    """MAMO: a user's weights are initialised from memories of earlier users with similar profiles, then adapted.

    ``u = f(p)``, ``v = g(e_i)``, ``r̂ = FC(M [u ; v])``. The profile p (the user's content) addresses the slots:
    ``a = softmax(FC cos(p, M_P))``; f starts at ``φ_f − τ Σ_k a_k M_U,k`` and M at ``Σ_k a_k M_UI,k``; steps on the
    user's known ratings update f, g, M and FC. After each training step, profiles are written to M_P, the gradients of
    f on the query to M_U, and the adapted M to M_UI.

    Args:
        width: of each content field.
        size: of u and v.
        slots: K.
        bias: τ; the memories' update rates are the paper's, 0.5, 0.05 and 0.1.
        step, inner: learning rate of a user's steps, their number and order.

    Source: Dong et al., MAMO: Memory-Augmented Meta-Optimization for Cold-start Recommendation, KDD 2020, section 3,
    and, where it leaves details open, the public code.
    Differs: squared error of a number (the code: five classes, through two softmaxes); plain gradient steps in the
    inner loop (the code: Adam), a true meta-gradient of the stated order, Adam outside (the code: SGD); content
    embeddings are shared and not adapted, as in MeLU; recommending does not write to memory; see
    :class:`~graphmeta.nn.conditioning.memory.Slots`, :class:`~graphmeta.nn.conditioning.memory.Profiles` and
    :class:`~graphmeta.adapt.starts.memory.UserMemoryStart`. The code clips gradients, this does not: five steps at 0.02
    diverged for a held-out user of MovieLens-1M, at 0.01 they did not.
    """
    features, readout = ContentFeatures(items, width), UserContent(users, width)
    towers = [
        nn.Sequential(nn.Linear(n, size), nn.ReLU(), nn.Linear(size, size)) for n in (readout.width, features.width)
    ]
    layers = nn.Sequential(SlotLayer(2 * size, slots=slots), *decision_layers(2 * size, (size,)))
    start = UserMemoryStart(
        Scope("head.user"), "head.layers.0", profiles=Profiles(readout.width, slots=slots), bias_scale=bias
    )
    scope = Scope("head.user", "head.item", "head.layers")
    adaptation = Adaptation(scope, step=step_of(step), start=start, inner=inner)
    head = Decision(readout, layers, user=towers[0], item=towers[1])
    return _rating(Recommender(features, Clicks(), head), items, users=users, adaptation=adaptation)


@dataclass(frozen=True)
class Paths:
    """The meta-paths of :func:`meta_hin_rating`.

    Args:
        paths: the item attributes used as paths; all if not given.
        size: of a context.
        known: maximum number of a user's items read, the last ones.
        neighbours: maximum per item and path, see :class:`~graphmeta.nn.encoders.metapath.MetaPaths`.
        path_lr: learning rate of the context step.
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
    predicts_ratings=True,
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
    """MetaHIN: each meta-path from a user gives a context that gates the decision layers; support losses weight the
    paths.

    Paths lead from a user to the items they are known to have rated (UM), to items that others rated together with
    these (UMUM), and to items with the same attribute (UMAM, one path per attribute). Along path p,
    ``c^p = LeakyReLU(mean_j(e_j W_p + b_p))``, a step on ``W_p, b_p``, ``θ^p = θ · σ(FC(c^p))``, steps on θ^p; then
    ``a = softmax(−ℓ_support)``, ``θ = Σ_p a_p θ^p``, ``c = Σ_p a_p c^p``, ``r̂ = FC_θ([u ; c ; e_i])``.

    The graph holds the training ratings without the query ratings of training tasks. A support rating is predicted from
    the ratings known before it, so no target item is in its own context.

    Args:
        width: of each content field.
        hidden: widths of the decision layers.
        graph: the paths.
        step, inner: learning rate of the steps on the decision layers, their number and order.

    Source: Lu, Fang, Shi, Meta-learning on Heterogeneous Information Networks for Cold-start Recommendation, KDD 2020,
    sections 4.2–4.3.
    Differs: paths are weighted by the support loss, where the public code uses the query loss, which leaks the targets;
    the decision layers read u, which the code computes and ignores; a context is that of the user's known items, where
    the code uses, for the query, the query items; each path has its own weights; all neighbours of a known item have
    equal weight; users with 13 to 100 ratings, where the code takes those with at most five known ones; first order by
    default.
    """
    names = [*items.attributes, *items.several] if graph.paths is None else list(graph.paths)
    queries, count = RandomQueries(), 2 + len(names)
    context = MetaPaths(len(items), names, most=graph.neighbours, known=queries.without_queries)
    features, user = PathFeatures(ContentFeatures(items, width), context), UserContent(users, width)
    readout = PathContexts(user, paths=count, width=features.width, size=graph.size, mean=Last())
    layers = decision_layers(user.width + graph.size + features.width, (hidden, hidden))
    scope, read = Scope("head.layers"), (user.width, graph.size)
    tasks: Anchored = {"step": step_of(step), "support": SessionSupport()}
    adaptation = path_adaptation(scope, read, count=count, path_lr=graph.path_lr, inner=inner, **tasks)
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
    """A system for rating tasks of users; ``known``: maximum number of a user's items read."""
    return System(
        recommender,
        items,
        users=users,
        adaptation=adaptation,
        loss=SquaredError(),
        samples=queries or RandomQueries(),
        limits={"max_length": known},
    )
