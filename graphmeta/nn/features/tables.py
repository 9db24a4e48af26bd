"""Item and user features: tables of vectors by id.

A features module maps the item numbers of a batch ``n_id [I]`` to ``(x [I, F], candidates [C, D])``: the encoder's
input, and the table that the head scores against.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from graphmeta.data.events import EventLog
from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError
from graphmeta.protocols import BiasedTable, EmbeddingTable
from graphmeta.sampling.session_batch import rows_like


class Table(nn.Module):
    """An embedding table ``[rows, width]``, initialised from U(-1/√width, 1/√width).

    With ``bias``, each row has one more number, its last column, initialised to zero.

    Inside :func:`row_gradients` looked-up rows are separate leaf tensors, so that a backward pass computes one dense
    gradient of the table (from the scores) instead of a second, mostly zero one from the look-up.
    """

    def __init__(self, rows: int, width: int, *, bias: bool = False) -> None:
        super().__init__()
        self.width, bound = width, 1 / math.sqrt(width + bias)
        self.weight = nn.Parameter(torch.empty(rows, width + bias).uniform_(-bound, bound))
        nn.init.zeros_(self.weight[:, width:])

    def forward(self, index: Tensor) -> Tensor:
        """Rows of the table: ``[I] -> [I, width]``."""
        return rows_of(self.weight, index)

    def all_rows(self) -> Tensor:
        """All rows, as heads score against them, including the bias."""
        return self.weight


def rows_of(weight: Tensor, index: Tensor) -> Tensor:
    """Rows of a matrix, ``[I] -> [I, D]``; separate leaves if it is the weight of a table in :func:`row_gradients`."""
    lookups = _LOOKUPS.get().get(id(weight))
    if lookups is None or not torch.is_grad_enabled() or not weight.requires_grad:
        return F.embedding(index, weight)
    rows = weight.detach().index_select(0, index).requires_grad_()
    lookups.append((index, rows))
    return rows


# Look-ups of the tables inside row_gradients, by the id of their weight; one dict per thread.
_LOOKUPS: ContextVar[dict[int, list[tuple[Tensor, Tensor]]]] = ContextVar("taken", default={})  # noqa: B039


def embedding_tables(module: nn.Module) -> list[EmbeddingTable]:
    """The embedding tables of a module."""
    return [part for part in module.modules() if isinstance(part, EmbeddingTable)]


@contextmanager
def row_gradients(module: nn.Module, tables: Sequence[EmbeddingTable] | None = None) -> Iterator[None]:
    """Within it, call ``backward``; on exit, the gradients of looked-up rows are added to those of their tables.

    Args:
        tables: the module's, if they are known (:func:`embedding_tables`).
    """
    weights = {id(part.weight): part.weight for part in (embedding_tables(module) if tables is None else tables)}
    lookups: dict[int, list[tuple[Tensor, Tensor]]] = {key: [] for key in weights}
    token = _LOOKUPS.set(lookups)
    try:
        yield
        for key, weight in weights.items():
            _collect(weight, lookups[key])
    finally:
        _LOOKUPS.reset(token)


@torch.no_grad()
def _collect(weight: nn.Parameter, lookups: list[tuple[Tensor, Tensor]]) -> None:
    for index, rows in lookups:
        if rows.grad is not None:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
            weight.grad.index_add_(0, index, rows.grad)


def table_names(module: nn.Module) -> frozenset[str]:
    """Names of the parameters that are tables; the adaptation stores their updates in low rank."""
    return frozenset(f"{name}.weight" for name, part in module.named_modules() if isinstance(part, EmbeddingTable))


def table_weights(module: nn.Module) -> list[Tensor]:
    """The weights of a module's embedding tables (:class:`~graphmeta.protocols.EmbeddingTable`, ``nn.Embedding``)."""
    return [part.weight for part in module.modules() if isinstance(part, EmbeddingTable | nn.Embedding)]


def item_table(features: nn.Module) -> nn.Module:
    """The item table of a features module: its first table, or ``nn.Embedding``.

    Raises:
        InputError: features without a table.
    """
    for part in features.modules():
        if isinstance(part, EmbeddingTable | nn.Embedding):
            return part
    raise InputError(
        f"{type(features).__name__} has no table of items (graphmeta.protocols.EmbeddingTable, or nn.Embedding); "
        f"keep their vectors in one"
    )


class ItemFeatures(nn.Module):
    """An item is a row of a table, which heads also score against.

    With ``bias``, the last column is an item bias, which a head with ``bias=True`` adds to the item's scores and the
    encoder does not read.

    Shapes: ``n_id [I] -> (x [I, width], candidates [num_items, width (+ 1)])``.
    """

    tied_items = True

    def __init__(self, num_items: int, width: int, *, bias: bool = False) -> None:
        super().__init__()
        self.item, self.width = Table(num_items, width, bias=bias), width

    def forward(self, n_id: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors of these items, and the table of all items."""
        return self.item(n_id)[:, : self.width], self.item.all_rows()


class UntiedFeatures(nn.Module):
    """Separate item tables for encoder input and scoring.

    Args:
        scored: width of the second table; with ``bias``, its last column is an item bias, as in :class:`ItemFeatures`.

    Shapes: ``n_id [I] -> (x [I, width], candidates [num_items, scored (+ 1)])``.
    """

    def __init__(self, num_items: int, width: int, *, scored: int, bias: bool = False) -> None:
        super().__init__()
        self.item, self.output = Table(num_items, width), Table(num_items, scored, bias=bias)

    def forward(self, n_id: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors of these items, and the scoring table of all items."""
        return self.item(n_id), self.output.all_rows()


def field_name(attribute: str) -> str:
    """Submodule name of an attribute's table: without dots, which module names do not allow."""
    return f"field_{attribute}".replace(".", ":")


def uniform_(module: nn.Module, width: int) -> None:
    """Initialise all weights from U(-1/√width, 1/√width), as SR-GNN does."""
    bound = 1 / math.sqrt(width)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.uniform_(-bound, bound)


def scaled_normal_(module: nn.Module) -> None:
    """Initialise all tables from N(0, 1/width²) and their biases to zero, as Spotlight and Caser do."""
    for part in module.modules():
        if isinstance(part, BiasedTable):
            nn.init.normal_(part.weight[:, : part.width], std=1 / part.width)


class UserFeatures(nn.Module):
    """A user is a row of a table; users that are unknown or not seen in training have zero vectors.

    Shapes: ``user [S]`` (-1: unknown) ``-> [S, width]``.
    """

    def __init__(self, num_users: int, width: int) -> None:
        super().__init__()
        self.user = Table(num_users, width)
        self.seen: Tensor
        self.register_buffer("seen", torch.ones(num_users, dtype=torch.bool))

    def fit_statistics(self, log: EventLog) -> None:
        """Mark the users with training sessions of at least two clicks."""
        if log.session_user is not None:
            self.seen.copy_(torch.from_numpy(np.isin(np.arange(len(self.seen)), log.session_user[log.lengths > 1])))

    def extend_users(self, users: EntityTable) -> None:
        """Add users, who have zero vectors until they are trained."""
        weight = self.user.weight.detach()
        self.user.weight = nn.Parameter(
            torch.cat([weight, weight.new_zeros(len(users) - len(weight), weight.shape[1])]),
            requires_grad=self.user.weight.requires_grad,
        )
        self.seen = torch.cat([self.seen, self.seen.new_zeros(len(users) - len(self.seen))])

    def known(self, user: Tensor) -> Tensor:
        """Whether each user is known and seen in training, ``[S]``."""
        return (user >= 0) & self.seen.index_select(0, user.clamp(min=0))

    def forward(self, user: Tensor) -> Tensor:
        """Vectors of these users."""
        return self.user(user.clamp(min=0)) * self.known(user)[:, None].to(self.user.weight.dtype)

    def of_samples(self, batch: HeteroData) -> Tensor:
        """Vectors of the samples' users ``[S, width]``; zeros if the log has no users."""
        size = batch["sample"].num_nodes
        user = batch["sample"].get("user")
        unknown = rows_like(torch.full((size,), -1, device=self.seen.device), batch["sample"].last)
        return self.forward(unknown if user is None else user)
