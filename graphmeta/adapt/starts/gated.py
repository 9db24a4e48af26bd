"""A gated start: shared weights times a gate computed from the task's context."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor
from torch_geometric.data import HeteroData

from graphmeta.nn.conditioning.gate import Gates, Granularity

if TYPE_CHECKING:
    from graphmeta.adapt.scope import Scope
    from graphmeta.adapt.stacked.engine import Weights
    from graphmeta.recommender import Encoded, Recommender


class Gated(Gates):
    """Each task's weights are the shared ones times a gate computed from its summary: ``θ_t = θ · σ(FC(c_t))``.

    The summary ``c_t`` is the mean input of the head's last layer (in CBML the session vector and its cluster) over the
    task's query samples, without their targets (:meth:`~graphmeta.recommender.Recommender.summary`).

    Args:
        scope: which parameters are gated.
        width: size of the summary.
        part: the entries of the summary that the gate reads; all if not given.
        granularity, bias: see :class:`~graphmeta.nn.conditioning.gate.Gates`.

    Source: CBML eqs 12–14; MetaHIN's task-wise adaptation is the same block.
    Differs: the paper leaves the gate's width open; ``Full()`` has one value for each weight and bias.
    """

    def __init__(
        self,
        scope: Scope,
        width: int,
        *,
        part: slice = slice(None),
        granularity: Granularity | None = None,
        bias: float = 2.0,
    ) -> None:
        super().__init__(len(range(width)[part]), granularity=granularity, bias=bias)
        self.scope, self.part = scope, part

    def bind(self, recommender: Recommender) -> None:
        """One gate for each parameter of the scope."""
        for name in self.scope.names(recommender):
            self.add(name, recommender.get_parameter(name))

    def initialised_names(self) -> list[str]:
        """The gated parameters."""
        return self.names()

    def on_adapted(self, recommender: Recommender, weights: Weights) -> None:
        """No update."""

    def forward(self, recommender: Recommender, observed: HeteroData, encoded: Encoded | None) -> dict[str, Tensor]:
        """The gated weights ``[T, *shape]`` of every parameter of the scope."""
        return self.gated_by(recommender, recommender.summary(observed, encoded))

    def gated_by(self, recommender: Recommender, summary: Tensor) -> dict[str, Tensor]:
        """The same for given summaries ``[T, width]``."""
        seen = summary[:, self.part]
        return {name: self.of(name, recommender.get_parameter(name), seen) for name in self.names()}
