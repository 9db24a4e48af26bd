"""One step on an item bias in closed form: for all tasks at once, with each support sample scored once.

The gradient of the softmax loss to a bias is known: with the probabilities ``p_j`` and target ``y_j`` of support sample
j and the weights ``w_tj`` of the support loss, task t has the bias ``b + α Σ_j w_tj (onehot(y_j) − p_j)``. All tasks
start from the same weights, so ``p_j`` is the same for every task that has sample j: an event of a user is encoded and
scored once for all queries of the user in the batch, and no scores of tasks times support samples are stored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphmeta.adapt.starts.start import Shared
from graphmeta.adapt.support import WeighsSupport
from graphmeta.errors import DivergedError
from graphmeta.nn.catalogue_softmax import plus
from graphmeta.nn.heads.dot import Dot
from graphmeta.nn.losses.losses import SoftmaxLoss
from graphmeta.nn.mean_softmax import Pairs, mean_softmax
from graphmeta.recommender import Recommender

if TYPE_CHECKING:
    from graphmeta.adapt.adaptation import Adaptation
    from graphmeta.sampling.tasks import TaskBatch

ITEM_BIAS = "head.item_bias"
_OF_DOT = ("forward", "cross_entropy", "product_form")  # methods whose results are computed here from their parts


def has_closed_form(
    adaptation: Adaptation, recommender: Recommender, loss: nn.Module, objective: nn.Module | None
) -> bool:
    """Whether the adaptation is one plain step of the full softmax loss on the item bias of a product head alone.

    Args:
        loss: that of the step.
        objective: that of the queries, None for ``loss`` or for scores.
    """
    head = recommender.head
    return (
        adaptation.names == [ITEM_BIAS]
        and adaptation.steps == 1
        and adaptation.inner.clip is None
        and type(adaptation.start) is Shared
        and isinstance(adaptation.support, WeighsSupport)
        and all(type(one) is SoftmaxLoss for one in (loss, objective or loss))
        and isinstance(head, Dot)
        and all(getattr(type(head), name) is getattr(Dot, name) for name in _OF_DOT)
        and type(recommender).forward is Recommender.forward
        and not any(part._forward_hooks or part._forward_pre_hooks for part in (recommender, head))
        and sum(one is head.item_bias for one in _every_parameter(recommender)) == 1
    )


def _every_parameter(recommender: Recommender) -> list[Tensor]:
    """The parameters, tied ones once per module."""
    return [one for _, one in recommender.named_parameters(remove_duplicate=False)]


def after_bias_step(
    adaptation: Adaptation, recommender: Recommender, tasks: TaskBatch, *, second_order: bool, score: bool
) -> Tensor:
    """Losses ``[S]`` (or with ``score`` the scores ``[S, C]``) of the queries after the step.

    Args:
        tasks: tasks that share support samples.
        second_order: whether the step is differentiated through.

    Raises:
        DivergedError: a support loss that is not finite; names task and step.
    """
    head, shared = recommender.head, tasks.shared
    assert isinstance(head, Dot) and head.item_bias is not None and shared is not None
    states, candidates = recommender.encode(tasks.query)
    vectors = head.vectors(candidates)
    query = head.query(states, tasks.query)
    scores = plus(F.linear(query, vectors, head.item_bias), head.extra(tasks.query, query, vectors))
    if tasks.support is not None:
        with torch.set_grad_enabled(second_order):
            gradient = _gradient(adaptation, recommender, tasks, known=(candidates, vectors))
        change = adaptation.step.rate(ITEM_BIAS, 0) * gradient
        of_query = torch.from_numpy(shared.query_task).to(change.device)
        scores = scores - change.index_select(0, of_query)
    return scores if score else F.cross_entropy(scores, tasks.query["sample"].target, reduction="none")


def _gradient(
    adaptation: Adaptation, recommender: Recommender, tasks: TaskBatch, *, known: tuple[Tensor, Tensor]
) -> Tensor:
    """The gradient of each task's support loss to the item bias, ``[T, C]``; zero without support.

    Args:
        known: the queries' candidates, and what the head has made of them.
    """
    head, shared, batch, support = recommender.head, tasks.shared, tasks.support, adaptation.support
    assert isinstance(head, Dot) and shared is not None and batch is not None and isinstance(support, WeighsSupport)
    states, candidates = recommender.encode(batch)
    vectors = known[1] if candidates is known[0] else head.vectors(candidates)
    query = head.query(states, batch)
    extra = head.extra(batch, query, vectors)
    task, sample = (torch.from_numpy(part).to(query.device) for part in (shared.task, shared.sample))
    age = None if shared.age is None else torch.from_numpy(shared.age).to(vectors)
    weight = support.weights(task, shared.num_tasks, age).to(vectors.dtype)
    pairs = Pairs(shared.task, shared.sample)
    mean = mean_softmax(query, vectors, weight, pairs, groups=shared.num_tasks, bias=head.item_bias, extra=extra)
    finite = mean.detach().sum(1).isfinite()
    if not bool(finite.all()):
        raise DivergedError(
            f"task {int((~finite).nonzero()[0])}, step 0: the support loss is not finite; lower the learning rate, or "
            f"check the encoder's output"
        )
    target = batch["sample"].target.index_select(0, sample)
    return mean.index_put((task, target), -weight, accumulate=True)
