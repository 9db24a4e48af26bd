"""Checks of a training procedure and of a metric: neither may use the test part, and chance must score at chance."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphmeta.data.events import EventLog
from graphmeta.data.splits import Split
from graphmeta.errors import counted
from graphmeta.evaluation.audit.findings import Finding, Verdict
from graphmeta.evaluation.audit.model import TOLERANCE, Probe, relative_difference
from graphmeta.sampling.samples import Samples, last_clicks

Fit = Callable[[Split], Any]
Measure = Callable[[Tensor, Tensor], float]
_ALTERED = 3  # test parts that a training gets instead of the real one
_PROBES = 50  # sessions of the validation part that the trained models are compared on


class _Watched(Split):
    """A split that counts how often its test part is read."""

    reads: int = 0

    def __getattribute__(self, name: str) -> Any:
        if name in ("test", "parts"):
            object.__setattr__(self, "reads", object.__getattribute__(self, "reads") + 1)
        return object.__getattribute__(self, name)


def training_checks(fit: Fit, split: Split, seed: int) -> Iterator[Finding]:
    """Train with the real test part and with altered ones: the models must be equal.

    A choice of epoch or settings on the test part follows what it holds. Training twice with the real one shows whether
    the procedure is deterministic, without which the models cannot be compared.
    """
    queries = _probes(split)
    watched = _Watched(**vars(split))
    one, again = (_scores(fit, given, queries) for given in (watched, split))
    check = "training without the test part"
    noise = float(relative_difference(one, again).max(initial=0.0))
    if noise > TOLERANCE:
        text = "not checked: two trainings with the same data give different models; fix the seed inside fit"
        yield Finding("training", check, Verdict.WARNING, text, {"largest relative difference": noise})
        return
    random = np.random.default_rng(seed)
    changed = []
    for _ in range(_ALTERED):
        other = _scores(fit, replace(split, test=_altered(split.test, random)), queries)
        changed.append(float(relative_difference(other, one).max(initial=0.0)))
    values = {"largest relative difference": max(changed), "reads of the test part": watched.reads}
    if max(changed) > TOLERANCE:
        number = sum(most > TOLERANCE for most in changed)
        text = (
            f"{counted(number, 'altered test part')} of {_ALTERED} give another model: epoch, settings or statistics "
            f"are chosen on the test part; choose them on validation"
        )
        yield Finding("training", check, Verdict.FAULT, text, values)
    elif watched.reads:
        text = f"the training reads the test part ({counted(watched.reads, 'time')}), but the model does not change"
        yield Finding("training", check, Verdict.WARNING, text, values)
    else:
        yield Finding("training", check, Verdict.OK, "the training does not read the test part", values)


def _scores(fit: Fit, split: Split, queries: Samples) -> Tensor:
    return Probe(fit(split), split.train.num_items)(queries)


def _probes(split: Split) -> Samples:
    """A few sessions of the validation part, or of training without one."""
    queries = last_clicks(split.valid if split.valid.num_events else split.train)
    return queries.take(np.unique(np.linspace(0, len(queries) - 1, _PROBES).astype(np.int64)))


def _altered(log: EventLog, random: np.random.Generator) -> EventLog:
    """The log with the clicks of all sessions in random places."""
    return replace(log, item=random.permutation(log.item))


def metric_checks(measure: Measure, seed: int, *, items: int = 50, queries: int = 2000) -> Iterator[Finding]:
    """Whether a metric gives chance to constant scores, and no more than chance to NaN.

    Args:
        measure: ``(scores [S, C], target [S]) -> value``, higher is better, such as Hit@20.
    """
    made = torch.Generator().manual_seed(seed)
    target = torch.randint(items, (queries,), generator=made)
    random = torch.rand(queries, items, generator=made)
    chance = float(measure(random, target))
    noise = 5 * 0.5 / queries**0.5
    at_front = torch.zeros(queries, dtype=torch.int64)  # a metric that keeps the first of ties favours item 0
    constant = [float(measure(torch.ones(queries, items), one)) for one in (target, at_front, at_front + items - 1)]
    values: dict[str, Any] = {"chance": chance, "constant": max(constant)}
    spread = max(constant) - min(constant)
    if abs(constant[0] - chance) > noise or max(constant) > chance + noise:
        text = (
            f"the metric of constant scores is {max(constant):.3f}, of random scores {chance:.3f}: ties favour targets"
        )
        yield Finding("metric", "constant scores at chance", Verdict.FAULT, text, values)
    else:
        verdict = Verdict.WARNING if spread > noise else Verdict.OK
        text = f"the metric of constant scores is {constant[0]:.3f}, of random scores {chance:.3f}"
        text += ": the value depends on the number of the item" if verdict is Verdict.WARNING else ""
        yield Finding("metric", "constant scores at chance", verdict, text, values)
    broken = random.clone()
    broken[torch.arange(queries), target] = torch.nan
    try:
        found = float(measure(broken, target))
    except (ArithmeticError, ValueError, RuntimeError) as error:
        text = f"scores that are NaN are refused: {type(error).__name__}"
        yield Finding("metric", "NaN scores", Verdict.OK, text)
        return
    fair = found <= chance + noise
    text = f"the metric of targets with a NaN score is {found:.3f}, of random scores {chance:.3f}"
    text += "" if fair else ": NaN is ranked first"
    yield Finding("metric", "NaN scores", Verdict.OK if fair else Verdict.FAULT, text, {"value": found})
