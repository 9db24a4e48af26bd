"""The adaptation context: support and query of tasks, and calls of the recommender for them."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from graphmeta.adapt.stacked.engine import Call, Weight, Weights
from graphmeta.adapt.stacked.stack import Stack
from graphmeta.adapt.stacked.task_matrix import MatrixState
from graphmeta.errors import DivergedError
from graphmeta.recommender import Encoded, Recommender


@dataclass(frozen=True)
class AdaptationContext:
    """Support and query of all tasks (``stacked``: one weight per task), or of one task.

    ``task_index`` is the index of that one task in its batch, for messages. ``query_encoded`` and ``support_encoded``
    are set if encoding does not depend on the adapted weights.
    ``progress`` is the completed share of the training. ``stacks`` and ``support_losses`` collect what is checked
    once after all steps: the ownership of rows, and each step's losses.
    """

    recommender: Recommender
    support: HeteroData | None
    query: HeteroData
    loss: nn.Module
    query_encoded: Encoded | None
    support_encoded: Encoded | None
    stacked: bool
    task_index: int = 0
    progress: float = 1.0
    stacks: list[Stack] = field(default_factory=list)
    support_losses: list[Tensor] = field(default_factory=list)

    def per_task(self, weight: Tensor) -> Tensor:
        """The same weight for every task, ``[T, *shape]``, or for a single task ``[*shape]``.

        Returns a new tensor: updating the shared parameter itself would change the other tasks' initialisation.
        """
        return weight.expand([*((self.query.num_tasks,) if self.stacked else ()), *weight.shape])

    def as_dense(self, weight: Weight) -> Weight:
        """A low-rank matrix as dense ``[T, *shape]``, any other weight unchanged."""
        return weight.dense(self.query.num_tasks) if isinstance(weight, MatrixState) else weight

    def call(self, batch: HeteroData, *, higher_order: bool, constant: bool = False) -> Call:
        """A call of the recommender for this batch; ``higher_order``: differentiable to any order; ``constant``: all
        parameters are constants but those of the call.
        """
        made = Call(self.recommender, batch, stacked=self.stacked, higher_order=higher_order, constant=constant)
        if made.stack is not None:
            self.stacks.append(made.stack)
        return made

    def evaluate_query(self, weights: Weights, objective: nn.Module | None) -> Tensor:
        """Query losses by ``objective`` (or scores, if None) under these weights."""
        call = self.call(self.query, higher_order=torch.is_grad_enabled())
        return call.run(call.wrapped(weights), loss=objective, encoded=self.query_encoded)

    def run_checks(self) -> None:
        """Run the deferred checks of all calls.

        Raises:
            DivergedError: a support loss that is not finite; names task and step.
            MixedRows: rows of different tasks were combined.
        """
        losses = list(self.support_losses)
        self.support_losses.clear()
        if losses and not bool(torch.stack([loss.isfinite().all() for loss in losses]).all()):
            number, loss = next((n, loss) for n, loss in enumerate(losses) if not bool(loss.isfinite().all()))
            task = int((~loss.isfinite()).nonzero()[0])
            raise DivergedError(
                f"task {self.task_index + task}, step {number}: the support loss is {float(loss[task])}; lower the "
                f"inner rate, or check the encoder's output for padding rows"
            )
        for stack in self.stacks:
            stack.run_checks()

    def release(self) -> None:
        """Drop what the calls hold, after the last of them."""
        for stack in self.stacks:
            stack.release()
        self.stacks.clear()


@dataclass(frozen=True)
class Support:
    """What all steps share: support ``batch``, ``second_order`` or not, ``start``."""

    context: AdaptationContext
    batch: HeteroData
    second_order: bool
    start: Weights
