"""Co-adaptation: a task adapts along each of several meta-paths, and mixes the resulting weights."""

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
from graphmeta.adapt.support import SupportSource
from graphmeta.errors import InputError
from graphmeta.recommender import Encoded, Recommender, Summary, task_mean
from graphmeta.sampling.session_batch import without_targets
from graphmeta.sampling.tasks import TaskBatch


class CoAdaptation(Adaptation):
    """Two successive adaptations along each path p, then one set of weights mixed from all paths.

    With ``mix`` set to p alone: ``semantic`` adapts the parameters of p's context; the start gates the scope's weights
    by the resulting context, and inner steps follow. With ``ℓ_p`` the support loss at the end of path p,

    ``a = softmax(−ℓ)``, ``θ = Σ_p a_p θ^p``, ``mix = a``, and each path's own parameters as adapted along it.

    A task adapts once per path: first the path's context, then the gated scope. The paths are processed in turn, each
    for all tasks at once. Only the support determines a: the query is read for its context, never for its target. At
    order 1, a is a constant; at order 2 it is differentiated too. With 0 steps, or for a task without support,
    ``semantic`` takes no step either and all paths have the same weight.

    Args:
        scope, step, start, inner: as for every adaptation; start gates by context.
        semantic: the first adaptation; its scope is the paths' own parameters.
        paths: prefix of each path's own parameters.
        mix: name of a buffer ``[P]``: the weight of each path's context; a one-hot vector while a path is adapted.

    Source: MetaHIN (Lu et al. 2020): semantic-wise and task-wise adaptation. Differs: its public code weights the paths
    by their query loss, which leaks labels into the prediction.
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
        support: SupportSource | None = None,
    ) -> None:
        if inner is not None and inner.multi_step is not None:
            raise InputError("co-adaptation mixes paths after the last step and has no multi-step loss; leave it out")
        super().__init__(scope, step=step, start=start, inner=inner, support=support)
        self.gate, self.semantic, self.paths, self.mix = start, semantic, list(paths), mix
        self.own: list[list[str]] = []

    def bind(self, recommender: Recommender) -> None:
        """Resolve the names and parameters of both adaptations and of each path."""
        super().bind(recommender)
        self.semantic.bind(recommender)
        self.changes_states |= self.semantic.changes_states
        self.own = [Scope(path).names(recommender) for path in self.paths]

    def memory(self, tasks: int, support: int) -> int:
        """Bytes: those of both adaptations, for each path."""
        return len(self.paths) * (super().memory(tasks, support) + self.semantic.memory(tasks, support))

    def _begin(self, recommender: Recommender, tasks: TaskBatch, encoded: Encoded | None) -> dict[str, Tensor]:
        return {}  # each path has a start of its own

    def _descend(self, context: AdaptationContext, begin: Mapping[str, Weight]) -> Weights:
        if self.steps == 0:  # the support is not used at all
            context = replace(context, support=None, support_encoded=None)
        mix = context.recommender.get_buffer(self.mix)
        choices = torch.eye(len(self.paths), dtype=mix.dtype, device=mix.device)
        by_path = [self._adapt_on_path(context, context.per_task(choice)) for choice in choices]
        path_weights = torch.softmax(-torch.stack([self._loss(context, adapted) for adapted in by_path], -1), -1)
        mixed = [name for name in self.names if name in by_path[0]]
        fused: Weights = {
            name: _weighted([context.as_dense(adapted[name]) for adapted in by_path], path_weights) for name in mixed
        }
        for adapted, names in zip(by_path, self.own, strict=True):
            fused |= {name: adapted[name] for name in names if name in adapted}
        return fused | {self.mix: path_weights}

    def _adapt_on_path(self, context: AdaptationContext, choice: Tensor) -> Weights:
        """The weights at the end of one path."""
        weights = self.semantic._descend(context, {self.mix: choice})
        summary = replace(context, query=without_targets(context.query)).evaluate_query(weights, Summary())
        gated = self.gate.gated_by(context.recommender, summary)
        single_task = not context.stacked
        return super()._descend(context, weights | {n: w[0] if single_task else w for n, w in gated.items()})

    def _loss(self, context: AdaptationContext, weights: Weights) -> Tensor:
        """The mean support loss of each task ``[T]`` (a scalar for a single task); zero without support."""
        if context.support is None:
            return context.per_task(context.recommender.get_buffer(self.mix).new_zeros(()))
        with torch.set_grad_enabled(self._second_order(context.progress)):
            on_support = replace(context, query=context.support, query_encoded=context.support_encoded)
            losses = task_mean(context.support, on_support.evaluate_query(weights, context.loss))
        return losses if context.stacked else losses[0]


def _weighted(weights: list[Weight], path_weights: Tensor) -> Tensor:
    """``Σ_p a_p w_p``: weights ``[T, *shape]`` and ``path_weights [T, P]``, or without the T."""
    stacked = torch.stack([weight for weight in weights if isinstance(weight, Tensor)])
    by_path = path_weights.movedim(-1, 0)
    return (by_path.reshape(*by_path.shape, *(1,) * (stacked.dim() - by_path.dim())) * stacked).sum(0)
