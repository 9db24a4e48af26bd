"""The inner loop: number and order of steps, clipping, proximal term and multi-step loss."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral
from typing import TypedDict

from graphmeta.errors import InputError


@dataclass(frozen=True)
class MultiStep:
    """The training loss is a weighted sum of the query losses after every step: ``Σ_k v_k L_query(θ_k)``, k = 1 … K.

    The weights v are uniform at first and shift linearly to the last step only, reached at training progress
    ``anneal_until``. Scores are always those after the last step.

    Args:
        anneal_until: a share of the training, above 0 and at most 1.

    Raises:
        InputError: a share outside this range.

    Source: MAML++ (Antoniou et al. 2019), multi-step loss optimisation.
    Differs: the released code keeps a small weight on earlier steps; here they reach zero.
    """

    anneal_until: float = 0.3

    def __post_init__(self) -> None:
        if not 0 < self.anneal_until <= 1:
            raise InputError(
                f"anneal_until={self.anneal_until!r} must be a share of the training, above 0 and at most 1"
            )

    def weights(self, steps: int, progress: float) -> tuple[float, ...]:
        """v, one weight per step with sum 1, at this training progress."""
        early = max(0.0, 1 - progress / self.anneal_until) / max(steps, 1)
        return (early,) * (steps - 1) + (1 - early * (steps - 1),) * (steps > 0)


@dataclass(frozen=True)
class OrderSchedule:
    """First order for the share ``first_order_until`` of the training, second order after it.

    Raises:
        InputError: a share that is not above 0 and below 1.

    Source: MAML++ (Antoniou et al. 2019), derivative-order annealing.
    """

    first_order_until: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.first_order_until < 1:
            raise InputError(
                f"first_order_until={self.first_order_until!r} must be a share of the training, above 0 and below 1"
            )

    def at(self, progress: float) -> int:
        """The order, 1 or 2, at this training progress."""
        return 1 if progress < self.first_order_until else 2


@dataclass(frozen=True)
class InnerLoop:
    """Options of the inner loop: ``θ_{k+1} = θ_k − α (clip(∇L_support(θ_k)) + λ (θ_k − θ_0))``; α: rate of the step.

    Args:
        steps: number of steps; 0 uses the start without steps.
        order: 2 differentiates through the steps, 1 treats each step's gradient as a constant; or a schedule.
        clip: the maximum norm of a task's support gradient, over all its adapted parameters; not clipped if not given.
            The proximal term is not clipped.
        proximal: λ of the inner loss ``L_support(θ) + λ/2 ‖θ − θ_0‖²``, where θ_0 is the task's own start.
        multi_step: train on the query losses after every step; only after the last one if not given.

    Raises:
        InputError: another order, a negative or fractional number of steps, or an invalid ``clip`` or ``proximal``.

    Source: MAML (Finn et al. 2017); order 1 is its first-order form; MAML++ (Antoniou et al. 2019) for the schedules;
    iMAML (Rajeswaran et al. 2019) and FedProx (Li et al. 2020) for the proximal term.
    Differs: iMAML solves the inner problem and differentiates implicitly; here gradient steps are unrolled.
    """

    steps: int = 1
    order: int | OrderSchedule = 1
    clip: float | None = None
    proximal: float = 0.0
    multi_step: MultiStep | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.order, OrderSchedule) and self.order not in (1, 2):
            raise InputError(f"order must be 1 or 2, not {self.order!r}")
        if not isinstance(self.steps, Integral) or self.steps < 0:
            raise InputError(f"steps must be a whole number, 0 or more, not {self.steps!r}")
        if self.clip is not None and not 0 < self.clip < math.inf:
            raise InputError(f"clip={self.clip!r} must be a finite norm above 0, or None for no bound")
        if not 0 <= self.proximal < math.inf:
            raise InputError(f"proximal={self.proximal!r} must be a finite number, 0 or more")

    def order_at(self, progress: float) -> int:
        """The order, 1 or 2, at this training progress."""
        return self.order.at(progress) if isinstance(self.order, OrderSchedule) else self.order

    def weights_at(self, progress: float) -> tuple[float, ...]:
        """The weights of the query losses after each step; empty if only the last step's loss is used."""
        weights = () if self.multi_step is None else self.multi_step.weights(self.steps, progress)
        return weights if any(weights[:-1]) else ()

    @property
    def peak_memory_progress(self) -> float:
        """The training progress at which a batch needs the most memory."""
        second_order = self.order.first_order_until if isinstance(self.order, OrderSchedule) else 0.0
        return second_order if self.multi_step is not None and second_order < self.multi_step.anneal_until else 1.0


class InnerLoopShorthand(TypedDict, total=False):
    """``steps`` and ``order`` of an :class:`InnerLoop`, as shorthand."""

    steps: int
    order: int | OrderSchedule
