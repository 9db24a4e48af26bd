"""Meta-training and answering one task after the other, written without a line of :mod:`graphmeta.adapt`.

Every evaluation makes a recommender of its own and writes the wanted tensors into all its parameter slots. Nothing is
ever put back, so what is computed again in a backward pass (checkpointing) finds the weights it was computed with,
and closures, lists and second names of a module lead to the same slots as in the original. A task sees the graphs of
its own samples alone: no rows of other tasks, no dummies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from graphmeta.nn.losses.losses import SoftmaxLoss
from graphmeta.sampling.samples import Samples
from graphmeta.sampling.session_batch import session_batch

Make = Callable[[], nn.Module]


@dataclass(frozen=True)
class Inner:
    """How a task adapts: parameters whose names begin with one of ``scope``, ``steps`` plain steps of ``rate``."""

    scope: tuple[str, ...] = ("encoder", "head")
    steps: int = 1
    order: int = 1
    rate: float = 0.3


def with_weights(make: Make, weights: Sequence[Tensor], training: bool) -> nn.Module:
    """A new recommender with these tensors as its parameters (in the order of ``parameters()``)."""
    model = make().train(training)
    wanted = {id(own): weight for own, weight in zip(model.parameters(), weights, strict=True)}
    for module in model.modules():
        for name, own in module._parameters.items():
            if own is not None:
                module._parameters[name] = wanted[id(own)]  # pyright: ignore[reportArgumentType]
        if isinstance(module, nn.RNNBase):
            module._flat_weights = [getattr(module, name) for name in module._flat_weights_names]
    return model


def support_of(known: Samples, task: int) -> Samples:
    """Each known click of a task but the first, to be told from those before it."""
    begin, end = int(known.begin[task]), int(known.end[task])
    ends = np.arange(begin + 1, end)
    begins = np.full(len(ends), begin)
    return Samples(known.item, begins, ends, known.item[ends], np.full(len(ends), task))


class Reference:
    """What meta-learning on these tasks (one a known sample) comes to.

    Args:
        make: the recommender, the same one every time it is called.
        samples: what is known of each task, and its target.
    """

    def __init__(self, make: Make, samples: Samples, *, num_items: int) -> None:
        self.make, self.num_items = make, num_items
        original = make()
        self.names = [name for name, _ in original.named_parameters()]
        self.originals = [p.detach().clone().requires_grad_(p.requires_grad) for p in original.parameters()]
        self.tasks = [(support_of(samples, t), samples.take(slice(t, t + 1))) for t in range(len(samples))]

    def losses(self, inner: Inner, *, training: bool = True) -> tuple[Tensor, list[Tensor]]:
        """The query losses ``[T]``, and the gradient of their mean in every parameter."""
        with sdpa_kernel(SDPBackend.MATH):  # the one kernel of attention with a second derivative
            found = [self._answer(task, inner, training, SoftmaxLoss()) for task in self.tasks]
            losses = torch.cat(found)
            learned = [p for p in self.originals if p.requires_grad]
            slopes = iter(torch.autograd.grad(losses.mean(), learned, allow_unused=True))
        every = [next(slopes) if p.requires_grad else None for p in self.originals]
        filled = [torch.zeros_like(p) if g is None else g for p, g in zip(self.originals, every, strict=True)]
        return losses.detach(), filled

    def scores(self, inner: Inner, *, training: bool = False) -> Tensor:
        """The scores of every item for every task, ``[T, C]``."""
        with sdpa_kernel(SDPBackend.MATH):
            return torch.cat([self._answer(task, inner, training, None).detach() for task in self.tasks])

    def _answer(self, task: tuple[Samples, Samples], inner: Inner, training: bool, loss: nn.Module | None) -> Tensor:
        support, query = task
        weights = list(self.originals)
        for _ in range(inner.steps if len(support) else 0):
            weights = self._step(support, weights, inner, training)
        return self._run(query, weights, training, loss)

    def _step(self, support: Samples, weights: list[Tensor], inner: Inner, training: bool) -> list[Tensor]:
        second = inner.order == 2
        moving = [
            own.requires_grad and any(f"{name}.".startswith(f"{prefix}.") for prefix in inner.scope)
            for name, own in zip(self.names, self.originals, strict=True)
        ]
        here = weights
        if not second:  # a point to look from, which remembers nothing
            here = [w.detach().requires_grad_(m) for w, m in zip(weights, moving, strict=True)]
        adapted = [w for w, m in zip(here, moving, strict=True) if m]
        loss = self._run(support, here, training, SoftmaxLoss()).mean()
        slopes = iter(torch.autograd.grad(loss, adapted, create_graph=second, allow_unused=True))
        steps = [next(slopes) if m else None for m in moving]
        return [w if g is None else w - inner.rate * g for w, g in zip(weights, steps, strict=True)]

    def _run(self, samples: Samples, weights: list[Tensor], training: bool, loss: nn.Module | None) -> Tensor:
        model = with_weights(self.make, weights, training)
        return model(session_batch(samples, num_items=self.num_items), loss)
