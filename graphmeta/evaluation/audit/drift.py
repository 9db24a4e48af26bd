"""Checks of a split for time order, popularity drift and how much the order of clicks matters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from graphmeta.baselines import Stan, match_repeats
from graphmeta.data.events import EventLog
from graphmeta.data.tables import same_ids
from graphmeta.errors import InputError, counted
from graphmeta.evaluation.audit.findings import Finding, Verdict, percent
from graphmeta.evaluation.audit.given import Part, clicks_of
from graphmeta.evaluation.intervals import Paired, paired
from graphmeta.evaluation.lists import COMPARED_KS, lists_below
from graphmeta.evaluation.metrics import mrr
from graphmeta.evaluation.ranking import evaluate
from graphmeta.protocols import Scorer
from graphmeta.sampling.samples import Samples, last_clicks

SPLIT = "split"
_QUERIES = 1000  # of the shuffle test
_BINS = 60


def time_order(parts: Mapping[str, Part]) -> Iterator[Finding]:
    """Whether training ends before validation and test begin."""
    check, logs = "time order", {name: part for name, part in parts.items() if isinstance(part, EventLog)}
    if len(logs) < 2 or not all(log.has_time for log in logs.values()):
        text = "not checked: the parts have no times; name the column of times (--time, time=) to split by time"
        yield Finding(SPLIT, check, Verdict.NOTE, text)
        return
    begins = {name: float(log.time.min()) for name, log in logs.items()}
    late: dict[str, Any] = {
        f"{one} after {other} begins": float((logs[one].time >= begins[other]).mean())
        for one, other in (("train", "valid"), ("train", "test"), ("valid", "test"))
        if one in logs and other in logs
    }
    worst = max(late, key=lambda pair: late[pair])
    if late[worst] == 0:
        yield Finding(SPLIT, check, Verdict.OK, "each part ends before the next one begins", late)
        return
    # A validation session that began before the test may end after its begin; its items do not leak into training.
    verdict = Verdict.NOTE if late[worst] < 0.01 and not worst.startswith("train") else Verdict.WARNING
    text = f"{percent(late[worst])} of the clicks of {worst.replace(' after ', ' are after ')}"
    remedy = "" if verdict is Verdict.NOTE else ": trends of the test period are in training; split by time"
    yield Finding(SPLIT, check, verdict, text + remedy, late)


def same_times(parts: Mapping[str, Part]) -> Iterator[Finding]:
    """Sessions whose clicks all have one time, so that their order is that of the file."""
    log = parts["train"]
    if not isinstance(log, EventLog) or not log.has_time:
        return
    inside = np.flatnonzero(np.diff(log.session) == 0)
    share = float((np.diff(log.time)[inside] == 0).mean()) if len(inside) else 0.0
    text = f"{percent(share)} of consecutive clicks of a session have the same time"
    if share > 0.5:
        text += ": the order inside sessions is that of the file"
    yield Finding(SPLIT, "times inside sessions", Verdict.NOTE if share > 0.5 else Verdict.OK, text, {"share": share})


def popularity_drift(parts: Mapping[str, Part], seed: int) -> tuple[list[Finding], dict[str, Any]]:
    """The Jensen-Shannon distance of the items' shares of clicks in training and test, beside that of random parts.

    Raises:
        InputError: scipy is not installed.
    """
    if "test" not in parts:
        return [], {}
    try:
        from scipy.spatial.distance import jensenshannon
        from scipy.stats import spearmanr
    except ImportError:
        raise InputError("the audit needs scipy; pip install 'graphmeta[cli]'") from None
    train, test = (clicks_of(parts[name])[0].astype(str) for name in ("train", "test"))
    names, code = np.unique(np.concatenate([train, test]), return_inverse=True)
    random = np.random.default_rng(seed)

    def counts(codes: np.ndarray) -> np.ndarray:
        return np.bincount(codes, minlength=len(names)).astype(np.float64)

    def distance(one: np.ndarray, other: np.ndarray) -> float:
        return float(jensenshannon(counts(one), counts(other), base=2))

    mixed = random.permutation(code)
    found = distance(code[: len(train)], code[len(train) :])
    by_chance = distance(mixed[: len(train)], mixed[len(train) :])
    before, after = counts(code[: len(train)]), counts(code[len(train) :])
    both = (before > 0) & (after > 0)
    varied = both.sum() > 2 and min(np.ptp(before[both]), np.ptp(after[both])) > 0
    ranked: Any = spearmanr(before[both], after[both]) if varied else None
    rank = 0.0 if ranked is None else float(ranked.statistic)
    top = np.argsort(-before, kind="stable")[: max(len(names) // 100, 1)]
    covered = float(after[top].sum() / max(after.sum(), 1)), float(before[top].sum() / max(before.sum(), 1))
    values = {"distance": found, "distance of random parts": by_chance, "rank correlation": rank}
    text = (
        f"Jensen-Shannon distance between the items' shares of training and test clicks {found:.3f}, without drift "
        f"{by_chance:.3f}; the most popular 1 % of training items have {percent(covered[1])} of the training clicks "
        f"and {percent(covered[0])} of the test clicks"
    )
    verdict = Verdict.NOTE if found > 1.2 * by_chance else Verdict.OK
    shown = random.permutation(np.flatnonzero(after > 0))[:2000]
    series = {"popularity": {"train": before[shown].tolist(), "test": after[shown].tolist()}}
    return [Finding(SPLIT, "popularity drift", verdict, text, values)], series


def sizes(parts: Mapping[str, Part]) -> dict[str, Any]:
    """The numbers of the figures of sizes: context lengths by part, and clicks over time."""
    series: dict[str, Any] = {"lengths": {}, "times": {}}
    for name, part in parts.items():
        lengths = np.diff(clicks_of(part)[1])
        series["lengths"][name] = np.bincount(np.minimum(lengths, 21), minlength=22)[1:].tolist()
    logs = {name: part for name, part in parts.items() if isinstance(part, EventLog) and part.has_time}
    if logs and len(logs) == len(parts):
        low, high = min(log.time.min() for log in logs.values()), max(log.time.max() for log in logs.values())
        edges = np.linspace(low, max(high, low + 1), _BINS + 1)
        series["times"] = {name: np.histogram(log.time, edges)[0].tolist() for name, log in logs.items()}
        series["edges"] = edges.tolist()
    return series


def order_matters(
    parts: Mapping[str, Part], seed: int, model: Scorer | None = None, name: str = "STAN"
) -> tuple[list[Finding], dict[str, Any]]:
    """The shuffle test: MRR with the contexts as they are, in random order, and with the last click alone.

    Args:
        model: STAN, fitted to the training part, if not given.
        name: for the text.
    """
    train, test = parts["train"], parts.get("test")
    if not isinstance(train, EventLog) or not isinstance(test, EventLog):
        return [], {}
    test = test if same_ids(train.items, test.items) else test.aligned_to(train.items, train.users)
    queries = last_clicks(test, min_length=3)
    if len(queries) < 2:
        return [], {}
    queries = queries.take(np.unique(np.linspace(0, len(queries) - 1, _QUERIES).astype(np.int64)))
    return shuffle_test(match_repeats(train, Stan(train)) if model is None else model, queries, seed, name)


def shuffle_test(model: Scorer, queries: Samples, seed: int, name: str) -> tuple[list[Finding], dict[str, Any]]:
    """The shuffle test of a model on queries with two or more clicks each."""
    k = lists_below(model.num_items, COMPARED_KS)[-1]
    variants = {
        "as it is": queries,
        "shuffled": shuffled(queries, seed),
        "last click alone": queries.latest(1),
    }
    found = {title: mrr(evaluate(model, own, ks=(k,)).positions, k).numpy() for title, own in variants.items()}
    differences: dict[str, Paired] = {title: paired(found["as it is"], found[title]) for title in list(variants)[1:]}
    one = differences["shuffled"]
    means = {title: float(values.mean()) for title, values in found.items()}
    errors = {title: float(values.std() / max(len(values), 1) ** 0.5) for title, values in found.items()}
    text = (
        f"MRR@{k} of {name} on {counted(len(queries), 'sample')} is "
        f"{100 * means['as it is']:.2f} %, {100 * means['shuffled']:.2f} % with shuffled contexts (p = {one.p:.2g}), "
        f"{100 * means['last click alone']:.2f} % with the last click alone"
    )
    matters = one.p < 0.05 and one.difference > 0
    text += ": the order matters" if matters else ": no effect of the order can be shown"
    values = {**means, "p": one.p, "metric": f"mrr@{k}"}
    return [Finding(SPLIT, "order of clicks", Verdict.NOTE, text, values)], {
        "order": {"metric": f"MRR@{k}", "means": means, "errors": errors}
    }


def shuffled(samples: Samples, seed: int) -> Samples:
    """The samples with the clicks of each context in random order; times stay in order."""
    random, (item, ptr) = np.random.default_rng(seed), samples.flat()
    row = np.repeat(np.arange(len(samples)), np.diff(ptr))
    order = np.lexsort((random.random(len(item)), row))
    time = None
    if samples.time is not None:
        where = np.concatenate([np.arange(a, b) for a, b in zip(samples.begin, samples.end, strict=True)] or [item])
        time = samples.time[where]
    return replace(samples, item=item[order], begin=ptr[:-1], end=ptr[1:], time=time)
