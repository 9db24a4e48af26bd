"""Popularity baselines, and a wrapper that never recommends an item of the session again."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from graphmeta.baselines.incidence import Clicks
from graphmeta.data.events import EventLog
from graphmeta.data.scan.log import ScannedLog
from graphmeta.protocols import HasItems, KeepsHistories, ReadsHistory, ReadsTasks, Scorer
from graphmeta.sampling.samples import Samples
from graphmeta.sampling.tasks import Tasks


class Popularity:
    """Ranks items by popularity: score(i) = training events of i.

    Args:
        log: the training log.
    """

    reads_tasks = False

    def __init__(self, log: EventLog | ScannedLog) -> None:
        self.items, self.num_items = log.items, log.num_items
        self.support = torch.from_numpy(log.support).float()

    def scores(self, samples: Samples) -> Tensor:
        """The same row for each sample, ``[S, num_items]``."""
        return self.support.repeat(len(samples), 1)


class SessionPopularity:
    """The session's own items by frequency and recency, then the others by popularity.

    score(i) = clicks of s on i + place(i) / (L + 1) for the items of the session, at least 1, and
    support(i) / (1 + the largest support) for all others, below 1; support counts training events. So frequency
    decides, then recency, then popularity.

    Args:
        log: the training log.

    >>> import pandas as pd; from graphmeta.sampling.samples import sessions_without_target
    >>> clicks = pd.DataFrame({"session": [1, 1, 1, 2], "item": ["a", "b", "b", "c"]})
    >>> log = EventLog.read(clicks, session="session", item="item")
    >>> SessionPopularity(log).scores(sessions_without_target([np.array([2, 0, 2])])).tolist()[0]
    [1.5, 0.6666666865348816, 2.75]
    """

    reads_tasks = False

    def __init__(self, log: EventLog) -> None:
        self.items, self.num_items = log.items, log.num_items
        self.base = torch.from_numpy(log.support / (1 + log.support.max(initial=0))).float()

    def scores(self, samples: Samples) -> Tensor:
        """``[S, num_items]``."""
        clicks = Clicks.of(samples, num_items=self.num_items)
        own = clicks.count + clicks.place / (clicks.place + clicks.step)
        scores = self.base.repeat(len(samples), 1)
        scores[torch.from_numpy(clicks.sample), torch.from_numpy(clicks.item)] = torch.from_numpy(own).float()
        return scores


class NoRepeats:
    """Wraps a baseline so that it never recommends items of the session, for logs whose sessions repeat no item.

    A trained model learns this from such a log; a nearest-neighbour baseline does not. Seen items score −1.

    Args:
        model: the baseline; its own scores are at least 0.
    """

    def __init__(self, model: Scorer) -> None:
        self.model, self.num_items = model, model.num_items
        self.items = model.items if isinstance(model, HasItems) else None
        self.reads_tasks = not isinstance(model, ReadsTasks) or model.reads_tasks
        self.reads_history = isinstance(model, ReadsHistory) and model.reads_history
        self.histories = model.histories if isinstance(model, KeepsHistories) else None

    def scores(self, samples: Samples | Tasks) -> Tensor:
        """``[S, num_items]``, the model's scores except for seen items."""
        scores, queries = self.model.scores(samples).clone(), samples.query
        click, ptr = queries.flat()
        rows = np.repeat(np.arange(len(queries)), np.diff(ptr))
        scores[torch.from_numpy(rows), torch.from_numpy(click)] = -1.0
        return scores


def has_repeats(log: EventLog) -> bool:
    """Whether any session of the log contains an item twice."""
    pairs = log.session * max(log.num_items, 1) + log.item
    return len(np.unique(pairs)) < len(pairs)


def match_repeats(log: EventLog, model: Scorer) -> Scorer:
    """The baseline, wrapped in :class:`NoRepeats` if no session of its log repeats an item."""
    return model if has_repeats(log) else NoRepeats(model)
