"""What several published systems are composed with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from graphmeta.adapt.adaptation import Adaptation
from graphmeta.adapt.co_adaptation import CoAdaptation
from graphmeta.adapt.inner import InnerLoop, MultiStep, OrderSchedule
from graphmeta.adapt.scope import Scope
from graphmeta.adapt.starts.gated import Gated
from graphmeta.adapt.step import Gradient, GroupRates, LearnedRates
from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError
from graphmeta.nn.features.tables import field_name
from graphmeta.nn.heads.dot import Dot
from graphmeta.nn.heads.target_attention import TargetAttention
from graphmeta.nn.losses.losses import RankingLoss, SoftmaxLoss
from graphmeta.nn.losses.pairwise import RANKING
from graphmeta.nn.score_terms.cooccurrence import Cooccurrence
from graphmeta.nn.score_terms.repeat import RepeatBias
from graphmeta.nn.score_terms.reranker import Reranker
from graphmeta.nn.score_terms.same_category import SameCategory
from graphmeta.published.recipe import called
from graphmeta.recommender import Recommender
from graphmeta.system import System

Base = Callable[..., System] | str

SCOPES: dict[str, tuple[str, ...]] = {
    "predictor": ("head.project", "head.score_terms", "head.scale"),
    "attention": ("encoder", "head"),
    "all": ("",),
}
# What no session changes: what it is known by, and a network over counts, whose rows are not laid out by task.
FIXED = ("head.project.prototypes", "head.project.gate", "head.project.memory.keys", "head.score_terms.reranker")


def loss_called(name: str, negatives: nn.Module) -> nn.Module:
    """The loss of that name: the full softmax, or a comparison with the negatives.

    Raises:
        InputError: no loss is called so.
    """
    if name == "cross_entropy":
        return SoftmaxLoss()
    if name not in RANKING:
        raise InputError(f"no loss is called {name!r}; there are cross_entropy, {', '.join(RANKING)}")
    return RankingLoss(RANKING[name](), negatives)


def with_score_terms(system: System, score_terms: Sequence[str]) -> System:
    """The system with what is added to single scores, by name.

    ``repeat_bias``: a bonus for the session's own items; ``same_category``: one for the items that share an attribute's
    value with a clicked one (attributes with one value an item); ``cooccurrence``: what neighbours say, beside which
    the products get a weight too; ``reranker``: what a network makes of all that, see
    :class:`~graphmeta.nn.score_terms.reranker.Reranker`.

    Raises:
        InputError: nothing is called so, ``same_category`` for items without attributes, or a head that takes no
            products.
    """
    head, items = system.recommender.head, system.items
    if not isinstance(head, Dot):
        raise InputError(f"something is added to scores that are products, not to those of {type(head).__name__}")
    made: dict[str, Callable[[], Mapping[str, nn.Module]]] = {
        "repeat_bias": lambda: {"repeat_bias": RepeatBias()},
        "same_category": lambda: {
            f"same_category_{field_name(name)}": SameCategory(attribute) for name, attribute in items.attributes.items()
        },
        "cooccurrence": lambda: {"cooccurrence": Cooccurrence(len(items))},
        "reranker": lambda: {"reranker": Reranker(len(items), list(items.attributes.values()))},
    }
    for name in score_terms:
        if name not in made:
            raise InputError(f"nothing to add to scores is called {name!r}; there are {', '.join(made)}")
        if name == "same_category" and not items.attributes:
            raise InputError(
                "same_category needs an attribute of the items (category, brand); name one, or leave same_category out"
            )
        head.score_terms.update(made[name]())
    if {"cooccurrence", "reranker"} & set(score_terms):
        head.weigh()
    return system


def base_system(
    base: Base, items: EntityTable, *, users: EntityTable | None, width: int, options: Mapping[str, Any] | None = None
) -> System:
    """The system that another one goes around.

    Args:
        base: its name in the catalogue, or what builds it; options: its arguments besides ``width``.

    Raises:
        InputError: a name that is not in the catalogue.
    """
    from graphmeta.published.catalogue import CATALOGUE, build  # which imports this module

    name, given = called(base), dict(options or {})
    if name is not None:
        return build(name, items, users=users, width=width, **given)
    if isinstance(base, str):
        raise InputError(f"no system is called {base!r}; a base is one of {', '.join(CATALOGUE)}")
    whose = {} if users is None else {"users": users}
    return base(items, width=width, **whose, **given)


class FineTuned(System):
    """A system trained as it is, whatever its loss; before it answers, a session's steps go down the full softmax.

    A loss with items drawn from the batch would let a session's answer depend on who is beside it, and on chance.
    """

    @property
    def support_loss(self) -> nn.Module:
        """The full softmax."""
        return SoftmaxLoss()


def adapting(base: System, items: EntityTable, adaptation: Adaptation) -> System:
    """The recommender of ``base`` with an adaptation around it; what it knows of users and lengths stays.

    If it is trained without the adaptation, it is trained as the base is (:class:`FineTuned`). Meta-training has tasks
    of its own, and the full softmax as its loss, whatever the base's are.

    Raises:
        InputError: a base that adapts itself, whose start and step would be lost.
    """
    if base.adaptation is not None:
        raise InputError("the base adapts itself, and a session takes one adaptation; name the base inside it")
    kind = System if adaptation.meta_trained else FineTuned
    system = kind(base.recommender, items, users=base.users, adaptation=adaptation, **base.limits)
    if not adaptation.meta_trained:
        system.loss, system.samples, system.batches = base.loss, base.samples, base.batches
    return system


def along_paths(
    scope: Scope, read: tuple[int, int], *, count: int, path_lr: float, lr: float, steps: int, order: int
) -> CoAdaptation:
    """MetaHIN's adaptation: steps on the contexts of ``head.readout``, which gate ``scope``, then steps on that.

    Args:
        read: how many numbers the adapted layers read before the context, and how many are the context.
        count: of paths; path_lr: rate of the step on the contexts; lr, steps: of those on ``scope``.
    """
    before, size = read
    prefixes = [f"head.readout.paths.{number}" for number in range(count)]
    return CoAdaptation(
        scope,
        step=Gradient(lr),
        start=Gated(scope, before + size, part=slice(before, None)),
        semantic=Adaptation(Scope(*prefixes), step=Gradient(path_lr), order=order),
        paths=prefixes,
        mix="head.readout.mix",
        steps=steps,
        order=order,
    )


def step_of(lr: float, *, learned: bool | str) -> Gradient | LearnedRates | GroupRates:
    """Plain gradient steps, or steps whose rates begin at ``lr`` and are learned, for each step anew.

    Args:
        learned: ``"number"`` (or True) for a rate for each number, ``"group"`` for one for each parameter.

    Raises:
        InputError: rates of another kind.
    """
    kinds: dict[bool | str, Callable[[], Gradient | LearnedRates | GroupRates]] = {
        False: lambda: Gradient(lr),
        True: lambda: LearnedRates(lr, per_step=True),
        "number": lambda: LearnedRates(lr, per_step=True),
        "group": lambda: GroupRates(lr, per_step=True),
    }
    if learned not in kinds:
        raise InputError(f"learned={learned!r} must be False, True, 'number' or 'group'")
    return kinds[learned]()


def loop_of(steps: int, order: int, inner: Mapping[str, float] | None) -> InnerLoop:
    """The inner loop with these options.

    Args:
        inner: ``clip`` (the largest norm of a task's gradient), ``proximal`` (λ), ``multi_step`` (the share of the
            training after which the last step counts alone) and ``first_order`` (the share of the training before
            order 2), each optional; see :class:`~graphmeta.adapt.inner.InnerLoop`.

    Raises:
        InputError: another option, a number that is none, or ``first_order`` where ``order`` is 1.
    """
    options = dict(inner or {})
    known = ("clip", "proximal", "multi_step", "first_order")
    for name, value in options.items():
        if name not in known:
            raise InputError(f"the inner loop takes no {name!r}; it takes {', '.join(known)}")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InputError(f"inner[{name!r}] must be a number, not {value!r}")
    if "first_order" in options and order != 2:
        raise InputError("first_order says when order 2 begins; pass order=2 with it, or leave it out")
    return InnerLoop(
        steps=steps,
        order=OrderSchedule(options["first_order"]) if "first_order" in options else order,
        clip=options.get("clip"),
        proximal=options.get("proximal", 0.0),
        multi_step=MultiStep(options["multi_step"]) if "multi_step" in options else None,
    )


def scope_called(scope: Sequence[str] | str) -> Scope:
    """The scope of a short name in :data:`SCOPES`, or of these prefixes, always without :data:`FIXED`.

    Raises:
        InputError: no scope is called so.
    """
    if isinstance(scope, str) and scope not in SCOPES:
        raise InputError(f"no scope is called {scope!r}; there are {', '.join(SCOPES)}, or give a list of names")
    prefixes = SCOPES[scope] if isinstance(scope, str) else scope
    return Scope(*prefixes, without=FIXED)


def last_layer(recommender: Recommender) -> tuple[int, int]:
    """How many numbers the head's last layer reads (its readout) and how many it makes (an item's vector).

    Raises:
        InputError: a head that does not end in one linear layer, or none, before the product with items.
    """
    head = recommender.head
    if isinstance(head, Dot | TargetAttention):
        if isinstance(head.project, nn.Linear):
            return head.project.in_features, head.project.out_features
        if isinstance(head.project, nn.Identity):
            _, candidates = recommender.features(torch.zeros(0, dtype=torch.int64))
            size = candidates.shape[1] - (isinstance(head, Dot) and head.bias)
            return size, size
    raise InputError(
        f"{type(head).__name__} with {type(getattr(head, 'project', None)).__name__} does not end in one linear "
        f"layer, which is what is replaced here; choose another base"
    )


@torch.no_grad()
def replace_last_layer(recommender: Recommender, layer: nn.Linear) -> None:
    """Put ``layer``, which reads more than the head's last layer, in its place.

    Where there was none, or none of its weights is a bias, it begins as nothing: with the identity, without bias.
    """
    project = recommender.head.project
    if isinstance(project, nn.Identity):
        nn.init.eye_(layer.weight)
    if getattr(project, "bias", None) is None:
        nn.init.zeros_(layer.bias)
    recommender.head.project = layer
