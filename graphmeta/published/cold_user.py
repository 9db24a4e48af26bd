"""Systems for new people of whom a few items are known, on item factors that others' histories gave.

Plain training of :func:`bpr_fold_in` gives the factors; the others begin with them
(:meth:`~graphmeta.system.System.load_matching`) and leave them as they are. What a task changes is the person's vector
(:func:`melu_id`: a small network); what meta-training learns is where that begins. All that is known of a person is
the support, and the order in which it came about means nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
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
from graphmeta.sampling.few_shot import drawn_tasks, known_clicks
from graphmeta.sampling.samples import Samples
from graphmeta.sampling.tasks import Sizes, TaskBatch, Tasks
from graphmeta.system import System
from graphmeta.training.optimizers import Adam, Sgd


class UserTaskSystem(System):
    """A system whose tasks are people: every known item is support, the first too (with ``max_support``, the last so
    many); ``Tasks`` are taken as they are.

    Its loss is an :class:`~graphmeta.nn.losses.task_negatives.UnseenNegativesLoss`; with its ``sums``, the training loss of a
    batch is the sum over all queries, as the support loss of a task is.
    """

    @property
    def sums(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether the loss adds up, of a task and so of a batch."""
        return self.episodic and bool(self.loss.sums)

    def task_sizes(self, samples: Samples | Tasks) -> Sizes:
        """Support samples and rows of each task."""
        return super().task_sizes(self._known(samples))

    def _tasks(self, samples: Samples | Tasks) -> TaskBatch:
        return super()._tasks(self._known(samples))

    def _known(self, samples: Samples | Tasks) -> Tasks:
        return samples if isinstance(samples, Tasks) else known_clicks(samples, max_support=self.max_support)

    def losses(self, samples: Samples | Tasks, *, progress: float = 1.0) -> Tensor:
        """The training loss of each query ``[S]``; with ``sums``, a person's are the shares of one sum."""
        losses = super().losses(samples, progress=progress)
        if not self.sums:
            return losses
        size = np.diff(samples.query_ptr) if isinstance(samples, Tasks) else np.ones(len(samples), dtype=np.int64)
        return losses / torch.from_numpy(np.repeat(size, size)).to(losses)


@dataclass(frozen=True)
class Preset:
    """How a member of the family is meta-trained: the inner rate, means or sums, and the optimiser outside."""

    lr: float
    sums: bool
    optimizer: Adam

    def arguments(self) -> dict[str, Any]:
        """What the system is built with."""
        return {"lr": self.lr, "sums": self.sums}


def paper_preset(rate: float) -> Preset:
    """Plain gradient descent on sums, as printed; rates so small mean something only for sums over all users."""
    return Preset(2e-3, True, Sgd(lr=rate))


PAPER = {"meta_cf_g": paper_preset(1e-7), "meta_cf_linear": paper_preset(1e-6), "meta_cf_neural": paper_preset(1e-5)}
_KNOWN = 50  # support: all the items of a person that are looked at
DEFAULT = Preset(5e-2, False, Adam(lr=1e-3, weight_decay=0.0))


@published("Wei et al. 2020, MetaCF", family="cold_user", equations="2-3", adapts="the user, when recommending")
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
    """Matrix factors of known users; a new person's vector is fitted to their items from a random one.

    ``score_i = p_u · q_i``, trained on ``−log σ(p_u·q_i) − Σ_j log σ(−p_u·q_j) + λ‖p_u‖²``; for a new person the
    same loss moves p alone, ``steps`` times, with Q as it is.

    Args:
        users: whose factors are learned; in tasks everybody is new.
        width: D; negatives: items drawn for each known one; penalty: λ.
        lr, steps: of the fit; more steps than five are chosen on a held-out known item ("BPR_Best").

    Source: MetaCF (Wei et al. 2020), eqs 2–3 and its baseline BPR_K, which despite the name is pointwise.
    Differs: ``p_u = p + o_u`` with a vector p that all users share, so that the factors know what people have in
    common; the paper leaves that to chance. Its rate and λ are not printed.
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
        limits={"max_support": _KNOWN},
    )


def user_only_samples(log: EventLog, *, max_length: int = 50) -> Samples:
    """Every click as a target of which nothing is known but the user."""
    at = np.arange(log.num_events)
    user = None if log.session_user is None else log.session_user[log.session]
    return Samples(log.item, at, at, log.item, log.session, None, user)


@published("Wei et al. 2020, MetaCF", family="cold_user", equations="8", adapts="the user", encoder="bpr_fold_in")
def meta_cf_g(
    items: EntityTable,
    *,
    width: int = 32,
    negatives: int = 3,
    step: Step | float = DEFAULT.lr,
    inner: InnerLoop = InnerLoop(steps=5),
    sums: bool = False,
) -> System:
    """MetaCF_G: everybody's vector starts from the same one, from which a few steps lead far.

    ``p⁰ = Φ``, ``p ← p − α ∇ L(p)`` on the known items, ``score_i = p · q_i`` with frozen Q.

    Args:
        negatives: items drawn for each target; step, inner: α, K and the order of the meta-gradient.
        sums: losses are sums over a task's targets as in the paper, else means.

    Source: Wei et al., Fast Adaptation for Cold-start Collaborative Filtering with Meta-learning (MetaCF), ICDM
    2020, eq 8 and Algorithm 1.
    Differs: positives count once (in eqs 2–5 the double sum counts each once a negative); a step's loss is over
    known items and negatives alone; α is larger where losses are means.
    """
    head = UserVector(Mean(), width)
    nn.init.normal_(head.vector, std=0.1)
    return _meta_cf(items, head, None, negatives=negatives, adapted=_Adapted(step, inner, sums))


@published("Wei et al. 2020, MetaCF", family="cold_user", equations="9-10", adapts="the user", encoder="bpr_fold_in")
def meta_cf_linear(
    items: EntityTable,
    *,
    width: int = 32,
    negatives: int = 3,
    step: Step | float = DEFAULT.lr,
    inner: InnerLoop = InnerLoop(steps=5),
    sums: bool = False,
) -> System:
    """MetaCF_P(Linear): a vector starts from the person's mean item vector, linearly: ``p⁰ = x̄ W``.

    W begins as I and a little noise, for the paper's start is nearly as good as what its steps lead to.

    Source: MetaCF, eqs 9–10; else as :func:`meta_cf_g`, whose arguments these are.
    """
    generator = nn.Linear(width, width, bias=False)
    with torch.no_grad():
        generator.weight.normal_(std=0.01).add_(torch.eye(width))
    return _meta_cf(items, _head(width), generator, negatives=negatives, adapted=_Adapted(step, inner, sums))


@published("Wei et al. 2020, MetaCF", family="cold_user", equations="9-10", adapts="the user", encoder="bpr_fold_in")
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
    """MetaCF_P(Neural): a vector starts from the mean item vector through two layers: ``ReLU(x̄ W₁ + b₁) W₂ + b₂``.

    Args:
        residual: x̄ is added to that (not in the paper), and W₂ begins small.

    Source: MetaCF, eqs 9–10; the width inside is not printed. Else as :func:`meta_cf_g`, whose arguments these are.
    """
    generator = _Layers(width, hidden, residual=residual)
    return _meta_cf(items, _head(width), generator, negatives=negatives, adapted=_Adapted(step, inner, sums))


@published(
    "Wei et al. 2020, MetaCF (baseline, reconstructed)",
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
    """MeLU where nothing is known of people and items but ids: a network of factor and noise, adapted as a whole.

    ``score_i = w · ReLU(W [q_i ; r_u] + b) + b'``; r_u is random and fixed, and stands where MeLU has a profile.

    Source: MetaCF's baseline MeLU, reconstructed: the paper does not say how a method for content runs without.
    Differs: r_u is a function of the person's known items, so that new people have one too.
    """
    head = PairNetwork(HashedNoise(width), width, hidden=hidden)
    start, scope = Generated("head.identity", nn.Identity()), Scope("head.layers")
    adapted = _Adapted(step, inner, sums)
    return _meta(items, head, start, scope=scope, negatives=negatives, adapted=adapted)


@dataclass(frozen=True)
class _Adapted:
    step: Step | float
    inner: InnerLoop
    sums: bool


def _head(width: int) -> UserVector:
    """Without a shared vector to train, for systems that generate one."""
    head = UserVector(Mean(), width)
    head.vector.requires_grad_(False)
    return head


def _meta_cf(
    items: EntityTable, head: UserVector, generator: nn.Module | None, *, negatives: int, adapted: _Adapted
) -> System:
    start = None if generator is None else Generated("head.vector", generator)
    return _meta(items, head, start, scope=Scope("head.vector"), negatives=negatives, adapted=adapted)


def _meta(
    items: EntityTable, head: nn.Module, start: Start | None, *, scope: Scope, negatives: int, adapted: _Adapted
) -> System:
    width = head.get_parameter("vector" if isinstance(head, UserVector) else "identity").shape[0]
    features = ItemFeatures(len(items), width).requires_grad_(False)
    adaptation = Adaptation(scope, step=step_of(adapted.step), start=start, inner=adapted.inner)
    loss = UnseenNegativesLoss(Binary(), count=negatives, sums=adapted.sums)
    recommender = Recommender(features, Clicks(), head)
    samples = partial(drawn_tasks, seed=0)
    return UserTaskSystem(
        recommender, items, adaptation=adaptation, loss=loss, samples=samples, limits={"max_support": _KNOWN}
    )


class _Layers(nn.Module):
    def __init__(self, width: int, hidden: int, *, residual: bool) -> None:
        super().__init__()
        self.residual, self.inner, self.outer = residual, nn.Linear(width, hidden), nn.Linear(hidden, width)
        if residual:
            nn.init.normal_(self.outer.weight, std=0.01)
            nn.init.zeros_(self.outer.bias)

    def forward(self, x: Tensor) -> Tensor:
        made = self.outer(torch.relu(self.inner(x)))
        return x + made if self.residual else made
