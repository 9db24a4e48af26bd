"""New items and users for a trained model: rows of tables and statistics are added, learned ones stay as they are."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError
from graphmeta.protocols import EmbeddingTable, ExtendsItems, ExtendsUsers, ReadsSubgraph


def extend_items(model: nn.Module, items: EntityTable, *, before: int) -> None:
    """Add the items after the first ``before`` of the table to each part with rows for items.

    Raises:
        InputError: a part that has numbers for each item and cannot make those of new ones; names it.
    """
    parts = list(model.named_modules())
    for name, part in parts:
        if isinstance(part, ExtendsItems):
            continue
        own = next((key for key, values in part.named_buffers(recurse=False) if before in values.shape), None)
        if isinstance(part, EmbeddingTable | nn.Embedding) and len(part.weight) == before:
            own = "weight"
        if own is not None:
            raise InputError(
                f"{name or type(part).__name__} has {own} for each of {before} items and cannot compose those of new "
                f"ones from attributes; train a system with attribute-composed items, dropout_net(base), or fit again "
                f"on a log with the new items"
            )
    for _, part in parts:
        if isinstance(part, ExtendsItems):
            part.extend_items(items)


def extend_users(model: nn.Module, users: EntityTable, *, before: int, of_items: nn.Module) -> None:
    """Add the users after the first ``before`` of the table to each part with rows for users.

    Args:
        of_items: the part whose tables have rows for items.

    Raises:
        InputError: a part that has numbers for each user and cannot make those of new ones; names it.
    """
    parts = list(model.named_modules())
    known = {id(part) for part in of_items.modules()}
    extending = [name for name, part in parts if isinstance(part, ExtendsUsers)]
    known |= {id(inner) for name in extending for inner in model.get_submodule(name).modules()}
    for name, part in parts:
        table = isinstance(part, EmbeddingTable | nn.Embedding) and len(part.weight) in (before, before + 1)
        reads = isinstance(part, ReadsSubgraph) and part.neighbourhood.reads_users
        if (table or reads) and id(part) not in known:
            what = "reads the nodes" if reads else "has a row for each"
            raise InputError(
                f"{name or type(part).__name__} {what} of {before} users and has no extend_users(users) for new ones; "
                f"fit again on a log with the new users"
            )
    for _, part in parts:
        if isinstance(part, ExtendsUsers):
            part.extend_users(users)


def grown(values: Tensor, rows: int, *, like: Tensor | None = None) -> Tensor:
    """The rows of ``values`` and further ones up to ``rows``: zeros, or copies of ``like``."""
    more = values.new_zeros(rows - len(values), *values.shape[1:])
    return torch.cat([values, more if like is None else like.expand_as(more)])


def set_weight(part: nn.Module, name: str, values: Tensor) -> None:
    """Replace a parameter by one of another size, trainable if it was."""
    setattr(part, name, nn.Parameter(values, requires_grad=part.get_parameter(name).requires_grad))
