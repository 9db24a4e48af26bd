"""Choose on validation sessions which baseline is blended into a trained system, and with what weight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from graphmeta.baselines import match_repeats
from graphmeta.baselines.registry import MOST_USERS
from graphmeta.data.events import EventLog
from graphmeta.evaluation.lists import COMPARED_KS, lists_below
from graphmeta.evaluation.metrics import Ranks, hit, mrr, ranks
from graphmeta.evaluation.queries import validation_queries
from graphmeta.protocols import Scorer
from graphmeta.sampling.samples import Samples
from graphmeta.system import System
from graphmeta.system.blend import KINDS, logarithm

WEIGHTS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 64.0)  # 64: the baseline's ranking, whose ties the system ranks
MOST_QUERIES, LEAST_QUERIES = 4000, 1000  # validation sessions that are scored, evenly spaced
_SCORES = 4e8  # of these sessions and all items; large catalogues have fewer sessions
_BATCH = 100


@dataclass(frozen=True)
class Blended:
    """The chosen baseline with its weight, and Hit and MRR of the longest lists on the validation sessions: of the
    system alone, with the baseline, and of the baseline that has the best MRR alone.

    ``baseline`` is None if none improves the system clearly.
    """

    baseline: str | None
    weight: float
    queries: int
    validation: dict[str, dict[str, float]]

    def line(self) -> str:
        """The choice in one line."""

        def shown(name: str) -> str:
            return " / ".join(f"{100 * value:.2f}" for value in self.validation[name].values())

        metrics = " / ".join(name.replace("hit", "Hit").replace("mrr", "MRR") for name in self.validation["alone"])
        if self.baseline is None:
            return f"no baseline is blended in: none improves {metrics} {shown('alone')} on validation clearly"
        return (
            f"blended with {self.baseline}, weight {self.weight:g}: {metrics} {shown('blended')} on validation, "
            f"{shown('alone')} without"
        )


def choose_blend(system: System, valid: EventLog, log: EventLog) -> Blended | None:
    """Choose baseline and weight for a system that has a :class:`~graphmeta.system.blend.Blend`, and count the log.

    The gain of a choice is the mean over validation sessions of Hit and MRR of the longest lists, each relative to the
    system's own, ``½ Σ_m (m_i − m_i⁰) / mean(m⁰)``. A choice is clearly behind if a baseline, or the system alone, is
    ahead of it in either metric by more than a standard error of the paired difference. Of the choices that are not
    clearly behind, the one with the largest gain is taken, if the gain is larger than its standard error or the system
    alone is clearly behind. If all are clearly behind, the least so is taken.

    Args:
        system: trained, with the statistics of ``log``.
        valid: sessions after those of the log, not trained on.

    Returns:
        None for a system without a blend, or without validation queries.
    """
    if system.blend is None or valid.num_events == 0:
        return None
    system.blend.choose(None)
    samples = validation_queries(system, valid, log)
    if len(samples) == 0:
        return None
    size = min(MOST_QUERIES, max(LEAST_QUERIES, int(_SCORES / system.num_items)))
    samples = samples.take(np.unique(np.linspace(0, len(samples) - 1, size).astype(np.int64)))
    found = _positions(system, samples, _baselines(log, history=system.reads_history and samples.earlier is not None))
    k = lists_below(system.num_items, COMPARED_KS)[-1]
    values = {key: {f"hit@{k}": hit(one, k), f"mrr@{k}": mrr(one, k)} for key, one in found.items()}
    best = chosen_key(values)
    pure = max((key for key in values if np.isinf(key[1])), key=lambda key: float(values[key][f"mrr@{k}"].mean()))
    means = {
        title: {name: float(one.mean()) for name, one in values[key].items()}
        for title, key in (("alone", _ALONE), ("blended", best), (pure[0], pure))
    }
    chosen = Blended(best[0] or None, best[1], len(samples), means)
    system.blend.choose(chosen.baseline, chosen.weight)
    system.blend.fit_statistics(log)
    return chosen


_ALONE = ("", 0.0)
_Key = tuple[str, float]  # baseline and weight; infinite: the baseline alone


def chosen_key(values: Mapping[_Key, Mapping[str, Tensor]]) -> _Key:
    """The choice, see :func:`choose_blend`.

    Args:
        values: of the system alone, of each baseline alone and of each blend: per metric one value per session ``[S]``.
    """
    alone = values[_ALONE]
    others = [one for key, one in values.items() if np.isinf(key[1]) or key == _ALONE]

    def behind(key: _Key) -> float:
        """By how many standard errors the baseline or system alone that is most ahead exceeds this choice."""
        return max(_errors(other[metric] - own) for other in others for metric, own in values[key].items())

    def gain(key: _Key) -> Tensor:
        each = [(own - alone[m]) / alone[m].mean().clamp(min=1e-3) for m, own in values[key].items()]
        return torch.stack(each).mean(0)

    blends = [key for key in values if key != _ALONE and not np.isinf(key[1])]
    near = [key for key in blends if behind(key) <= 1]
    if behind(_ALONE) <= 1:
        near = [key for key in near if _errors(gain(key)) > 1]
        return max(near, key=lambda key: float(gain(key).mean()), default=_ALONE)
    return max(near, key=lambda key: float(gain(key).mean())) if near else min(blends, key=behind)


def _errors(difference: Tensor) -> float:
    """The mean in standard errors; infinite for a constant difference that is not 0."""
    mean, size = float(difference.mean()), len(difference)
    error = float(difference.std()) / size**0.5 if size > 1 else 0.0
    return mean / error if error > 0 else float(np.sign(mean)) * np.inf if mean else 0.0


def _baselines(log: EventLog, *, history: bool) -> dict[str, Scorer]:
    """The baselines that can be blended in, fitted to the log."""
    few = log.users is not None and len(log.users) <= MOST_USERS
    return {
        name: match_repeats(log, kind.fit(log))
        for name, kind in KINDS.items()
        if (not kind.history or history) and (not kind.owners or few)
    }


def _positions(system: System, samples: Samples, baselines: dict[str, Scorer]) -> dict[_Key, Ranks]:
    """The ranks of the targets by the system alone, by each baseline alone and by each blend."""
    keys = [_ALONE, *((name, weight) for name in baselines for weight in (*WEIGHTS, np.inf))]
    found = {key: Ranks.empty(len(samples)) for key in keys}
    for at in range(0, len(samples), _BATCH):
        rows = slice(at, at + _BATCH)
        part = samples.take(rows)
        target, own = torch.from_numpy(part.target), _own(system, part)
        found[_ALONE][rows] = ranks(own, target)
        for name, model in baselines.items():
            scores = model.scores(part)
            added = logarithm(scores).to(own)
            found[name, np.inf][rows] = ranks(scores, target)
            for weight in WEIGHTS:
                found[name, weight][rows] = ranks(own + weight * added, target)
    return found


def _own(system: System, samples: Samples) -> Tensor:
    """The system's own scores, on the CPU."""
    return system.own_scores(samples).float().cpu()
