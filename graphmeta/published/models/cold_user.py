"""Cold-start users with a few known items, on item factors pretrained on other users.

:func:`bpr_fold_in` trains the factors; the other systems load them
(:meth:`~graphmeta.system.System.load_matching`) and freeze them. A task adapts the user's vector
(:func:`melu_id`: a small network); meta-training learns its initialisation. The user's known items are the support;
their order is ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from graphmeta.adapt.adaptation import Adaptation
from graphmeta.adapt.inner import InnerLoop
from graphmeta.adapt.scope import Scope
from graphmeta.adapt.starts.generated import Generated
from graphmeta.adapt.starts.start import Start
from graphmeta.adapt.step import Gradient, Step
from graphmeta.data.events import EventLog
from graphmeta.data.tables import EntityTable
from graphmeta.nn.encoders.attention import Clicks
from graphmeta.nn.features.tables import ItemFeatures, UserFeatures, scaled_normal_
from graphmeta.nn.heads.user_vector import PairNetwork, UserVector
from graphmeta.nn.losses.pairwise import Binary
from graphmeta.nn.losses.task_negatives import HashedNoise, UnseenNegativesLoss
from graphmeta.nn.readout import Mean
from graphmeta.published.options import step_of
from graphmeta.published.registry import published
from graphmeta.recommender import Recommender
from graphmeta.sampling.few_shot import sampled_tasks, support_from_clicks
from graphmeta.sampling.samples import Samples
from graphmeta.sampling.tasks import TaskBatch, Tasks, TaskSizes
from graphmeta.system import System
from graphmeta.training.optimizers import Adam, Scheduled, Sgd


class UserTaskSystem(System):
    """A system whose tasks are users: all known items are support, the first included (the last ones up to
    ``max_support``); ``Tasks`` are used unchanged.

    Its loss is an :class:`~graphmeta.nn.losses.task_negatives.UnseenNegativesLoss`; with its ``sums``, the training
    loss of a batch is the sum over all queries, as the support loss of a task is.
    """

    @property
    def sums_losses(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether losses are sums over a task and a batch instead of means."""
        return self.episodic and bool(self.loss.sums)

    def task_sizes(self, samples: Samples | Tasks) -> TaskSizes:
        """Number of support samples and rows of each task."""
        return super().task_sizes(self._as_tasks(samples))

    def _tasks(self, samples: Samples | Tasks, *, share: bool = False) -> TaskBatch:
        return super()._tasks(self._as_tasks(samples), share=share)

    def _as_tasks(self, samples: Samples | Tasks) -> Tasks:
        return samples.with_support(partial(support_from_clicks, max_support=self.max_support))

    def losses(self, samples: Samples | Tasks, *, objective: nn.Module | None = None, progress: float = 1.0) -> Tensor:
        """The training loss of each query ``[S]``; with ``sums``, each query of a user holds an equal share of the
        user's sum.
        """
        losses = super().losses(samples, objective=objective, progress=progress)
        if not self.sums_losses:
            return losses
        size = np.diff(samples.query_ptr)
        return losses / torch.from_numpy(np.repeat(size, size)).to(losses)


@dataclass(frozen=True)
class Preset:
    """Meta-training settings of the family: inner learning rate, sums or means, outer optimiser, further arguments."""

    lr: float
    sums: bool
    optimizer: Scheduled
    options: Mapping[str, Any] = field(default_factory=dict)

    def arguments(self) -> dict[str, Any]:
        """Arguments to build the system with."""
        return {"lr": self.lr, "sums": self.sums, **self.options}


def paper_preset(rate: float) -> Preset:
    """Plain gradient descent on sums, as in the paper; such small rates only make sense for sums over all users.

    An epoch in one batch is one step: the patience must be hundreds of epochs.
    """
    return Preset(2e-3, True, Sgd(lr=rate))


PAPER = {
    "meta_cf_g": paper_preset(1e-7),
    "meta_cf_linear": paper_preset(1e-6),
    "meta_cf_neural": replace(paper_preset(1e-5), options={"residual": False}),
}
_MAX_SUPPORT = 50  # support: known items of a user that are read
DEFAULT = Preset(5e-2, False, Adam(lr=1e-3, weight_decay=0.0))


@published("Peng et al. 2021, MetaCF", family="cold_user", equations="2-3", adapts="the user, when recommending")
def bpr_fold_in(
    items: EntityTable,
    *,
    users: EntityTable,
    width: int = 32,
    negatives: int = 3,
    penalty: float = 1e-3,
    lr: float = 5e-2,
    steps: int = 5,
) -> System:
    """Matrix factorisation of known users; a new user's vector is fitted to their items from a random start.

    ``score_i = p_u · q_i``, trained on ``−log σ(p_u·q_i) − Σ_j log σ(−p_u·q_j) + λ (‖p_u‖² + ‖q_i‖² + Σ_j ‖q_j‖²)``;
    for a new user ``steps`` gradient steps on the same loss update p, with Q frozen.

    Args:
        users: whose factors are learned; in tasks all users are treated as new.
        width: D.
        negatives: items sampled per known item.
        penalty: λ.
        lr, steps: of the fit; more than five steps are chosen on a held-out known item ("BPR_Best").

    Source: MetaCF (Peng et al. 2021), eqs 2–3 and its baseline BPR_K, which despite the name is pointwise.
    Differs: ``p_u = p + o_u`` with a vector p shared by all users, so that the factors capture what users have in
    common; the paper has no such term. Its rate and λ are not given. A new user's negatives are sampled outside the
    known items: they may be items that the user is tested on, as nothing of the query is read.
    """
    head = UserVector(HashedNoise(width, scale=0.1), width, users=UserFeatures(len(users), width))
    recommender = Recommender(ItemFeatures(len(items), width), Clicks(), head)
    scaled_normal_(recommender)
    nn.init.normal_(recommender.features.get_parameter("item.weight"), std=0.1)
    nn.init.normal_(head.vector, std=0.1)
    start = Generated("head.vector", nn.Identity())
    adaptation = Adaptation(Scope("head.vector"), step=Gradient(lr), start=start, steps=steps, meta_trained=False)
    loss = UnseenNegativesLoss(Binary(), count=negatives, penalty=penalty)
    return UserTaskSystem(
        recommender,
        items,
        users=users,
        adaptation=adaptation,
        loss=loss,
        samples=user_only_samples,
        limits={"max_support": _MAX_SUPPORT},
    )


def user_only_samples(log: EventLog, *, max_length: int = 50) -> Samples:
    """Every click is a target whose only input is the user."""
    at = np.arange(log.num_events)
    user = None if log.session_user is None else log.session_user[log.session]
    return Samples(log.item, at, at, log.item, log.session, None, user, items=log.items, users=log.users)


@published("Peng et al. 2021, MetaCF", family="cold_user", equations="8", adapts="the user", encoder="bpr_fold_in")
def meta_cf_g(
    items: EntityTable,
    *,
    width: int = 32,
    negatives: int = 3,
    step: Step | float = DEFAULT.lr,
    inner: InnerLoop = InnerLoop(steps=5),
    sums: bool = False,
) -> System:
    """MetaCF_G: all users start from one meta-learned vector and adapt it in a few steps.

    ``p⁰ = Φ``, ``p ← p − α ∇ L(p)`` on the known items, ``score_i = p · q_i`` with frozen Q.

    Args:
        width: D.
        negatives: items sampled per target.
        step, inner: α, K and the order of the meta-gradient.
        sums: losses are sums over a task's targets as in the paper, else means.

    Source: Peng, Wu, Sun & Wang, Meta-learned ID Embeddings for Online Inductive Recommendation, CCIR 2021 (LNCS
    13026, pp. 32–44), eq 8 and Algorithm 1; not Wei et al. (ICDM 2020), another method called MetaCF.
    Differs: positives count once (in eqs 2–5 the double sum counts each once per negative); a step's loss is over known
    items and negatives only; α is larger where losses are means; a step's negatives (eq 5) are sampled outside the
    known items only, in training as in inference, so they may be items of the user's query, while those of the query
    loss are outside both; Φ starts at the vector that
    the pretraining users share, where factors are loaded.
    """
    head = UserVector(Mean(), width)
    nn.init.normal_(head.vector, std=0.1)
    return _meta_cf(items, head, None, negatives=negatives, adapted=_Adapted(step, inner, sums))


@published("Peng et al. 2021, MetaCF", family="cold_user", equations="9-10", adapts="the user", encoder="bpr_fold_in")
def meta_cf_linear(
    items: EntityTable,
    *,
    width: int = 32,
    negatives: int = 3,
    step: Step | float = DEFAULT.lr,
    inner: InnerLoop = InnerLoop(steps=5),
    sums: bool = False,
) -> System:
    """MetaCF_P(Linear): a user starts from a linear map of the mean vector of their items: ``p⁰ = x̄ W``.

    W is initialised to I plus small noise, because ``p⁰ = x̄`` is already a good start.

    Args:
        width, negatives, step, inner, sums: as :func:`meta_cf_g`.

    Source: MetaCF, eqs 9–10.
    Differs: as :func:`meta_cf_g`.
    """
    generator = nn.Linear(width, width, bias=False)
    with torch.no_grad():
        generator.weight.normal_(std=0.01).add_(torch.eye(width))
    return _meta_cf(items, _head(width), generator, negatives=negatives, adapted=_Adapted(step, inner, sums))


@published("Peng et al. 2021, MetaCF", family="cold_user", equations="9-10", adapts="the user", encoder="bpr_fold_in")
def meta_cf_neural(
    items: EntityTable,
    *,
    width: int = 32,
    hidden: int = 32,
    residual: bool = True,
    negatives: int = 3,
    step: Step | float = DEFAULT.lr,
    inner: InnerLoop = InnerLoop(steps=5),
    sums: bool = False,
) -> System:
    """MetaCF_P(Neural): a user starts from an MLP of the mean vector of their items: ``ReLU(x̄ W₁ + b₁) W₂ + b₂``.

    Args:
        hidden: width of the hidden layer.
        residual: add x̄ to the output and initialise W₂ near zero.
        width, negatives, step, inner, sums: as :func:`meta_cf_g`.

    Source: MetaCF, eqs 9–10; the hidden width is not given.
    Differs: ``residual`` is not in the paper; otherwise as :func:`meta_cf_g`.
    """
    generator = _Layers(width, hidden, residual=residual)
    return _meta_cf(items, _head(width), generator, negatives=negatives, adapted=_Adapted(step, inner, sums))


@published(
    "Peng et al. 2021, MetaCF (baseline, reconstructed)",
    family="cold_user",
    adapts="the prediction layers",
    encoder="bpr_fold_in",
)
def melu_id(
    items: EntityTable,
    *,
    width: int = 32,
    hidden: int = 64,
    negatives: int = 3,
    step: Step | float = DEFAULT.lr,
    inner: InnerLoop = InnerLoop(steps=5),
    sums: bool = False,
) -> System:
    """MeLU with ids only, without user or item content: an MLP of item factor and noise, adapted as a whole.

    ``score_i = w · ReLU(W [q_i ; r_u] + b) + b'``; r_u is random and fixed and replaces MeLU's user profile.

    Args:
        hidden: width of the hidden layer.
        width, negatives, step, inner, sums: as :func:`meta_cf_g`.

    Source: MetaCF's baseline MeLU, reconstructed: the paper does not specify how a content-based method runs
    without content.
    Differs: r_u is a function of the user's known items, so that new users have one too.
    """
    head = PairNetwork(HashedNoise(width), width, hidden=hidden)
    start, scope = Generated("head.identity", nn.Identity()), Scope("head.layers")
    adapted = _Adapted(step, inner, sums)
    return _meta(items, width, head, start, scope=scope, negatives=negatives, adapted=adapted)


@dataclass(frozen=True)
class _Adapted:
    step: Step | float
    inner: InnerLoop
    sums: bool


def _head(width: int) -> UserVector:
    """A head without a trainable shared vector, for systems that generate it."""
    head = UserVector(Mean(), width)
    head.vector.requires_grad_(False)
    return head


def _meta_cf(
    items: EntityTable, head: UserVector, generator: nn.Module | None, *, negatives: int, adapted: _Adapted
) -> System:
    start = None if generator is None else Generated("head.vector", generator)
    return _meta(items, len(head.vector), head, start, scope=Scope("head.vector"), negatives=negatives, adapted=adapted)


def _meta(
    items: EntityTable,
    width: int,
    head: nn.Module,
    start: Start | None,
    *,
    scope: Scope,
    negatives: int,
    adapted: _Adapted,
) -> System:
    features = ItemFeatures(len(items), width).requires_grad_(False)
    adaptation = Adaptation(scope, step=step_of(adapted.step), start=start, inner=adapted.inner)
    loss = UnseenNegativesLoss(Binary(), count=negatives, sums=adapted.sums)
    recommender = Recommender(features, Clicks(), head)
    samples = partial(sampled_tasks, seed=0)
    return UserTaskSystem(
        recommender, items, adaptation=adaptation, loss=loss, samples=samples, limits={"max_support": _MAX_SUPPORT}
    )


class _Layers(nn.Module):
    def __init__(self, width: int, hidden: int, *, residual: bool) -> None:
        super().__init__()
        self.residual, self.inner, self.outer = residual, nn.Linear(width, hidden), nn.Linear(hidden, width)
        if residual:
            nn.init.normal_(self.outer.weight, std=0.01)
            nn.init.zeros_(self.outer.bias)

    def forward(self, x: Tensor) -> Tensor:
        out = self.outer(torch.relu(self.inner(x)))
        return x + out if self.residual else out
