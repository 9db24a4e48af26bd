"""Co-adaptation: a task adapts once along each of several paths, and takes a mixture of where they lead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from graphmeta.adapt.adaptation import Adaptation
from graphmeta.adapt.context import AdaptationContext
from graphmeta.adapt.inner import InnerLoop
from graphmeta.adapt.scope import Scope
from graphmeta.adapt.stacked.engine import Weight, Weights
from graphmeta.adapt.starts.gated import Gated
from graphmeta.adapt.step import Step
from graphmeta.recommender import Encoded, Recommender, Summary, task_mean
from graphmeta.sampling.session_batch import without_targets
from graphmeta.sampling.tasks import TaskBatch


class CoAdaptation(Adaptation):
    """Two adaptations, one after the other, along each path p; then one weight from all paths.

    With ``mix`` set to p alone: ``semantic`` moves what makes p's context; the start gates the scope's weights by
    the context that comes out, and steps follow. With ``ℓ_p`` the support loss at the end of path p,

    ``a = softmax(−ℓ)``, ``θ = Σ_p a_p θ^p``, ``mix = a``, and each path's own parameters as its own walk left them.

    The paths are walked one after the other, each for all tasks at once. Only the support decides on a: the query is
    read for its context, never for its target. At order 1, a is a constant; at order 2 it is differentiated too.
    With 0 steps, as for a task without support, ``semantic`` takes none either, and the paths weigh alike: that is the
    start alone.

    Args:
        scope, step, start, inner: as for every adaptation; start gates by context.
        semantic: the first adaptation; its scope holds the paths' own parameters.
        paths: prefix of each path's own parameters.
        mix: the buffer ``[P]`` that says how much of each path's context is seen.

    Source: MetaHIN (Lu et al. 2020): semantic-wise and task-wise adaptation. Differs: its public code weighs the paths
    by their loss on the query, so that labels reach the prediction.
    """

    def __init__(
        self,
        scope: Scope,
        *,
        step: Step,
        start: Gated,
        semantic: Adaptation,
        paths: Sequence[str],
        mix: str,
        inner: InnerLoop | None = None,
    ) -> None:
        super().__init__(scope, step=step, start=start, inner=inner)
        self.gate, self.semantic, self.paths, self.mix = start, semantic, list(paths), mix
        self.own: list[list[str]] = []

    def bind(self, recommender: Recommender) -> None:
        """Both adaptations' names and parameters, and which are whose path's."""
        super().bind(recommender)
        self.semantic.bind(recommender)
        self.own = [Scope(path).names(recommender) for path in self.paths]

    def memory(self, tasks: int, support: int) -> int:
        """Bytes: those of both adaptations, for each path."""
        return len(self.paths) * (super().memory(tasks, support) + self.semantic.memory(tasks, support))

    @property
    def _moves_states(self) -> bool:
        return super()._moves_states or self.semantic._moves_states

    def _begin(self, recommender: Recommender, tasks: TaskBatch, encoded: Encoded | None) -> dict[str, Tensor]:
        return {}  # each path has a start of its own

    def _descend(self, problem: AdaptationContext, begin: Mapping[str, Weight]) -> Weights:
        if self.steps == 0:  # nor is anything else learned from the support
            problem = replace(problem, support=None, seen=None)
        mix = problem.recommender.get_buffer(self.mix)
        choices = torch.eye(len(self.paths), dtype=mix.dtype, device=mix.device)
        walks = [self._along(problem, problem.each(choice)) for choice in choices]
        share = torch.softmax(-torch.stack([self._loss(problem, walk) for walk in walks], -1), -1)
        mixed = [name for name in self.names if name in walks[0]]
        fused: Weights = {name: _weighed([problem.written(walk[name]) for walk in walks], share) for name in mixed}
        for walk, names in zip(walks, self.own, strict=True):
            fused |= {name: walk[name] for name in names if name in walk}
        return fused | {self.mix: share}

    def _along(self, problem: AdaptationContext, choice: Tensor) -> Weights:
        """The weights at the end of one path."""
        weights = self.semantic._descend(problem, {self.mix: choice})
        context = replace(problem, query=without_targets(problem.query)).evaluate_query(weights, Summary())
        gated = self.gate.under(problem.recommender, context)
        alone = not problem.together
        return super()._descend(problem, weights | {n: w[0] if alone else w for n, w in gated.items()})

    def _loss(self, problem: AdaptationContext, weights: Weights) -> Tensor:
        """The mean support loss of each task ``[T]`` (of one alone: a number); zero without support."""
        if problem.support is None:
            return problem.each(problem.recommender.get_buffer(self.mix).new_zeros(()))
        with torch.set_grad_enabled(self._second(problem.progress)):
            asked = replace(problem, query=problem.support, encoded=problem.seen)
            losses = task_mean(problem.support, asked.evaluate_query(weights, problem.loss))
        return losses if problem.together else losses[0]


def _weighed(weights: list[Weight], share: Tensor) -> Tensor:
    """``Σ_p a_p w_p``: weights ``[T, *shape]`` and shares ``[T, P]``, or without the T."""
    stacked = torch.stack([weight for weight in weights if isinstance(weight, Tensor)])
    by_path = share.movedim(-1, 0)
    return (by_path.reshape(*by_path.shape, *(1,) * (stacked.dim() - by_path.dim())) * stacked).sum(0)
