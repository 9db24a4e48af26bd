"""Blend: a baseline's scores added to a system's, with a weight that is chosen on validation sessions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from graphmeta.baselines import (
    UPCF,
    ItemKNN,
    PersonalFrequency,
    Popularity,
    SessionKNN,
    Stan,
    TifuKNN,
    match_repeats,
)
from graphmeta.baselines.counted_log import CountedLog
from graphmeta.data.events import EventLog
from graphmeta.data.tables import EntityTable
from graphmeta.errors import InputError
from graphmeta.protocols import Scorer
from graphmeta.sampling.samples import Samples

FLOOR = 1e-3  # ε, the share of a baseline's scores below which its logarithm is flat


class Kind(NamedTuple):
    """A baseline that may be blended in, and what it reads beside the items of sessions."""

    fit: Callable[[EventLog], Scorer]
    times: bool = False
    owners: bool = False  # the users of the counted sessions
    history: bool = False  # the earlier sessions of a sample's user


# Numbered from 1 in saved models: append, do not reorder.
KINDS: dict[str, Kind] = {
    "popularity": Kind(Popularity),
    "item_knn": Kind(ItemKNN),
    "session_knn": Kind(SessionKNN),
    "stan": Kind(Stan, times=True),
    "personal_frequency": Kind(PersonalFrequency, history=True),
    "tifu_knn": Kind(TifuKNN, owners=True, history=True),
    "up_cf": Kind(UPCF, owners=True, history=True),
}


class Blend(nn.Module):
    """Adds a baseline's scores to a trained system's: ``score_i + w log(1 + p_i / ε)``.

    ``p`` are the baseline's scores as shares of their sum over all items, ``w`` the weight. With a large weight the
    ranking is the baseline's, and the system ranks its ties. Without a chosen baseline nothing is added. Training does
    not read it: baseline and weight are chosen afterwards, on validation sessions
    (:mod:`graphmeta.published.blending`).

    It is saved with the events that the baseline counts, as items by session without ids; with times (``stan``) or the
    number of each session's user (``tifu_knn``, ``up_cf``) only where the baseline reads them.

    Shapes: scores ``[S, C]``.
    Source: a log-linear pool of two predictors (Genest & Zidek 1986); ours.
    """

    shared_with_twins = ("_scorer", "_users")

    def __init__(self) -> None:
        super().__init__()
        self.number: Tensor
        self.weight: Tensor
        self.register_buffer("number", torch.zeros((), dtype=torch.int64))
        self.register_buffer("weight", torch.zeros(()))
        self.counted = CountedLog()
        self._scorer: Scorer | None = None
        self._users: EntityTable | None = None

    @property
    def name(self) -> str | None:
        """The baseline's name; None if none is chosen.

        Raises:
            InputError: a baseline of a later version.
        """
        number, names = int(self.number), (None, *KINDS)
        if not 0 <= number < len(names):
            raise InputError("the model blends in a baseline that this version does not have; update graphmeta")
        return names[number]

    def choose(self, name: str | None, weight: float = 0.0) -> None:
        """Set baseline and weight; call :meth:`fit_statistics` next."""
        self.number.fill_(0 if name is None else 1 + list(KINDS).index(name))
        self.weight.fill_(weight if name is not None else 0.0)
        self._scorer, self._users, self.counted = None, None, CountedLog().to(self.number.device)

    @property
    def counts_shards(self) -> bool:
        """Whether it takes a log on disk: without a baseline only, as it is saved with all events that one counts."""
        return self.name is None

    def fit_statistics(self, log: EventLog) -> None:
        """Count a log, if a baseline is chosen."""
        if self.name is None:
            return
        kind = KINDS[self.name]
        self.counted.store(log, times=kind.times, owners=kind.owners)
        self._users = log.users if kind.owners else None
        self._scorer = match_repeats(log, kind.fit(log))

    def added(self, scores: Tensor, samples: Samples, items: EntityTable) -> Tensor:
        """The scores with the baseline's part.

        Raises:
            InputError: damaged counts of a loaded model.
        """
        if self.name is None or len(samples) == 0:
            return scores
        return scores + self.part(samples, items).to(scores)

    def part(self, samples: Samples, items: EntityTable) -> Tensor:
        """What the baseline adds, ``[S, C]``."""
        if self._scorer is None:
            self._scorer = self._restored(items)
        with torch.no_grad():
            return float(self.weight) * logarithm(self._scorer.scores(samples))

    def _restored(self, items: EntityTable) -> Scorer:
        """The baseline of a loaded model, fitted to its stored events."""
        assert self.name is not None
        try:
            self.counted.check(len(items))
            log = self.counted.log(items, self._users)
            return match_repeats(log, KINDS[self.name].fit(log))
        except (ValueError, IndexError, TypeError) as error:
            raise InputError(f"the counted events are damaged ({error}); restore the model") from None

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        self._scorer = self._users = None
        for name, value in self.state_dict(prefix=prefix).items():
            state_dict.setdefault(name, value)  # a model that was saved before there were blends has none
        super()._load_from_state_dict(state_dict, prefix, *rest)


def logarithm(scores: Tensor) -> Tensor:
    """``log(1 + p / ε)`` of a baseline's scores ``[S, C]``, p their shares; excluded items (below 0) count as 0.

    >>> logarithm(torch.tensor([[1.0, 3.0, -1.0]])).exp().round().tolist()
    [[251.0, 751.0, 1.0]]
    """
    positive = scores.clamp(min=0)
    total = positive.sum(1, keepdim=True)
    share = positive / total.clamp(min=torch.finfo(scores.dtype).tiny)
    return torch.log1p(share / FLOOR)
