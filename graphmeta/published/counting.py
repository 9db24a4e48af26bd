"""Counting: the system around a baseline, which is fitted by counting the events of a log instead of by training."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from graphmeta.baselines import NoRepeats, match_repeats
from graphmeta.baselines.counted_log import CountedLog
from graphmeta.baselines.votes import HasVotes, Votes
from graphmeta.data.events import EventLog
from graphmeta.data.scan.log import ScannedLog
from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError
from graphmeta.inference.popularity import events_of
from graphmeta.protocols import Scorer
from graphmeta.sampling.samples import Samples
from graphmeta.sampling.tasks import Tasks
from graphmeta.system import System

_UNLIMITED = 2**31 - 1  # baselines read whole sessions
_USERS = "training_users"  # in the notes of a model that is saved with its users' histories


class Counting(System):
    """A system that scores by the counts of a baseline: it has no weights, and training it counts the log once.

    It is saved with the items of the sessions that it counts, in their order, without ids of sessions and users; with
    times, or the number of each session's user, only if the baseline reads them (``keeps``). A loaded model that was
    saved without ``keep_histories`` has no ids by which to recognise a counted user.

    Args:
        baseline: makes the baseline from a log, see :mod:`graphmeta.baselines`. Its scores exclude the items of the
            session if no session of the log repeats an item (:func:`~graphmeta.baselines.match_repeats`).
        items: the vocabulary.
        reads_users: whether the baseline reads users' earlier sessions.
        keeps: what it reads of the counted sessions beside their items, "times" or "owners".
    """

    shared_with_twins = (*System.shared_with_twins, "baseline")
    reads_tasks = False
    has_weights = False

    def __init__(
        self,
        baseline: Callable[[EventLog], Scorer],
        items: EntityTable,
        *,
        reads_users: bool = False,
        keeps: frozenset[str] = frozenset(),
    ) -> None:
        counted: Any = CountedLog()
        super().__init__(counted, items, limits={"max_length": _UNLIMITED})
        self.baseline, self._reads_users, self.keeps = baseline, reads_users, keeps
        self._scorer: Scorer | None = None
        self._users: list[Any] | None = None  # ids of the counted users
        self._building = threading.Lock()

    def __deepcopy__(self, memo: dict[int, Any]) -> Counting:
        made = Counting(self.baseline, self.items, reads_users=self._reads_users, keeps=self.keeps)
        memo[id(self)] = made
        made.load_state_dict(self.state_dict())
        made.notes, made.histories, made._spec, made._users = dict(self.notes), self.histories, self._spec, self._users
        made.events = self.events
        made.max_length, made.max_support = self.max_length, self.max_support
        made.train(self.training)
        return made

    @property
    def reads_history(self) -> bool:
        """Whether it reads the earlier sessions of a sample's user."""
        return self._reads_users

    @property
    def scores_by_products(self) -> bool:
        """No: it has no item vectors."""
        return False

    @property
    def samples_softmax(self) -> bool:
        """No: it has no loss."""
        return False

    @property
    def device(self) -> torch.device:
        """Where the counted events are; scores are computed on the CPU and moved there."""
        return self._counted.item.device

    @property
    def _counted(self) -> CountedLog:
        counted: Any = self.recommender
        return counted

    def fit_statistics(self, log: EventLog) -> None:
        """Count a log.

        Raises:
            InputError: a log on disk, or one without users, if the baseline reads their earlier sessions.
        """
        if isinstance(log, ScannedLog):
            self._check_reads_shards(log)
        if self._reads_users and log.users is None:
            raise InputError(
                "the system reads the earlier sessions of users, and the log has no users; name its user column when "
                "reading it (user=, --user)"
            )
        self._read(log, log)
        self.events = events_of(log, self.items)
        self._counted.store(log, times="times" in self.keeps, owners="owners" in self.keeps)
        self._users = log.users.ids.tolist() if log.users is not None and "owners" in self.keeps else None
        self._scorer = match_repeats(log, self.baseline(log))

    def scorer(self) -> Scorer:
        """The fitted baseline.

        Raises:
            InputError: no log is counted yet, or a damaged model.
        """
        with self._building:
            if self._scorer is None:
                if self._counted.is_empty:
                    raise InputError(
                        "the system has counted no log yet; call fit_statistics(log), or train it with gm.fit"
                    )
                ids = self.notes.get(_USERS) if self._users is None else self._users
                users = None if ids is None else EntityTable(np.array(ids, dtype=object), {})
                try:
                    self._counted.check(self.num_items)
                    log = self._counted.log(self.items, users)
                    self._scorer = match_repeats(log, self.baseline(log))
                except (ValueError, IndexError, TypeError) as error:
                    raise InputError(f"the counted events are damaged ({error}); restore the model") from None
            return self._scorer

    def scores(self, samples: Samples | Tasks, *, steps: int | None = None, max_support: int | None = None) -> Tensor:
        """Scores of all items for each sample, ``[S, num_items]``.

        Args:
            steps, max_support: must be None.

        Raises:
            InputError: samples with other item indices, ``steps`` or ``max_support``, or no counted log.
        """
        if steps is not None or max_support is not None:
            raise InputError("this system does not adapt; leave out steps= and max_support=")
        samples.query.check_items(self.items)
        query = self.as_read(samples.query)
        assert isinstance(query, Samples)
        with torch.no_grad():
            return self.scorer().scores(query).to(self.device)

    def has_counts(self, samples: Samples, scores: Tensor) -> np.ndarray:
        """Mask ``[S]`` of the samples for which it has counts: a score above 0, and if it reads users an earlier
        session (or, unless it mixes users, a click). The others have popularity alone.
        """
        known = np.array((scores.amax(1) > 0).tolist(), dtype=bool)
        if not self._reads_users:
            return known
        earlier = samples.earlier
        has_history = np.zeros(len(samples), dtype=bool) if earlier is None else earlier.sessions > 0
        return known & (has_history if "owners" in self.keeps else has_history | (samples.lengths > 0))

    def votes(self, samples: Samples, item: int) -> tuple[Votes, Sequence[Any] | None] | None:
        """Who votes for an item in the only sample, and the ids of the users by their numbers if the model has them;
        None for a baseline without neighbours.
        """
        scorer = self.scorer()
        scorer = scorer.model if isinstance(scorer, NoRepeats) else scorer
        if not isinstance(scorer, HasVotes):
            return None
        query = self.as_read(samples)
        assert isinstance(query, Samples)
        return scorer.votes(query, item), self.notes.get(_USERS) if self._users is None else self._users

    @property
    def excludes_session(self) -> bool:
        """Whether it never recommends an item of the session, since no session of its log repeats one."""
        return isinstance(self.scorer(), NoRepeats)

    def losses(self, samples: Samples | Tasks, *, objective: nn.Module | None = None, progress: float = 1.0) -> Tensor:
        """A system without weights has no loss.

        Raises:
            InputError: always.
        """
        raise InputError("this system has no weights, so it has no loss; it is fitted by counting: fit_statistics(log)")

    def load_matching(self, other: System, *, frozen_only: bool = False) -> list[str]:
        """A system without weights takes none from another.

        Raises:
            InputError: always.
        """
        raise InputError("this system has no weights to copy; it is fitted by counting: fit_statistics(log)")

    def notes_to_save(self, *, keep_histories: bool) -> dict[str, Any]:
        """The notes, with the ids of the counted users if their histories are kept."""
        notes = {name: value for name, value in self.notes.items() if name != _USERS}
        ids = self.notes.get(_USERS) if self._users is None else self._users
        return notes if ids is None or not keep_histories else notes | {_USERS: ids}

    def _extend_parts(self, items: EntityTable) -> None:
        self._scorer = None  # counted again, with the new items, when it is needed

    def extra_repr(self) -> str:
        """The baseline."""
        return repr(self.baseline)
