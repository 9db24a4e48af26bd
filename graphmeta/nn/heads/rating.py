"""Rating prediction: a head with one output per sample, the rating of its target item, and the squared error.

The target item, ``batch["sample"].target``, is an input here; the rating to predict is ``batch["sample"].value``,
which no head reads.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from graphmeta.data.events import EventLog
from graphmeta.errors import InputError
from graphmeta.sampling.session_batch import real_samples


class Decision(nn.Module):
    """Rating = global mean + MLP of user and target item: ``μ + layers([f(u) ; g(e_i)])``.

    Args:
        readout: ``(states, batch) -> [S, D]``, the user vector u.
        layers: from the concatenation to one number, see :func:`decision_layers`.
        user, item: f and g, layers of each side; identity if not given.

    Shapes: states ``[E, ·]``, candidates ``[C, D']`` -> ``[S, 1]``.
    Source: MeLU eq 3. Differs: the training log's mean rating μ is added as a constant, so the layers learn deviations
    from it.
    """

    def __init__(
        self, readout: nn.Module, layers: nn.Module, *, user: nn.Module | None = None, item: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.readout, self.layers = readout, layers
        self.user, self.item = user or nn.Identity(), item or nn.Identity()
        self.mean: Tensor
        self.register_buffer("mean", torch.zeros(()))

    def fit_statistics(self, log: EventLog) -> None:
        """Store the mean rating of the training log."""
        if log.value is not None:
            self.mean.fill_(log.value.mean())

    def forward(self, states: Tensor, batch: HeteroData, candidates: Tensor) -> Tensor:
        """The predicted ratings."""
        user, item = self.user(self.readout(states, batch)), self.item(target_vectors(batch, candidates))
        return self.mean + self.layers(torch.cat([user, item], 1))


def decision_layers(width: int, hidden: Sequence[int]) -> nn.Sequential:
    """Linear layers with ReLU in between, ending in one output."""
    sizes, layers = [width, *hidden], nn.Sequential()
    for one, next_one in zip(sizes[:-1], sizes[1:], strict=True):
        layers.extend([nn.Linear(one, next_one), nn.ReLU()])
    return layers.append(nn.Linear(sizes[-1], 1))


def target_vectors(batch: HeteroData, candidates: Tensor) -> Tensor:
    """Vectors of the samples' target items, ``[S, D']``.

    Raises:
        InputError: a sample without a target item.
    """
    target = batch["sample"].get("target")
    if target is None or not batch.has_targets:
        raise InputError(
            "a rating is predicted for a target item, and a sample has none; pass Tasks whose queries have targets"
        )
    return F.embedding(target.clamp(min=0), candidates)


class SquaredError(nn.Module):
    """``(score − value)²`` of the target item.

    Shapes: returns one loss for each real sample, in order, ``[S]``.
    """

    def forward(self, head: nn.Module, states: Tensor, batch: HeteroData, candidates: Tensor) -> Tensor:
        """The losses."""
        value = batch["sample"].get("value")
        if value is None:
            raise InputError("there are no ratings to learn from; name the log's column of ratings (value=)")
        scores = real_samples(batch, head(states, batch, candidates)).squeeze(1)
        return (scores - real_samples(batch, value).to(scores.dtype)).square()
