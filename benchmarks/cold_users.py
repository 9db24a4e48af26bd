"""Cold-start users with one to five observed items, MetaCF's protocol: one row of results per system.

    GRAPHMETA_DATA=… python -m benchmarks.cold_users movielens1m --systems meta_cf_g,melu_id --seed 0

Users are split 1:2:1 into pretraining, meta-training and test. For each user of the last two, 2 to 10 records are
sampled: half are the support set, the others the query set, ranked among all items outside the support. Item factors
are trained on the pretraining users only, until a held-out record of each has not been ranked better for ten epochs.
Under ``--preset paper`` an epoch is one step of plain gradient descent on the sum over all users, so epochs and
patience are in the hundreds. A tenth of the meta-training users choose epoch and inner learning rate (``bpr_fold_in``
uses held-out support items of the test users). The test is evaluated once per row, and once for each number of steps,
which is reported but not used for selection. Baselines are fitted on the whole histories of the pretraining and
meta-training users.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmarks import rows
from benchmarks.rows import cost, epoch_row, measured, provenance, some_of
from graphmeta import baselines as neighbours
from graphmeta.adapt.step import Gradient
from graphmeta.data.events import EventLog
from graphmeta.data.splits import split_users
from graphmeta.datasets import session_logs as datasets
from graphmeta.evaluation.ranking import Result, evaluate_tasks
from graphmeta.published.catalogue import build
from graphmeta.published.models.cold_user import DEFAULT, PAPER, Preset
from graphmeta.sampling.few_shot import sampled_tasks
from graphmeta.sampling.samples import Samples
from graphmeta.sampling.tasks import Tasks, tasks_of
from graphmeta.system import System
from graphmeta.training.loop import train
from graphmeta.training.optimizers import Adam, Scheduled
from graphmeta.training.settings import TrainOptions

DATASETS: dict[str, Callable[[], EventLog]] = {
    "movielens1m": datasets.movielens_1m_histories,
    "amazon_cell": lambda: datasets.amazon_histories("Cell_Phones_and_Accessories"),
}
META = ("meta_cf_g", "meta_cf_linear", "meta_cf_neural", "melu_id")
BASELINES = {"popularity": neighbours.Popularity, "item_knn": neighbours.ItemKNN}
FOLD_IN = ("bpr_fold_in", "bpr_fold_in_best")
RATES, FOLD_IN_RATES = (1e-2, 5e-2, 2e-1), (5e-2, 2e-1, 1.0)
LIMITS = {"default": (15, 4), "paper": (1500, 300)}  # epochs of meta-training, and of patience
AT_ONCE = 200  # users whose scores are in memory together
STEPS = (*range(6), 7, 10, 15, 20, 30, 40, 50)


@dataclass(frozen=True)
class Protocol:
    """The log of the pretraining users, the tasks of the others, and the log that baselines are fitted on."""

    pretrain: EventLog
    learn: Tasks
    valid: Tasks
    test: Tasks
    seen: EventLog

    @classmethod
    def of(cls, log: EventLog, *, seed: int) -> Protocol:
        """Split the users of a log."""
        pretrain, meta, test = split_users(log, seed=seed)
        learn, valid = (sampled_tasks(part, seed=seed) for part in split_users(meta, shares=(9, 1), seed=seed))
        users = np.concatenate([pretrain.sessions, meta.sessions])
        seen = log.of_sessions(np.isin(log.sessions, users)).aligned_to(log.items)
        return cls(pretrain, learn, valid, sampled_tasks(test.aligned_to(log.items), seed=seed), seen)


@dataclass(frozen=True)
class Row:
    """The chosen settings, the training history and the results, also by number of steps."""

    arguments: dict[str, Any]
    history: list[dict[str, Any]]
    result: Result
    by_steps: dict[str, dict[str, float]]


def main() -> None:
    """Run rows from the command line."""
    options = read()
    protocol = Protocol.of(DATASETS[options.dataset](), seed=options.seed)
    print(sizes(protocol), flush=True)
    factors, pretraining = None, []
    if set(options.systems) - set(BASELINES):
        factors, pretraining = pretrained(protocol.pretrain, epochs=options.pretrain_epochs, seed=options.seed)
    for name in options.systems:
        began = time.perf_counter()
        row = run(name, protocol, factors, options)
        write(name, row, options, pretraining, time.perf_counter() - began)


def parser() -> argparse.ArgumentParser:
    """The command-line options."""
    names = [*FOLD_IN, *META, *BASELINES]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=DATASETS)
    parser.add_argument("--systems", type=some_of(names), default=names, help="comma-separated names; default: all")
    parser.add_argument("--seed", type=int, default=0)
    limits = ", ".join(f"{preset}: {limit}" for preset, limit in LIMITS.items())
    parser.add_argument("--epochs", type=int, help=f"maximum epochs of meta-training ({limits}, see there)")
    parser.add_argument("--patience", type=int, help="epochs of meta-training without improvement")
    parser.add_argument("--pretrain-epochs", type=int, default=100, help="maximum epochs of the item factors")
    parser.add_argument("--rates", type=json.loads, default=RATES, help="candidate inner learning rates, as JSON")
    parser.add_argument("--preset", choices=LIMITS, default="default")
    return parser


def read(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The options, with the epochs and the patience of the preset."""
    options = parser().parse_args(words)
    epochs, patience = LIMITS[options.preset]
    options.epochs, options.patience = options.epochs or epochs, options.patience or patience
    return options


def sizes(protocol: Protocol) -> str:
    """The sizes of all parts."""
    parts = {"meta-training": protocol.learn, "validation": protocol.valid, "test": protocol.test}
    tasks = [f"{n}: {len(t):,} users, {len(t.support):,} support, {len(t.query):,} query" for n, t in parts.items()]
    log = protocol.pretrain
    return "; ".join([f"pretraining: {log.num_sessions:,} users, {log.num_events:,} records", *tasks])


def pretrained(log: EventLog, *, epochs: int, seed: int) -> tuple[System, list[dict[str, Any]]]:
    """Item factors; one record per user is held out to choose the epoch."""
    support, queries = one_held_out(log, seed=seed)
    held_out, learn = tasks_of(log, support, queries), log.select(support).aligned_to(log.items, log.users)
    torch.manual_seed(seed)
    system = build("bpr_fold_in", log.items, users=log.users)

    def valid(of: System) -> dict[str, float]:
        return evaluate_tasks(KnownUsers(of), held_out, batch_size=AT_ONCE).metrics

    optimizer = Adam(lr=1e-2, weight_decay=1e-5, decay_tables=True)
    return system, trained(system, learn, valid, optimizer, epochs=epochs, seed=seed, batch=4096, patience=10)


def one_held_out(log: EventLog, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Masks of the training events and of one random held-out event per session."""
    key = np.random.default_rng(seed).random(log.num_events)
    order = np.lexsort((key, log.session))
    queries = np.zeros(log.num_events, dtype=bool)
    queries[order[log.ptr[:-1]]] = True
    return ~queries, queries


class KnownUsers:
    """Scores items by the trained user vectors, without adaptation."""

    def __init__(self, system: System) -> None:
        self.system, self.num_items = system, system.num_items

    @torch.no_grad()
    def scores(self, samples: Samples) -> torch.Tensor:
        """Scores of all items."""
        assert self.system.recommender is not None
        return self.system.recommender(self.system._queries(samples))


def trained(
    system: System, log: EventLog, valid: Callable[[System], dict[str, float]], optimizer: Scheduled, *,
    epochs: int, seed: int, batch: int, patience: int = 4,
) -> list[dict[str, Any]]:  # fmt: skip
    """Train with early stopping; a row for each epoch."""
    reports = []
    for report in train(
        system,
        log,
        epochs=epochs,
        optimizer=optimizer,
        batch_size=batch,
        valid=valid,
        seed=seed,
        options=TrainOptions(patience=patience),
    ):
        print(f"  {report.epoch} loss {report.loss:.4f} {report.seconds:.0f} s {report.valid}", flush=True)
        reports.append(epoch_row(report))
    return reports


def run(name: str, protocol: Protocol, factors: System | None, options: argparse.Namespace) -> Row:
    """One system."""
    if name in BASELINES:
        return Row({}, [], evaluate_tasks(BASELINES[name](protocol.seen), protocol.test), {})
    assert factors is not None
    if name in FOLD_IN:
        return folded_in(factors, protocol, steps=STEPS if name.endswith("best") else (5,))
    return meta_trained(name, protocol, factors, options)


def folded_in(system: System, protocol: Protocol, *, steps: tuple[int, ...]) -> Row:
    """Choose rate (and steps, if several) on a held-out support item, then evaluate with the whole support."""
    held_out = known_held_out(protocol.test)
    tried = {(lr, n): hit(stepped(system, held_out, n, lr=lr)) for lr in FOLD_IN_RATES for n in steps}
    lr, best = max(tried, key=lambda one: tried[one])
    reported = steps if len(steps) > 1 else range(6)
    by_steps = {str(n): stepped(system, protocol.test, n, lr=lr).metrics for n in reported}
    arguments = {"lr": lr, "steps": best}
    print(f"  chosen {arguments}: {tried[lr, best]:.4f} on held-out items", flush=True)
    return Row(arguments, [], stepped(system, protocol.test, best, lr=lr), by_steps)


def known_held_out(tasks: Tasks) -> Tasks:
    """Tasks with two support items or more, the last of which becomes the query."""
    some = tasks.take(np.flatnonzero(tasks.support_sizes > 1))
    last = some.support_ptr[1:] - 1
    keep = np.delete(np.arange(len(some.support)), last)
    ptr = some.support_ptr - np.arange(len(some) + 1)
    return Tasks(some.support.take(keep), some.support.take(last), ptr, np.arange(len(some) + 1))


def stepped(system: System, tasks: Tasks, steps: int, *, lr: float | None = None) -> Result:
    """The results after this many steps; with ``lr``, the system's inner rate is that from now on."""
    assert system.adaptation is not None and isinstance(step := system.adaptation.step, Gradient)
    step.lr = step.lr if lr is None else lr
    return evaluate_tasks(system, tasks, batch_size=AT_ONCE, steps=steps)


def hit(result: Result) -> float:
    """The metric for model selection."""
    return result.metrics["hit@10"]


def meta_trained(name: str, protocol: Protocol, factors: System, options: argparse.Namespace) -> Row:
    """Choose the inner learning rate on validation users, then evaluate on the test users."""
    presets = (
        [Preset(lr, False, DEFAULT.optimizer) for lr in options.rates] if options.preset == "default" else [PAPER[name]]
    )
    best: tuple[float, System, Preset, list[dict[str, Any]]] | None = None

    def valid(of: System) -> dict[str, float]:
        return evaluate_tasks(of, protocol.valid, batch_size=AT_ONCE).metrics

    for preset in presets:
        torch.manual_seed(options.seed)
        system = build(name, protocol.seen.items, **preset.arguments())
        system.load_matching(factors)
        system.samples = lambda log, max_length: protocol.learn
        print(f"{name} {preset.arguments()}", flush=True)
        batch = len(protocol.learn) if preset.sums else 256
        many = {"epochs": options.epochs, "seed": options.seed, "batch": batch, "patience": options.patience}
        found = trained(system, protocol.seen, valid, preset.optimizer, **many)
        score = valid(system)["hit@10"]
        if best is None or score > best[0]:
            best = score, system, preset, found
    assert best is not None
    _, system, preset, history = best
    by_steps = {str(n): stepped(system, protocol.test, n).metrics for n in range(6)}
    return Row(preset.arguments(), history, stepped(system, protocol.test, 5), by_steps)


def write(name: str, row: Row, options: argparse.Namespace, pretraining: list[dict[str, Any]], seconds: float) -> None:
    """Write the row's file."""
    special = "" if options.preset == "default" else f" --preset {options.preset}"
    special += "" if options.patience == LIMITS["default"][1] else f" --patience {options.patience}"
    limits = f"--epochs {options.epochs} --pretrain-epochs {options.pretrain_epochs} --rates '{list(options.rates)}'"
    command = (
        f"python -m benchmarks.cold_users {options.dataset} --systems {name} {limits}{special} --seed {options.seed}"
    )
    document = {
        "dataset": options.dataset,
        "protocol": "metacf",
        "system": name,
        "arguments": row.arguments | ({} if options.preset == "default" else {"preset": options.preset}),
        **measured(row.result),
        "by_steps": row.by_steps,
        "seed": options.seed,
        "epochs": len(row.history),
        "history": row.history,
        "pretraining": pretraining,
        **cost(seconds),
        **provenance("benchmarks.cold_users"),
        "command": command,
    }
    rows.write(document, variant="" if options.preset == "default" else options.preset)
    if row.by_steps:
        print("  by steps", {n: round(m["hit@10"], 4) for n, m in row.by_steps.items()}, flush=True)


if __name__ == "__main__":
    main()
