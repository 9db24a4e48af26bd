"""The base class of per-task values: tensors of which each task has its own version."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from torch import Tensor
from torch.overrides import _get_current_function_mode_stack

from graphmeta.adapt.stacked.notes import Handler, tensors_in
from graphmeta.errors import Remedy, UnsupportedOp
from graphmeta.protocols.members import ReadsMembers

if TYPE_CHECKING:
    from graphmeta.adapt.stacked.stack import Stack


class TaskValue(Tensor):
    """A tensor with one version per task; see :class:`~graphmeta.adapt.stacked.task_weight.TaskWeight`."""

    stack: Stack

    def __deepcopy__(self, memo: Any) -> Any:
        raise UnsupportedOp("a deep copy of a per-task weight", Remedy.COPY)

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        if self.stack in _get_current_function_mode_stack():  # what a task's weight would show is not known
            raise UnsupportedOp("the text of a per-task weight", Remedy.TENSOR)
        return f"{type(self).__name__}({self.stack.num_tasks} tasks, shape={tuple(self.shape)})"

    @property
    def needs_gradient(self) -> bool:
        """``requires_grad`` of each task's version."""
        return self.stack.grad

    operations: Handler | None = None  # set by subclasses that support only their own operations

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        stack = next(value.stack for value in tensors_in((args, kwargs)) if isinstance(value, TaskValue))
        return stack.handle(func, args, kwargs)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Refuse operations that bypass all handlers, such as compiled or scripted functions."""
        raise UnsupportedOp(f"{func} on a per-task weight, by code that torch functions do not see", Remedy.PLAIN)


@runtime_checkable
class LowRankValue(Protocol, metaclass=ReadsMembers):
    """A per-task value whose change is kept low-rank, with the gradients of the tensors that were read from it."""

    def read(self) -> list[Tensor]:
        """The tensors read from it so far; their gradients make up its gradient."""
        ...

    def stepped(
        self,
        state: Any,
        rate: float | Tensor,
        grads: Sequence[Tensor | None],
        *,
        keep_graph: bool,
        proximal: float | Tensor | None = None,
    ) -> Any:
        """``state`` after ``weight − rate · gradient``, with ``proximal`` the share of its change that is reverted."""
        ...

    def norm_of_step(self, grads: Sequence[Tensor | None], *, keep_graph: bool) -> Tensor:
        """The squared norm of each task's gradient ``[T]``."""
        ...

    def scaled(self, grads: Sequence[Tensor | None], factor: Tensor) -> list[Tensor | None]:
        """The gradients times the factor ``[T]`` of their task."""
        ...
