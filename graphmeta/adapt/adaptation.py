"""Adaptation: from shared weights and a task's support to task-specific weights, for all tasks at once.

An adaptation has a scope (the adapted parameters), a start (their initial values) and a step (their updates). The T
tasks of a batch take inner steps together (:mod:`graphmeta.adapt.stacked`): an adapted parameter is one tensor
``[T, *shape]``, changes of linear layers and of tables in scope are kept low-rank, parts that no adapted weight
influences are computed once for all tasks. The per-task loop computes the same result one task at a time with ordinary
tensors. It is the reference and the fallback: for all batches if a module uses an operation that the stacked engine
does not support, for one batch if its rows mix tasks. Both call a twin of the recommender
(:mod:`graphmeta.adapt.twin`) and only read the recommender itself, so concurrent threads may call it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from graphmeta.adapt.bias_step import after_bias_step, has_closed_form
from graphmeta.adapt.clipping import clipped
from graphmeta.adapt.context import AdaptationContext, Support
from graphmeta.adapt.descent import Update, differentiable_parts, gradients_of, leaf, updated
from graphmeta.adapt.fallback import Fallback, failure_of
from graphmeta.adapt.inner import InnerLoop, InnerLoopShorthand, OrderSchedule
from graphmeta.adapt.scope import Scope
from graphmeta.adapt.stacked.engine import Weight, Weights
from graphmeta.adapt.stacked.table_state import TableState
from graphmeta.adapt.stacked.task_matrix import MatrixState
from graphmeta.adapt.starts.start import Shared, Start
from graphmeta.adapt.step import Step
from graphmeta.adapt.support import SessionSupport, SupportSource
from graphmeta.adapt.twin import Snapshot
from graphmeta.errors import InputError
from graphmeta.nn.features.tables import table_names
from graphmeta.recommender import Encoded, Recommender
from graphmeta.sampling.session_batch import without_targets
from graphmeta.sampling.task_layout import split_tasks
from graphmeta.sampling.tasks import TaskBatch

if TYPE_CHECKING:
    from graphmeta.adapt.budget import Activations


class Adaptation(nn.Module):
    """Which weights a task adapts, from which values and by which steps on its support.

    ``adaptation.run(recommender, tasks, loss)`` adapts each task and evaluates its query.

    Args:
        scope: the adapted parameters.
        step: their update rule, see :mod:`graphmeta.adapt.step`.
        start: their initial values, see :mod:`graphmeta.adapt.starts.start`; the shared weights if not given.
        inner: number and order of steps, clipping, proximal term and training of the inner loop, see
            :class:`~graphmeta.adapt.inner.InnerLoop`; alternatively, pass only ``steps`` and ``order``.
        meta_trained: whether training minimises the query loss after the steps; if not, training ignores the
            adaptation, and steps are taken at inference only (fine-tuning).
        support: where the support comes from: :class:`~graphmeta.adapt.support.SessionSupport` (the session's own
            clicks, if not given) or :class:`~graphmeta.adapt.support.UserSupport` (the user's earlier sessions).
        stacked: all tasks at once; False runs the per-task loop.

    Raises:
        InputError: ``steps`` or ``order`` beside ``inner``; (from :meth:`bind`) a scope without a parameter to adapt.

    Source: MAML (Finn et al. 2017); order 1 is its first-order form.
    """

    shared_with_twins = ("fallback", "activations")  # attributes that per-call copies share, see graphmeta.adapt.twin

    def __init__(
        self,
        scope: Scope,
        *,
        step: Step,
        start: Start | None = None,
        inner: InnerLoop | None = None,
        support: SupportSource | None = None,
        meta_trained: bool = True,
        stacked: bool = True,
        **loop: Unpack[InnerLoopShorthand],
    ) -> None:
        super().__init__()
        if inner is not None and loop:
            raise InputError(f"{' and '.join(loop)} belong to the inner loop; pass them there: InnerLoop(steps=…)")
        self.scope, self.step, self.start = scope, step, Shared() if start is None else start
        self.inner, self.meta_trained, self.stacked = (
            InnerLoop(**loop) if inner is None else inner,
            meta_trained,
            stacked,
        )
        self.support: SupportSource = SessionSupport() if support is None else support
        self._task_chunk: int | None = None
        self.sizes = 0, 0  # adapted parameters outside tables, rows of tables in scope
        self.names: list[str] = []
        self.frozen: list[str] = []
        self.fallback = Fallback()
        self.activations: dict[tuple[bool, ...], Activations] = {}  # by mode
        self.tables: frozenset[str] = frozenset()
        self.changes_states = True  # whether encoder states differ by task: something outside the head is adapted

    @property
    def task_chunk(self) -> int | None:
        """Tasks to adapt at a time; if None, as many as :func:`~graphmeta.adapt.budget.chunks` allows. It may be set.

        Raises:
            InputError: (when set) a number below 1.
        """
        return self._task_chunk

    @task_chunk.setter
    def task_chunk(self, tasks: int | None) -> None:
        if tasks is not None and tasks < 1:
            raise InputError(f"task_chunk must be at least 1, not {tasks!r}")
        self._task_chunk = tasks

    @property
    def steps(self) -> int:
        """Number of inner steps; a trained adaptation may be set to another number."""
        return int(self.inner.steps)

    @steps.setter
    def steps(self, steps: int) -> None:
        self.inner = replace(self.inner, steps=steps)

    @property
    def order(self) -> int:
        """The order of the steps, 1 or 2; for a schedule, its final order. It may be set."""
        return self.inner.order_at(1.0)

    @order.setter
    def order(self, order: int | OrderSchedule) -> None:
        self.inner = replace(self.inner, order=order)

    def extra_repr(self) -> str:
        """Scope, steps, order and non-default options."""
        plain = self.inner == InnerLoop(self.inner.steps, self.order)
        more = "" if plain else f", {self.inner}"
        frozen = f", frozen={self.frozen}" if self.frozen else ""
        shown = f"scope={self.scope.prefixes}, steps={self.steps}, order={self.order}, meta_trained={self.meta_trained}"
        return f"{shown}{more}{frozen}"

    def bind(self, recommender: Recommender) -> None:
        """Resolve the names in scope and create the parameters that depend on their shapes; called once.

        Frozen parameters in scope (``requires_grad`` is off) are not adapted and are listed in ``frozen``.

        Raises:
            InputError: the scope selects no parameter, or only frozen ones.
        """
        names = self.scope.names(recommender)
        lazy = [name for name in names if is_lazy(recommender.get_parameter(name))]
        if lazy:
            raise InputError(f"{lazy[0]} has no shape yet; run the recommender on one batch before it is adapted")
        self.start.bind(recommender)
        made = set(self.start.initialised_names())  # these do not start from the shared values
        self.names = [name for name in names if name in made or recommender.get_parameter(name).requires_grad]
        self.frozen = [name for name in names if name not in self.names]
        if not self.names:
            raise InputError(f"all parameters in the scope {self.scope.prefixes} are frozen: {', '.join(names)}")
        self.changes_states = not recommender.head_names() >= {*self.names, *made}
        self.tables = table_names(recommender) & set(self.names)
        parameters = [recommender.get_parameter(name).numel() for name in self.names if name not in self.tables]
        self.sizes = sum(parameters), sum(len(recommender.get_parameter(name)) for name in self.tables)
        self.step.bind(recommender, self.names, self.tables, self.steps)
        self.support.bind(recommender)

    def memory(self, tasks: int, support: int) -> int:
        """Upper bound of the memory of task-specific weights, in bytes (4 per parameter).

        ``tasks · ((copies + 1) · adapted parameters + changes · rows of tables in scope)``, with one copy per step in
        second order, which stores all steps, and one in first order. A table has ``k · support + 1`` changes per row
        after k steps (1: one rescaling per row, where scores are cosines), and in second order those of all steps.
        """
        parameters, rows = self.sizes
        copies = self.steps if self.order == 2 else 1
        changes = [step * support + 1 for step in range(1, self.steps + 1)][-copies:]
        return 4 * tasks * ((copies + 1) * parameters + sum(changes) * rows)

    def run(
        self,
        recommender: Recommender,
        tasks: TaskBatch,
        loss: nn.Module,
        *,
        objective: nn.Module | None = None,
        score: bool = False,
        progress: float = 1.0,
    ) -> Tensor:
        """Losses ``[S]`` (or with ``score`` the scores ``[S, C]``) of the real query samples, after adaptation.

        Args:
            tasks: with :attr:`~graphmeta.sampling.tasks.TaskBatch.shared` only where :meth:`shares_support`.
            loss: the loss that the steps minimise.
            objective: that of the query samples, ``loss`` if not given.
            progress: the completed share of the training, for the schedules of the inner loop; scores use 1.

        Raises:
            DivergedError: a support loss that is not finite; names task and step.
        """
        objective, progress = (None, 1.0) if score else (objective or loss, progress)
        if tasks.shared is not None:
            second_order = self._second_order(progress)
            return after_bias_step(self, recommender, tasks, second_order=second_order, score=score)
        mode = self.mode(recommender, score, progress)
        if self.stacked and mode not in self.fallback.unsupported:
            before = Snapshot(recommender, self.fallback.written_buffers if recommender.training else None)
            try:
                outputs = self._run_stacked(recommender, tasks, loss, objective, progress)
                self.fallback.record_success(mode, before.written_buffers())
                return outputs
            except (InputError, MemoryError, torch.OutOfMemoryError):
                raise
            except Exception as error:
                failure = failure_of(error)
            before.restore()
            # Outside of the handler, so that an error in the loop is not chained to the stacked engine's.
            outputs = self._run_per_task(recommender, tasks, loss, objective, progress)
            self.fallback.record_fallback(mode, failure)
            return outputs
        return self._run_per_task(recommender, tasks, loss, objective, progress)

    @property
    def reads_support(self) -> bool:
        """Whether anything depends on the support: with no step, a start reads the query alone."""
        return self.steps > 0

    def shares_support(self, recommender: Recommender, loss: nn.Module, objective: nn.Module | None) -> bool:
        """Whether :meth:`run` takes tasks that share support samples, see :mod:`graphmeta.adapt.bias_step`.

        Args:
            loss, objective: as for :meth:`run`.
        """
        return self.stacked and has_closed_form(self, recommender, loss, objective)

    def mode(self, recommender: Recommender, score: bool, progress: float = 1.0) -> tuple[bool, ...]:
        """The key for fallbacks and memory: training mode, second order, scoring."""
        return recommender.training, self._second_order(progress), score

    @property
    def fell_back(self) -> bool:
        """Whether the per-task loop is used because the stacked engine refused the recommender in some mode."""
        return bool(self.fallback.unsupported)

    def adapted(self, recommender: Recommender, tasks: TaskBatch, loss: nn.Module) -> Weights:
        """Every task's weights after its steps: ``[T, *shape]`` by name, a table as :class:`TableState`."""
        context = self._context(recommender, tasks, loss, stacked=True)
        try:
            weights = self._descend(context, self._begin(recommender, tasks, context.query_encoded))
            context.run_checks()
            return {name: context.as_dense(weight) for name, weight in weights.items()}
        finally:
            context.release()

    def _run_stacked(
        self, recommender: Recommender, tasks: TaskBatch, loss: nn.Module, objective: nn.Module | None, progress: float
    ) -> Tensor:
        single_task = tasks.num_tasks == 1 and not self.tables  # a table is better kept low-rank
        context = self._context(recommender, tasks, loss, stacked=not single_task, progress=progress)
        begin = self._begin(recommender, tasks, context.query_encoded)
        if not single_task:
            try:
                trajectory = self._trajectory(context, begin)
                outputs = self._weighted(context, trajectory, objective)
                context.run_checks()
            finally:
                context.release()
            self.start.on_adapted(recommender, trajectory[-1])
            return outputs
        trajectory = self._trajectory(context, {name: weight[0] for name, weight in begin.items()})
        return self._outputs(recommender, [context], [trajectory], list(begin), objective)

    def _run_per_task(
        self, recommender: Recommender, tasks: TaskBatch, loss: nn.Module, objective: nn.Module | None, progress: float
    ) -> Tensor:
        begin = self._begin(recommender, tasks, None)
        supports = [None] * tasks.num_tasks if tasks.support is None else split_tasks(tasks.support)
        contexts, trajectories = [], []
        for t, (support, query) in enumerate(zip(supports, split_tasks(tasks.query), strict=True)):
            context = self._context(
                recommender, TaskBatch(support, query), loss, stacked=False, task_index=t, progress=progress
            )
            contexts.append(context)
            trajectories.append(self._trajectory(context, {name: weight[t] for name, weight in begin.items()}))
        return self._outputs(recommender, contexts, trajectories, list(begin), objective)

    def _outputs(
        self,
        recommender: Recommender,
        contexts: list[AdaptationContext],
        trajectories: list[list[dict[str, Any]]],  # plain tensors [*shape]: one list per task
        begun: list[str],
        objective: nn.Module | None,
    ) -> Tensor:
        """The outputs of tasks run one by one, after the start is notified of their adapted weights."""
        adapted = {name: torch.stack([trajectory[-1][name] for trajectory in trajectories]) for name in begun}
        for context in contexts:
            context.run_checks()
        self.start.on_adapted(recommender, {**adapted})  # before the outputs, whose gradients it may use
        for t, trajectory in enumerate(trajectories):
            trajectory[-1] |= {name: weight[t] for name, weight in adapted.items()}
        return torch.cat(
            [self._weighted(c, trajectory, objective) for c, trajectory in zip(contexts, trajectories, strict=True)]
        )

    def _trajectory(self, context: AdaptationContext, begin: Mapping[str, Weight]) -> list[Weights]:
        """The weights after each step with a query loss, see :class:`~graphmeta.adapt.inner.MultiStep`."""
        if not self.inner.weights_at(context.progress):
            return [self._descend(context, begin)]
        return list(self._every_step(context, begin))[-self.steps :]

    def _weighted(self, context: AdaptationContext, trajectory: list[Weights], objective: nn.Module | None) -> Tensor:
        """The outputs after the last step, or the weighted sum over all steps."""
        if len(trajectory) == 1:
            return context.evaluate_query(trajectory[0], objective)
        loss_weights = self.inner.weights_at(context.progress)
        each = [
            loss_weight * context.evaluate_query(weights, objective)
            for loss_weight, weights in zip(loss_weights, trajectory, strict=True)
        ]
        return torch.stack(each).sum(0)

    def _begin(self, recommender: Recommender, tasks: TaskBatch, encoded: Encoded | None) -> dict[str, Tensor]:
        return self.start(recommender, without_targets(tasks.query), encoded)

    def _context(
        self,
        recommender: Recommender,
        tasks: TaskBatch,
        loss: nn.Module,
        *,
        stacked: bool,
        task_index: int = 0,
        progress: float = 1.0,
    ) -> AdaptationContext:
        """The adaptation context, with tasks encoded once if only the head is adapted."""
        query_encoded, support_encoded, second_order = None, None, self._second_order(progress)
        if not self.changes_states:
            query_encoded = recommender.encode(tasks.query)
            if tasks.support is not None and self.steps:
                with torch.set_grad_enabled(second_order):
                    states, candidates = recommender.encode(tasks.support)
                # The table is a parameter: in first order its gradient is not needed here.
                support_encoded = (states, candidates if second_order else candidates.detach())
        return AdaptationContext(
            recommender, tasks.support, tasks.query, loss, query_encoded, support_encoded, stacked, task_index, progress
        )

    def _second_order(self, progress: float) -> bool:
        """Whether steps are differentiated through, at this training progress."""
        return self.inner.order_at(progress) == 2 and torch.is_grad_enabled()

    def _descend(self, context: AdaptationContext, begin: Mapping[str, Weight]) -> Weights:
        """The weights after all steps, from ``begin``; the rest starts from the shared weights."""
        return deque(self._every_step(context, begin), maxlen=1).pop()  # earlier ones are not kept

    def _every_step(self, context: AdaptationContext, begin: Mapping[str, Weight]) -> Iterator[Weights]:
        """The weights at the start and after each step; without support, at the start alone."""
        weights: Weights = dict(begin)
        if context.support is None or self.steps == 0:
            yield weights
            return
        for name in self.names:
            own = context.recommender.get_parameter(name)
            if name in self.tables and context.stacked:
                weights[name] = TableState(own)
            elif name not in weights:
                weights[name] = MatrixState(own) if self._is_matrix(context, name, own) else context.per_task(own)
        second_order = self._second_order(context.progress)
        support = Support(context, context.support, second_order, weights)
        yield weights
        for step in range(self.steps):
            weights = self._step(support, weights, step)
            yield weights

    def _is_matrix(self, context: AdaptationContext, name: str, weight: Tensor) -> bool:
        """Whether its changes are low-rank: all tasks start from one matrix, and its learning rate is a scalar."""
        rates = [self.step.rate(name, step) for step in range(self.steps)]
        one = all(not isinstance(rate, Tensor) or rate.dim() == 0 for rate in rates)
        return context.stacked and weight.dim() == 2 and one and not weight.is_complex()

    def _step(self, support: Support, weights: Weights, step: int) -> Weights:
        """The weights after one more step on the support; parameters outside the scope are unchanged."""
        begin = {n: weights[n] if support.second_order else leaf(weights[n]) for n in self.names}
        context, batch = support.context, support.batch
        with torch.enable_grad():
            call = context.call(batch, higher_order=support.second_order, constant=not support.second_order)
            own = call.wrapped({**weights, **begin})
            losses = call.run(own, loss=context.loss, encoded=context.support_encoded)
            per_task = self.support.mean(batch, losses)
            context.support_losses.append(per_task.detach())
            read = {name: differentiable_parts(own[name], begin[name]) for name in self.names}
            flat = [tensor for tensors in read.values() for tensor in tensors]
            found = iter(gradients_of(per_task.sum(), flat, support.second_order))
        grads = {name: [next(found) for _ in tensors] for name, tensors in read.items()}
        if all(grad is None for each in grads.values() for grad in each):
            raise InputError(
                f"no parameter of the scope {self.scope.prefixes} has any influence on the support loss; look for "
                f"detach() or no_grad() in the encoder"
            )
        if self.inner.clip is not None:
            grads = clipped(grads, own, self.inner.clip, support)
        rates = {name: self.step.rate(name, step) for name in self.names}
        proximal = self.inner.proximal
        proximal_rates = {name: rate * proximal if proximal else None for name, rate in rates.items()}
        updates = {name: Update(rates[name], grads[name], proximal_rates[name]) for name in self.names}
        return {**weights, **{n: updated(weights[n], own[n], update, support, n) for n, update in updates.items()}}
