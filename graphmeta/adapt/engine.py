"""How a recommender is called with weights that are not its own: stacked for all tasks, or plain for one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call
from torch_geometric.data import HeteroData
from torch_geometric.nn import MessagePassing

from graphmeta.adapt import operations as operations  # registers what per-task weights can do
from graphmeta.adapt.matrix import MatrixState, TaskMatrix
from graphmeta.adapt.state import TableState
from graphmeta.adapt.table import TaskTable
from graphmeta.adapt.weight import TaskLayout, TaskWeight, address
from graphmeta.recommender import Encoded, Recommender

LowRank = TableState | MatrixState
Weight = Tensor | LowRank
Weights = dict[str, Weight]  # by name: [T, *shape] or low-rank when stacked, the plain shape for one task


def wrap(
    weights: Weights, batch: HeteroData, *, shared: frozenset[int] | None
) -> tuple[dict[str, Tensor], TaskLayout | None]:
    """The weights as tensors that modules can hold, and the layout of this batch.

    Args:
        shared: for the weights of all tasks together, see :class:`~graphmeta.adapt.weight.TaskLayout`; None for
            those of one task alone.
    """
    if shared is None:
        return {name: weight for name, weight in weights.items() if isinstance(weight, Tensor)}, None
    layout = TaskLayout(batch.num_tasks, frozenset(batch.rows.values()), shared=shared)
    return {name: _own(weight, layout) for name, weight in weights.items()}, layout


def _own(weight: Weight, layout: TaskLayout) -> Tensor:
    if isinstance(weight, TableState):
        return TaskTable(weight, layout)
    return TaskMatrix(weight, layout) if isinstance(weight, MatrixState) else TaskWeight(weight, layout)


def call(
    recommender: Recommender,
    own: dict[str, Tensor],
    layout: TaskLayout | None,
    batch: HeteroData,
    *,
    loss: nn.Module | None,
    encoded: Encoded | None,
) -> Tensor:
    """The recommender's losses or scores under these weights."""
    with edges_known(recommender, layout):
        return functional_call(recommender, own, (batch, loss, encoded))


@contextmanager
def edges_known(module: nn.Module, layout: TaskLayout | None) -> Iterator[None]:
    """Within it, PyG convolutions tell the layout which task each edge they work on belongs to."""
    handles = []
    if layout is not None:
        for part in module.modules():
            if isinstance(part, MessagePassing):
                handles += _watch(part, layout)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _watch(conv: MessagePassing, layout: TaskLayout) -> list[Any]:
    found: list[Tensor | None] = [None]

    def find(_: Any, inputs: Any) -> None:
        found[0] = _edge_tasks(inputs[0], inputs[-1], layout)

    def begin(_: Any, inputs: Any) -> None:
        layout.edge_task = found[0]

    def find_and_begin(_: Any, inputs: Any) -> None:
        find(_, inputs)
        begin(_, inputs)

    def end(*_: Any) -> None:
        layout.edge_task = None

    return [
        conv.register_propagate_forward_pre_hook(find),
        conv.register_message_forward_pre_hook(begin),
        conv.register_message_forward_hook(end),
        conv.register_edge_update_forward_pre_hook(find_and_begin),
        conv.register_edge_update_forward_hook(end),
    ]


def _edge_tasks(edge_index: Any, values: dict[str, Any], layout: TaskLayout) -> Tensor | None:
    """The task of each edge, from one of its ends and the number of rows there."""
    if isinstance(values.get("index"), Tensor) and isinstance(values.get("dim_size"), int):
        return values["index"] // (values["dim_size"] // layout.num_tasks)
    sources = (value[0] if isinstance(value, tuple) else value for value in values.values())
    for source in sources:
        if isinstance(edge_index, Tensor) and isinstance(source, Tensor) and layout.has_rows(source):
            return edge_index[0] // (len(source) // layout.num_tasks)
    return None


def addresses(module: nn.Module) -> frozenset[int]:
    """Where the module's own parameters and buffers lie in memory."""
    return frozenset(address(tensor) for tensor in (*module.parameters(), *module.buffers()))


def detached(recommender: Recommender) -> dict[str, Tensor]:
    """All parameters as constants."""
    return {name: parameter.detach() for name, parameter in recommender.named_parameters()}
