"""Train a published system by its name, in one call; the command ``graphmeta fit`` carries out the same plan."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from graphmeta.data.events import EventLog
from graphmeta.data.splits import Split, split_by_time
from graphmeta.errors import InputError
from graphmeta.published.catalogue import CATALOGUE
from graphmeta.published.names import check_name
from graphmeta.published.training_plan import Plan, train_plan
from graphmeta.system import System
from graphmeta.training.run import Checkpoint


def fit(
    data: Split | EventLog,
    system: str = "reranker",
    *,
    epochs: int = 5,
    width: int = 64,
    batch_size: int = 100,
    lr: float = 3e-3,
    seed: int = 0,
    progress: bool = False,
) -> System:
    """Train a system of the catalogue to predict the next item; returns it in eval mode, with the best epoch's weights.

    A system that adapts, or re-ranks by counts, begins with its encoder trained alone
    (:mod:`graphmeta.published.training_plan`). ``notes["history"]`` of the system holds the reports of every epoch.

    Args:
        data: a split, whose training part is trained on and whose validation part chooses the epoch (its test part is
            not read); of a log, the last tenth of the sessions by time chooses the epoch.
        system: a name of :func:`graphmeta.systems`, of the kind ``next item``.
        epochs: times through the log, for a system that adapts those of its encoder; it adapts for half as many.
        width: length of the vectors.
        batch_size: samples (or tasks) a step; lr: learning rate, which falls over the training.
        seed: the same seed gives the same weights.
        progress: draw a bar for each epoch and print its report, on the standard error.

    Raises:
        InputError: a name that is not known, a system of another kind or one that needs users the log does not name,
            or too few sessions.
        DivergedError: a loss or a weight that is not finite.

    >>> from graphmeta.testing import fake_log
    >>> system = fit(fake_log(sessions=60), "sr_gnn", epochs=1, width=8)
    >>> len(system.recommend(["i1", "i2"], k=3)), system.training
    (3, False)
    """
    if isinstance(data, EventLog):
        data = split_by_time(data, test=0.0, valid=0.1)
    if not isinstance(data, Split):
        raise InputError(f"fit takes a log or a split, not a {type(data).__name__}; read one with EventLog.read")
    if isinstance(system, System):
        raise InputError("this system is built already; list(train(system, split)) trains it")
    check_system(system, users=data.train.users is not None)
    plan = Plan(system, epochs, seed, width, batch_size, lr)
    with TemporaryDirectory(prefix="graphmeta-") as folder:
        made = train_plan(
            plan, data, Checkpoint(Path(folder)), say=_said if progress else _silent, bar=_drawn if progress else _plain
        )
    history = {name: [asdict(report) for report in reports] for name, reports in made.histories.items()}
    made.system.notes |= {**asdict(plan), "history": history}
    return made.system.eval()


def check_system(name: str, *, users: bool) -> None:
    """Refuse a system that cannot be fitted to a log, before any training.

    Args:
        users: whether the log names the users.

    Raises:
        InputError: a name that is not in the catalogue, users that it needs to know, or a system that predicts ratings.
    """
    check_name(name, CATALOGUE)
    for part in filter(None, (name, CATALOGUE[name].encoder)):
        CATALOGUE[part].check_users(users)
    if CATALOGUE[name].rates:
        raise InputError(
            f"{name} predicts ratings, not the next item; train it in Python, see graphmeta.evaluation.cold_start"
        )


def _silent(line: str) -> None:
    """Nothing is printed."""


def _said(line: str) -> None:
    from tqdm import tqdm

    tqdm.write(line, file=sys.stderr)


def _drawn(batches: Iterable[Any], name: str) -> Iterable[Any]:
    from tqdm import tqdm

    return tqdm(batches, desc=name, leave=False, mininterval=0.2)


def _plain(batches: Iterable[Any], name: str) -> Iterable[Any]:
    return batches
