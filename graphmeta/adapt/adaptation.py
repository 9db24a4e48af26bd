"""Adaptation: from shared weights and a task's support to that task's own weights, for all tasks at once.

An adaptation is a scope (what may change), a start (where a task begins) and a step (how it moves). The T tasks of
a batch take their steps together (:mod:`graphmeta.adapt.stacked`): an adapted parameter is one tensor ``[T, *shape]``,
the changes of linear layers and of a table in scope are kept low-rank, everything outside the scope is evaluated once
for all tasks. The per-task loop does the same one task after the other, with ordinary tensors; it is the reference, and
takes over where the stack refuses: for good where a module uses an operation that the stack does not know, for one
batch where its rows are mixed. Both call a twin of the recommender (:mod:`graphmeta.adapt.twin`), so that the
recommender itself is only read: any number of threads may ask at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from graphmeta.adapt.clipping import clipped
from graphmeta.adapt.context import AdaptationContext, Support
from graphmeta.adapt.descent import Move, gradients_of, leaf, moved, read_of
from graphmeta.adapt.fallback import Fallback
from graphmeta.adapt.inner import InnerLoop, Loop, OrderSchedule
from graphmeta.adapt.scope import Scope
from graphmeta.adapt.stacked.engine import Weight, Weights, detached
from graphmeta.adapt.stacked.table_state import TableState
from graphmeta.adapt.stacked.task_matrix import MatrixState
from graphmeta.adapt.starts.start import Shared, Start
from graphmeta.adapt.step import Step
from graphmeta.adapt.twin import Kept
from graphmeta.errors import DivergedError, InputError
from graphmeta.nn.features.tables import table_names
from graphmeta.recommender import Encoded, Recommender, task_mean
from graphmeta.sampling.session_batch import without_targets
from graphmeta.sampling.task_layout import split_tasks
from graphmeta.sampling.tasks import TaskBatch


class Adaptation(nn.Module):
    """``adaptation.run(recommender, tasks, loss)`` adapts each task on its support and answers its query.

    Args:
        scope: the parameters a task changes.
        step: how one step moves them, see :mod:`graphmeta.adapt.step`.
        start: where they begin, see :mod:`graphmeta.adapt.starts.start`; the shared weights if not given.
        inner: how many steps a task takes, of which order, how they are clipped, held back and trained, see
            :class:`~graphmeta.adapt.inner.InnerLoop`; in its place, ``steps`` and ``order`` alone may be given.
        meta_trained: whether the shared weights are trained for what comes after the steps; if not, they are trained
            as if there were no adaptation, and steps are taken only when recommending.
        stacked: all tasks at once; False runs the per-task loop.
        task_chunk: so many tasks at a time, however many a batch has; if not given, as many as
            :func:`~graphmeta.adapt.budget.chunks` lets into 256 MB.

    Source: MAML (Finn et al. 2017); order 1 is its first-order form.
    """

    untwinned = ("fallback", "activations")  # what is learned of a recommender is learned once

    def __init__(
        self,
        scope: Scope,
        *,
        step: Step,
        start: Start | None = None,
        inner: InnerLoop | None = None,
        meta_trained: bool = True,
        stacked: bool = True,
        task_chunk: int | None = None,
        **loop: Unpack[Loop],
    ) -> None:
        super().__init__()
        if inner is not None and loop:
            raise InputError(f"{' and '.join(loop)} belong to the inner loop; pass them there: InnerLoop(steps=…)")
        if task_chunk is not None and task_chunk < 1:
            raise InputError(f"task_chunk must be at least 1, not {task_chunk}")
        self.scope, self.step, self.start = scope, step, Shared() if start is None else start
        self.inner, self.meta_trained, self.stacked = (
            InnerLoop(**loop) if inner is None else inner,
            meta_trained,
            stacked,
        )
        self.task_chunk, self.sizes = task_chunk, (0, 0)
        self.names: list[str] = []
        self.frozen: list[str] = []
        self.fallback = Fallback()
        # By mode: rows of the tasks measured, and bytes of each row.
        self.activations: dict[tuple[bool, ...], tuple[int, float]] = {}
        self.tables: frozenset[str] = frozenset()

    @property
    def steps(self) -> int:
        """How many steps a task takes."""
        return int(self.inner.steps)

    @steps.setter
    def steps(self, steps: int) -> None:
        self.inner = replace(self.inner, steps=steps)

    @property
    def order(self) -> int:
        """The order of the steps, 1 or 2; of a schedule, the one that it ends with."""
        return self.inner.order_at(1.0)

    @order.setter
    def order(self, order: int | OrderSchedule) -> None:
        self.inner = replace(self.inner, order=order)

    def extra_repr(self) -> str:
        """Scope, steps and order, and what else is set."""
        plain = self.inner == InnerLoop(self.inner.steps, self.order)
        more = "" if plain else f", {self.inner}"
        frozen = f", frozen={self.frozen}" if self.frozen else ""
        shown = f"scope={self.scope.prefixes}, steps={self.steps}, order={self.order}, meta_trained={self.meta_trained}"
        return f"{shown}{more}{frozen}"

    def bind(self, recommender: Recommender) -> None:
        """Fix the names in scope and make the parameters that depend on their shapes; called once.

        Parameters in scope that are frozen (``requires_grad`` is off) stay as they are and are listed in ``frozen``.

        Raises:
            InputError: if the scope selects nothing, or nothing but frozen parameters.
        """
        names = self.scope.names(recommender)
        lazy = [name for name in names if is_lazy(recommender.get_parameter(name))]
        if lazy:
            raise InputError(f"{lazy[0]} has no shape yet; run the recommender on one batch before it is adapted")
        self.start.bind(recommender, names)
        made = set(self.start.changes())  # of these the shared value is not what a task begins with
        self.names = [name for name in names if name in made or recommender.get_parameter(name).requires_grad]
        self.frozen = [name for name in names if name not in self.names]
        if not self.names:
            raise InputError(f"all parameters in the scope {self.scope.prefixes} are frozen: {', '.join(names)}")
        self.tables = table_names(recommender) & set(self.names)
        numbers = [recommender.get_parameter(name).numel() for name in self.names if name not in self.tables]
        self.sizes = sum(numbers), sum(len(recommender.get_parameter(name)) for name in self.tables)
        self.step.bind(recommender, self.names, self.tables, self.steps)

    def memory(self, tasks: int, support: int) -> int:
        """Bytes (of 4-byte numbers) that the tasks' own weights take at most: what a batch costs beyond plain training.

        ``tasks · ((copies + 1) · adapted numbers + changes · rows of tables in scope)``, with one copy a step in second
        order, which remembers them all, and one in first. A table has ``k · support + 1`` changes a row after k steps
        (the one is its scaling, where scores are cosines), and in second order those of all steps.
        """
        numbers, rows = self.sizes
        copies = self.steps if self.order == 2 else 1
        changes = [number * support + 1 for number in range(1, self.steps + 1)][-copies:]
        return 4 * tasks * ((copies + 1) * numbers + sum(changes) * rows)

    def run(
        self,
        recommender: Recommender,
        tasks: TaskBatch,
        loss: nn.Module,
        *,
        score: bool = False,
        progress: float = 1.0,
    ) -> Tensor:
        """Losses ``[S]`` (or with ``score`` the scores ``[S, C]``) of the real query samples, after adaptation.

        Args:
            progress: the share of the training that is done, which the schedules of the inner loop go by. Scores are
                those of a finished training.

        Raises:
            DivergedError: a support loss that is not finite; names task and step.
        """
        answer, progress = (None, 1.0) if score else (loss, progress)
        mode = self.mode(recommender, score, progress)
        if self.stacked and mode not in self.fallback.refusals:
            kept = Kept(recommender, self.fallback.moving if recommender.training else None)
            try:
                answers = self._together(recommender, tasks, loss, answer, progress)
                self.fallback.worked(mode, kept.moved())
                return answers
            except (InputError, DivergedError, MemoryError, torch.OutOfMemoryError):
                raise
            except Exception as error:
                found = error
            kept.restore()
            # Outside of the handler, so that an error of the loop is told as what it is: the module's own.
            answers = self._one_by_one(recommender, tasks, loss, answer, progress)
            self.fallback.refused(mode, found)
            return answers
        return self._one_by_one(recommender, tasks, loss, answer, progress)

    def mode(self, recommender: Recommender, score: bool, progress: float = 1.0) -> tuple[bool, ...]:
        """What decides which code of the recommender runs, and what is kept of it."""
        return recommender.training, self._second(progress), score

    @property
    def fell_back(self) -> bool:
        """Whether the loop runs because the stack has refused the recommender, in one mode at least."""
        return bool(self.fallback.refusals)

    def adapted(self, recommender: Recommender, tasks: TaskBatch, loss: nn.Module) -> Weights:
        """Every task's weights after its steps: ``[T, *shape]`` by name, a table as :class:`TableState`."""
        problem = self._problem(recommender, tasks, loss, together=True)
        weights = self._descend(problem, self._begin(recommender, tasks, problem.encoded))
        problem.settle()
        return {name: problem.written(weight) for name, weight in weights.items()}

    def _together(
        self, recommender: Recommender, tasks: TaskBatch, loss: nn.Module, answer: nn.Module | None, progress: float
    ) -> Tensor:
        alone = tasks.num_tasks == 1 and not self.tables  # a table is better kept low-rank
        problem = self._problem(recommender, tasks, loss, together=not alone, progress=progress)
        begin = self._begin(recommender, tasks, problem.encoded)
        if not alone:
            walk = self._walk(problem, begin)
            answers = self._weighed(problem, walk, answer)
            problem.settle()
            self.start.on_adapted(recommender, walk[-1])
            return answers
        walk = self._walk(problem, {name: stacked[0] for name, stacked in begin.items()})
        return self._answers(recommender, [problem], [walk], list(begin), answer)

    def _one_by_one(
        self, recommender: Recommender, tasks: TaskBatch, loss: nn.Module, answer: nn.Module | None, progress: float
    ) -> Tensor:
        begin = self._begin(recommender, tasks, None)
        supports = [None] * tasks.num_tasks if tasks.support is None else split_tasks(tasks.support)
        problems, walks = [], []
        for t, (support, query) in enumerate(zip(supports, split_tasks(tasks.query), strict=True)):
            alone = self._problem(
                recommender, TaskBatch(support, query), loss, together=False, number=t, progress=progress
            )
            problems.append(alone)
            walks.append(self._walk(alone, {name: stacked[t] for name, stacked in begin.items()}))
        return self._answers(recommender, problems, walks, list(begin), answer)

    def _answers(
        self,
        recommender: Recommender,
        problems: list[AdaptationContext],
        walks: list[list[dict[str, Any]]],  # plain tensors, as everything of a task on its own
        begun: list[str],
        answer: nn.Module | None,
    ) -> Tensor:
        """The answers of tasks on their own, after the start is told where those have ended that it began."""
        reached = {name: torch.stack([walk[-1][name] for walk in walks]) for name in begun}
        for problem in problems:
            problem.settle()
        self.start.on_adapted(recommender, {**reached})  # before the answers, whose gradients it may ask for
        for t, walk in enumerate(walks):
            walk[-1] |= {name: stacked[t] for name, stacked in reached.items()}
        return torch.cat([self._weighed(p, walk, answer) for p, walk in zip(problems, walks, strict=True)])

    def _walk(self, problem: AdaptationContext, begin: Mapping[str, Weight]) -> list[Weights]:
        """The weights after every step whose query loss counts, see :class:`~graphmeta.adapt.inner.MultiStep`."""
        if not self.inner.weights_at(problem.progress):
            return [self._descend(problem, begin)]
        return list(self._every_step(problem, begin))[-self.steps :]

    def _weighed(self, problem: AdaptationContext, walk: list[Weights], answer: nn.Module | None) -> Tensor:
        """The answers after the last step, or the weighted sum of those after every step."""
        if len(walk) == 1:
            return problem.evaluate_query(walk[0], answer)
        shares = self.inner.weights_at(problem.progress)
        each = [share * problem.evaluate_query(weights, answer) for share, weights in zip(shares, walk, strict=True)]
        return torch.stack(each).sum(0)

    def _begin(self, recommender: Recommender, tasks: TaskBatch, encoded: Encoded | None) -> dict[str, Tensor]:
        return self.start(recommender, self.names, without_targets(tasks.query), encoded)

    def _problem(
        self,
        recommender: Recommender,
        tasks: TaskBatch,
        loss: nn.Module,
        *,
        together: bool,
        number: int = 0,
        progress: float = 1.0,
    ) -> AdaptationContext:
        """The tasks, encoded once if only their heads differ."""
        encoded, seen, second = None, None, self._second(progress)
        if not self._moves_states:
            encoded = recommender.encode(tasks.query)
            if tasks.support is not None and self.steps:
                with torch.set_grad_enabled(second):
                    states, candidates = recommender.encode(tasks.support)
                # A table is a parameter wherever it comes from: in first order nobody asks for its gradient here.
                seen = (states, candidates if second else candidates.detach())
        return AdaptationContext(
            recommender, tasks.support, tasks.query, loss, encoded, seen, together, number, progress
        )

    def _second(self, progress: float) -> bool:
        """Whether steps are differentiated through, when this share of the training is done."""
        return self.inner.order_at(progress) == 2 and torch.is_grad_enabled()

    @property
    def _moves_states(self) -> bool:
        """Whether a task has states of its own, or only a head of its own."""
        return not all(name.startswith("head.") for name in (*self.names, *self.start.changes()))

    def _descend(self, problem: AdaptationContext, begin: Mapping[str, Weight]) -> Weights:
        """The weights after all steps, from ``begin`` and, for what is not in it, the shared weights."""
        return deque(self._every_step(problem, begin), maxlen=1).pop()  # earlier ones are not kept

    def _every_step(self, problem: AdaptationContext, begin: Mapping[str, Weight]) -> Iterator[Weights]:
        """The weights at the start and after each step; without support, at the start alone."""
        weights: Weights = dict(begin)
        if problem.support is None or self.steps == 0:
            yield weights
            return
        for name in self.names:
            own = problem.recommender.get_parameter(name)
            if name in self.tables and problem.together:
                weights[name] = TableState(own)
            elif name not in weights:
                weights[name] = MatrixState(own) if self._is_matrix(problem, name, own) else problem.each(own)
        second = self._second(problem.progress)
        support = Support(problem, problem.support, second, {} if second else detached(problem.recommender), weights)
        yield weights
        for number in range(self.steps):
            weights = self._step(support, weights, number)
            yield weights

    def _is_matrix(self, problem: AdaptationContext, name: str, weight: Tensor) -> bool:
        """Whether its steps are of low rank: all tasks begin with one matrix, and have one rate for all of it."""
        rates = [self.step.rate(name, number) for number in range(self.steps)]
        one = all(not isinstance(rate, Tensor) or rate.dim() == 0 for rate in rates)
        return problem.together and weight.dim() == 2 and one and not weight.is_complex()

    def _step(self, support: Support, weights: Weights, number: int) -> Weights:
        """The weights after one more step on the support; parameters outside the scope are as they were."""
        begin = {n: weights[n] if support.second else leaf(weights[n]) for n in self.names}
        problem, batch = support.problem, support.batch
        with torch.enable_grad():
            call = problem.call(batch, exact=support.second)
            own = call.wrapped({**weights, **begin})
            losses = call.run(own, loss=problem.loss, encoded=problem.seen, fixed=support.fixed)
            per_task = task_mean(batch, losses)
            problem.finite.append(per_task.detach())
            read = {name: read_of(own[name], begin[name]) for name in self.names}
            flat = [tensor for tensors in read.values() for tensor in tensors]
            grads = iter(gradients_of(per_task.sum(), flat, support.second))
        slopes = {name: [next(grads) for _ in tensors] for name, tensors in read.items()}
        if all(slope is None for each in slopes.values() for slope in each):
            raise InputError(f"no parameter of the scope {self.scope.prefixes} has any influence on the support loss")
        if self.inner.clip is not None:
            slopes = clipped(slopes, own, self.inner.clip, support)
        rates = {name: self.step.rate(name, number) for name in self.names}
        shares = {name: rate * self.inner.proximal if self.inner.proximal else None for name, rate in rates.items()}
        moves = {name: Move(rates[name], slopes[name], shares[name]) for name in self.names}
        return {**weights, **{n: moved(weights[n], own[n], move, support, n) for n, move in moves.items()}}
