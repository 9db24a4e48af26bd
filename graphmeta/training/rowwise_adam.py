"""Adam with one second moment per row of an embedding table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim.adam import adam


class RowwiseAdam(torch.optim.Optimizer):
    """Adam (fused) whose parameter groups with ``rowwise=True`` hold embedding tables ``[rows, width]``.

    Row r of a table ``w`` with gradient ``g``, at its step t (from 1):

        m_rj ← β₁ m_rj + (1 − β₁) g_rj                      one first moment per entry
        v_r  ← β₂ v_r + (1 − β₂) · mean_j g_rj²             one second moment per row
        w_rj ← w_rj − lr · m_rj / (1 − β₁ᵗ) / (√(v_r / (1 − β₂ᵗ)) + ε)

    All entries of a row have the same step size; a table of width 1 is trained as by Adam. Gradients are dense: each
    step updates all rows, so a row that is not in the batch still moves by its decaying first moment, as in Adam, and t
    counts the steps of the whole table. Weight decay is an L2 term, ``g ← g + weight_decay · w``, before the moments.
    The state of a table has ``rows · (width + 1) + 1`` elements (Adam: ``2 · rows · width + 1``). A table without a
    gradient is left as it is. Other groups are trained by fused ``torch.optim.Adam``, with the same state and results.

    Args:
        params: parameters, or groups; ``rowwise`` is an option of a group, with ``fused=False`` (its step count stays
            on the CPU).

    Source: the second moment per row is that of row-wise Adagrad (Gupta et al., Training Highly Multiclass Classifiers,
    JMLR 2014); with Adam's first moment per entry it is the "partial row-wise Adam" of FBGEMM's embedding tables.
    Differs: FBGEMM updates only the rows of the batch, and decays their weights apart from the gradient.
    """

    def __init__(
        self,
        params: Any,
        *,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "rowwise": False, "fused": True}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Update all parameters that have a gradient; returns the closure's loss."""
        with torch.enable_grad():
            loss = None if closure is None else closure()
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            for weight in weights:
                if not self.state[weight]:
                    self.state[weight] = _rowwise_state(weight) if group["rowwise"] else _state(weight)
            if group["rowwise"]:
                for weight in weights:
                    _update_rows(weight, self.state[weight], group)
            elif weights:
                _update(weights, [self.state[weight] for weight in weights], group)
        return loss


def _state(weight: Tensor) -> dict[str, Tensor]:
    """Adam's state of a parameter; the fused kernel reads the step count on the parameter's device."""
    step = torch.zeros((), dtype=torch.float32, device=weight.device)
    return {"step": step, "exp_avg": torch.zeros_like(weight), "exp_avg_sq": torch.zeros_like(weight)}


def _rowwise_state(weight: Tensor) -> dict[str, Tensor]:
    """The state of a table: first moments ``[rows, width]``, second moments ``[rows]``."""
    rows = torch.zeros(len(weight), dtype=weight.dtype, device=weight.device)
    return {"step": torch.zeros(()), "exp_avg": torch.zeros_like(weight), "exp_avg_sq": rows}


def _update(weights: list[Tensor], states: list[dict[str, Tensor]], group: dict[str, Any]) -> None:
    """One step of fused Adam."""
    adam(
        weights,
        [weight.grad for weight in weights if weight.grad is not None],
        [state["exp_avg"] for state in states],
        [state["exp_avg_sq"] for state in states],
        [],
        [state["step"] for state in states],
        fused=True,
        amsgrad=False,
        beta1=group["betas"][0],
        beta2=group["betas"][1],
        lr=group["lr"],
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        maximize=False,
    )


def _update_rows(weight: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> None:
    """One step of a table."""
    assert weight.grad is not None
    (beta1, beta2), gradient = group["betas"], weight.grad
    if group["weight_decay"]:
        gradient = gradient.add(weight, alpha=group["weight_decay"])
    state["step"] += 1
    step = float(state["step"])
    mean_square = torch.linalg.vector_norm(gradient, dim=1).square_().div_(weight.shape[1])
    state["exp_avg"].lerp_(gradient, 1 - beta1)
    state["exp_avg_sq"].lerp_(mean_square, 1 - beta2)
    size = (state["exp_avg_sq"] / (1 - beta2**step)).sqrt_().add_(group["eps"]).reciprocal_()
    weight.addcmul_(state["exp_avg"], size.mul_(-group["lr"] / (1 - beta1**step)).unsqueeze(1))
