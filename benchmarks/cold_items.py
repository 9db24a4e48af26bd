"""Cold-start items: accuracy by the number of training clicks of the target and by context length.

    GRAPHMETA_DATA=… python -m benchmarks.cold_items complete_journey dropout_net --arguments '{"base": "sr_gnn"}'

A random sample of items is new: training contains none of their sessions, only their attributes. The test ranks the
next item of prefixes of sessions that contain a new item; the epoch is chosen on sessions with other new items. All
rows of a data set and seed share the training sessions and the test prefixes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.accuracy import BASELINES, arguments, fitted
from benchmarks.rows import CONTEXT, Row, cost, measured, provenance, write
from benchmarks.sessions import Sessions
from graphmeta.baselines import match_repeats
from graphmeta.data.events import EventLog
from graphmeta.data.splits import Split, split_by_item
from graphmeta.datasets import session_logs as datasets
from graphmeta.evaluation.adaptation_curves import by_steps
from graphmeta.evaluation.metrics import Ranks, summary
from graphmeta.evaluation.ranking import CONTEXT_LENGTHS, Result, evaluate
from graphmeta.published.catalogue import TRAINED
from graphmeta.sampling.samples import Samples, prefixes

DATASETS: Mapping[str, Callable[[], EventLog]] = {
    "complete_journey": datasets.complete_journey,
    "diginetica": lambda: datasets.diginetica()[0],  # the standard test log is not used
}
TARGETS = {"new": (0, 0), "rare": (1, 5), "all": (0, np.inf)}  # training events
KS, OVERLAP = (5, 20), "attribute_overlap"


class AttributeOverlap:
    """Categorical-overlap baseline: counts attribute values shared with the clicks, weighted by recency; no training.

    score(i) = Σ over clicks c and attributes a of [a(i) = a(c), not missing] / (position of c from the end, from 1).
    """

    def __init__(self, log: EventLog) -> None:
        self.num_items = log.num_items
        self.columns = [(torch.from_numpy(a.codes), a.size) for a in log.items.attributes.values()]

    def scores(self, samples: Samples) -> Tensor:
        """``[S, num_items]``."""
        item, ptr = samples.flat()
        sample = np.repeat(np.arange(len(samples)), np.diff(ptr))
        weight = torch.from_numpy(1.0 / (ptr[1:][sample] - np.arange(len(item))))
        total = torch.zeros(len(samples), self.num_items, dtype=weight.dtype)
        for codes, size in self.columns:
            of_value = torch.zeros(len(samples), size, dtype=weight.dtype)
            of_value.index_put_((torch.from_numpy(sample), codes[item]), weight, accumulate=True)
            of_value[:, 0] = 0  # code 0 is a missing value
            total += of_value.index_select(1, codes)
        return total


def main() -> None:
    """Run one row from the command line."""
    options = parser().parse_args()
    split = cut(DATASETS[options.dataset](), options)
    ran, began = provenance("benchmarks.cold_items"), time.perf_counter()
    model, history = trained(options, split)
    seconds = time.perf_counter() - began
    samples, support = sampled(split.test, options.test_samples, seed=options.seed), split.train.support
    result = ranked(model, samples, support)
    sessions = Sessions.of(result, samples)
    row = {
        "dataset": options.dataset,
        "protocol": "cold-items",
        "system": options.system,
        "arguments": options.arguments,
        "note": options.note,
        "learned_from": {"sessions": split.train.num_sessions, "events": split.train.num_events},
        "items": {name: int(inside(support, bounds).sum()) for name, bounds in TARGETS.items()},
        **measured(result, sessions),
        "targets": by_target(result.positions, support[samples.target], samples.lengths),
        "without_steps": without_steps(model, samples, support),
        "seed": options.seed,
        "epochs": options.epochs,
        "history": history,
        **cost(seconds),
        **ran,
    }
    write(row, variant=options.tag, sessions=sessions)
    print({name: found["hit@20"] for name, found in row["targets"].items()}, flush=True)


def parser() -> argparse.ArgumentParser:
    """The command-line options."""
    parser = arguments(__doc__, DATASETS, [*TRAINED, *BASELINES, OVERLAP])
    parser.add_argument("--last", type=float, default=1.0, help="use the last share of the log's sessions")
    parser.add_argument("--new", type=float, default=0.1, help="share of the items that are new in the test")
    parser.add_argument("--test-samples", type=int, default=10_000, help="number of randomly sampled test prefixes")
    parser.set_defaults(share=1.0)
    return parser


def cut(log: EventLog, options: argparse.Namespace) -> Split:
    """The last sessions of a log, split by item; validation has a fifth as many new items as the test."""
    last = np.arange(log.num_sessions) >= log.num_sessions - round(log.num_sessions * options.last)
    split = split_by_item(log.of_sessions(last), test=options.new, valid=options.new / 5, seed=options.seed)
    parts = (split.train, split.valid, split.test)
    print("sessions and events:", [(part.num_sessions, part.num_events) for part in parts], flush=True)
    return split


def trained(options: argparse.Namespace, split: Split) -> tuple[Any, list[dict[str, Any]]]:
    """The trained model and a row for each epoch."""
    if options.system == OVERLAP:
        return match_repeats(split.train, AttributeOverlap(split.train)), []
    return fitted(options, split.train, split.valid)


def sampled(log: EventLog, most: int, *, seed: int) -> Samples:
    """At most this many prefixes of the log, sampled without replacement."""
    every = prefixes(log)
    rows = np.random.default_rng(seed).permutation(len(every))[:most]
    return every.take(np.sort(rows))


def ranked(model: Any, samples: Samples, support: np.ndarray) -> Result:
    """The ranks of the targets."""
    return evaluate(model, samples, ks=KS, support=support, progress=partial(tqdm, mininterval=10))


def without_steps(model: Any, samples: Samples, support: np.ndarray) -> Row | None:
    """The results of a meta-learner without adaptation steps at inference; None for other systems."""
    adaptation = getattr(model, "adaptation", None)
    if adaptation is None or not adaptation.steps:
        return None
    found = by_steps(model, samples, steps=[0], ks=KS).results[0]
    return by_target(found.positions, support[samples.target], samples.lengths)


def inside(value: np.ndarray, bounds: tuple[float, float]) -> np.ndarray:
    """Which values lie within the bounds."""
    return (value >= bounds[0]) & (value <= bounds[1])


def by_target(ranks: Ranks | Tensor, events: np.ndarray, clicks: np.ndarray) -> dict[str, Row]:
    """Metrics over new, rare and all targets, each in total and by context length, with numbers of samples.

    Args:
        events: training clicks of the target, ``[S]``.
        clicks: clicks observed, ``[S]``.
    """

    def metrics(chosen: np.ndarray) -> Row:
        return {"samples": int(chosen.sum()), **summary(ranks[torch.from_numpy(chosen)], KS)}

    found = {}
    for name, bounds in TARGETS.items():
        chosen = inside(events, bounds)
        parts = {n: metrics(chosen & inside(clicks, few)) for n, few in CONTEXT_LENGTHS.items()}
        found[name] = {**metrics(chosen), CONTEXT: parts}
    return found


if __name__ == "__main__":
    main()
