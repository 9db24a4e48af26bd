"""What a system reads: samples, statistics of a log, the graph around a session, earlier sessions."""

from __future__ import annotations

from functools import partial
from typing import TypeVar

import numpy as np
from torch_geometric.data import HeteroData

from graphmeta.data.events import EventLog
from graphmeta.data.scan.log import ScannedLog
from graphmeta.data.tables import same_ids
from graphmeta.errors import InputError
from graphmeta.inference.popularity import events_of
from graphmeta.protocols import CountsShards, FitsStatistics, ReadsHistory, ReadsSubgraph, reads_earlier_sessions
from graphmeta.sampling.given_graph import has_columns, item_sampler, log_of, sampler_of
from graphmeta.sampling.samples import Samples
from graphmeta.sampling.session_batch import session_batch
from graphmeta.sampling.tasks import MakesBatches, TaskBatch, Tasks, TaskSizes, task_batch, task_sizes
from graphmeta.sampling.user_histories import UserHistories
from graphmeta.system.core import SystemCore

Batch = TypeVar("Batch", HeteroData, TaskBatch)


class SystemInputs(SystemCore):
    """Makes the batches of a system from samples, with the graph and the histories that it reads."""

    def training_samples(self, log: EventLog) -> Samples | Tasks:
        """The samples (or tasks) of one epoch.

        Raises:
            InputError: users as tasks, and a log without users.
        """
        if self.adaptation is not None and self.adaptation.support.reads_history and log.users is None:
            raise InputError(
                "tasks are users, and the log has none; name its user column when reading it (user=, --user)"
            )
        return self.with_history(self.samples(log, max_length=self.max_length), log)

    def fit_statistics(self, log: EventLog | ScannedLog) -> None:
        """Call ``fit_statistics(log)`` of each part that has it (popularity, dwell times, neighbours).

        Statistics are not learned: :func:`graphmeta.training.loop.train` computes them before it trains the weights.

        Raises:
            InputError: a log on disk, and a part that needs all of its events at once.
        """
        if isinstance(log, ScannedLog):
            self._check_reads_shards(log)
        else:
            self._read(log, log)
        self.events = events_of(log, self.items)
        for part in self.modules():
            if part is not self and isinstance(part, FitsStatistics):
                part.fit_statistics(log)  # pyright: ignore[reportArgumentType] - checked above

    def _check_reads_shards(self, log: ScannedLog) -> None:
        """Check that every part can count a log on disk."""
        reader: object = self if self.reads_history else self._reads_subgraph()
        parts = [part for part in self.modules() if part is not self and isinstance(part, FitsStatistics)]
        needs = [part for part in parts if not (isinstance(part, CountsShards) and part.counts_shards)]
        if not self.has_weights or reader is not None or needs:
            what = needs[0] if needs else self if reader is None else reader
            raise InputError(
                f"{type(what).__name__} needs all events of the log in memory, and it has {log.num_events:,} on disk; "
                f"read all of it: log.collect() (--memory), or choose a system without it, such as niser"
            )

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
        same = same_ids(self.users, log.users) and has_columns(log.users, self.users)
        known = log if same else log.aligned_to(self.items, self.users)
        self._read(known, log)

    def _read(self, log: EventLog, whole: EventLog) -> None:
        """Keep what the encoder reads of a log's graph, and the users' sessions.

        Args:
            whole: the same log, with users that are unknown to the system too.
        """
        if (reader := self._reads_subgraph()) is not None:
            around = reader.neighbourhood
            given = self.users is None and around.history > 0 and not around.needs_log
            self.sampler = (
                item_sampler(self.items, around)
                if given
                else sampler_of(log, around, items=self.items, users=self.users)
            )
        if self.reads_history and whole.users is not None:
            self.histories = UserHistories.of(whole)

    def _reads_subgraph(self) -> ReadsSubgraph | None:
        """The part of the encoder that reads the graph, if one does."""
        encoder = getattr(self.recommender, "encoder", None)
        parts = () if encoder is None else encoder.modules()
        return next((part for part in parts if isinstance(part, ReadsSubgraph)), None)

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

    def task_sizes(self, samples: Samples | Tasks) -> TaskSizes:
        """Support samples and padded rows of each task."""
        if self.adaptation is None:
            return task_sizes(samples, self.max_support)
        return self.adaptation.support.sizes(samples, self._most_support)

    def clicks(self, samples: Samples | Tasks) -> np.ndarray:
        """Clicks of each sample, or for tasks of support and query together as they are padded, ``[S]``."""
        tasks = self.episodic or samples.has_given_support
        return self.task_sizes(samples).rows if tasks else samples.query.lengths

    def _queries(self, samples: Samples | Tasks) -> HeteroData:
        return self._moved(self._make(samples.query, num_items=self.num_items))

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
        support, most = self._with_support(samples), self._most_support
        return self._moved(
            task_batch(support, num_items=self.num_items, max_support=most, make=self._make, share=share)
        )

    def _moved(self, batch: Batch) -> Batch:
        """The batch, made on the CPU, on the system's device."""
        return batch if self.device.type == "cpu" else batch.to(self.device)

    @property
    def _make(self) -> MakesBatches:
        """What makes its batches: the sampler of an encoder that reads the graph, or :func:`session_batch`."""
        reader = self._reads_subgraph()
        if reader is None:
            return session_batch
        sampler = self.sampler
        if sampler is None and not reader.neighbourhood.needs_log:
            sampler = self.sampler = item_sampler(self.items, reader.neighbourhood)
        if sampler is None:
            raise InputError(
                "the encoder reads the graph around a session and the system has none (models are saved without it); "
                "give it the log: load(folder, graph=log) or system.attach_graph(log) (--graph LOG)"
            )
        events = any(isinstance(part, ReadsHistory) and part.reads_history for part in self.modules())
        return partial(sampler, history_events=events)
