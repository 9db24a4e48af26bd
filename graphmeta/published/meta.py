"""Meta-learned recommenders of the papers: a recommender, and a scope, a start and a step."""

from __future__ import annotations

from torch import nn

from graphmeta.adapt.adaptation import Adaptation
from graphmeta.adapt.inner import InnerLoop
from graphmeta.adapt.scope import Scope
from graphmeta.adapt.starts.memory import MemoryStart
from graphmeta.adapt.step import Step
from graphmeta.nn.conditioning.memory import MemoryAugmented
from graphmeta.nn.encoders.metapath import MetaPaths, PathContexts
from graphmeta.nn.features.tables import item_table
from graphmeta.published.options import ATTENTION, EVERYTHING, step_of
from graphmeta.published.parts import copied, last_layer, path_adaptation, replace_last_layer, with_adaptation
from graphmeta.published.registry import published
from graphmeta.recommender import ContextAugmented
from graphmeta.system import System


@published(
    "Finn et al. 2017, MAML",
    family="meta",
    equations="1",
    adapts="encoder and head",
    base="sr_gnn",
    encoder="sr_gnn",
)
def maml(
    base: System,
    *,
    scope: Scope = ATTENTION,
    step: Step | float = 0.05,
    inner: InnerLoop = InnerLoop(),
) -> System:
    """MAML around any recommender: shared weights from which one step on a session's own clicks leads far.

    ``θ_t = θ − lr ∇ L_support(θ)``, trained so that ``L_query(θ_t)`` is small.

    Args:
        users: the people, for a base that knows them.
        base: builds the system whose recommender is wrapped (or its name in the catalogue); options: its arguments.
        scope: the parameters a session changes, as :func:`~graphmeta.published.cbml.cbml` takes them.
        learned: whether rates are learned, of their own in each step, from ``lr`` on: ``number`` (or True) for a rate
            for each number, ``group`` for one for each parameter, see :func:`~graphmeta.published.parts.step_of`.
        inner: ``clip``, ``proximal``, ``multi_step``, ``first_order``, see
            :func:`~graphmeta.published.parts.loop_of`.

    Source: Finn, Abbeel, Levine, Model-Agnostic Meta-Learning, ICML 2017, eq 1 and Algorithm 1; Li et al. 2017
    (Meta-SGD) for a learned rate a number, Antoniou et al. 2019 (MAML++) for one a parameter.
    """
    return with_adaptation(copied(base), Adaptation(scope, step=step_of(step), inner=inner))


@published(
    "Song et al. 2021, CBML (baseline)",
    family="meta",
    adapts="everything, when recommending",
    base="if_san",
    encoder="if_san",
)
def multi_ft(
    base: System,
    *,
    step: Step | float = 1e-3,
    steps: int = 1,
) -> System:
    """Multi-FT: the base trained as usual; a session's own clicks fine-tune all of it before it is asked.

    Args: as :func:`maml`.

    Source: CBML §5 (baseline). Differs: the number of steps and the rate are not given there; one step at 1e-3. Steps
    go down the full softmax of the session's prefixes, also where the base is trained on drawn items.
    """
    adaptation = Adaptation(EVERYTHING, step=step_of(step), steps=steps, meta_trained=False)
    return with_adaptation(copied(base), adaptation)


@published(
    "Lee et al. 2019, MeLU",
    family="meta",
    equations="Algorithm 1",
    adapts="the prediction layer",
    base="if_san",
    encoder="if_san",
)
def melu(
    base: System,
    *,
    step: Step | float = 1e-3,
    inner: InnerLoop = InnerLoop(),
) -> System:
    """MeLU on sessions: the last layer is adapted, everything is meta-trained.

    Args: as :func:`maml`.

    Source: Lee et al., MeLU, KDD 2019, Algorithm 1, on IF-SAN as in CBML §5. Differs: a true meta-gradient of the
    stated order; the released code copies its fast weights and has none.
    """
    return with_adaptation(copied(base), Adaptation(Scope("head.project"), step=step_of(step), inner=inner))


@published("Dong et al. 2020, MAMO", family="meta", adapts="everything, from a memory", base="if_san", encoder="if_san")
def mamo(
    base: System,
    *,
    slots: int = 3,
    rate: float = 0.1,
    scope: Scope = EVERYTHING,
    step: Step | float = 1e-3,
    inner: InnerLoop = InnerLoop(),
) -> System:
    """MAMO on sessions: a layer before the prediction layer begins, for each session, as what a memory holds for it.

    ``a = softmax(S · κ)``, ``M_S = Σ_k a_k M_k``, score_i = (W M_S S + b) · e_i; then steps of all of it on the
    session's own clicks; after each training step the memory takes in what M_S has become.

    Args:
        users, base, options: see :func:`maml`; the memory layer goes before the base's last layer.
        slots: K; rate: γ, how fast the memory changes, see :class:`~graphmeta.nn.conditioning.memory.MemoryLayer`.
        scope: what a session changes, as :func:`~graphmeta.published.cbml.cbml` takes it; the memory's layer is part
            of each of them.

    Source: Dong et al., MAMO: Memory-Augmented Meta-Optimization for Cold-start Recommendation, KDD 2020, its task
    memory alone, as in CBML §5, where sessions have no profiles for the other two.
    Differs: the slots are addressed by the session's vector and learned keys; a true meta-gradient of the stated
    order; the memory is written once a meta-batch, with the mean over its tasks, and cannot fade; recommending and
    evaluating leave it as it is. All as the public code does not.
    """
    own = copied(base)
    replace_last_layer(own.recommender, MemoryAugmented(*last_layer(own.recommender), slots=slots, rate=rate))
    start = MemoryStart("head.project.memory")
    return with_adaptation(own, Adaptation(scope, step=step_of(step), start=start, inner=inner))


@published(
    "Lu et al. 2020, MetaHIN", family="meta", adapts="contexts, prediction layer", base="if_san", encoder="if_san"
)
def meta_hin(
    base: System,
    *,
    size: int = 32,
    neighbours: int = 20,
    path_lr: float = 5e-3,
    step: Step | float = 5e-3,
    inner: InnerLoop = InnerLoop(),
) -> System:
    """MetaHIN on sessions: each meta-path gives a context, which gates the prediction layer; losses weigh the paths.

    Paths lead from a session to its items, to those in the same training sessions, and to those with the same
    attribute (one path each). Along path p: ``c^p = LeakyReLU(mean_j(e_j W_p + b_p))``, a step on ``W_p, b_p``,
    ``θ^p = θ · σ(FC(c^p))``, steps on θ^p; then ``a = softmax(−ℓ_support)``, ``θ = Σ_p a_p θ^p``, ``c = Σ_p a_p c^p``,
    score_i = ([S ; c] W + b) · e_i.

    Args:
        users, base, options: see :func:`maml`; the base's last layer is replaced by one that also reads c.
        size: of a context; neighbours: of an item along a path, at most, see
            :class:`~graphmeta.nn.encoders.metapath.MetaPaths`.
        path_lr: rate of the step on the contexts; lr, steps: of those on the prediction layer.

    Source: Lu, Fang, Shi, Meta-learning on Heterogeneous Information Networks for Cold-start Recommendation, KDD 2020,
    on IF-SAN as in CBML §5.
    Differs: the paths are weighed by the support's loss, where the public code takes the query's, which is what it is
    asked; each path has weights of its own; a click's neighbours count as much as another's; a path through sessions
    needs a second session; first order unless told otherwise. The session's own vector is read, as IF-SAN does.
    """
    own, items = copied(base), base.items
    model, paths = own.recommender, 2 + len(items.attributes)
    session, out = last_layer(model)
    replace_last_layer(model, nn.Linear(session + size, out))
    table = item_table(model.features)
    model.head.readout = PathContexts(model.head.get_submodule("readout"), paths=paths, width=table.width, size=size)
    around = MetaPaths(len(items), list(items.attributes), most=neighbours)
    adaptation = path_adaptation(
        Scope("head.project"), (session, size), count=paths, path_lr=path_lr, step=step, inner=inner
    )
    own.recommender = ContextAugmented(model.features, model.encoder, model.head, around)
    return with_adaptation(own, adaptation)
