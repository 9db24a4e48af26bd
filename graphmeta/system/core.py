"""A system's parts, limits and properties."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from graphmeta.adapt.adaptation import Adaptation
from graphmeta.build_spec import BuildSpec, Limits
from graphmeta.data.events import EventLog
from graphmeta.data.scan.log import ScannedLog
from graphmeta.data.tables import EntityTable, same_ids
from graphmeta.errors import InputError
from graphmeta.nn.losses.losses import SoftmaxLoss
from graphmeta.protocols import CandidateLoss, PositionLoss, ProductHead, ScoresCatalogue
from graphmeta.recommender import Recommender
from graphmeta.sampling.order import Batches, Shuffled, UserBlocks
from graphmeta.sampling.samples import Samples, last_clicks, prefixes
from graphmeta.sampling.subgraph import SubgraphSampler
from graphmeta.sampling.tasks import Tasks
from graphmeta.sampling.user_histories import UserHistories
from graphmeta.system.blend import Blend

_REMEDIES = {
    "fit": "train it with list(graphmeta.train(system, split)), or compute only its counts with "
    "system.fit_statistics(log)",
    "load": "load a saved one with graphmeta.load(folder)",
}


class _NamesRemedies(type):
    """The metaclass of a system: the errors for its missing ``load`` and ``fit`` name the remedy."""

    if not TYPE_CHECKING:

        def __getattr__(cls, name: str) -> Any:
            if name in _REMEDIES:
                raise AttributeError(f"{cls.__name__} has no {name}(); {_REMEDIES[name]}")
            raise AttributeError(f"type object {cls.__name__!r} has no attribute {name!r}")


class SystemCore(nn.Module, metaclass=_NamesRemedies):
    """Parts, limits and properties of a :class:`~graphmeta.system.system.System`."""

    # Attributes that twins (the copies per call of graphmeta.adapt.twin) share with the system; no call changes them.
    shared_with_twins = ("items", "users", "notes", "samples", "queries", "batches", "histories", "sampler", "events")
    reads_tasks = True
    has_weights = True  # whether it is trained, not only fitted by counting
    sums_losses = False  # whether the loss of a batch is the sum of its losses instead of their mean
    retraining: Any = None  # retraining strategy, see graphmeta.retrain; not used in training
    retrieval: str = "auto"  # of recommend: exact; approximate; or auto, approximate among more than a million items
    histories: UserHistories | None = None  # the users' sessions of the log given to fit_statistics, if it reads these
    events: np.ndarray | None = None  # the number of events of each item of that log, [num_items]

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
        self.blend: Blend | None = None  # adds a baseline's scores, see graphmeta.system.blend
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

    def _shares_support(self, loss: nn.Module, objective: nn.Module | None = None) -> bool:
        """Whether the adaptation takes tasks that share support samples, with these losses."""
        return self.adaptation is not None and self.adaptation.shares_support(self.recommender, loss, objective)

    @property
    def support_loss(self) -> nn.Module:
        """The loss that inner steps minimise before scoring."""
        return self.loss

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.parameters()).device

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

    def check(self, log: EventLog | ScannedLog, name: str) -> None:
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
