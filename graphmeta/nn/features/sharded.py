"""Item tables whose rows are divided over the processes of a training (row-wise sharding)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from graphmeta.distributed.group import Group
from graphmeta.distributed.rows import RowRange, ShardedRows, look_up, sharded_cross_entropy
from graphmeta.errors import InputError
from graphmeta.nn.catalogue_softmax import ScoreTerm, score_cross_entropy
from graphmeta.nn.features.tables import Table


class ShardedTable(nn.Module):
    """A :class:`~graphmeta.nn.features.tables.Table` of which this rank holds the rows of ``rows``; results are exact.

    ``weight`` ``[end − begin, width]`` are these rows. Look-ups and scores communicate, so all ranks must call them in
    the same order.

    Args:
        table: the whole table, the same on all ranks.
    """

    shared_with_twins = ("rows",)

    def __init__(self, table: Table, group: Group) -> None:
        super().__init__()
        self.width, self.rows = table.width, RowRange(len(table.weight), group)
        self.weight = nn.Parameter(self.rows.own(table.weight.detach()), requires_grad=table.weight.requires_grad)

    def _get_name(self) -> str:
        return "Table"  # a checkpoint does not depend on the number of processes

    def forward(self, index: Tensor) -> Tensor:
        """Rows of the table: ``[I] -> [I, width]``."""
        return look_up(index, ShardedRows(self.weight, self.rows))

    def all_rows(self) -> Any:
        """All rows, as heads score against them; other ranks' rows stay with them."""
        return ShardedRows(self.weight, self.rows)

    def whole(self) -> Table:
        """The whole table, on every rank."""
        table = Table(0, self.weight.shape[1])
        table.width = self.width
        weight = self.rows.group.gather(self.weight.detach())
        table.weight = nn.Parameter(weight, requires_grad=self.weight.requires_grad)
        return table


@ShardedRows.supports(score_cross_entropy)
def _cross_entropy(
    query: Tensor,
    candidates: ShardedRows,
    target: Tensor,
    *,
    real: Tensor | None = None,
    extra: ScoreTerm | None = None,
    rows: int = 128,
) -> Tensor:
    if extra is not None:
        raise InputError("score terms need all scores of a sample in one process; leave out shard_items")
    if real is not None:
        query, target = query.index_select(0, real), target.index_select(0, real)
    return sharded_cross_entropy(query, candidates, target)


def shard_items(module: nn.Module, num_items: int, group: Group) -> None:
    """Replace the tables of ``num_items`` rows in a module by their shards.

    Raises:
        InputError: no such table, or one that is composed of attributes.
    """
    found = [
        (part, name)
        for part in module.modules()
        for name, child in part.named_children()
        if type(child) is Table and len(child.weight) == num_items
    ]
    if not found:
        raise InputError("shard_items needs a plain table of items, which this system does not have; leave it out")
    for part, name in found:
        setattr(part, name, ShardedTable(part.get_submodule(name), group))  # pyright: ignore[reportArgumentType]


def whole_items(module: nn.Module) -> None:
    """Replace the shards in a module by whole tables; all ranks must call it."""
    for part in list(module.modules()):
        for name, child in list(part.named_children()):
            if isinstance(child, ShardedTable):
                setattr(part, name, child.whole())


def row_ranges(module: nn.Module) -> dict[str, RowRange]:
    """The names of the parameters that are shards, and their rows."""
    return {f"{name}.weight": part.rows for name, part in module.named_modules() if isinstance(part, ShardedTable)}


def whole_shapes(module: nn.Module) -> dict[str, torch.Size]:
    """The shapes of all parameters, of shards those of the whole table."""
    ranges = row_ranges(module)
    shapes = {name: weight.shape for name, weight in module.named_parameters()}
    return {n: torch.Size((ranges[n].total, *s[1:])) if n in ranges else s for n, s in shapes.items()}
