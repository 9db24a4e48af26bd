"""Starts: the initial values of a task's weights before its first step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from torch import Tensor, nn
from torch_geometric.data import HeteroData

if TYPE_CHECKING:
    from graphmeta.adapt.stacked.engine import Weights
    from graphmeta.recommender import Encoded, Recommender


class Start(Protocol):
    """``start(recommender, observed, encoded)`` -> for each name the T tasks' weights ``[T, *shape]``.

    ``observed`` is the observed part of a task: its query samples without their targets. A parameter that is not
    returned starts from the shared weights.
    """

    def __call__(
        self, recommender: Recommender, observed: HeteroData, encoded: Encoded | None
    ) -> dict[str, Tensor]: ...

    def bind(self, recommender: Recommender) -> None:
        """Create the parameters that depend on the recommender's shapes; called once."""
        ...

    def initialised_names(self) -> list[str]:
        """Names of the parameters that do not start from the shared weights."""
        ...

    def on_adapted(self, recommender: Recommender, weights: Weights) -> None:
        """Called with the adapted weights of the tasks of the last call, ``[T, *shape]`` by name."""
        ...


class Shared(nn.Module):
    """Every task starts from the same shared weights. Source: MAML (Finn et al. 2017)."""

    def bind(self, recommender: Recommender) -> None:
        """No parameters to create."""

    def initialised_names(self) -> list[str]:
        """None."""
        return []

    def forward(self, recommender: Recommender, observed: HeteroData, encoded: Encoded | None) -> dict[str, Tensor]:
        """No task differs from the shared weights."""
        return {}

    def on_adapted(self, recommender: Recommender, weights: Weights) -> None:
        """No update."""
