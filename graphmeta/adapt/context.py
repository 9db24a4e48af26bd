"""What tasks are adapted on and asked, and the calls that this takes."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from graphmeta.adapt.stacked.engine import Call, Weight, Weights
from graphmeta.adapt.stacked.task_matrix import MatrixState
from graphmeta.errors import DivergedError
from graphmeta.recommender import Encoded, Recommender


@dataclass(frozen=True)
class AdaptationContext:
    """What tasks are adapted on and asked: all of them ``together``, or one alone, of which ``number`` is the place.

    ``encoded`` and ``seen`` are the query and the support as encoded, where that is the same whatever the weights.
    ``progress`` is the share of the training that is done. ``calls`` and ``finite`` gather what is checked once, after
    all steps: whose rows met, and each step's losses.
    """

    recommender: Recommender
    support: HeteroData | None
    query: HeteroData
    loss: nn.Module
    encoded: Encoded | None
    seen: Encoded | None
    together: bool
    number: int = 0
    progress: float = 1.0
    calls: list[Call] = field(default_factory=list)
    finite: list[Tensor] = field(default_factory=list)

    def each(self, weight: Tensor) -> Tensor:
        """The same weight for every task, ``[T, *shape]``, or for the one alone ``[*shape]``; never the tensor itself.

        A start may have been computed from that: a step must not be taken on it.
        """
        return weight.expand([*((self.query.num_tasks,) if self.together else ()), *weight.shape])

    def written(self, weight: Weight) -> Weight:
        """A matrix of low rank as ``[T, *shape]``, anything else as it is."""
        return weight.dense(self.query.num_tasks) if isinstance(weight, MatrixState) else weight

    def call(self, batch: HeteroData, *, exact: bool) -> Call:
        """A call of the recommender for this batch."""
        made = Call(self.recommender, batch, together=self.together, exact=exact)
        self.calls.append(made)
        return made

    def evaluate_query(self, weights: Weights, answer: nn.Module | None) -> Tensor:
        """Losses by ``answer`` (or scores) of the query under these weights."""
        call = self.call(self.query, exact=torch.is_grad_enabled())
        return call.run(call.wrapped(weights), loss=answer, encoded=self.encoded)

    def settle(self) -> None:
        """Read what the calls have left to be checked.

        Raises:
            DivergedError: a support loss that is not finite; names task and step.
            MixedRows: rows of one task met another's.
        """
        losses, calls = list(self.finite), list(self.calls)
        self.finite.clear()
        self.calls.clear()
        if losses and not bool(torch.stack([loss.isfinite().all() for loss in losses]).all()):
            number, loss = next((n, loss) for n, loss in enumerate(losses) if not bool(loss.isfinite().all()))
            task = int((~loss.isfinite()).nonzero()[0])
            raise DivergedError(
                f"task {self.number + task}, step {number}: the support loss is {float(loss[task])}; lower the inner "
                f"rate, or look for what the encoder makes of padding rows"
            )
        for call in calls:
            if call.stack is not None:
                call.stack.settle()


@dataclass(frozen=True)
class Support:
    """What every step is taken on, the parameters outside the scope where they are constants, and the tasks' start."""

    problem: AdaptationContext
    batch: HeteroData
    second: bool
    fixed: dict[str, Tensor]
    start: Weights
