"""System: a recommender with its adaptation and vocabulary, to train, save, load and get recommendations from."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from graphmeta.adapt.adaptation import Adaptation
from graphmeta.adapt.budget import chunks, estimate, measure, needs_measuring
from graphmeta.adapt.step import RatesPerStep
from graphmeta.adapt.twin import Twin
from graphmeta.build_spec import FORMAT, BuildSpec, Limits
from graphmeta.data.events import EventLog
from graphmeta.data.tables import EntityTable, same_ids
from graphmeta.errors import DivergedError, InputError, check_whole
from graphmeta.nn.extending import extend_items, extend_users
from graphmeta.nn.losses.losses import SoftmaxLoss
from graphmeta.protocols import (
    Adapting,
    CandidateLoss,
    FitsStatistics,
    PositionLoss,
    ProductHead,
    ReadsHistory,
    ReadsSubgraph,
    ReadsTimes,
    ScoresCatalogue,
    reads_earlier_sessions,
)
from graphmeta.recommender import Recommender
from graphmeta.sampling.given_graph import item_sampler, log_of, sampler_of
from graphmeta.sampling.given_histories import History, given_earlier
from graphmeta.sampling.order import Batches, Shuffled, UserBlocks
from graphmeta.sampling.queries import (
    NO_KNOWN_ITEM,
    NO_KNOWN_USER,
    Recommendation,
    Sessions,
    best_of,
    knows_any,
    listed,
)
from graphmeta.sampling.samples import Samples, last_clicks, prefixes
from graphmeta.sampling.session_batch import session_batch
from graphmeta.sampling.stored_histories import save_histories
from graphmeta.sampling.subgraph import SubgraphSampler
from graphmeta.sampling.tasks import MakesBatches, TaskBatch, Tasks, TaskSizes, task_batch, task_sizes
from graphmeta.sampling.user_histories import Earlier, UserHistories
from graphmeta.storage import not_finite, save_state

_SCORES = 2**24  # bytes of scores at a time when recommending
_FEATURES = 16  # a system that reads histories may compute many numbers for each score


_REMEDIES = {
    "fit": "train it with list(graphmeta.train(system, split)), or compute only its counts with "
    "system.fit_statistics(log)",
    "load": "load a saved one with graphmeta.load(folder)",
}


class _NamesRemedies(type):
    """The metaclass of :class:`System`: the errors for its missing ``load`` and ``fit`` name the remedy."""

    if not TYPE_CHECKING:

        def __getattr__(cls, name: str) -> Any:
            if name in _REMEDIES:
                raise AttributeError(f"{cls.__name__} has no {name}(); {_REMEDIES[name]}")
            raise AttributeError(f"type object {cls.__name__!r} has no attribute {name!r}")


class System(nn.Module, metaclass=_NamesRemedies):
    """A trainable recommender system: ``System(recommender, items, adaptation=…)``.

    Args:
        recommender: the model, which training updates in place.
        items: the vocabulary, with attributes and labels; users: the known users, if the system has users.
        adaptation: how a session's own clicks change the weights; none if not given.
        loss: from head and states to one loss per sample; full softmax if not given.
        samples: the training samples, ``(log, max_length=…) -> Samples``; all prefixes if not given, or for
            meta-training the last click of each session.
        batches: the batch sampler, ``(samples, batch_size=…, seed=…, epoch=…) -> rows of each batch``; random if not
            given, of blocks of users where tasks share support (:class:`~graphmeta.sampling.order.UserBlocks`).
        limits: ``{"max_length": 50, "max_support": 10}`` if not given: the last clicks of a session that are read, and
            the last support samples of a task.

    Raises:
        InputError: a loss per position for meta-training, or a scope that selects no trainable parameter.
    """

    # Attributes that twins (the copies per call of graphmeta.adapt.twin) share with the system; no call changes them.
    shared_with_twins = ("items", "users", "notes", "samples", "queries", "batches", "histories", "sampler")
    reads_tasks = True
    sums_losses = False  # whether the loss of a batch is the sum of its losses instead of their mean
    retraining: Any = None  # retraining strategy, see graphmeta.retrain; not used in training
    histories: UserHistories | None = None  # the users' sessions of the log given to fit_statistics, if it reads these

    def __init__(
        self,
        recommender: Recommender,
        items: EntityTable,
        *,
        users: EntityTable | None = None,
        adaptation: Adaptation | None = None,
        loss: nn.Module | None = None,
        samples: Callable[..., Samples | Tasks] | None = None,
        batches: Batches | None = None,
        limits: Limits | None = None,
    ) -> None:
        super().__init__()
        self.recommender, self.items, self.users, self.adaptation = recommender, items, users, adaptation
        self.loss = SoftmaxLoss() if loss is None else loss
        shortest = 2 if adaptation is None else adaptation.support.min_length
        self.queries: Callable[..., Samples] = last_clicks  # of a validation log, (log, max_length=…) -> Samples
        self.samples = samples or (partial(last_clicks, min_length=shortest) if self.episodic else prefixes)
        self.sampler: SubgraphSampler | None = None  # of an encoder that reads the graph
        self.max_length, self.max_support = 50, 10
        for name, limit in (limits or {}).items():
            setattr(self, name, limit)
        if self.episodic and isinstance(self.loss, PositionLoss):
            raise InputError(
                "the loss has one value per position, but meta-training needs one per task; pass another loss"
            )
        self._spec: BuildSpec | None = None
        self.notes: dict[str, Any] = {}
        if adaptation is not None:
            adaptation.bind(recommender)
        self.batches = batches or self._default_batches()

    def __getattr__(self, name: str) -> Any:
        """A submodule or weight; the errors for ``fit`` and ``load`` name the remedy."""
        if name in _REMEDIES:
            raise AttributeError(f"a system has no {name}(); {_REMEDIES[name]}")
        return super().__getattr__(name)

    @property
    def num_items(self) -> int:
        """Size of the catalogue that is ranked."""
        return len(self.items)

    @property
    def limits(self) -> Limits:
        """The current ``max_support`` and ``max_length``."""
        return {"max_support": self.max_support, "max_length": self.max_length}

    @property
    def spec(self) -> BuildSpec | None:
        """How the system was built, with the current limits; None for a custom system."""
        own = self._spec
        return None if own is None else replace(own, arguments={**own.arguments, **self.limits})

    @spec.setter
    def spec(self, spec: BuildSpec | None) -> None:
        self._spec = spec

    @property
    def adapts(self) -> bool:
        """Whether it adapts to a task's support before scoring; ``scores`` then take ``steps`` and ``max_support``."""
        return self.adaptation is not None

    @property
    def episodic(self) -> bool:
        """Whether training runs over tasks (support, then query) rather than over single samples."""
        return self.adaptation is not None and self.adaptation.meta_trained

    def _default_batches(self) -> Batches:
        """Blocks of users whose support is shared, tasks of similar size, or shuffled samples."""
        if self.adaptation is None or not self.episodic:
            return Shuffled()
        if self.adaptation.support.reads_history and self._shares_support(self.loss):
            return UserBlocks()
        return Shuffled(bucket_batches=50)

    def without_user(self, samples: Samples) -> np.ndarray:
        """Mask ``[S]`` of samples without a user known to the system, if it reads only users; none for other systems.

        Such a system gives all of these samples the same ranking.
        """
        part = None if self.adaptation is not None else self.recommender.reads_only()
        if part is None:
            return np.zeros(len(samples), dtype=bool)
        if samples.user is None:
            return np.ones(len(samples), dtype=bool)
        return ~np.array(part.knows(torch.from_numpy(samples.user).to(self.device)).tolist())

    def load_matching(self, other: System, *, frozen_only: bool = False) -> list[str]:
        """Warm start: copy every weight with the same name from another system, and return their names; with
        ``frozen_only``, only frozen weights (``requires_grad`` is off).

        If a weight is larger here (a layer that also reads a cluster), the other's fills the leading block and the rest
        is zero, so that before training the scores are close to the other system's (a gate still scales them).

        Raises:
            InputError: other items or users, a weight that is larger there, or nothing to copy; nothing is changed.
        """
        users = same_ids(self.users, other.users)
        if not users or not same_ids(self.items, other.items):
            what = "items" if users else "users"
            raise InputError(f"the other system has other {what}; build both from one log, or from a log aligned to it")
        return self.recommender.load_matching(other.recommender, frozen_only=frozen_only)

    def extended(self, items: EntityTable | None = None, *, users: EntityTable | None = None) -> System:
        """A copy with further items and users, to score and recommend before they have a click; this system is not
        modified.

        Old ones keep their indices, weights and scores. The vectors of new items are composed of their attributes
        (:class:`~graphmeta.protocols.ComposesItems`), those of new users too if the system reads user columns;
        attribute values that are new too count as not seen in training. In a user table new users have zero vectors:
        they get the ranking of an unknown user until the copy is trained on a log with them.

        Args:
            items, users: the new ones, with the columns that the system reads; unknown in those that they lack.

        Raises:
            InputError: an item or user that is known, users for a system without, or a part that has numbers for each
                item or user and cannot make those of new ones, such as a plain item table; names it and the remedy.
        """
        if users is not None and self.users is None:
            raise InputError(
                "the system has no users, so it serves new ones as any other; if it reads their earlier sessions, pass "
                "them: recommend(session, history=…)"
            )
        shared = {id(table): table for table in (self.items, self.users) if table is not None}
        system = copy.deepcopy(self, shared)
        if items is not None:
            system._extend_items(items)
        if users is not None and self.users is not None:
            system.users = self.users.joined(users)
            extend_users(system, system.users, before=len(self.users), of_items=system.recommender.features)
        if self.sampler is not None:
            system.sampler = self.sampler.extended(items, users)
        return system

    def _extend_items(self, items: EntityTable) -> None:
        """Add items to this copy."""
        joined = self.items.joined(items)
        if self.adaptation is not None and self.adaptation.tables:
            raise InputError(
                f"the adaptation changes {min(self.adaptation.tables)}, which has no rows for new items; leave "
                f"tables out of its scope, or fit again on a log with the new items"
            )
        extend_items(self, joined, before=len(self.items))
        self.items = joined
        if self.histories is not None:
            self.histories = replace(self.histories, items=joined)

    def check(self, log: EventLog, name: str) -> None:
        """Check that a log has the item and user indices of the system.

        Raises:
            InputError: a log with other indices; the message calls it ``name``.
        """
        users = self.users is None or (log.users is not None and same_ids(self.users, log.users))
        if not users or not same_ids(self.items, log.items):
            what = "items" if users else "users"
            raise InputError(
                f"the {name} log's {what} are not the system's; align the log: log.aligned_to(items, users)"
            )

    @property
    def scores_by_products(self) -> bool:
        """Whether training scores the whole catalogue by products, as bf16 requires."""
        return self._scores_catalogue and isinstance(self.recommender.head, ProductHead)

    @property
    def samples_softmax(self) -> bool:
        """Whether the loss is a softmax over the catalogue that a sampled softmax can estimate."""
        return self._scores_catalogue and isinstance(self.recommender.head, ProductHead | CandidateLoss)

    @property
    def _scores_catalogue(self) -> bool:
        """Whether the loss is over the scores of the whole catalogue."""
        return isinstance(self.loss, ScoresCatalogue) and self.loss.scores_catalogue

    def training_samples(self, log: EventLog) -> Samples | Tasks:
        """The samples (or tasks) of one epoch.

        Raises:
            InputError: users as tasks, and a log without users.
        """
        if self.adaptation is not None and self.adaptation.support.reads_history and log.users is None:
            raise InputError("tasks are users, and the log has none; name its user column when reading it (user=)")
        return self.with_history(self.samples(log, max_length=self.max_length), log)

    def fit_statistics(self, log: EventLog) -> None:
        """Call ``fit_statistics(log)`` of each part that has it (popularity, dwell times, neighbours).

        Statistics are not learned: :func:`graphmeta.training.loop.train` computes them before it trains the weights.
        """
        self._read(log, log)
        for part in self.modules():
            if part is not self and isinstance(part, FitsStatistics):
                part.fit_statistics(log)

    def attach_graph(self, source: EventLog | HeteroData) -> None:
        """Give the system a log or its graph to read: the graph around a session, if its encoder has a
        ``neighbourhood``, and the users' earlier sessions; no weight and no statistic changes.

        Models are saved without their log, so a loaded one needs it. Sessions that end at or after a query's begin are
        never read.

        Args:
            source: the training log, or a later one; events on other items are dropped.

        Raises:
            InputError: a system that reads neither, a log without the users or attributes that it reads, or a graph
                whose attribute values have other codes than the system's.
        """
        if not self.reads_history and self._reads_subgraph() is None:
            raise InputError("this system reads no graph and no history; leave it out")
        log = log_of(source, self.items)
        known = log if same_ids(self.users, log.users) else log.aligned_to(self.items, self.users)
        self._read(known, log)

    def _read(self, log: EventLog, whole: EventLog) -> None:
        """Keep what the encoder reads of a log's graph, and the users' sessions.

        Args:
            whole: the same log, with users that are unknown to the system too.
        """
        if (reader := self._reads_subgraph()) is not None:
            self.sampler = sampler_of(log, reader.neighbourhood, items=self.items, users=self.users)
        if self.reads_history and whole.users is not None:
            self.histories = UserHistories.of(whole)

    def task_sizes(self, samples: Samples | Tasks) -> TaskSizes:
        """Support samples and padded rows of each task."""
        if self.adaptation is None:
            return task_sizes(samples, self.max_support)
        return self.adaptation.support.sizes(samples, self._most_support)

    def clicks(self, samples: Samples | Tasks) -> np.ndarray:
        """Clicks of each sample, or for tasks of support and query together as they are padded, ``[S]``."""
        tasks = self.episodic or samples.has_given_support
        return self.task_sizes(samples).rows if tasks else samples.query.lengths

    @property
    def reads_history(self) -> bool:
        """Whether it reads the earlier sessions of a sample's user."""
        return any(reads_earlier_sessions(part) for part in self.modules() if part is not self)

    def with_history(self, samples: Samples | Tasks, log: EventLog) -> Samples | Tasks:
        """The samples of a log with the earlier sessions of their users, of the system's own histories and of the log,
        if the system reads these and the log has users.
        """
        if not self.reads_history or log.users is None or isinstance(samples, Tasks):
            return samples
        histories, (own,) = UserHistories.together(self.histories, log)
        return histories.attached(samples, own)

    def parts(self, samples: Samples | Tasks, *, score: bool = False) -> list[Samples | Tasks]:
        """The samples, split into chunks of as many tasks as the adaptation takes at once."""
        if self.adaptation is None:
            return [samples]
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
            few = np.argsort(-sizes.rows, kind="stable")[:2]
            loss = self.support_loss if score else self.loss
            tasks = self._tasks(samples.take(few), share=self._shares_support(loss))
            most = int(sizes.rows[few[0]])
            measure(self.adaptation, self.recommender, tasks, loss, most, score=score)

    def memory_estimate(self, samples: Samples | Tasks, batch_size: int) -> str:
        """A text with the memory estimate of training batches of ``batch_size`` of these tasks."""
        assert self.adaptation is not None
        sizes = self.task_sizes(samples)
        self._measure(samples, sizes, score=False)
        return estimate(self.adaptation, self.recommender, sizes, min(batch_size, len(samples)))

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
        samples = samples.latest(self.max_length)
        if isinstance(samples, Samples) and not self.reads_history:
            samples = replace(samples, earlier=None)
        with torch.inference_mode(False), torch.no_grad():
            twin = Twin(self, training=False, detached_views=True).module
            assert isinstance(twin, System)
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

    def _scoring_order(self, samples: Samples | Tasks) -> np.ndarray:
        """Tasks of a user one after the other, where they share support; else of similar length, to limit padding."""
        user = samples.query.user
        shared = self._shares_support(self.support_loss) and user is not None
        return np.argsort(user if shared else self.task_sizes(samples).support, kind="stable")

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

    def _queries(self, samples: Samples | Tasks) -> HeteroData:
        return self._make(samples.query, num_items=self.num_items).to(self.device)

    @property
    def _most_support(self) -> int:
        """The last support samples of a task that are read: none if nothing reads them."""
        return self.max_support if self.adaptation is None or self.adaptation.reads_support else 0

    def _with_support(self, samples: Samples | Tasks) -> Samples | Tasks:
        """The samples as tasks, where the support is not made of their own clicks."""
        assert self.adaptation is not None
        if isinstance(samples, Tasks):
            return samples
        return self.adaptation.support.tasks(samples, self._most_support)

    def _tasks(self, samples: Samples | Tasks, *, share: bool = False) -> TaskBatch:
        limits = {"num_items": self.num_items, "max_support": self._most_support}
        tasks = task_batch(self._with_support(samples), **limits, make=self._make, share=share)
        return tasks.to(self.device)

    def _shares_support(self, loss: nn.Module, objective: nn.Module | None = None) -> bool:
        """Whether the adaptation takes tasks that share support samples, with these losses."""
        return self.adaptation is not None and self.adaptation.shares_support(self.recommender, loss, objective)

    def _reads_subgraph(self) -> ReadsSubgraph | None:
        """The part of the encoder that reads the graph, if one does."""
        encoder = getattr(self.recommender, "encoder", None)
        parts = () if encoder is None else encoder.modules()
        return next((part for part in parts if isinstance(part, ReadsSubgraph)), None)

    @property
    def _make(self) -> MakesBatches:
        """What makes its batches: the sampler of an encoder that reads the graph, or :func:`session_batch`."""
        reader = self._reads_subgraph()
        if reader is None:
            return session_batch
        sampler = self.sampler
        if sampler is None and reader.neighbourhood.reads_items_alone:
            sampler = self.sampler = item_sampler(self.items, reader.neighbourhood)
        if sampler is None:
            raise InputError(
                "the encoder reads the graph around a session and the system has none (models are saved without it); "
                "give it the log: load(folder, graph=log) or system.attach_graph(log)"
            )
        events = any(isinstance(part, ReadsHistory) and part.reads_history for part in self.modules())
        return partial(sampler, history_events=events)

    @property
    def support_loss(self) -> nn.Module:
        """The loss that inner steps minimise before scoring."""
        return self.loss

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.parameters()).device

    def recommend(
        self,
        session: Iterable[Any],
        k: int = 10,
        *,
        user: Any = None,
        history: EventLog | Sequence[Iterable[Any]] | None = None,
        times: Sequence[float] | None = None,
        unknown: str = "raise",
        exclude_seen: bool = False,
        **adapting: Unpack[Adapting],
    ) -> list[Recommendation]:
        """The k best next items for any session of original ids, also one not in training.

        Args:
            session: item ids, oldest first.
            user: the original id of the session's user; an unknown user counts as none and gets the ranking of a zero
                user vector, or without support of the weights before adaptation.
            history: for a system that reads users' earlier sessions, these sessions as lists of item ids, oldest first,
                or a log that has them, with ``user``; if not given, those of ``user`` in the log that it was fitted to,
                which a loaded system does not have. ``session`` may then be empty.
            times: the time of each click in seconds, for systems with dwell times.
            unknown: how to handle unknown item ids: ``raise``, ``warn`` (and skip) or ``ignore``.
            exclude_seen: exclude the items of the session; there may then be fewer than k results.
            steps, max_support: see :meth:`scores`.

        Raises:
            InputError: an unknown item, a session without any known item, one id instead of a session, k not below the
                number of items, ``history`` for a system that reads none, or an unknown user of a system that scores
                all items equally then (``mf``).
        """
        clicks = listed(session)
        best = self.recommend_many(
            [clicks],
            k,
            users=None if user is None else [user],
            history=history if history is None or isinstance(history, EventLog) else [history],
            times=None if times is None else [times],
            unknown=unknown,
            exclude_seen=exclude_seen,
            **adapting,
        )[0]
        if not best and not knows_any(self.items, clicks):
            raise InputError(NO_KNOWN_ITEM)
        return best

    def recommend_many(
        self,
        sessions: Sequence[Iterable[Any]],
        k: int = 10,
        *,
        users: Sequence[Any] | None = None,
        history: History | None = None,
        times: Sequence[Sequence[float]] | None = None,
        unknown: str = "raise",
        exclude_seen: bool = False,
        **adapting: Unpack[Adapting],
    ) -> list[list[Recommendation]]:
        """:meth:`recommend` for any number of sessions, with the same results.

        Works in batches of sessions of similar length and keeps the k best of each, so memory does not grow with the
        number of sessions. A session without a known item, or without a user that the system needs, has no
        recommendations if ``unknown`` is ``warn`` or ``ignore``.

        Raises:
            InputError: as :meth:`recommend`; names the session by its number, from 0.
        """
        if isinstance(k, bool) or not isinstance(k, Integral) or not 0 < k < self.num_items:
            raise InputError(
                f"k={k!r} must be a whole number, at least 1 and below the number of items, {self.num_items}"
            )
        if len(sessions) == 0:
            return []
        earlier = self._earlier(history, users, times, len(sessions))
        queries = Sessions.of(
            self.items, sessions, known_users=self.users, users=users, times=times, unknown=unknown, earlier=earlier
        )
        if times is None and any(isinstance(part, ReadsTimes) for part in self.modules()):
            warnings.warn("this system reads dwell times; pass the click times (times=)", stacklevel=2)
        found: list[list[Recommendation]] = [[] for _ in queries.rows]
        size = _SCORES // (4 * self.num_items * (_FEATURES if self.reads_history else 1))
        for places, samples in queries.batches(max(1, size), max_length=self.max_length):
            seen = [queries.rows[place] for place in places] if exclude_seen else None
            scores = self.scores(samples, **adapting)
            ranked = self._ranked(samples, scores)
            if unknown == "raise" and not ranked.all():
                where = "" if len(sessions) == 1 else f"session {places[np.argmin(ranked)]}: "
                raise InputError(f"{where}{NO_KNOWN_USER}")
            for place, best, some in zip(places, best_of(scores, int(k), self.items, seen), ranked, strict=True):
                found[place] = best if some else []
        return found

    def _ranked(self, samples: Samples, scores: Tensor) -> np.ndarray:
        """Mask ``[S]`` of all samples but those without a known user to whom it gives all items the same score."""
        equal = np.array((scores.amax(1) == scores.amin(1)).tolist())
        return ~(equal & self.without_user(samples))

    def _earlier(
        self,
        history: History | None,
        users: Sequence[Any] | None,
        times: Sequence[Sequence[float]] | None,
        sessions: int,
    ) -> Earlier | None:
        """The earlier sessions of the users of this many sessions."""
        if not self.reads_history:
            if history is not None:
                raise InputError("this system reads no history; leave it out, or fit one that adapts to users")
            return None
        for name, given in (("users", users), ("histories", None if isinstance(history, EventLog) else history)):
            if given is not None and len(given) != sessions:
                raise InputError(f"{len(given)} {name} for {sessions} sessions; pass one per session")
        return given_earlier(history, users, items=self.items, kept=self.histories, times=times)

    def save(self, folder: str | Path, *, keep_histories: bool = False) -> None:
        """Write weights, vocabulary and notes to a folder atomically: safetensors and JSON with checksums.

        Args:
            keep_histories: also write the users' sessions (``histories``), which are personal data; the loaded system
                then reads them in ``recommend(user=…)``.

        Raises:
            DivergedError: a weight that is not finite; nothing is written.
        """
        if (name := not_finite(self)) is not None:
            raise DivergedError(f"{name} is not finite, so nothing is saved; lower the learning rate and train again")
        document = {
            "format": FORMAT,
            "spec": None if self.spec is None else vars(self.spec),
            "limits": self.limits,
            "notes": self.notes,
            "items": self.items.to_json(),
            "users": None if self.users is None else self.users.to_json(),
        }
        save_histories(Path(folder), self.histories if keep_histories else None)
        save_state(Path(folder), "model", self.state_dict(), document)
