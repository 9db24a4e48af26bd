"""Hyper-parameter search on validation sessions, with the same budget for every system.

    GRAPHMETA_DATA=… python -m benchmarks.tune complete_journey gc_san --trials 8 --minutes 20

The search space follows from the system's signature: learning rate, width, dropout, layers, steps, and the inner
learning rate of meta-learners (whose steps are inner steps). The first trial has the system's defaults; the space is
widened to include them. Further trials are sampled by optuna's tree-structured Parzen estimator. A trial trains for
some epochs on a share of the log; its value is the MRR@20 of its best epoch on the protocol's validation log, or on the
last training sessions where the protocol has none. The test log is not used. Each trial is saved when it ends; an
interrupted search resumes.
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
from graphmeta.published.catalogue import CATALOGUE, TRAINED
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
RANDOM = 4  # random trials, the defaults included, before the estimator guides the sampling
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
    """The command-line options."""
    parser = arguments(__doc__, DATASETS, TRAINED)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--minutes", type=float, default=60.0, help="time limit: no trial starts later")
    parser.add_argument("--share", type=float, default=1.0, help="train on the last share of the training sessions")
    parser.add_argument(
        "--held-out", type=int, default=3000, help="last training sessions, held out without a validation log"
    )
    return parser


def space_of(system: str, given: Mapping[str, Any], *, lr: float) -> tuple[Space, dict[str, Any]]:
    """The search space and the default settings, which lie in it; given arguments are not searched."""
    defaults = CATALOGUE[system].defaults
    searched = {name: each for name, each in TAKEN.items() if name in defaults and name not in given}
    first = {RATE: lr, **{name: defaults[name] for name in searched}}
    return {name: holding(each, first[name]) for name, each in {**OUTER, **searched}.items()}, first


def holding(each: BaseDistribution, value: Any) -> BaseDistribution:
    """The distribution, widened to include the value."""
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
    """Append trials until there are ``most`` or the time limit is reached; yields each trial as it ends.

    The next trial depends on the seed and the earlier trials only, so a resumed search equals an uninterrupted one.
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
    """Trains with some settings and returns the validation metrics of the best epoch."""
    train_log, valid_log, _ = dataset.load()

    def tried(settings: Mapping[str, Any]) -> Row:
        own = {name: value for name, value in settings.items() if name != RATE}
        given = {**vars(options), "lr": settings[RATE], "arguments": {**options.arguments, **own}}
        try:
            _, history = fitted(argparse.Namespace(**given), train_log, valid_log)
        except DivergedError as error:
            return {"valid": {MEASURE: 0.0}, "diverged": str(error)}
        epoch = max(history, key=lambda each: each[MEASURE])
        valid = {name: value for name, value in epoch.items() if "@" in name}
        return {"valid": valid, "epoch": epoch["epoch"]}

    return tried


def begun(path: Path, document: Row) -> list[Row]:
    """The saved trials of the same search.

    Raises:
        SystemExit: the file holds another search.
    """
    if not path.exists():
        return []
    stored = read(path)
    same = ("space", "arguments", "seed", "measure")
    changed = [name for name in same if stored[name] != document[name]]
    changed += [name for name in FIXED if stored["budget"].get(name) != document["budget"][name]]
    if changed:
        raise SystemExit(f"{path}: trials of another search (different: {', '.join(changed)}); move the file first")
    return stored["trials"]


def best(trials: list[Row]) -> Row:
    """The trial with the highest validation metric; the first among ties."""
    return max(trials, key=lambda each: each["valid"][MEASURE])


if __name__ == "__main__":
    main()
