"""One step of a task's weights, given their gradients on the support."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from graphmeta.adapt.scope import Scope
from graphmeta.errors import InputError
from graphmeta.protocols.members import ReadsMembers

if TYPE_CHECKING:
    from graphmeta.recommender import Recommender


@runtime_checkable
class Step(Protocol, metaclass=ReadsMembers):
    """The learning rate of each parameter in each step: a number, or a tensor that broadcasts to the parameter."""

    def rate(self, name: str, step: int) -> float | Tensor:
        """The rate of parameter ``name`` in this step (from 0)."""
        ...

    def bind(self, recommender: Recommender, names: list[str], tables: frozenset[str], steps: int) -> None:
        """Create the parameters that depend on the recommender's shapes; called once."""
        ...


@runtime_checkable
class SerializableStep(Step, Protocol):
    """A step that can be stored, with the arguments it was built with."""

    def arguments(self) -> dict[str, Any]:
        """The arguments it was built with, by name; ``lr`` is one of them."""
        ...


@runtime_checkable
class RatesPerStep(Protocol, metaclass=ReadsMembers):
    """A step whose learned rates may be separate for each of a fixed number of steps."""

    per_step: bool


def _rate(lr: float) -> float:
    if not 0 <= lr < math.inf:
        raise InputError(f"the rate is {lr}; it must be a finite number, 0 or more")
    return lr


class Gradient(nn.Module):
    """Plain gradient descent, ``θ − lr ∇``: one inner learning rate for every parameter and step.

    Args:
        lr: the inner learning rate, a finite number of 0 or more.

    Raises:
        InputError: any other rate.

    Source: MAML. Adam is not offered for inner steps, because the derivative of its update is infinite where the
    gradient is 0.
    """

    def __init__(self, lr: float) -> None:
        super().__init__()
        self.lr = _rate(lr)

    def bind(self, recommender: Recommender, names: list[str], tables: frozenset[str], steps: int) -> None:
        """No parameters to create."""

    def rate(self, name: str, step: int) -> float:
        """The inner learning rate."""
        return self.lr

    def arguments(self) -> dict[str, Any]:
        """The rate."""
        return {"lr": self.lr}


class LearnedRates(nn.Module):
    """An element-wise learning rate for each parameter, learned with the shared weights: ``θ − rate ⊙ ∇``.

    Args:
        lr: the initial rate.
        per_step: separate rates for each step.

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

    def arguments(self) -> dict[str, Any]:
        """The initial rate, and whether rates are separate for each step."""
        return {"lr": self.lr, "per_step": self.per_step}

    def rate(self, name: str, step: int) -> Tensor:
        """The learned inner rates of this parameter in this step."""
        return _of_step(self.rates[name.replace(".", "/")], step, self.per_step)


class GroupRates(nn.Module):
    """One rate for each group of parameters and each step, learned in log space.

    ``θ − rate ∇``, ``rate = lr · exp(log_rate)``. ``log_rate`` is initialised to zero, so weight decay shrinks a rate
    towards ``lr``. A scalar rate for a matrix or table keeps its change low-rank.

    Args:
        lr: the initial rate of every group, above 0; or one for each group, ``{"head.item_bias": 100, "": 0.01}``.
        groups: the name prefixes of the groups (``("encoder", "head")``), as in
            :class:`~graphmeta.adapt.scope.Scope`; a parameter belongs to the longest matching prefix. If not given,
            the names in ``lr``; with one rate, each parameter is a group of its own.
        per_step: separate rates for each step.

    Raises:
        InputError: a rate that is not above 0; (from :meth:`bind`) a group without parameters, or a parameter in none.

    Source: MAML++ (Antoniou et al. 2019), per-layer per-step learning rates.
    Differs: learned in log space, so that a rate stays positive.
    """

    def __init__(
        self, lr: float | Mapping[str, float], *, groups: Sequence[str] | None = None, per_step: bool = True
    ) -> None:
        super().__init__()
        each = lr if isinstance(lr, Mapping) else {"": lr}
        if any(_rate(one) == 0 for one in each.values()):
            raise InputError("a rate learned in log space cannot start at 0; use a small one, such as 1e-3")
        groups = tuple(lr) if groups is None and isinstance(lr, Mapping) else groups
        self.lr = lr
        self.groups, self.per_step, self.rates = None if groups is None else tuple(groups), per_step, nn.ParameterDict()
        self.initial: Tensor
        self.register_buffer("initial", torch.tensor([float(one) for one in each.values()]).squeeze(0))
        self.group_of: dict[str, str] = {}
        self.at: dict[str, int | None] = {}  # the place of each group's rate in ``initial``; None if there is one rate

    def arguments(self) -> dict[str, Any]:
        """The initial rate, the groups, and whether rates are separate for each step."""
        return {"lr": self.lr, "groups": self.groups, "per_step": self.per_step}

    def extra_repr(self) -> str:
        """Groups, and whether rates are per step."""
        return f"groups={self.groups}, per_step={self.per_step}"

    def bind(self, recommender: Recommender, names: list[str], tables: frozenset[str], steps: int) -> None:
        """A parameter ``log_rate [steps or 1]`` for each group."""
        self.group_of = {name: name if self.groups is None else self._group(name, names) for name in names}
        used = set(self.group_of.values())
        several = list(self.lr) if isinstance(self.lr, Mapping) and len(self.lr) > 1 else None
        self.at = {group: None if several is None else several.index(group) for group in used}
        for group in self.groups or ():
            if group not in used and group:  # "" is for all others, of which there may be none
                raise InputError(f"no parameter is left for the group {group!r}; in scope are: {', '.join(names)}")
        for group in sorted(used):
            self.rates[_key(group)] = nn.Parameter(torch.zeros(steps if self.per_step else 1))

    def rate(self, name: str, step: int) -> Tensor:
        """The learned inner rate of this parameter's group in this step, one number.

        Raises:
            InputError: a step without a learned rate.
        """
        group = self.group_of[name]
        at = self.at[group]
        initial = self.initial if at is None else self.initial[at]
        return initial * _of_step(self.rates[_key(group)], step, self.per_step).exp()

    def _group(self, name: str, names: list[str]) -> str:
        """The longest matching group of the name."""
        found = [group for group in self.groups or () if Scope(group).holds(name)]
        if not found:
            raise InputError(
                f"{name} is in none of the groups {', '.join(self.groups or ())}; name one of its prefixes, or "
                f"leave groups out; in scope are: {', '.join(names)}"
            )
        return max(found, key=len)


def _key(group: str) -> str:
    """A valid torch parameter name for a group, also for the empty prefix."""
    return group.replace(".", "/") or "/"


def _of_step(rates: Tensor, step: int, per_step: bool) -> Tensor:
    """The rates of a step.

    Raises:
        InputError: a step without a learned rate.
    """
    if per_step and step >= len(rates):
        raise InputError(
            f"there are rates for {len(rates)} steps, not for {step + 1}; take no more steps, or learn rates that "
            f"all steps share (per_step=False)"
        )
    return rates[step if per_step else 0]
