"""Search the settings of a system on validation sessions, with the same budget whatever the system.

    GRAPHMETA_DATA=… python -m benchmarks.tune complete_journey gc_san --trials 8 --minutes 20

What is searched follows from what the system takes: the learning rate always, its width, dropout, layers and steps,
and for one that adapts its inner rate (its steps are inner ones). The first trial has the system's own defaults, which
widen what is searched if they lie outside; the others are drawn by optuna's tree of Parzen estimators. A trial is a
training of so many epochs on a share of the log, and worth the MRR@20 of its best epoch on the protocol's validation
log, or where there is none on the last training sessions. The test log is not looked at. Every trial is written down
when it ends; a stopped search goes on there.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)

from benchmarks.accuracy import DATASETS, Dataset, arguments, fitted
from benchmarks.rows import MEASURE, RATE, Row, path_of, provenance, read
from graphmeta.errors import DivergedError
from graphmeta.published.catalogue import CATALOGUE, RANKING
from graphmeta.storage import write_json

Space = dict[str, BaseDistribution]
OUTER: Space = {RATE: FloatDistribution(3e-4, 1e-2, log=True)}
TAKEN: Space = {
    "width": CategoricalDistribution((50, 100, 150)),
    "dropout": FloatDistribution(0.0, 0.5, step=0.1),
    "layers": IntDistribution(1, 3),
    "steps": IntDistribution(1, 3),
    "lr": FloatDistribution(1e-3, 0.3, log=True),
}
FIXED = ("epochs", "share", "batch_size", "held_out", "optimizer", "precision", "patience")  # the same for all trials
RANDOM = 4  # trials at random, the defaults among them, before what was found guides the draws
Try = Callable[[Mapping[str, Any]], Row]


def main() -> None:
    """Search from the command line."""
    options = parser().parse_args()
    space, first = space_of(options.system, options.arguments, lr=options.lr)
    document = {
        "dataset": options.dataset,
        "protocol": "tuning",
        "system": options.system,
        "arguments": options.arguments,
        "note": options.note,
        "space": {name: distribution_to_json(each) for name, each in space.items()},
        "budget": {name: getattr(options, name) for name in ("trials", "minutes", *FIXED)},
        "measure": MEASURE,
        "seed": options.seed,
        **provenance("benchmarks.tune"),
    }
    path = path_of(document)
    trials = begun(path, document)
    tried = trial_of(options, DATASETS[options.dataset])
    for found in search(space, first, tried, trials, seed=options.seed, most=options.trials, minutes=options.minutes):
        print({name: found[name] for name in ("settings", "valid", "seconds")}, flush=True)
        write_json(path, {**document, "trials": trials, "best": best(trials)})


def parser() -> argparse.ArgumentParser:
    """The words of the command line."""
    parser = arguments(__doc__, DATASETS, RANKING)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--minutes", type=float, default=60.0, help="of all trials; none begins after")
    parser.add_argument("--share", type=float, default=1.0, help="of the training sessions, the last ones, to learn on")
    parser.add_argument("--held-out", type=int, default=3000, help="last training sessions, where nothing validates")
    return parser


def space_of(system: str, given: Mapping[str, Any], *, lr: float) -> tuple[Space, dict[str, Any]]:
    """What is searched, and the defaults, which lie in it; an argument that is given is not searched."""
    entry = CATALOGUE[system]
    open_to = {name: each for name, each in TAKEN.items() if name in entry.defaults and name not in given}
    first = {RATE: lr, **{name: entry.defaults[name] for name in open_to}}
    return {name: holding(each, first[name]) for name, each in {**OUTER, **open_to}.items()}, first


def holding(each: BaseDistribution, value: Any) -> BaseDistribution:
    """The distribution, wide enough to draw the value too."""
    if isinstance(each, CategoricalDistribution):
        return each if value in each.choices else CategoricalDistribution((*each.choices, value))
    assert isinstance(each, FloatDistribution | IntDistribution)
    low, high = min(each.low, value), max(each.high, value)
    if isinstance(each, IntDistribution):
        return IntDistribution(int(low), int(high))
    between = each.step is not None and abs((value - low) / each.step - round((value - low) / each.step)) > 1e-6
    return FloatDistribution(low, high, log=each.log and low > 0, step=None if between else each.step)


def search(
    space: Space, first: Mapping[str, Any], tried: Try, trials: list[Row], *, seed: int, most: int, minutes: float
) -> Any:
    """Add trials until there are ``most``, or they took so many minutes together; yields each as it ends.

    What comes next follows from the seed and the trials before alone, so a search that was stopped goes on as if it
    had not been.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    while len(trials) < most and sum(each["seconds"] for each in trials) < 60 * minutes:
        sampler = optuna.samplers.TPESampler(seed=1000 * seed + len(trials), n_startup_trials=RANDOM)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        for each in trials:
            known = {"params": each["settings"], "distributions": space, "value": each["valid"][MEASURE]}
            study.add_trial(optuna.trial.create_trial(**known))
        settings = study.ask(space).params if trials else dict(first)
        began = time.perf_counter()
        found = tried(settings)
        trials.append({"settings": settings, **found, "seconds": round(time.perf_counter() - began, 1)})
        yield trials[-1]


def trial_of(options: argparse.Namespace, dataset: Dataset) -> Try:
    """A training on the dataset with some settings, and what its best epoch brings on validation sessions."""
    train_log, valid_log, _ = dataset.load()

    def tried(settings: Mapping[str, Any]) -> Row:
        own = {name: value for name, value in settings.items() if name != RATE}
        given = {**vars(options), "lr": settings[RATE], "arguments": {**options.arguments, **own}}
        try:
            _, history = fitted(argparse.Namespace(**given), train_log, valid_log)
        except DivergedError as error:
            return {"valid": {MEASURE: 0.0}, "diverged": str(error)}
        epoch = max(history, key=lambda told: told[MEASURE])
        valid = {name: value for name, value in epoch.items() if "@" in name}
        return {"valid": valid, "epoch": epoch["epoch"]}

    return tried


def begun(path: Path, document: Row) -> list[Row]:
    """The trials of the same search that are written down.

    Raises:
        SystemExit: they were of another search.
    """
    if not path.exists():
        return []
    stored = read(path)
    same = ("space", "arguments", "seed", "measure")
    changed = [name for name in same if stored[name] != document[name]]
    changed += [name for name in FIXED if stored["budget"].get(name) != document["budget"][name]]
    if changed:
        raise SystemExit(f"{path}: trials of another search (different: {', '.join(changed)}); move it away first")
    return stored["trials"]


def best(trials: list[Row]) -> Row:
    """The trial with the highest measure, the first of equals."""
    return max(trials, key=lambda each: each["valid"][MEASURE])


if __name__ == "__main__":
    main()
