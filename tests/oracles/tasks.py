"""A session as a task, its local steps, and what it is then asked (CBML eqs 16–18; MAML eq 1 and Algorithm 1)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tests.oracles.weights import ITEMS, Reads, Weights, cross_entropy

Sample = tuple[list[int], int]


def support_of(known: list[int], most: int = 10) -> list[Sample]:
    """(x_1 → x_2), (x_1 x_2 → x_3), …, the last ``most`` of them (papers §2.1)."""
    return [(known[:t], known[t]) for t in range(1, len(known))][-most:]


def no_start(w: Weights, known: list[int]) -> Weights:
    """The task begins with the shared weights."""
    return {}


@dataclass(frozen=True)
class Oracle:
    """A meta-learned recommender, one session after the other.

    Args:
        reads: the base, from clicks to S; predict: from S to what is multiplied with the items' vectors.
        local: names of what a task changes; lr: the rate, or names of the learned ones by parameter.
        start: what of it begins for each task with weights of its own.
    """

    reads: Reads
    predict: Callable[[Weights, Tensor], Tensor]
    local: Sequence[str]
    lr: float | dict[str, str]
    steps: int = 1
    order: int = 1
    start: Callable[[Weights, list[int]], Weights] = no_start

    def scores_by(self, w: Weights, clicks: list[int]) -> Tensor:
        """``score_i = h · e_i`` under these weights (eqs 8 and 15)."""
        h = self.predict(w, self.reads(w, clicks))
        return w[ITEMS] @ h

    def mean_loss(self, w: Weights, samples: list[Sample]) -> Tensor:
        """The mean cross-entropy of these samples."""
        return sum(cross_entropy(self.scores_by(w, clicks), target) for clicks, target in samples) / len(samples)

    def on_adapted(self, w: Weights, known: list[int]) -> Weights:
        """Eq 16, ``steps`` times: ``θ ← θ − β ∇_θ L_support(θ)``; order 1 takes each gradient as a constant.

        The start is computed from the shared weights, and no step is taken on those.
        """
        own = {**w, **self.start(w, known)}
        own |= {name: own[name].clone() for name in self.local}
        support = support_of(known)
        for number in range(self.steps if support else 0):
            slopes = torch.autograd.grad(
                self.mean_loss(own, support),
                [own[name] for name in self.local],
                create_graph=self.order == 2,
                retain_graph=True,
                allow_unused=True,
            )
            for name, slope in zip(self.local, slopes, strict=True):
                if slope is not None:
                    own[name] = own[name] - self.rate(w, name, number) * slope
        return own

    def rate(self, w: Weights, name: str, number: int) -> float | Tensor:
        """β of this parameter in this step."""
        return self.lr if isinstance(self.lr, float) else w[self.lr[name]][number]

    def scores(self, w: Weights, sessions: list[list[int]]) -> Tensor:
        """Scores of all items for each session's last click, after the steps on those before it."""
        return torch.stack([self.scores_by(self.on_adapted(w, known), known) for *known, _ in sessions])

    def losses(self, w: Weights, sessions: list[list[int]]) -> Tensor:
        """Eq 17's terms: the query's cross-entropy, a session each."""
        return losses_of(self.scores(w, sessions), sessions)


def losses_of(scores: Tensor, sessions: list[list[int]]) -> Tensor:
    """The cross-entropy of each session's last click."""
    return torch.stack([cross_entropy(row, session[-1]) for row, session in zip(scores, sessions, strict=True)])
