"""Checks of a model: its scores of a session depend on that session alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphmeta.errors import counted
from graphmeta.evaluation.audit.findings import Finding, Verdict, percent
from graphmeta.evaluation.metrics import mrr, ranks
from graphmeta.protocols import Scorer
from graphmeta.sampling.padding import ragged
from graphmeta.sampling.samples import Samples
from graphmeta.sampling.tasks import Tasks

MODEL = "model"
TOLERANCE = 1e-3  # of the spread of a query's scores over items; rounding is far below
_ALONE, _HISTORIES = 24, 8  # queries that are scored alone, and with other histories


@dataclass(frozen=True)
class Probe:
    """A model under test: its scores of samples as float64 on the CPU.

    Args:
        model: a :class:`~graphmeta.protocols.Scorer`, or a function of lists of item numbers.
        num_items: number of items that it ranks.
    """

    model: Any
    num_items: int

    def __call__(self, samples: Samples | Tasks) -> Tensor:
        """``[S, C]``."""
        if isinstance(self.model, Scorer):
            found = self.model.scores(samples)
        else:
            item, ptr = samples.query.flat()
            found = self.model([item[a:b] for a, b in zip(ptr[:-1], ptr[1:], strict=True)])
        return torch.as_tensor(np.asarray(found) if not isinstance(found, Tensor) else found).detach().double().cpu()


def model_checks(probe: Probe, queries: Samples | Tasks, seed: int) -> tuple[list[Finding], dict[str, Any]]:
    """All checks of a model on samples, of which consecutive ones may be prefixes of one session, or on tasks.

    Scores ``[S, 1]`` are ratings.
    """
    random, every = np.random.default_rng(seed), np.arange(len(queries))
    scores = probe(queries)
    few = np.unique(np.linspace(0, len(queries) - 1, _ALONE).astype(np.int64))
    alone = torch.cat([probe(queries.take(np.array([row]))) for row in few])
    order = random.permutation(len(queries))
    differences = {
        "alone = in a batch": (few, alone, scores[_rows(queries, few)]),
        "another order": (order, probe(queries.take(order)), scores[_rows(queries, order)]),
        "the same again": (every, probe(queries), scores),
        "target invariance": (every, probe(_other_targets(probe, queries, random)), scores),
    }
    if isinstance(queries, Samples):
        real, other = _repacked(queries, None), _repacked(queries, random)
        differences["future invariance"] = (every, probe(other), probe(real))
        if queries.earlier is not None:
            differences["later sessions of users"] = _other_sessions(probe, queries, random)
    found, series = [], {}
    for check, (rows, one, other) in differences.items():
        largest = relative_difference(one, other)
        series[check] = float(largest.max(initial=0.0))
        found.append(_difference(check, largest, (one, other), queries.query.target[_rows(queries, rows)]))
    found += [*_finite(scores), *_ties(scores, queries)]
    return found, {"differences": series, "tolerance": TOLERANCE}


def _rows(queries: Samples | Tasks, rows: np.ndarray) -> np.ndarray:
    """The rows of the scores of these samples or tasks; a task has one per query."""
    return ragged(queries.query_ptr[rows], np.diff(queries.query_ptr)[rows])[0]


_MEANING = {
    "alone = in a batch": "the scores of a session depend on the sessions beside it",
    "another order": "the scores of a session depend on its place in the batch",
    "the same again": "a second call has other scores: they are random, or calls change the model",
    "target invariance": "the model reads the target",
    "future invariance": "the model reads clicks after the context",
    "later sessions of users": "the model reads sessions that are not earlier ones of the user",
}


def _difference(check: str, largest: np.ndarray, scores: tuple[Tensor, Tensor], target: np.ndarray) -> Finding:
    """The finding of two scores of the same samples that should be equal."""
    changed, most = int((largest > TOLERANCE).sum()), float(largest.max(initial=0.0))
    values: dict[str, Any] = {"largest relative difference": most, "changed": changed, "samples": len(largest)}
    size = counted(len(largest), "sample")
    if not changed:
        text = f"{size}: " + (f"differences up to {most:.1g} of the spread of scores" if most else "equal scores")
        return Finding(MODEL, check, Verdict.OK, text, values)
    if (target >= 0).all() and scores[0].shape[1] > 1:
        k = min(20, scores[0].shape[1] - 1)
        values["mrr"] = [float(mrr(ranks(one, torch.from_numpy(target)), k).mean()) for one in scores]
    text = f"{_MEANING[check]}: {counted(changed, 'sample')} of {len(largest):,} change, "
    text += f"by up to {most:.2g} times the spread of their scores"
    if "mrr" in values and check == "alone = in a batch":
        text += f"; MRR {100 * values['mrr'][0]:.1f} % alone, {100 * values['mrr'][1]:.1f} % in the batch"
    return Finding(MODEL, check, Verdict.FAULT, text, values)


def relative_difference(one: Tensor, other: Tensor) -> np.ndarray:
    """The largest difference of each row's scores, relative to their standard deviation over items: ``[S]``.

    Equal infinities are equal; NaN differs from numbers only.
    """
    same = (one == other) | (one.isnan() & other.isnan())
    gap = torch.where(same, 0.0, (one - other).abs().nan_to_num(nan=torch.inf)).amax(1)
    finite = torch.where(one.isfinite(), one, 0.0)
    spread = finite.std(1).clamp(min=1e-6) if one.shape[1] > 1 else torch.ones(len(one))
    return (gap / spread).numpy()


def _other_targets(probe: Probe, queries: Samples | Tasks, random: np.random.Generator) -> Samples | Tasks:
    """The samples or queries with random targets, half of them with none; of ratings, with other ratings."""
    query, size = queries.query, len(queries.query)
    if query.value is not None:
        query = replace(query, value=random.permutation(query.value) + 1)
    else:
        other = random.integers(0, probe.num_items, size)
        query = replace(query, target=np.where(np.arange(size) % 2 == 0, other, -1))
    return query if isinstance(queries, Samples) else replace(queries, query=query)


def _other_sessions(probe: Probe, queries: Samples, random: np.random.Generator) -> tuple[np.ndarray, Tensor, Tensor]:
    """Scores of a few samples with all sessions of the histories replaced but the earlier ones of their user."""
    rows = np.unique(np.linspace(0, len(queries) - 1, _HISTORIES).astype(np.int64))
    one, other = [], []
    for row in rows:
        query = queries.take(np.array([row]))
        assert query.earlier is not None
        known = query.earlier.histories
        first, last = known.begin[query.earlier.since[0]], known.begin[query.earlier.until[0]]
        item = random.integers(0, probe.num_items, len(known.item))
        item[first:last] = known.item[first:last]
        one.append(probe(query))
        other.append(probe(replace(query, earlier=replace(query.earlier, histories=replace(known, item=item)))))
    return rows, torch.cat(other), torch.cat(one)


_LATER = 3  # clicks after each context


def _repacked(queries: Samples, random: np.random.Generator | None) -> Samples:
    """The samples, each with its own context and its own clicks after it: the target, or random ones at other times.

    So one sample's context is not another's future.
    """
    item, ptr = queries.flat()
    lengths = queries.lengths
    begin = ptr[:-1] + _LATER * np.arange(len(queries))
    end = begin + lengths
    size = int(ptr[-1]) + _LATER * len(queries)
    place = np.arange(len(item)) + _LATER * np.repeat(np.arange(len(queries)), lengths)
    after = (end[:, None] + np.arange(_LATER)).ravel()
    clicks = np.zeros(size, dtype=np.int64)
    clicks[place] = item
    known = queries.target.clip(min=0)
    highest = int(max(item.max(initial=0), known.max(initial=0)))
    clicks[after] = np.repeat(known, _LATER) if random is None else random.integers(0, highest + 1, len(after))
    time = None
    if queries.time is not None:
        where = np.concatenate([np.arange(a, b) for a, b in zip(queries.begin, queries.end, strict=True)])
        time = np.zeros(size)
        time[place] = queries.time[where.astype(np.int64)]
        last = np.where(lengths > 0, time[np.maximum(end - 1, 0)], 0.0)
        time[after] = np.repeat(last, _LATER) + (1.0 if random is None else 1e6)
    return replace(queries, item=clicks, begin=begin, end=end, time=time, value=None)


def _finite(scores: Tensor) -> Iterator[Finding]:
    """Scores that are NaN or +inf."""
    bad = (scores.isnan() | (scores == torch.inf)).any(1)
    if bad.any():
        share = float(bad.double().mean())
        yield Finding(
            MODEL,
            "finite scores",
            Verdict.FAULT,
            f"{percent(share)} of the queries have scores that are NaN or +inf: their ranks are arbitrary",
            {"share": share},
        )
        return
    yield Finding(MODEL, "finite scores", Verdict.OK, "no score is NaN or +inf")


def _ties(scores: Tensor, queries: Samples | Tasks) -> Iterator[Finding]:
    """How many targets have the score of another item, and what the order of ties could add to MRR."""
    target = torch.from_numpy(queries.query.target)
    if scores.shape[1] == 1 or (target < 0).any():
        return
    k = min(20, scores.shape[1] - 1)
    found = ranks(scores, target)
    share = float((found.tied > 1).double().mean())
    best, worst = mrr(found.best, k), mrr(found.best + found.tied - 1, k)
    values = {"share": share, "mrr": float(mrr(found, k).mean())}
    values |= {"first": float(best.mean()), "last": float(worst.mean())}
    text = f"{percent(share)} of the targets have the score of another item"
    if share:
        text += (
            f"; MRR@{k} is {100 * values['first']:.2f} % if targets are first among ties, "
            f"{100 * values['last']:.2f} % if they are last, {100 * values['mrr']:.2f} % on average"
        )
    yield Finding(MODEL, "ties", Verdict.NOTE if values["first"] - values["last"] > 0.01 else Verdict.OK, text, values)
