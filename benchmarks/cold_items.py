"""Items nobody has clicked yet, and sessions of one click: what is found, by how new the target is and what is known.

    GRAPHMETA_DATA=… python -m benchmarks.cold_items complete_journey dropout_net --arguments '{"base": "sr_gnn"}'

Items drawn at random are new: training has none of their sessions, and knows their attributes alone. The test asks
for prefixes of the sessions that have such an item; the epoch is chosen on sessions with other new items. Every row of
a data set and seed learns from the same sessions and is asked the same prefixes.
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
from benchmarks.rows import Row, cost, measured, provenance, write
from graphmeta.baselines import as_in
from graphmeta.data.events import EventLog
from graphmeta.data.splits import Split, split_by_item
from graphmeta.datasets import session_logs as datasets
from graphmeta.evaluation.adaptation_curves import by_steps
from graphmeta.evaluation.metrics import summary
from graphmeta.evaluation.ranking import KNOWN_CLICKS, Result, evaluate
from graphmeta.published.catalogue import RANKING
from graphmeta.sampling.samples import Samples, prefixes

DATASETS: Mapping[str, Callable[[], EventLog]] = {
    "complete_journey": datasets.complete_journey,
    "diginetica": lambda: datasets.diginetica()[0],  # the standard test stays out of this
}
TARGETS = {"new": (0, 0), "rare": (1, 5), "all": (0, np.inf)}  # training events
KS = (5, 20)


class AttributeOverlap:
    """What has the most attributes in common with the clicks, the last one above all: items are never counted.

    score(i) = Σ over clicks c and attributes a of [a(i) = a(c), known] / (clicks since c, c included).
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
            of_value[:, 0] = 0  # unknown is no value
            total += of_value.index_select(1, codes)
        return total


def main() -> None:
    """Run one row from the command line."""
    options = parser().parse_args()
    split = cut(DATASETS[options.dataset](), options)
    ran, began = provenance("benchmarks.cold_items"), time.perf_counter()
    model, history = learned(options, split)
    seconds = time.perf_counter() - began
    asked, support = drawn(split.test, options.asked, seed=options.seed), split.train.support
    result = ranked(model, asked, support)
    row = {
        "dataset": options.dataset,
        "protocol": "cold-items",
        "system": options.system,
        "arguments": options.arguments,
        "note": options.note,
        "learned_from": {"sessions": split.train.num_sessions, "events": split.train.num_events},
        "items": {name: int(inside(support, bounds).sum()) for name, bounds in TARGETS.items()},
        **measured(result),
        "targets": by_target(result.ranks, support[asked.target], asked.lengths),
        "without_steps": without_steps(model, asked, support),
        "seed": options.seed,
        "epochs": options.epochs,
        "history": history,
        **cost(seconds),
        **ran,
    }
    write(row, variant=options.tag)
    print({name: told["hit@20"] for name, told in row["targets"].items()}, flush=True)


def parser() -> argparse.ArgumentParser:
    """The words of the command line."""
    parser = arguments(__doc__, DATASETS, [*RANKING, *BASELINES, "alike"])
    parser.add_argument("--last", type=float, default=1.0, help="share of the log's sessions, the last ones")
    parser.add_argument("--new", type=float, default=0.1, help="share of the items that are new to the test")
    parser.add_argument("--asked", type=int, default=10_000, help="prefixes of the test that are asked, at random")
    parser.set_defaults(share=1.0)
    return parser


def cut(log: EventLog, options: argparse.Namespace) -> Split:
    """The last sessions of a log, split by item; a fifth as many items as are new to the test are for validation."""
    last = np.arange(log.num_sessions) >= log.num_sessions - round(log.num_sessions * options.last)
    split = split_by_item(log.of_sessions(last), test=options.new, valid=options.new / 5, seed=options.seed)
    parts = (split.train, split.valid, split.test)
    print("sessions and events:", [(part.num_sessions, part.num_events) for part in parts], flush=True)
    return split


def learned(options: argparse.Namespace, split: Split) -> tuple[Any, list[dict[str, Any]]]:
    """The trained model, and what its epochs brought."""
    if options.system == "alike":
        return as_in(split.train, AttributeOverlap(split.train)), []
    return fitted(options, split.train, split.valid)


def drawn(log: EventLog, most: int, *, seed: int) -> Samples:
    """Prefixes of the log, so many of them at most, drawn without order."""
    every = prefixes(log)
    rows = np.random.default_rng(seed).permutation(len(every))[:most]
    return every.take(np.sort(rows))


def ranked(model: Any, asked: Samples, support: np.ndarray) -> Result:
    """What the model makes of the prefixes."""
    return evaluate(model, asked, ks=KS, support=support, progress=partial(tqdm, mininterval=10))


def without_steps(model: Any, asked: Samples, support: np.ndarray) -> Row | None:
    """The same of a system that adapts when it takes no step on a session's own clicks; None of any other."""
    adaptation = getattr(model, "adaptation", None)
    if adaptation is None or not adaptation.steps:
        return None
    found = by_steps(model, asked, steps=[0], ks=KS).results[0]
    return by_target(found.ranks, support[asked.target], asked.lengths)


def inside(value: np.ndarray, bounds: tuple[float, float]) -> np.ndarray:
    """Whether each value lies within the bounds."""
    return (value >= bounds[0]) & (value <= bounds[1])


def by_target(ranks: Tensor, events: np.ndarray, clicks: np.ndarray) -> dict[str, Row]:
    """Measures over the targets that are new, rare and any, each as a whole and by known clicks, with their number.

    Args:
        events: of the target in training; clicks: that are known. Shapes: ``[S]`` each.
    """

    def told(chosen: np.ndarray) -> Row:
        return {"samples": int(chosen.sum()), **summary(ranks[torch.from_numpy(chosen)], KS)}

    found = {}
    for name, bounds in TARGETS.items():
        chosen = inside(events, bounds)
        parts = {n: told(chosen & inside(clicks, few)) for n, few in KNOWN_CLICKS.items()}
        found[name] = {**told(chosen), "known clicks": parts}
    return found


if __name__ == "__main__":
    main()
