"""Transfer network: maps a table row's last and retrained values to its new value, row by row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Attributes of a table that do not need its values.
_METADATA = {Tensor.dim, Tensor.size, Tensor.__len__, Tensor.is_floating_point} | {
    getattr(Tensor, name).__get__ for name in ("shape", "dtype", "device", "layout", "requires_grad", "ndim")
}


class TransferNet(nn.Module):
    """Combine the last period's row ``w`` and the retrained ``ŵ`` into ``w'``; each row separately.

    ``H⁰ = [w ; ŵ ; (w ⊙ ŵ) / (‖w‖ + ε)]``, ``H¹ = G(F¹ H⁰ + b)``, ``H² = G(F² H¹ + b)``,
    ``w' = G(flat(H²) W + b) W_o + b``, with ``G(x) = x σ(1.702 x)``. The filters mix the three rows, equally in every
    dimension; zero rows are allowed.

    Args:
        filters: rows of F¹ and F².
        hidden: width of the layer before the last.
        detach_dot: no gradient through the third row.
        residual: ``w' = ŵ + …`` with a last layer initialised to zero: untrained, it equals fine-tuning.

    Shapes: ``[R, width], [R, width] -> [R, width]``.

    Source: Zhang et al., How to Retrain Recommender System? A Sequential Meta-Learning Method, SIGIR 2020, section 4.1.
    Differs: filters have biases, as in the public code; ε, which it lacks; ``residual`` is ours.
    """

    def __init__(
        self,
        width: int,
        *,
        filters: tuple[int, int] = (10, 5),
        hidden: int = 512,
        detach_dot: bool = True,
        residual: bool = False,
    ) -> None:
        super().__init__()
        self.detach_dot, self.residual = detach_dot, residual
        self.first, self.second = nn.Linear(3, filters[0]), nn.Linear(*filters)
        self.full, self.out = nn.Linear(filters[1] * width, hidden), nn.Linear(hidden, width)
        if residual:
            nn.init.zeros_(self.out.weight)
            nn.init.zeros_(self.out.bias)

    def forward(self, old: Tensor, new: Tensor) -> Tensor:
        """The transferred rows."""
        dot = old * new / (torch.linalg.vector_norm(old, dim=1, keepdim=True) + 1e-8)
        stacked = torch.stack([old, new, dot.detach() if self.detach_dot else dot]).flatten(1)  # [3, R * width]
        mixed = _filtered(self.second, _filtered(self.first, stacked)).unflatten(1, old.shape)  # [n_2, R, width]
        made = self.out(_gelu(self.full(mixed.transpose(0, 1).flatten(1))))
        return new + made if self.residual else made


def _filtered(filters: nn.Linear, rows: Tensor) -> Tensor:
    """Mix rows by each filter, ``[rows, M] -> [filters, M]``: few long rows are faster than many short ones."""
    return _gelu(torch.addmm(filters.bias[:, None], filters.weight, rows))


def _gelu(x: Tensor) -> Tensor:
    return F.silu(1.702 * x) / 1.702


class TransferredTable(Tensor):
    """``f(old, new)`` as a drop-in for an embedding weight, computed lazily for the rows that are looked up.

    ``F.embedding`` transfers the distinct rows it needs; any other operation transfers the whole table once. ``rows``
    records the transferred rows.
    """

    net: nn.Module
    old: Tensor
    new: Tensor
    rows: list[Tensor | slice]
    whole: Tensor | None

    @staticmethod
    def __new__(cls, net: nn.Module, old: Tensor, new: Tensor) -> TransferredTable:
        table = old.detach().as_subclass(cls)
        table.net, table.old, table.new, table.rows, table.whole = net, old, new, [], None
        return table

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"TransferredTable(shape={tuple(self.old.shape)})"

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.embedding and isinstance(args[1], cls):
            return args[1].looked_up(args[0])
        if func in _METADATA:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **(kwargs or {}))
        plain = [a.dense() if isinstance(a, cls) else a for a in args]
        named = {name: a.dense() if isinstance(a, cls) else a for name, a in (kwargs or {}).items()}
        return func(*plain, **named)

    def looked_up(self, index: Tensor) -> Tensor:
        """Rows of the transferred table."""
        rows, place = torch.unique(index, return_inverse=True)
        self.rows.append(rows)
        return F.embedding(place, self.net(self.old.index_select(0, rows), self.new.index_select(0, rows)))

    def dense(self) -> Tensor:
        """The whole transferred table."""
        whole = self.net(self.old, self.new) if self.whole is None else self.whole
        if self.whole is None:
            self.whole = whole
            self.rows.append(slice(None))
        return whole
