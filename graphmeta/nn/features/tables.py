"""Items to vectors: one table of ids, and the attributes an item has.

A features module maps the item numbers of a batch ``n_id [I]`` to ``(x [I, F], candidates [C, D])``: what the
encoder reads, and the table that the head scores against.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from graphmeta.data.events import EventLog
from graphmeta.data.tables import Attribute
from graphmeta.errors import InputError
from graphmeta.sampling.session_batch import rows_like


class Table(nn.Module):
    """A table of vectors ``[rows, width]``, drawn from U(-1/√width, 1/√width).

    With ``bias``, each row has one number more, its last column, which begins at zero.

    Inside :func:`row_gradients` the rows it hands out are leaves of their own, so that a backward pass makes one
    dense gradient of the table (from the scores) and not a second one, mostly zero, from the look-up.
    """

    def __init__(self, rows: int, width: int, *, bias: bool = False) -> None:
        super().__init__()
        self.width, bound = width, 1 / math.sqrt(width + bias)
        self.weight = nn.Parameter(torch.empty(rows, width + bias).uniform_(-bound, bound))
        nn.init.zeros_(self.weight[:, width:])

    def forward(self, index: Tensor) -> Tensor:
        """Rows of the table: ``[I] -> [I, width]``."""
        taken = _TAKEN.get().get(id(self.weight))
        if taken is None or not torch.is_grad_enabled() or not self.weight.requires_grad:
            return F.embedding(index, self.weight)
        rows = self.weight.detach().index_select(0, index).requires_grad_()
        taken.append((index, rows))
        return rows

    def all_rows(self) -> Tensor:
        """All rows, as heads score against them: with the bias if there is one."""
        return self.weight


# Of each table whose rows are leaves of their own just now, by the id of its weight: what was looked up. One a thread.
_TAKEN: ContextVar[dict[int, list[tuple[Tensor, Tensor]]]] = ContextVar("taken", default={})  # noqa: B039


@contextmanager
def row_gradients(module: nn.Module) -> Iterator[None]:
    """Within it, call ``backward``; when it ends, the gradients of looked-up rows are added to their tables'."""
    weights = {id(part.weight): part.weight for part in module.modules() if isinstance(part, Table)}
    taken: dict[int, list[tuple[Tensor, Tensor]]] = {key: [] for key in weights}
    token = _TAKEN.set(taken)
    try:
        yield
        for key, weight in weights.items():
            _collect(weight, taken[key])
    finally:
        _TAKEN.reset(token)


@torch.no_grad()
def _collect(weight: nn.Parameter, taken: list[tuple[Tensor, Tensor]]) -> None:
    for index, rows in taken:
        if rows.grad is not None:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
            weight.grad.index_add_(0, index, rows.grad)


def table_names(module: nn.Module) -> frozenset[str]:
    """Names of the parameters that are tables: the adaptation keeps their changes low-rank."""
    return frozenset(f"{name}.weight" for name, part in module.named_modules() if isinstance(part, Table))


def item_table(features: nn.Module) -> Table:
    """The table of items within features: the first there is.

    Raises:
        InputError: features without one.
    """
    for part in features.modules():
        if isinstance(part, Table):
            return part
    raise InputError(f"{type(features).__name__} has no table of items")


class ItemFeatures(nn.Module):
    """An item is its row in a table; the same table is what heads score against.

    With ``bias``, each item has a number besides, its last column, which is added to all its scores (by a head
    made with ``bias=True``) and which the encoder does not see.

    Shapes: ``n_id [I] -> (x [I, width], candidates [num_items, width (+ 1)])``.
    """

    def __init__(self, num_items: int, width: int, *, bias: bool = False) -> None:
        super().__init__()
        self.item, self.width = Table(num_items, width, bias=bias), width

    def forward(self, n_id: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors of these items, and the table of all."""
        return self.item(n_id)[:, : self.width], self.item.all_rows()


class UntiedFeatures(nn.Module):
    """An item is a row in one table where it is read, and a row in another where it is scored.

    Args:
        scored: width of the second table; with ``bias``, its last column is a number besides, as in
            :class:`ItemFeatures`.

    Shapes: ``n_id [I] -> (x [I, width], candidates [num_items, scored (+ 1)])``.
    """

    def __init__(self, num_items: int, width: int, *, scored: int, bias: bool = False) -> None:
        super().__init__()
        self.item, self.output = Table(num_items, width), Table(num_items, scored, bias=bias)

    def forward(self, n_id: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors of these items, and the table that scores all."""
        return self.item(n_id), self.output.all_rows()


def field_name(attribute: str) -> str:
    """What the table of an attribute is called in a module: without dots, which modules do not take."""
    return f"field_{attribute}".replace(".", ":")


class AttributeFeatures(ItemFeatures):
    """An item is its row and, beside it, one vector made of its attributes: ``x = [e_id ; e_attributes]``.

    Shapes: ``n_id [I] -> (x [I, 2·width], candidates [num_items, width])``.
    Source: IF-SAN, CBML eqs 1–2 (attribute level); scoring uses the id vectors alone (eq 8).
    """

    def __init__(self, num_items: int, width: int, attributes: Mapping[str, Attribute]) -> None:
        super().__init__(num_items, width)
        self.fields = nn.ModuleDict({field_name(n): Table(a.size, width) for n, a in attributes.items()})
        codes = [torch.from_numpy(attribute.codes) for attribute in attributes.values()]
        self.codes: Tensor
        self.register_buffer("codes", torch.stack(codes, 1), persistent=False)
        self.fuse = FieldAttention(width) if len(attributes) > 1 else nn.Flatten(1)

    def forward(self, n_id: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors of these items and their attributes, and the table of all items."""
        codes = self.codes.index_select(0, n_id)
        vectors = [table(codes[:, at]) for at, table in enumerate(self.fields.values())]
        fused = self.fuse(torch.stack(vectors, 1))
        return torch.cat([self.item(n_id), fused], 1), self.item.all_rows()


class FieldAttention(nn.Module):
    """Mix an item's attribute vectors dimension by dimension: ``α = softmax_f(A W)``, ``e = Σ_f α_f ⊙ A_f``.

    Shapes: ``[I, fields, width] -> [I, width]``.
    Source: CBML eqs 1–2. Differs: the softmax runs over fields, so that they are weighed against each other;
    the printed bias, equal for all fields, would cancel in it and is left out.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = nn.Linear(width, width, bias=False)

    def forward(self, fields: Tensor) -> Tensor:
        """One vector an item."""
        alpha = torch.softmax(self.score(fields), 1)
        return (alpha * fields).sum(1)


def uniform_(module: nn.Module, width: int) -> None:
    """All weights from U(-1/√width, 1/√width), as SR-GNN starts."""
    bound = 1 / math.sqrt(width)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.uniform_(-bound, bound)


def scaled_normal_(module: nn.Module) -> None:
    """All tables from N(0, 1/width²), their biases zero, as Spotlight and Caser start."""
    for part in module.modules():
        if isinstance(part, Table):
            nn.init.normal_(part.weight[:, : part.width], std=1 / part.width)


class UserFeatures(nn.Module):
    """A user is a row in a table; one that training did not see, or nobody knows, is a vector of zeros.

    Shapes: ``user [S]`` (-1: unknown) ``-> [S, width]``.
    """

    def __init__(self, num_users: int, width: int) -> None:
        super().__init__()
        self.user = Table(num_users, width)
        self.seen: Tensor
        self.register_buffer("seen", torch.ones(num_users, dtype=torch.bool))

    def fit_statistics(self, log: EventLog) -> None:
        """Note which users have sessions to learn from, of two clicks at least."""
        if log.session_user is not None:
            self.seen.copy_(torch.from_numpy(np.isin(np.arange(len(self.seen)), log.session_user[log.lengths > 1])))

    def forward(self, user: Tensor) -> Tensor:
        """Vectors of these users."""
        known = (user >= 0) & self.seen.index_select(0, user.clamp(min=0))
        return self.user(user.clamp(min=0)) * known[:, None].to(self.user.weight.dtype)

    def of_samples(self, batch: HeteroData) -> Tensor:
        """Vectors of the samples' users ``[S, width]``; zeros if the log has no users."""
        size = batch["sample"].num_nodes
        user = batch["sample"].get("user")
        unknown = rows_like(torch.full((size,), -1, device=self.seen.device), batch["sample"].last)
        return self.forward(unknown if user is None else user)
