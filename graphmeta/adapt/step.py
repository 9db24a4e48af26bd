"""One step of a task's weights, given their gradients on the support."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

from graphmeta.errors import InputError

if TYPE_CHECKING:
    from graphmeta.recommender import Recommender


class Step(Protocol):
    """``rate(name, number)``: the learning rate of a parameter in a step (a number or ``shape``-like tensor)."""

    def rate(self, name: str, number: int) -> float | Tensor:
        """The rate of parameter ``name`` in step ``number`` (from 0)."""
        ...

    def bind(self, recommender: Recommender, names: list[str], tables: frozenset[str], steps: int) -> None:
        """Make the parameters that depend on the recommender's shapes; called once."""
        ...


def _rate(lr: float) -> float:
    if not 0 <= lr < math.inf:
        raise InputError(f"a rate of {lr} is no step; it must be a finite number, 0 or more")
    return lr


class Gradient(nn.Module):
    """Plain gradient descent: ``θ − β ∇``, the same β for every parameter and step.

    Source: MAML. Adam inside the loop is left out on purpose: its second derivative at zero is infinite.
    """

    def __init__(self, lr: float) -> None:
        super().__init__()
        self.lr = _rate(lr)

    def bind(self, recommender: Recommender, names: list[str], tables: frozenset[str], steps: int) -> None:
        """Nothing to make."""

    def rate(self, name: str, number: int) -> float:
        """β."""
        return self.lr


class LearnedRates(nn.Module):
    """A rate for each number of each parameter, learned with the shared weights: ``θ − α ⊙ ∇``.

    Args:
        lr: the initial rate everywhere.
        per_step: rates of their own for each step.

    Source: Meta-SGD (Li et al. 2017). Differs: an item table has one learned rate, which keeps its change low-rank.
    """

    def __init__(self, lr: float, *, per_step: bool = False) -> None:
        super().__init__()
        self.lr, self.per_step, self.rates = _rate(lr), per_step, nn.ParameterDict()

    def bind(self, recommender: Recommender, names: list[str], tables: frozenset[str], steps: int) -> None:
        """A tensor of rates ``[steps or 1, *shape]`` for each name."""
        for name in names:
            shape = () if name in tables else recommender.get_parameter(name).shape
            rates = torch.full((steps if self.per_step else 1, *shape), self.lr)
            self.rates[name.replace(".", "/")] = nn.Parameter(rates)

    def rate(self, name: str, number: int) -> Tensor:
        """α of this parameter in this step."""
        return self.rates[name.replace(".", "/")][number if self.per_step else 0]
