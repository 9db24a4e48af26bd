"""Calls of a recommender with task-specific weights: stacked for all tasks, or plain for one."""

from __future__ import annotations

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch_geometric.data import HeteroData

from graphmeta.adapt.stacked import operations as operations  # registers the handlers of per-task values
from graphmeta.adapt.stacked import rules as rules  # registers the rules that propagate notes
from graphmeta.adapt.stacked.guard import Guard
from graphmeta.adapt.stacked.operations.fused import ExactDerivatives
from graphmeta.adapt.stacked.stack import Stack
from graphmeta.adapt.stacked.table_state import TableState
from graphmeta.adapt.stacked.task_matrix import MatrixState, TaskMatrix
from graphmeta.adapt.stacked.task_table import TaskTable
from graphmeta.adapt.stacked.task_weight import TaskWeight
from graphmeta.adapt.twin import Twin
from graphmeta.errors import Remedy, UnsupportedOp
from graphmeta.recommender import Encoded, Recommender

LowRank = TableState | MatrixState
Weight = Tensor | LowRank
Weights = dict[str, Weight]  # by name: [T, *shape] or low-rank when stacked, the plain shape for one task


class Call:
    """One call of a recommender for a batch: its twin, and for stacked tasks the ownership of rows.

    Args:
        batch: the input of the call.
        stacked: whether there is one weight per task of the batch, or the weights of a single task.
        higher_order: whether the results must be differentiable to any order.
        constant: whether all parameters but those of :meth:`run` are constants.
    """

    def __init__(
        self,
        recommender: Recommender,
        batch: HeteroData,
        *,
        stacked: bool,
        higher_order: bool,
        constant: bool = False,
    ) -> None:
        self.twin, self.guard = Twin(recommender, constant=constant), Guard()
        shared = frozenset(self.twin.memory)
        self.stack = Stack(batch.num_tasks, shared, exact=higher_order, guard=self.guard) if stacked else None
        self.batch = batch if self.stack is None else self.stack.declare(batch)
        self.higher_order = higher_order
        weight = next(recommender.parameters(), None)
        # cuDNN's recurrent layers have no derivative in eval mode, and no second derivative in any mode.
        self.in_parts = higher_order or (weight is not None and weight.is_cuda)

    def wrapped(self, weights: Weights) -> dict[str, Tensor]:
        """The weights as tensors that modules can hold; those of a single task unchanged."""
        if self.stack is None:
            return {name: weight for name, weight in weights.items() if isinstance(weight, Tensor)}
        return {name: _own(weight, self.stack) for name, weight in weights.items()}

    def run(self, own: dict[str, Tensor], *, loss: nn.Module | None, encoded: Encoded | None) -> Tensor:
        """The recommender's losses or scores under these weights.

        Raises:
            InputError: one of ``own`` is read elsewhere than from its module, or a parameter is written into.
        """
        self.twin.put(own)
        self.twin.watch(self.guard, own)
        mode: TorchFunctionMode
        if self.stack is None:
            mode = ExactDerivatives(again=self.higher_order, parts=self.in_parts, guard=self.guard)
            if encoded is not None:  # a head may write into its input, which the next step reads again
                encoded = encoded[0].clone(), encoded[1]
        else:
            mode = self.stack
        if self.stack is not None and self.twin.has_gradient_hooks:
            raise UnsupportedOp("a module's gradient hook, which sees the rows of all tasks,", Remedy.DERIVATIVE)
        if self.stack is not None and encoded is not None:
            states, candidates = encoded
            self.guard.read(states)
            if candidates.untyped_storage().data_ptr() not in self.stack.shared:
                candidates = self.stack.constant(candidates.view_as(candidates))
            encoded = self.stack.rows(states.view_as(states)), candidates
        own_loss = None if loss is None else self.twin.of(loss)
        with mode:
            found = self.twin.module(self.batch, own_loss, encoded)
        if self.stack is not None:
            found = self.stack.settled(found)
        if self.twin.module.training:
            self._check_assigned()
            self.twin.hand_back()
        return found

    def _check_assigned(self) -> None:
        """Raise an UnsupportedOp if a buffer is set to what is another tensor for each task."""
        for entries, name, found in self.twin.assigned():
            if self.stack is not None and (of := self.stack.differing(found)):
                raise UnsupportedOp(f"{self.twin.name_of(entries, name)} (a buffer) set to what {of}", Remedy.LOCAL)


def _own(weight: Weight, stack: Stack) -> Tensor:
    if isinstance(weight, TableState):
        return TaskTable(weight, stack)
    return TaskMatrix(weight, stack) if isinstance(weight, MatrixState) else TaskWeight(weight, stack)
