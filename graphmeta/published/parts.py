"""What several published systems are composed with."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from graphmeta.adapt.adaptation import Adaptation
from graphmeta.adapt.co_adaptation import CoAdaptation
from graphmeta.adapt.inner import InnerLoop
from graphmeta.adapt.scope import Scope
from graphmeta.adapt.starts.gated import Gated
from graphmeta.adapt.step import Gradient, Step
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
from graphmeta.published.options import step_of
from graphmeta.recommender import Recommender
from graphmeta.system import System


def loss_by_name(name: str, negatives: nn.Module) -> nn.Module:
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
        head.learn_temperature()
    return system


def copied(base: System) -> System:
    """A copy with weights of its own, so that what goes around it leaves the base as it is."""
    shared = (base.items, base.users)
    return copy.deepcopy(base, {id(part): part for part in shared if part is not None})


class FineTuned(System):
    """A system trained as it is, whatever its loss; before it answers, a session's steps go down the full softmax.

    A loss with items drawn from the batch would let a session's answer depend on who is beside it, and on chance.
    """

    @property
    def support_loss(self) -> nn.Module:
        """The full softmax."""
        return SoftmaxLoss()


def with_adaptation(base: System, adaptation: Adaptation) -> System:
    """The recommender of ``base`` with an adaptation around it; items, users and lengths stay.

    If it is not meta-trained, it is trained as the base is (:class:`FineTuned`). Meta-training has tasks of its own,
    and the full softmax as its loss, whatever the base's are.

    Raises:
        InputError: a base that adapts itself, whose start and step would be lost.
    """
    if base.adaptation is not None:
        raise InputError("the base adapts itself, and a session takes one adaptation; name the base inside it")
    kind = System if adaptation.meta_trained else FineTuned
    system = kind(base.recommender, base.items, users=base.users, adaptation=adaptation, limits=base.limits)
    if not adaptation.meta_trained:
        system.loss, system.samples, system.batches = base.loss, base.samples, base.batches
    return system


def path_adaptation(
    scope: Scope, read: tuple[int, int], *, count: int, path_lr: float, step: Step | float, inner: InnerLoop
) -> CoAdaptation:
    """MetaHIN's adaptation: steps on the contexts of ``head.readout``, which gate ``scope``, then steps on that.

    Args:
        read: how many numbers the adapted layers read before the context, and how many are the context.
        count: of paths; path_lr: rate of the step on the contexts; step, inner: of those on ``scope``.
    """
    before, size = read
    prefixes = [f"head.readout.paths.{number}" for number in range(count)]
    return CoAdaptation(
        scope,
        step=step_of(step),
        start=Gated(scope, before + size, part=slice(before, None)),
        semantic=Adaptation(Scope(*prefixes), step=Gradient(path_lr), order=inner.order),
        paths=prefixes,
        mix="head.readout.mix",
        inner=inner,
    )


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
