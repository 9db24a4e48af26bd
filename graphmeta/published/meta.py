"""Meta-learned recommenders of the papers: a recommender, and a scope, a start and a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from graphmeta.adapt.adaptation import Adaptation
from graphmeta.adapt.scope import Scope
from graphmeta.adapt.starts.memory import MemoryStart
from graphmeta.adapt.step import Gradient
from graphmeta.data.tables import EntityTable
from graphmeta.nn.conditioning.memory import MemoryAugmented
from graphmeta.nn.encoders.metapath import MetaPaths, PathContexts
from graphmeta.nn.features.tables import item_table
from graphmeta.published.parts import (
    Base,
    adapting,
    along_paths,
    base_system,
    last_layer,
    loop_of,
    replace_last_layer,
    scope_called,
    step_of,
)
from graphmeta.published.recipe import recorded
from graphmeta.published.session import if_san, sr_gnn
from graphmeta.recommender import ContextAugmented
from graphmeta.system import System


@recorded
def maml(
    items: EntityTable,
    *,
    users: EntityTable | None = None,
    base: Base = sr_gnn,
    options: Mapping[str, Any] | None = None,
    width: int = 100,
    scope: Sequence[str] | str = "attention",
    lr: float = 0.05,
    learned: bool | str = False,
    steps: int = 1,
    order: int = 1,
    inner: Mapping[str, Any] | None = None,
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
    wrapped = base_system(base, items, users=users, width=width, options=options)
    loop, step = loop_of(steps, order, inner), step_of(lr, learned=learned)
    return adapting(wrapped, items, Adaptation(scope_called(scope), step=step, inner=loop))


@recorded
def multi_ft(
    items: EntityTable,
    *,
    users: EntityTable | None = None,
    base: Base = if_san,
    options: Mapping[str, Any] | None = None,
    width: int = 100,
    lr: float = 1e-3,
    steps: int = 1,
) -> System:
    """Multi-FT: the base trained as usual; a session's own clicks fine-tune all of it before it is asked.

    Args: as :func:`maml`.

    Source: CBML §5 (baseline). Differs: the number of steps and the rate are not given there; one step at 1e-3. Steps
    go down the full softmax of the session's prefixes, also where the base is trained on drawn items.
    """
    inner = base_system(base, items, users=users, width=width, options=options)
    return adapting(inner, items, Adaptation(scope_called("all"), step=Gradient(lr), steps=steps, meta_trained=False))


@recorded
def melu(
    items: EntityTable,
    *,
    users: EntityTable | None = None,
    base: Base = if_san,
    options: Mapping[str, Any] | None = None,
    width: int = 100,
    lr: float = 1e-3,
    steps: int = 1,
    order: int = 1,
) -> System:
    """MeLU on sessions: the last layer is adapted, everything is meta-trained.

    Args: as :func:`maml`.

    Source: Lee et al., MeLU, KDD 2019, Algorithm 1, on IF-SAN as in CBML §5. Differs: a true meta-gradient of the
    stated order; the released code copies its fast weights and has none.
    """
    inner = base_system(base, items, users=users, width=width, options=options)
    return adapting(inner, items, Adaptation(Scope("head.project"), step=Gradient(lr), steps=steps, order=order))


@recorded
def mamo(
    items: EntityTable,
    *,
    users: EntityTable | None = None,
    base: Base = if_san,
    options: Mapping[str, Any] | None = None,
    width: int = 100,
    slots: int = 3,
    rate: float = 0.1,
    scope: Sequence[str] | str = "all",
    lr: float = 1e-3,
    steps: int = 1,
    order: int = 1,
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
    inner = base_system(base, items, users=users, width=width, options=options)
    replace_last_layer(inner.recommender, MemoryAugmented(*last_layer(inner.recommender), slots=slots, rate=rate))
    start = MemoryStart("head.project.memory")
    adaptation = Adaptation(scope_called(scope), step=Gradient(lr), start=start, steps=steps, order=order)
    return adapting(inner, items, adaptation)


@recorded
def meta_hin(
    items: EntityTable,
    *,
    users: EntityTable | None = None,
    base: Base = if_san,
    options: Mapping[str, Any] | None = None,
    width: int = 100,
    size: int = 32,
    neighbours: int = 20,
    path_lr: float = 5e-3,
    lr: float = 5e-3,
    steps: int = 1,
    order: int = 1,
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
    inner = base_system(base, items, users=users, width=width, options=options)
    model, paths = inner.recommender, 2 + len(items.attributes)
    session, out = last_layer(model)
    replace_last_layer(model, nn.Linear(session + size, out))
    table = item_table(model.features)
    model.head.readout = PathContexts(model.head.get_submodule("readout"), paths=paths, width=table.width, size=size)
    around = MetaPaths(len(items), list(items.attributes), most=neighbours)
    adaptation = along_paths(
        Scope("head.project"), (session, size), count=paths, path_lr=path_lr, lr=lr, steps=steps, order=order
    )
    inner.recommender = ContextAugmented(model.features, model.encoder, model.head, around)
    return adapting(inner, items, adaptation)
