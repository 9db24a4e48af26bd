"""Losses and scores of a system."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from graphmeta.adapt.budget import chunks, estimate, measure, needs_measuring
from graphmeta.adapt.step import RatesPerStep
from graphmeta.adapt.twin import Twin
from graphmeta.errors import InputError, check_whole
from graphmeta.protocols import ScoresInBlocks
from graphmeta.sampling.samples import Samples
from graphmeta.sampling.tasks import Tasks, TaskSizes
from graphmeta.system.inputs import SystemInputs


class SystemScores(SystemInputs):
    """Losses and scores of samples or tasks, in chunks that fit the memory."""

    def losses(self, samples: Samples | Tasks, *, objective: nn.Module | None = None, progress: float = 1.0) -> Tensor:
        """The training loss of each sample, or of each query of the tasks, ``[S]``.

        Args:
            objective: the loss to train with; the system's own if not given. Inner steps minimise the system's own.
            progress: the completed share of the training, for the adaptation's schedules.
        """
        if self.episodic:
            assert self.adaptation is not None
            tasks = self._tasks(samples, share=self._shares_support(self.loss, objective))
            return self.adaptation.run(self.recommender, tasks, self.loss, objective=objective, progress=progress)
        return self.recommender(self._queries(samples), objective or self.loss)

    def scores(self, samples: Samples | Tasks, *, steps: int | None = None, max_support: int | None = None) -> Tensor:
        """Scores of all items for each sample, after adapting to the sample's own clicks: ``[S, num_items]``.

        Args:
            steps: inner steps of this call, 0 for the start itself; the adaptation's default if not given.
            max_support: the last support samples per task in this call; the system's default if not given.

        Raises:
            InputError: samples with other item indices, ``steps`` or ``max_support`` for a system that does not adapt,
                a number below 0, more steps than learned rates, or ``max_support`` for tasks, whose support is given.

        Runs on a twin in eval mode (:mod:`graphmeta.adapt.twin`) and does not modify the system: concurrent threads
        may call it, also during training. Works under ``inference_mode`` and ``autocast``.
        """
        samples.query.check_items(self.items)
        scores = self.own_scores(samples, steps=steps, max_support=max_support)
        return scores if self.blend is None else self.blend.added(scores, samples.query, self.items)

    def own_scores(
        self, samples: Samples | Tasks, *, steps: int | None = None, max_support: int | None = None
    ) -> Tensor:
        """:meth:`scores` without the blended baseline."""
        samples = self.as_read(samples)
        with torch.inference_mode(False), torch.no_grad():
            twin = Twin(self, training=False, detached_views=True).module
            assert isinstance(twin, SystemScores)
            if steps is not None or max_support is not None:
                twin._set_adapting(samples, steps, max_support)
            by_length = not samples.has_given_support and self.adaptation is not None
            order = twin._scoring_order(samples) if by_length else np.arange(len(samples))
            parts = twin.parts(samples.take(order) if by_length else samples, score=True)
            if len(parts) == 1:
                return twin._scores(samples)
            scores, begin = None, 0
            for part in parts:
                found = twin._scores(part)
                scores = found.new_empty(len(samples), found.shape[1]) if scores is None else scores
                scores[torch.from_numpy(order[begin : begin + len(part)]).to(found.device)] = found
                begin += len(part)
            assert scores is not None
            return scores

    def as_read(self, samples: Samples | Tasks) -> Samples | Tasks:
        """The samples with what scores depend on: the last clicks, and the earlier sessions if it reads any."""
        samples = samples.latest(self.max_length)
        if isinstance(samples, Samples) and samples.earlier is not None and not self.reads_history:
            samples = replace(samples, earlier=None)
        return samples

    def _scoring_order(self, samples: Samples | Tasks) -> np.ndarray:
        """Tasks of a user one after the other, where they share support; else of similar length, to limit padding."""
        user = samples.query.user
        shared = self._shares_support(self.support_loss)
        by = user if shared and user is not None else self.task_sizes(samples).support
        return np.argsort(by, kind="stable")

    def _set_adapting(self, samples: Samples | Tasks, steps: int | None, max_support: int | None) -> None:
        """Set steps and support size of this twin; the original system is unchanged."""
        if self.adaptation is None:
            raise InputError("this system does not adapt; leave out steps= and max_support=")
        if max_support is not None:
            if samples.has_given_support:
                raise InputError("these tasks have a given support; max_support= applies to samples of sessions")
            check_whole("max_support", max_support, 0)
            self.max_support = int(max_support)
        if steps is None or steps == self.adaptation.steps:
            return
        inner = replace(self.adaptation.inner, steps=steps)
        step = self.adaptation.step
        if isinstance(step, RatesPerStep) and step.per_step and steps > self.adaptation.steps:
            raise InputError(
                f"there are rates for {self.adaptation.steps} steps, not for {steps}; use fewer steps, or learn rates "
                f"that all steps share (per_step=False)"
            )
        self.adaptation.inner = inner
        self.adaptation.activations = {}  # measured with another number of steps

    def _scores(self, samples: Samples | Tasks) -> Tensor:
        if self.adaptation is None:
            return self.recommender(self._queries(samples))
        loss = self.support_loss
        tasks = self._tasks(samples, share=self._shares_support(loss))
        return self.adaptation.run(self.recommender, tasks, loss, score=True)

    def parts(self, samples: Samples | Tasks, *, score: bool = False) -> list[Samples | Tasks]:
        """The samples, split into chunks of as many tasks as the adaptation takes at once; for scores without one, of
        as many samples as a part takes (:class:`~graphmeta.protocols.ScoresInBlocks`).
        """
        if self.adaptation is None:
            least = min((m.samples_at_once for m in self.modules() if isinstance(m, ScoresInBlocks)), default=None)
            if not score or least is None or len(samples) <= least:
                return [samples]
            rows = np.arange(len(samples))
            return [samples.take(rows[begin : begin + least]) for begin in range(0, len(rows), least)]
        samples = self._with_support(samples)
        if len(samples) < 2:
            return [samples]
        sizes = self.task_sizes(samples)
        self._measure(samples, sizes, score=score)
        runs = chunks(self.adaptation, self.recommender, sizes, score=score)
        if len(runs) == 1:
            return [samples]
        rows = np.arange(len(samples))
        return [samples.take(rows[run]) for run in runs]

    def _measure(self, samples: Samples | Tasks, sizes: TaskSizes, *, score: bool) -> None:
        """Measure the memory of the largest tasks, unless tasks of that size were measured before."""
        assert self.adaptation is not None
        if needs_measuring(self.adaptation, self.recommender, int(sizes.rows.max()), score=score):
            loss = self.support_loss if score else self.loss
            share, user = self._shares_support(loss), samples.query.user
            largest = np.argsort(-sizes.rows, kind="stable")
            # Two tasks of one user share support; tasks of two users do not.
            other = largest[user[largest] != user[largest[0]]] if share and user is not None else largest[1:]
            few = np.append(largest[:1], other[:1])
            tasks = [self._tasks(samples.take(few[:number]), share=share) for number in range(1, len(few) + 1)]
            most = int(sizes.rows[few[0]])
            measure(self.adaptation, self.recommender, tasks, loss, most, score=score)

    def memory_estimate(self, samples: Samples | Tasks, batch_size: int) -> str:
        """A text with the memory estimate of training batches of ``batch_size`` of these tasks."""
        assert self.adaptation is not None
        sizes = self.task_sizes(samples)
        self._measure(samples, sizes, score=False)
        return estimate(self.adaptation, self.recommender, sizes, min(batch_size, len(samples)))
