"""Building blocks shared by several published systems."""

from __future__ import annotations

import copy
from collections.abc import Callable, Container, Mapping, Sequence
from itertools import count
from typing import TypedDict, Unpack

import torch
from torch import nn

from graphmeta.adapt.adaptation import Adaptation
from graphmeta.adapt.co_adaptation import CoAdaptation
from graphmeta.adapt.inner import InnerLoop
from graphmeta.adapt.scope import Scope
from graphmeta.adapt.starts.gated import Gated
from graphmeta.adapt.step import Gradient, GroupRates, Step
from graphmeta.adapt.support import SessionSupport, SupportSource, UserSupport
from graphmeta.errors import InputError
from graphmeta.nn.features.tables import field_name
from graphmeta.nn.heads.scoring import named
from graphmeta.nn.losses.losses import SoftmaxLoss
from graphmeta.nn.score_terms.cooccurrence import Cooccurrence
from graphmeta.nn.score_terms.personal import PersonalReranker
from graphmeta.nn.score_terms.repeat import RepeatBias
from graphmeta.nn.score_terms.reranker import Reranker
from graphmeta.nn.score_terms.same_category import SameCategory
from graphmeta.protocols import LearnsItemBias, ProductHead, ProjectedHead, ReadoutHead
from graphmeta.published.options import ITEM_BIAS, Anchor, step_of
from graphmeta.recommender import Recommender
from graphmeta.system import System

_ITEM_BIAS = "head.item_bias"


def with_score_terms(system: System, score_terms: Sequence[str | nn.Module]) -> System:
    """Add score terms to the system's head, by name or as modules of your own.

    ``repeat_bias``: a bonus for the session's own items; ``same_category``: a bonus for items that share an attribute
    value with a clicked item (single-valued attributes); ``cooccurrence``: a weighted Item-kNN score, which also makes
    the head's temperature learnable; ``reranker``: an MLP over all of these features, see
    :class:`~graphmeta.nn.score_terms.reranker.Reranker`; ``personal``: it with features of the user's earlier sessions,
    see :class:`~graphmeta.nn.score_terms.personal.PersonalReranker`. A module ``(batch, product) -> (row, column,
    value)``, see :class:`~graphmeta.nn.heads.dot.Dot`, is added under the name of its class; a system with one has no
    build spec.

    Raises:
        InputError: an unknown name, ``same_category`` for items without attributes, or a head that does not score by
            inner products.
    """
    head, items = system.recommender.head, system.items
    if not isinstance(head, ProductHead):
        raise InputError(
            f"score terms need a head that scores by products and adds them (graphmeta.protocols.ProductHead), not "
            f"{named(head)}"
        )
    builders: dict[str, Callable[[], Mapping[str, nn.Module]]] = {
        "repeat_bias": lambda: {"repeat_bias": RepeatBias()},
        "same_category": lambda: {
            f"same_category_{field_name(name)}": SameCategory(attribute, name=name)
            for name, attribute in items.categories.items()
        },
        "cooccurrence": lambda: {"cooccurrence": Cooccurrence(len(items))},
        "reranker": lambda: {"reranker": Reranker(len(items), list(items.categories.values()))},
        "personal": lambda: {"personal": PersonalReranker(len(items), list(items.attributes.values()))},
    }
    for name in score_terms:
        if isinstance(name, nn.Module):
            head.score_terms[_free(type(name).__name__, head.score_terms)] = name
            continue
        if name not in builders:
            raise InputError(f"unknown score term {name!r}; choose from {', '.join(builders)}, or pass a module")
        if name == "same_category" and not items.categories:
            raise InputError(
                "same_category needs an attribute of the items (category, brand); name one, or leave same_category out"
            )
        head.score_terms.update(builders[name]())
    if {"cooccurrence", "reranker", "personal"} & {name for name in score_terms if isinstance(name, str)}:
        head.learn_temperature()
    return system


def _free(name: str, names: Container[str]) -> str:
    """The name, numbered from 2 on if it is in use."""
    return next(one for number in count(1) if (one := f"{name}_{number}" if number > 1 else name) not in names)


def copied(base: System) -> System:
    """A deep copy with its own weights that shares the item and user tables; wrapping it leaves the base unchanged."""
    shared = (base.items, base.users)
    return copy.deepcopy(base, {id(part): part for part in shared if part is not None})


class FineTuned(System):
    """Trained with its base's loss; before it scores, the inner steps on a session minimise the full softmax loss.

    Sampled or in-batch negatives would make a session's scores depend on the batch and on chance.
    """

    @property
    def support_loss(self) -> nn.Module:
        """The full softmax."""
        return SoftmaxLoss()


def with_adaptation(base: System, adaptation: Adaptation) -> System:
    """The recommender of ``base`` with an adaptation; items, users and limits are the base's.

    If the adaptation is not meta-trained, training uses the base's loss and samples (:class:`FineTuned`). Meta-training
    uses its own tasks and the full softmax loss instead.

    Raises:
        InputError: a base that already has an adaptation, whose start and step would be lost.
    """
    if base.adaptation is not None:
        raise InputError("the base already has an adaptation, and a system has only one; pass the base inside it")
    kind = System if adaptation.meta_trained else FineTuned
    system = kind(base.recommender, base.items, users=base.users, adaptation=adaptation, limits=base.limits)
    if not adaptation.meta_trained:
        system.loss, system.samples, system.batches = base.loss, base.samples, base.batches
    return system


class Anchored(TypedDict):
    """The arguments of an adaptation that depend on what a task is."""

    step: Step
    support: SupportSource


def anchored(own: System, anchor: Anchor, scope: Scope, step: Step | float) -> tuple[Scope, Anchored]:
    """Scope, step and support for tasks of sessions or of users; ``own`` gets an item bias where users adapt one.

    Raises:
        InputError: an item bias for a head that cannot have one.
    """
    users = anchor
    if users is None:
        return scope, {"step": step_of(step), "support": SessionSupport()}
    own.max_support = users.max_support
    support = UserSupport(sessions=users.sessions, decay=users.decay)
    if not users.item_bias:
        return scope, {"step": step_of(step), "support": support}
    add_item_bias(own, "pass anchor=UserTasks(item_bias=False)")
    alone = scope.prefixes == ITEM_BIAS.prefixes
    scope = scope if scope.holds(_ITEM_BIAS) else Scope(*scope.prefixes, _ITEM_BIAS, without=scope.without)
    if isinstance(step, int | float):
        rates = {_ITEM_BIAS: users.bias_rate} if alone else {_ITEM_BIAS: users.bias_rate, "": float(step)}
        step = GroupRates(rates, per_step=False)
    return scope, {"step": step, "support": support}


def add_item_bias(system: System, remedy: str) -> None:
    """Give the system's head an item bias.

    Raises:
        InputError: a head that cannot have one; names the ``remedy``.
    """
    head = system.recommender.head
    if not isinstance(head, LearnsItemBias):
        raise InputError(
            f"{type(head).__name__} has no item bias (graphmeta.protocols.LearnsItemBias); {remedy}, or choose a base "
            f"whose head scores by products, such as niser"
        )
    head.add_item_bias(system.num_items)


def path_adaptation(
    scope: Scope,
    read: tuple[int, int],
    *,
    count: int,
    path_lr: float,
    inner: InnerLoop,
    **tasks: Unpack[Anchored],
) -> CoAdaptation:
    """MetaHIN's adaptation: update the contexts of ``head.readout``, gate ``scope`` by each, then update the gated
    weights.

    Args:
        read: sizes of what the adapted layers read before the context, and of the context.
        count: number of meta-paths.
        path_lr: learning rate of the context step.
        inner, step, support: of the steps on ``scope``.
    """
    before, size = read
    prefixes = [f"head.readout.paths.{number}" for number in range(count)]
    return CoAdaptation(
        scope,
        start=Gated(scope, before + size, part=slice(before, None)),
        semantic=Adaptation(Scope(*prefixes), step=Gradient(path_lr), order=inner.order, support=tasks["support"]),
        paths=prefixes,
        mix="head.readout.mix",
        inner=inner,
        **tasks,
    )


def readout_head(recommender: Recommender) -> ReadoutHead:
    """The head, whose readout may be replaced by one that expects states with more columns.

    Raises:
        InputError: a head that reads states elsewhere too.
    """
    head = recommender.head
    if isinstance(head, ReadoutHead) and head.reads_only_readout:
        return head
    raise InputError(
        f"{type(head).__name__} reads the states of the clicks beside its readout, which this wrapper replaces by one "
        f"of wider states (graphmeta.protocols.ReadoutHead); choose another base, such as sr_gnn or if_san"
    )


def last_layer(recommender: Recommender) -> tuple[int, int]:
    """Input and output size of the linear layer before the product with items.

    Raises:
        InputError: a head without a single linear layer (or identity) before the product with items.
    """
    head = recommender.head
    if isinstance(head, ProjectedHead):
        if isinstance(head.project, nn.Linear):
            return head.project.in_features, head.project.out_features
        if isinstance(head.project, nn.Identity):
            _, candidates = recommender.features(torch.zeros(0, dtype=torch.int64))
            size = candidates.shape[1] - head.bias
            return size, size
    shown = f" with {type(head.project).__name__}" if isinstance(head, ProjectedHead) else ""
    raise InputError(
        f"{type(head).__name__}{shown} does not end in one linear layer, which this wrapper replaces; choose another "
        f"base"
    )


@torch.no_grad()
def replace_last_layer(recommender: Recommender, layer: nn.Linear) -> None:
    """Replace the head's last layer by ``layer``, which has more inputs.

    If there was no layer, ``layer`` is initialised to the identity; if there was no bias, its bias is set to zero.
    """
    project = recommender.head.get_submodule("project")
    if isinstance(project, nn.Identity):
        nn.init.eye_(layer.weight)
    if not any(name == "bias" for name, _ in project.named_parameters()):
        nn.init.zeros_(layer.bias)
    recommender.head.project = layer
