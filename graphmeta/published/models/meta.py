"""Meta-learned recommenders: a base recommender with a scope, a start and a step."""

from __future__ import annotations

from torch import nn

from graphmeta.adapt.adaptation import Adaptation
from graphmeta.adapt.inner import InnerLoop
from graphmeta.adapt.scope import Scope
from graphmeta.adapt.starts.amortised import Amortised
from graphmeta.adapt.starts.memory import MemoryStart
from graphmeta.adapt.step import Step
from graphmeta.adapt.support import UserSupport
from graphmeta.errors import InputError
from graphmeta.nn.conditioning.memory import MemoryAugmented
from graphmeta.nn.encoders.metapath import MetaPaths, PathContexts
from graphmeta.nn.features.tables import item_table
from graphmeta.protocols import HasLastLayer
from graphmeta.published.options import ENCODER_AND_HEAD, EVERYTHING, ITEM_BIAS, Anchor, UserTasks, step_of
from graphmeta.published.parts import (
    add_item_bias,
    anchored,
    copied,
    last_layer,
    path_adaptation,
    readout_head,
    replace_last_layer,
    with_adaptation,
)
from graphmeta.published.registry import published
from graphmeta.published.unread import OF_TASKS
from graphmeta.recommender import ContextAugmented
from graphmeta.system import System


@published(
    "Finn et al. 2017, MAML",
    family="meta",
    equations="1",
    adapts="encoder and head",
    base="sr_gnn",
    encoder="sr_gnn",
    unread=OF_TASKS,
)
def maml(
    base: System,
    *,
    scope: Scope = ENCODER_AND_HEAD,
    step: Step | float = 0.05,
    inner: InnerLoop = InnerLoop(),
    anchor: Anchor = None,
) -> System:
    """MAML for any recommender: learn shared weights from which one gradient step on a session's clicks adapts well.

    ``θ_t = θ − lr ∇ L_support(θ)``, trained so that ``L_query(θ_t)`` is small.

    Args:
        base: the system whose recommender is adapted; it is not modified.
        scope: the parameters that a session adapts, see :func:`~graphmeta.published.models.cbml.cbml`.
        step: learning rate of plain gradient steps, or e.g. :class:`~graphmeta.adapt.step.LearnedRates` (a learned rate
            per number) or :class:`~graphmeta.adapt.step.GroupRates` (per parameter).
        inner: number of steps, order of the meta-gradient and bounds of the inner loop.
        anchor: what a task is: a session, with its observed clicks as support (if not given), or a user, with the items
            of the user's earlier sessions as support and an adapted item bias:
            :class:`~graphmeta.published.options.UserTasks`. ``step`` is then the rate of the other parameters.

    Source: Finn, Abbeel, Levine, Model-Agnostic Meta-Learning, ICML 2017, eq 1 and Algorithm 1; Li et al. 2017
    (Meta-SGD) for learned rates per number, Antoniou et al. 2019 (MAML++) per parameter.
    Differs: a task is by default a session, with its observed clicks as support and the next click as query; first
    order by default; a task adapts encoder and head, and not the features, of which the item table is most or all
    (``scope=EVERYTHING`` adapts them too, as the paper does).
    """
    own = copied(base)
    scope, tasks = anchored(own, anchor, scope, step)
    return with_adaptation(own, Adaptation(scope, inner=inner, **tasks))


@published(
    "Song et al. 2021, CBML (baseline)",
    family="meta",
    adapts="everything, when recommending",
    base="if_san",
    encoder="if_san",
    unread=OF_TASKS,
)
def multi_ft(
    base: System,
    *,
    step: Step | float = 1e-3,
    steps: int = 1,
    anchor: Anchor = None,
) -> System:
    """Multi-FT: a base trained as usual; at inference all its weights are fine-tuned on the session's clicks.

    Args:
        base, step, anchor: as :func:`maml`.
        steps: number of fine-tuning steps.

    Source: CBML §5 (baseline). Differs: the paper gives neither steps nor rate; one step at 1e-3 here. Fine-tuning
    minimises the full softmax over the session's prefixes, also if the base is trained on sampled negatives.
    """
    own = copied(base)
    scope, tasks = anchored(own, anchor, EVERYTHING, step)
    return with_adaptation(own, Adaptation(scope, steps=steps, meta_trained=False, **tasks))


@published(
    "Lee et al. 2019, MeLU",
    family="meta",
    equations="Algorithm 1",
    adapts="the prediction layer",
    base="if_san",
    encoder="if_san",
    unread=OF_TASKS,
)
def melu(
    base: System,
    *,
    step: Step | float = 1e-3,
    inner: InnerLoop = InnerLoop(),
    anchor: Anchor = None,
) -> System:
    """MeLU on sessions: the last layer is adapted, all weights are meta-trained.

    Args:
        base, step, inner, anchor: as :func:`maml`.

    Raises:
        InputError: a head without a last layer ``project``.

    Source: Lee et al., MeLU, KDD 2019, Algorithm 1, on IF-SAN as in CBML §5.
    Differs: a true meta-gradient of the stated order; the released code copies its fast weights, which cuts the
    meta-gradient.
    """
    head = base.recommender.head
    if not isinstance(head, HasLastLayer):
        raise InputError(
            f"melu adapts the head's last layer, and {type(head).__name__} has no module called project "
            f"(graphmeta.protocols.HasLastLayer); name yours so, or adapt others: maml(base, scope=Scope('head'))"
        )
    own = copied(base)
    scope, tasks = anchored(own, anchor, Scope("head.project"), step)
    return with_adaptation(own, Adaptation(scope, inner=inner, **tasks))


@published(
    "Dong et al. 2020, MAMO",
    family="meta",
    adapts="everything, from a memory",
    base="if_san",
    encoder="if_san",
    unread=OF_TASKS,
)
def mamo(
    base: System,
    *,
    slots: int = 3,
    rate: float = 0.1,
    scope: Scope = EVERYTHING,
    step: Step | float = 1e-3,
    inner: InnerLoop = InnerLoop(),
    anchor: Anchor = None,
) -> System:
    """MAMO on sessions: a layer before the prediction layer is initialised per session by reading a memory.

    ``a = softmax(S · κ)``, ``M_S = Σ_k a_k M_k``, score_i = (W M_S S + b) · e_i. Inner steps on the session's clicks
    update all weights in scope; after each training step the adapted M_S is written to the memory.

    Args:
        base: see :func:`maml`; the memory layer is put before its last layer.
        slots: K.
        rate: γ, update rate of the memory, see :class:`~graphmeta.nn.conditioning.memory.MemoryLayer`.
        scope: the parameters that a session adapts, see :func:`~graphmeta.published.models.cbml.cbml`; includes the
            memory layer in each case.
        step, inner, anchor: as :func:`maml`.

    Source: Dong et al., MAMO: Memory-Augmented Meta-Optimization for Cold-start Recommendation, KDD 2020, only its task
    memory, as in CBML §5, where sessions have no profiles for the other two memories.
    Differs from the public code: slots are addressed by the session vector and learned keys; a true meta-gradient of
    the stated order; the memory is written once per meta-batch with the mean over its tasks and cannot decay to zero;
    recommending and evaluating do not write to it.
    """
    own = copied(base)
    replace_last_layer(own.recommender, MemoryAugmented(*last_layer(own.recommender), slots=slots, rate=rate))
    start = MemoryStart("head.project.memory")
    scope, tasks = anchored(own, anchor, scope, step)
    return with_adaptation(own, Adaptation(scope, start=start, inner=inner, **tasks))


@published(
    "Lu et al. 2020, MetaHIN",
    family="meta",
    adapts="contexts, prediction layer",
    base="if_san",
    encoder="if_san",
    unread=OF_TASKS,
)
def meta_hin(
    base: System,
    *,
    size: int = 32,
    neighbours: int = 20,
    discount: int = 1,
    path_lr: float = 5e-3,
    step: Step | float = 5e-3,
    inner: InnerLoop = InnerLoop(),
    anchor: Anchor = None,
) -> System:
    """MetaHIN on sessions: each meta-path gives a context that gates the prediction layer; support losses weight the
    paths.

    Paths lead from a session to its items, to items in the same training sessions, and to items with the same attribute
    (one path per attribute). Along path p: ``c^p = LeakyReLU(mean_j(e_j W_p + b_p))``, a step on ``W_p, b_p``,
    ``θ^p = θ · σ(FC(c^p))``, steps on θ^p; then ``a = softmax(−ℓ_support)``, ``θ = Σ_p a_p θ^p``, ``c = Σ_p a_p c^p``,
    score_i = ([S ; c] W + b) · e_i.

    Args:
        base: see :func:`maml`; its last layer is replaced by one that also reads c.
        size: of a context.
        neighbours: maximum per item and path.
        discount: number of sessions subtracted from those that two items share, see
            :class:`~graphmeta.nn.encoders.metapath.MetaPaths`.
        path_lr: learning rate of the context step.
        step, inner: of the steps on the prediction layer.
        anchor: as :func:`maml`.

    Source: Lu, Fang, Shi, Meta-learning on Heterogeneous Information Networks for Cold-start Recommendation, KDD 2020,
    on IF-SAN as in CBML §5.
    Differs: paths are weighted by the support loss, where the public code uses the query loss, which leaks the target;
    each path has its own weights; all neighbours of a click have equal weight; a path through sessions needs a second
    session in the training log (``discount=0``: one is enough, and in training it may be the task's own session, which
    leaks the targets of its support); first order by default. The prediction layer also reads the session vector, as
    IF-SAN does.
    """
    own, items = copied(base), base.items
    model, paths = own.recommender, 2 + len(items.categories)
    (session, out), head = last_layer(model), readout_head(model)
    replace_last_layer(model, nn.Linear(session + size, out))
    read = item_table(model.features).get_parameter("weight").shape[1]  # of a neighbour's vector
    head.readout = PathContexts(head.readout, paths=paths, width=read, size=size)
    context = MetaPaths(len(items), list(items.categories), most=neighbours, discount=discount)
    scope, tasks = anchored(own, anchor, Scope("head.project"), step)
    adaptation = path_adaptation(scope, (session, size), count=paths, path_lr=path_lr, inner=inner, **tasks)
    own.recommender = ContextAugmented(model.features, model.encoder, model.head, context)
    return with_adaptation(own, adaptation)


@published(
    "Lin et al. 2021, TaNP (set encoder and FiLM)",
    family="meta",
    adapts="item bias and last layer, from a set encoder of the user's history",
    base="niser",
    encoder="niser",
)
def amortised(
    base: System,
    *,
    hidden: int = 64,
    sessions: int | None = None,
    step: Step | float = 0.01,
    steps: int = 0,
) -> System:
    """An amortised adapter: a set encoder of the user's earlier sessions emits the item bias and scales the last layer.

    Args:
        base: see :func:`maml`.
        hidden: width of the set encoder, see :class:`~graphmeta.adapt.starts.amortised.Amortised`.
        sessions: at most the last ``sessions`` sessions of a user are read; all if not given.
        step, steps: gradient steps on the item bias from the emitted weights; none by default.

    Source, Differs: see :class:`~graphmeta.adapt.starts.amortised.Amortised`.
    """
    own = copied(base)
    add_item_bias(own, "take personal_reranker for the same history as features")
    own.max_support = UserTasks().max_support
    start = Amortised(item_table(own.recommender.features).get_parameter("weight").shape[1], hidden=hidden)
    support = UserSupport(sessions=sessions)
    adaptation = Adaptation(ITEM_BIAS, step=step_of(step), start=start, steps=steps, support=support)
    return with_adaptation(own, adaptation)
