"""Train a published system by name, in one call; the command ``graphmeta fit`` runs the same plan."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from graphmeta.data.events import EventLog
from graphmeta.data.splits import Split, split_by_time
from graphmeta.errors import InputError, check_whole
from graphmeta.published.catalogue import CATALOGUE
from graphmeta.published.names import check_name
from graphmeta.published.training_plan import Plan, train_plan
from graphmeta.system import System
from graphmeta.training.optimizers import Factory, Optimizer
from graphmeta.training.recipes import BY_SIZE, TrainingRecipe
from graphmeta.training.run import Checkpoint


def fit(
    data: Split | EventLog,
    system: str | None = None,
    *,
    epochs: int | None = None,
    width: int = 64,
    optimizer: Optimizer | Factory | None = None,
    recipe: TrainingRecipe = BY_SIZE,
    seed: int = 0,
    progress: bool = False,
) -> System:
    """Train a system of the catalogue to predict the next item; returns it in eval mode, with the best epoch's weights.

    For a system that adapts, or re-ranks by counts, the encoder is first trained alone
    (:mod:`graphmeta.published.training_plan`). ``notes["history"]`` of the system holds the reports of every epoch.

    Args:
        data: a split, whose training part is trained on and whose validation part chooses the epoch (its test part is
            not read); for a log, the last tenth of its sessions by time chooses the epoch.
        system: a name of :func:`graphmeta.systems`, of the kind ``next item``; if not given, ``personal_reranker`` for
            a log with users, ``reranker`` for one without.
        epochs: passes over the log, those of the recipe if not given; a system that adapts trains its encoder for as
            many, then itself for half as many.
        width: size of item vectors and states.
        optimizer: as :func:`~graphmeta.training.loop.train` takes it, the recipe's if not given; a system that adapts
            is trained with a tenth of its learning rate and a quarter of the batch size.
        recipe: batch size, loss and early stopping; what it leaves open follows the size of the log.
            :data:`~graphmeta.training.recipes.FULL_SOFTMAX` has batches of 100 and the full softmax.
        seed: the same seed gives the same weights.
        progress: show a progress bar and print a report for each epoch, on the standard error.

    Raises:
        InputError: an unknown name, a system of another kind, one that needs users if the log has none, a width or a
            number of epochs that is not a positive whole number, an optimizer that is already built, or too few
            sessions.
        DivergedError: a loss or weight that is not finite.

    >>> from graphmeta.testing import fake_log
    >>> system = fit(fake_log(sessions=60), "sr_gnn", epochs=1, width=8)
    >>> len(system.recommend(["i1", "i2"], k=3)), system.training
    (3, False)
    """
    if isinstance(data, EventLog):
        data = split_by_time(data, test=0.0, valid=0.1)
    if not isinstance(data, Split):
        raise InputError(f"fit takes a log or a split, not a {type(data).__name__}; read one with EventLog.read")
    system = default_system(users=data.train.users is not None) if system is None else system
    if isinstance(system, System):
        raise InputError("this system is already built; train it with list(train(system, split))")
    check_system(system, users=data.train.users is not None)
    if not isinstance(recipe, TrainingRecipe):
        raise InputError(
            f"recipe= takes a TrainingRecipe(…), not a {type(recipe).__name__}; write recipe=gm.FULL_SOFTMAX, "
            f"or gm.TrainingRecipe(batch_size=256)"
        )
    check_whole("width", width, 1)
    plan = Plan(system, width, seed, TrainingRecipe(epochs=epochs, optimizer=optimizer).filled_from(recipe))
    return fit_plan(plan, data, progress=progress)


def fit_plan(plan: Plan, data: Split, *, progress: bool = False) -> System:
    """Run a plan, which may have further options of its system; see :func:`fit`."""
    with TemporaryDirectory(prefix="graphmeta-") as folder:
        made = train_plan(
            plan,
            data,
            Checkpoint(Path(folder)),
            say=_print_line if progress else _silent,
            bar=_progress_bar if progress else _plain,
        )
    history = {name: [asdict(report) for report in reports] for name, reports in made.histories.items()}
    made.system.notes |= {**made.plan.settings(), "history": history}
    return made.system.eval()


def default_system(*, users: bool) -> str:
    """The name of the system with the best metrics: one that reads users' histories, if the log has users."""
    return "personal_reranker" if users else "reranker"


def check_system(name: str, *, users: bool) -> None:
    """Check, before any training, that a system can be fitted to a log.

    Args:
        users: whether the log has users.

    Raises:
        InputError: a name that is not in the catalogue, a system that needs users if there are none, or a rating
            predictor.
    """
    check_name(name, CATALOGUE)
    if CATALOGUE[name].predicts_ratings:
        raise InputError(
            f"{name} predicts ratings, not the next item; train it in Python, see graphmeta.evaluation.cold_start"
        )
    for part in filter(None, (name, CATALOGUE[name].encoder)):
        CATALOGUE[part].check_users(users)


def _silent(line: str) -> None:
    """Print nothing."""


def _print_line(line: str) -> None:
    from tqdm import tqdm

    tqdm.write(line, file=sys.stderr)


def _progress_bar(batches: Iterable[Any], name: str) -> Iterable[Any]:
    from tqdm import tqdm

    return tqdm(batches, desc=name, leave=False, mininterval=0.2)


def _plain(batches: Iterable[Any], name: str) -> Iterable[Any]:
    return batches
