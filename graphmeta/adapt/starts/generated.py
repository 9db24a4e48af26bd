"""A generated start: a task's weight is computed from its context instead of starting from the shared weight."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch_geometric.data import HeteroData

from graphmeta.errors import InputError

if TYPE_CHECKING:
    from graphmeta.adapt.stacked.engine import Weights
    from graphmeta.recommender import Encoded, Recommender


class Generated(nn.Module):
    """One parameter starts from a function of the task's summary: ``θ_t = g(c_t)``.

    The summary ``c_t`` is the recommender's summary of the task, see :class:`~graphmeta.adapt.starts.gated.Gated`. The
    shared value of the parameter is not used, and need not have a gradient.

    Args:
        name: of the parameter.
        generator: ``[T, D'] -> [T, …]``, as many numbers as the parameter has.

    Source: MetaCF (Peng et al. 2021), eqs 9–10.
    """

    def __init__(self, name: str, generator: nn.Module) -> None:
        super().__init__()
        self.name, self.generator = name, generator

    def bind(self, recommender: Recommender) -> None:
        """Check that the parameter exists.

        Raises:
            InputError: it does not exist.
        """
        every = [name for name, _ in recommender.named_parameters()]
        if self.name not in every:
            raise InputError(f"no parameter is called {self.name!r}; there are: {', '.join(every)}")

    def initialised_names(self) -> list[str]:
        """The generated parameter."""
        return [self.name]

    def forward(self, recommender: Recommender, observed: HeteroData, encoded: Encoded | None) -> dict[str, Tensor]:
        """Its value for every task, ``[T, *shape]``."""
        made = self.generator(recommender.summary(observed, encoded))
        return {self.name: made.reshape(-1, *recommender.get_parameter(self.name).shape)}

    def on_adapted(self, recommender: Recommender, weights: Weights) -> None:
        """No update."""
