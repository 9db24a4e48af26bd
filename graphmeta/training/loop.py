"""The training loop, shared by plain training, fine-tuning and meta-learning; they differ in their samples and in
:meth:`System.losses`."""

from __future__ import annotations

import hashlib
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import nn

from graphmeta.data.events import EventLog
from graphmeta.data.scan.log import ScannedLog
from graphmeta.data.splits import Split
from graphmeta.distributed.first import on_first
from graphmeta.distributed.gradients import FlatGradients, begin_equal, check_equal, check_same
from graphmeta.distributed.group import ALONE, Group, Step, current, step, stepping
from graphmeta.errors import DivergedError, InputError
from graphmeta.evaluation.lists import COMPARED_KS, lists_below
from graphmeta.evaluation.queries import validation_queries
from graphmeta.evaluation.ranking import evaluate
from graphmeta.nn import catalogue_softmax as scoring
from graphmeta.nn.features.sharded import row_ranges, whole_shapes
from graphmeta.nn.features.tables import embedding_tables, row_gradients
from graphmeta.nn.heads.scoring import named
from graphmeta.protocols import (
    EmbeddingTable,
    FitsStatistics,
    HeldOutStatistics,
    NotProducts,
    PositionLoss,
    UpdatesAfterStep,
)
from graphmeta.sampling.samples import Samples
from graphmeta.sampling.tasks import Tasks
from graphmeta.storage import not_finite
from graphmeta.system import System
from graphmeta.training.batches import NO_SAMPLE, InMemory, InShards, Share, Source, scaled_rate
from graphmeta.training.epochs import Epochs
from graphmeta.training.noise import noise
from graphmeta.training.optimizers import Adam, Factory, Optimizer, as_optimizer, described, optimizer_of, set_rate
from graphmeta.training.run import Report, Run
from graphmeta.training.settings import Settings, TrainOptions, Valid, check_arguments


def train(
    system: System,
    log: EventLog | ScannedLog | Split,
    *,
    epochs: int = 5,
    optimizer: Optimizer | Factory | None = None,
    batch_size: int = 100,
    valid: Valid | None = None,
    seed: int = 0,
    options: TrainOptions = TrainOptions(),
) -> Iterator[Report]:
    """Train ``system`` on ``log``, one epoch per report; iterate to the end to get the weights of the best epoch.

    Nothing is trained before the first report is requested; dropping the iterator before that warns. With ``valid``,
    the epoch with the best MRR@20 on the last clicks of its sessions is chosen (with a function, the best first metric)
    and its weights are loaded at the end; without ``valid``, the last epoch's weights are kept. The order of the data
    and all noise depend only on ``(seed, epoch)``. After each epoch the system is in eval mode. A system that only
    counts (``popularity``) has one report, with a loss of 0.

    Args:
        log: the training log, with the system's item indices; for a split, its training part, and its validation part
            as ``valid`` if none is given. A log on disk (:meth:`EventLog.scan`) is trained on a shard at a time, with
            as many sessions as fit its memory; batches are then of sessions of one shard.
        optimizer: :class:`~graphmeta.training.optimizers.Adam` with linear decay and no weight decay on tables if not
            given; a ``torch.optim`` class, a ``functools.partial`` of one, or any function of the parameters.
        batch_size: samples (or tasks) per step; unused with ``options.clicks``.
        valid: a log, samples, or a function ``system -> {metric: value}`` to choose the epoch by; higher is better,
            except for the metrics in :data:`ERRORS`.
        options: statistics of another log, patience, checkpoints, 16-bit products and progress bars, see
            :class:`~graphmeta.training.settings.TrainOptions`.

    Raises:
        InputError: a log without training samples, a checkpoint of another training, patience without ``valid``, or an
            optimizer that is already built.
        DivergedError: a loss or, after an epoch, a weight that is not finite; the last checkpoint is intact.

    >>> from graphmeta.published.catalogue import build
    >>> from graphmeta.testing import fake_log
    >>> log = fake_log(sessions=20)
    >>> reports = list(train(build("sr_gnn", log.items, width=4), log, epochs=2, optimizer=torch.optim.AdamW))
    >>> [report.epoch for report in reports]
    [0, 1]
    """
    check_arguments(system, log, valid, options)
    if isinstance(log, Split):
        valid = log.valid if valid is None and log.valid.num_events else valid
        log = cast(EventLog | ScannedLog, log.train)
    made = as_optimizer(optimizer, Adam())
    settings = Settings(epochs, made, batch_size, valid, seed, options)
    settings.check()
    return Epochs(_reports(system, log, settings))


def _reports(system: System, log: EventLog | ScannedLog, settings: Settings) -> Iterator[Report]:
    """The reports of all epochs, each trained when it is requested."""
    if not system.has_weights:
        yield _counted(system, log, settings)
        return
    objective, own = settings.options.loss, cast(Any, system.loss)
    if objective is not None and isinstance(system.loss, PositionLoss) and not isinstance(objective, PositionLoss):
        objective = own.with_loss(objective)
    options = replace(settings.options, statistics_log=settings.options.statistics_log or log, loss=objective)
    settings = replace(settings, options=options)
    source = _prepared(system, log, settings)
    run = _run(system, source, settings)
    checkpoint, valid = options.checkpoint, validation_queries(system, settings.valid, log)
    if checkpoint is not None and checkpoint.resume:
        run.load(checkpoint.folder)
    group = current()
    _begin_ranks(run, source, group)
    system.eval()
    yield from run.history
    while (epoch := len(run.history)) < settings.epochs and (
        options.patience is None or run.since_best() < options.patience
    ):
        began = time.perf_counter()
        with noise(settings.seed, epoch, group) as generator, scoring.precision(options.precision):
            parts = source.shares(system, settings, epoch)
            loss = _epoch(run, settings, parts, epoch / settings.epochs, generator)
        check_finite(system, epoch)
        check_equal(system, group, f"after epoch {epoch + 1}", run.ranges)
        scores, metric = ({}, None) if valid is None else _validate(system, valid)
        best = run.is_best(scores, metric)
        run.note(Report(epoch, loss, time.perf_counter() - began, scores, best, metric))
        if checkpoint is not None:
            run.save(checkpoint.folder)
        yield run.history[-1]
    run.restore_best()


def _begin_ranks(run: Run, source: Source, group: Group) -> None:
    """Check that all ranks have the same samples, and give all of them rank 0's weights and statistics."""
    if group.size > 1:
        check_same(source.digest(), group, "training samples")
        begin_equal(run.system, group, run.ranges)


def _counted(system: System, log: EventLog | ScannedLog, settings: Settings) -> Report:
    """Fit a system without weights by counting; its loss is 0, and there is nothing to resume."""
    statistics_log = _checked_logs(system, log, settings)
    began = time.perf_counter()
    system.fit_statistics(statistics_log)
    seconds, valid = time.perf_counter() - began, validation_queries(system, settings.valid, log)
    scores, metric = ({}, None) if valid is None else _validate(system.eval(), valid)
    return Report(0, 0.0, seconds, scores, best=True, metric=metric)


def _run(system: System, source: Source, settings: Settings) -> Run:
    """The training state, with the settings that a checkpoint must match."""
    built, statistics_log = optimizer_of(settings.optimizer, system), settings.options.statistics_log
    keeps = settings.options.checkpoint is not None
    return Run(
        system,
        built,
        {
            "epochs": settings.epochs,
            "seed": settings.seed,
            "samples": source.digest() if keeps else None,
            "statistics_log": statistics_log.fingerprint() if keeps and statistics_log is not None else None,
            "system": hashlib.sha256(f"{system}{system.spec}".encode()).hexdigest()[:16],
            "batch size": settings.batch_size,
            "clicks": settings.options.clicks,
            "loss": None if settings.options.loss is None else str(settings.options.loss),
            "precision": settings.options.precision,
            "weights": {name: list(shape) for name, shape in whole_shapes(system).items()},
            **described(settings.optimizer, built),
        },
    )


def _checked_logs(system: System, log: EventLog | ScannedLog, settings: Settings) -> EventLog | ScannedLog:
    """The log of the statistics, after a check that all logs have the system's indices."""
    statistics_log = settings.options.statistics_log or log
    for part, name in ((log, "training"), (statistics_log, "statistics"), (settings.valid, "validation")):
        if isinstance(part, EventLog | ScannedLog):
            system.check(part, name)
    return statistics_log


def _prepared(system: System, log: EventLog | ScannedLog, settings: Settings) -> Source:
    """Where the training batches come from, after checks of system and logs, with fitted statistics."""
    statistics_log = _checked_logs(system, log, settings)
    objective = settings.options.loss
    if objective is not None:
        if system.episodic and isinstance(objective, PositionLoss):
            raise InputError("meta-training needs a loss with one value per task; leave out options.loss")
        for part in objective.modules():
            if isinstance(part, FitsStatistics):
                part.fit_statistics(log)  # pyright: ignore[reportArgumentType] - proposals count shards
    if settings.options.precision == "bf16" and not system.scores_by_products:
        head = system.recommender.head
        why = f" ({named(head)})" if isinstance(head, NotProducts) else ""
        raise InputError(
            f"precision='bf16' has no effect on this system: its loss does not score all items by products{why}; "
            f"leave it out"
        )
    if statistics_log is log and any(isinstance(part, HeldOutStatistics) for part in system.modules()):
        warnings.warn(
            "co-occurrence counts include the training sessions; pass earlier sessions: "
            "options=TrainOptions(statistics_log=earlier)",
            stacklevel=4,
        )
    system.fit_statistics(statistics_log)
    source = InShards(log) if isinstance(log, ScannedLog) else InMemory(system.training_samples(log))
    samples = source.samples if isinstance(source, InMemory) else system.training_samples(source.log.shard(0))
    if len(samples) == 0 and isinstance(source, InMemory):
        raise InputError(NO_SAMPLE)
    trained = system.loss if objective is None else objective
    if isinstance(trained, PositionLoss) and not samples.has_given_support:
        trained.check(system.recommender, samples.query, num_items=system.num_items)
    return source


def _validate(
    system: System, valid: Samples | Callable[[System], dict[str, float]]
) -> tuple[dict[str, float], str | None]:
    """The validation metrics, and the one that chooses the epoch: MRR, or a function's first."""
    if callable(valid):
        scores = valid(system) if row_ranges(system) else on_first(lambda: valid(system))
        return scores, next(iter(scores), None)
    ks = lists_below(system.num_items, COMPARED_KS)
    return evaluate(system, valid, ks=ks).metrics, f"mrr@{max(ks)}"


def _epoch(
    run: Run, settings: Settings, parts: Iterator[Share], begin: float, generator: torch.Generator | None
) -> float:
    """One pass over the batches, starting at training progress ``begin``; returns the mean loss.

    Args:
        generator: what all ranks sample from, see :class:`~graphmeta.distributed.group.Step`.
    """
    run.system.train()
    total, count = 0.0, 0
    by_clicks = settings.options.clicks is not None and not run.system.sums_losses  # a sum of losses follows by itself
    flat = FlatGradients(weight for name, weight in run.system.named_parameters() if name not in run.ranges)
    tables = embedding_tables(run.system)  # found once: looking at all modules in each step takes a tenth of small ones
    updated = [part for part in run.system.modules() if isinstance(part, UpdatesAfterStep)]
    for before, own, batches in parts:
        first, share = begin + before / settings.epochs, own / settings.epochs
        mean = sum(map(len, batches)) / len(batches)
        for number, batch in enumerate(settings.options.progress(batches)):
            done = first + share * number / len(batches)
            set_rate(run.optimizer, settings.optimizer, done)
            run.optimizer.zero_grad(set_to_none=True)
            with stepping(Step(batch.group, generator)):
                objective = settings.options.loss
                value, size = gradients(run.system, batch.samples, objective=objective, progress=done, tables=tables)
                (value,) = flat.sum(batch.group, value)
                if not math.isfinite(value):
                    raise DivergedError(f"batch {number}: the loss is {value}; lower the learning rate")
                with scaled_rate(run.optimizer, len(batch) / mean if by_clicks else 1.0):
                    run.optimizer.step()
                for part in updated:  # what is not trained by gradients (memories); it is in the state_dict
                    part.update_after_step()
            total, count = total + value * size, count + size
    run.system.eval()
    return total / count


def check_finite(system: torch.nn.Module, epoch: int) -> None:
    """Check that all weights are finite after an epoch.

    Raises:
        DivergedError: a weight that is not finite; names it.
    """
    if (name := not_finite(system)) is not None:
        raise DivergedError(f"epoch {epoch + 1}: {name} is not finite; lower the learning rate")


def gradients(
    system: System,
    batch: Samples | Tasks,
    *,
    objective: nn.Module | None = None,
    progress: float = 1.0,
    tables: Sequence[EmbeddingTable] | None = None,
) -> tuple[float, int]:
    """Accumulate gradients of the batch loss in chunks; returns the loss and how many losses it averages (or sums).

    A chunk has as many tasks as the adaptation takes at once, so memory does not grow with the batch. ``progress`` is
    the completed share of the training. In a step that several ranks share (:func:`~graphmeta.distributed.group.step`)
    ``batch`` is this rank's part: gradients and loss are its summands, the number of losses is that of all ranks.
    ``tables`` are the system's embedding tables, if they are known.
    """
    group, generator = step().group, step().generator
    # Ranks have different numbers of chunks of tasks, so the losses of tasks must not wait for other ranks.
    with stepping(Step(ALONE if system.episodic else group, generator)), row_gradients(system, tables):
        parts = system.parts(batch) if system.episodic else [batch]
        size, value = _of_all(group, len(batch.query)) if len(parts) > 1 else 0, 0.0
        for part in parts:
            losses = system.losses(part, objective=objective, progress=progress)
            size = _of_all(group, len(losses)) if len(parts) == 1 else size
            (share := losses.sum() * group.weight / (1 if system.sums_losses else size)).backward()
            value += float(share.detach())
    return value, size


def _of_all(group: Group, losses: int) -> int:
    """The number of losses of all ranks."""
    return losses if group.size == 1 else int(group.sum(torch.tensor(losses)))
