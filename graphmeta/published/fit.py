"""Train a published system by name, in one call; the command ``graphmeta fit`` runs the same plan."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypedDict, Unpack

from graphmeta.data.events import EventLog
from graphmeta.data.merging import merged
from graphmeta.data.scan.log import ScannedLog
from graphmeta.data.splits import Split, split_by_time
from graphmeta.distributed.first import on_first
from graphmeta.distributed.group import current
from graphmeta.distributed.processes import joined
from graphmeta.errors import InputError, check_flag, check_whole
from graphmeta.published.catalogue import CATALOGUE
from graphmeta.published.names import check_name
from graphmeta.published.training_plan import Plan, check_shards, refit, train_plan
from graphmeta.system import System
from graphmeta.training.callbacks import Callback
from graphmeta.training.devices import device_of
from graphmeta.training.recipes import BY_SIZE, TrainingRecipe
from graphmeta.training.run import Checkpoint, Report


class Placement(TypedDict, total=False):
    """Where :func:`fit` trains."""

    device: str
    distributed: bool
    shard_items: bool


PLACEMENT: Placement = {"device": "auto", "distributed": False, "shard_items": False}


def fit(
    data: Split | EventLog | ScannedLog,
    system: str | None = None,
    *,
    epochs: int | None = None,
    width: int = 64,
    recipe: TrainingRecipe = BY_SIZE,
    seed: int = 0,
    progress: bool | Callback | Sequence[Callback] = False,
    **placement: Unpack[Placement],
) -> System:
    """Train a system of the catalogue to predict the next item; returns it in eval mode, with the best epoch's weights.

    For a system that adapts, or re-ranks by counts, the encoder is first trained alone
    (:mod:`graphmeta.published.training_plan`). ``notes["history"]`` of the system holds the reports of every epoch. A
    system fitted to a log is trained again on all its sessions after the epoch is chosen (``recipe.refit``).

    Args:
        data: a split, whose training part is trained on and whose validation part chooses the epoch (its test part is
            not read); for a log, the last tenth of its sessions by time chooses the epoch, and the system is then
            trained again on the whole log. A log on disk that fits its memory is read; else training reads shards.
        system: a name of :func:`graphmeta.systems`, of the kind ``next item``; if not given, ``personal_reranker`` for
            a log with users, ``reranker`` for one without.
        epochs: passes over the log, those of the recipe if not given; a system that adapts trains its encoder for as
            many, then itself for half as many.
        width: size of item vectors and states.
        recipe: batch size, optimizer, loss, early stopping, and whether to train again on all sessions (by default for
            a log, not for a split); what it leaves open follows the size of the log. A system that adapts is trained
            with a tenth of the learning rate and a quarter of the batch size.
            :data:`~graphmeta.training.recipes.FULL_SOFTMAX` has batches of 100 and the full softmax.
        seed: the same seed gives the same weights.
        progress: show a progress bar and print a report for each epoch, on the standard error; or callbacks that get
            the reports, see :class:`~graphmeta.training.callbacks.Callback`.
        device: ``auto`` (a GPU if there is one; the default), ``cpu`` or ``cuda``; the system stays there.
        distributed: train in the processes that torchrun started (``torchrun --nproc-per-node 2 script.py``), each on
            a part of every batch; all of them call ``fit`` with the same arguments and get the same system, only rank 0
            reports. False by default. docs/distributed.md states what is exact.
        shard_items: each of these processes holds a part of the item table's rows and of their optimizer state; for
            systems that score by products. The result is exact, and has the whole table again. False by default.

    Raises:
        InputError: an unknown name, a system of another kind, one that needs users if the log has none, a width or a
            number of epochs that is not a positive whole number, an unknown device, too few sessions, or
            ``distributed`` in a process that torchrun did not start.
        DivergedError: a loss or weight that is not finite.
        LostProcess: another process of a distributed training has ended.

    >>> from graphmeta.testing import fake_log
    >>> system = fit(fake_log(sessions=60), "sr_gnn", epochs=1, width=8)
    >>> len(system.recommend(["i1", "i2"], k=3)), system.training
    (3, False)
    """
    if isinstance(data, ScannedLog) and data.fits_memory:
        data = data.collect()
    whole = data if isinstance(data, EventLog | ScannedLog) else None
    if isinstance(data, EventLog | ScannedLog):
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
    if strange := placement.keys() - PLACEMENT.keys():
        raise TypeError(f"fit() got an unexpected keyword argument {min(strange)!r}")
    place: Placement = {**PLACEMENT, **placement}
    device, distributed, sharded = (place.get(name) for name in PLACEMENT)
    check_flag("distributed", distributed)
    check_flag("shard_items", sharded)
    if sharded:
        check_shards(system)
    with joined() if distributed else nullcontext():
        device_of(str(device))
        chosen = TrainingRecipe(epochs=epochs).filled_from(recipe)
        plan = Plan(system, width, seed, chosen, device=str(device), shard_items=bool(sharded))
        return fit_plan(plan, data, whole=whole, progress=progress)


def fit_plan(
    plan: Plan,
    data: Split,
    *,
    whole: EventLog | ScannedLog | None = None,
    progress: bool | Callback | Sequence[Callback] = False,
) -> System:
    """Run a plan, which may have further options of its system; see :func:`fit`.

    Args:
        whole: the log of the split, to train on again; else its training and validation parts are.
    """
    callbacks, progress = _callbacks(progress), progress and current().rank == 0
    shown = {"say": _silent, "bar": _plain} if callbacks or not progress else {"say": _print_line, "bar": _progress_bar}

    def on_epoch(name: str, report: Report) -> None:
        if callbacks:
            on_first(lambda: _call(callbacks, name, report))

    with TemporaryDirectory(prefix="graphmeta-") as folder:
        place = Checkpoint(Path(folder))
        made = train_plan(plan, data, place, on_epoch=on_epoch, **shown)
        if plan.recipe.refit or (plan.recipe.refit is None and whole is not None):
            known = merged(data.train, data.valid) if whole is None else whole
            made = refit(plan, made, known, place, on_epoch=on_epoch, **shown)
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


def _callbacks(progress: bool | Callback | Sequence[Callback]) -> Sequence[Callback]:
    """The callbacks among the values of ``progress``."""
    if isinstance(progress, bool):
        return ()
    found = [progress] if isinstance(progress, Callback) else list(progress)
    for one in found:
        if not isinstance(one, Callback):
            raise InputError(
                f"progress= takes True, or callbacks with on_epoch(training, report), not a {type(one).__name__}"
            )
    return found


def _call(callbacks: Sequence[Callback], name: str, report: Report) -> None:
    for one in callbacks:
        one.on_epoch(name, report)


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
