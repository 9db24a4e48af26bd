"""The one training loop. Plain training, fine-tuning and meta-learning differ in the samples and in how a sample's
loss comes about (:meth:`System.losses`), never here."""

from __future__ import annotations

import hashlib
import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from typing import Any

import torch

from graphmeta.data.events import EventLog
from graphmeta.errors import DivergedError, InputError
from graphmeta.evaluation.ranking import evaluate
from graphmeta.nn import catalogue_softmax as scoring
from graphmeta.nn.features.tables import row_gradients
from graphmeta.nn.losses.losses import AllPositions
from graphmeta.sampling.samples import Samples, last_clicks
from graphmeta.sampling.tasks import Tasks
from graphmeta.storage import not_finite
from graphmeta.system import System
from graphmeta.training.optimizers import Adam
from graphmeta.training.run import Checkpoint, Report, Run

Valid = EventLog | Samples | Callable[[System], dict[str, float]]


def train(
    system: System,
    log: EventLog,
    *,
    epochs: int = 5,
    optimizer: Adam | None = None,
    batch_size: int = 100,
    valid: Valid | None = None,
    statistics_log: EventLog | None = None,
    patience: int | None = None,
    seed: int = 0,
    checkpoint: Checkpoint | None = None,
    precision: str = "fp32",
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> Iterator[Report]:
    """Train ``system`` on ``log``, an epoch at a time; run it to the end to get the best epoch's weights.

    With ``valid``, the epoch with the best MRR@20 on the last clicks of its sessions is chosen (with a function, the
    one whose first measure is best) and its weights are put back at the end; without, the last epoch stays. The order
    of the data and all noise depend on ``(seed, epoch)`` alone. After each epoch the system is in eval mode.

    Args:
        log: the training log; its items must be the system's.
        batch_size: samples (or tasks) a step.
        valid: a log, the samples, or a function ``system -> {measure: value}`` to choose the epoch by; more is better,
            except for measures named in :data:`ERRORS`.
        statistics_log: the log that parts which count (neighbours, transitions, means) are fitted to; ``log`` if not
            given. A model that is to learn how far to trust a count must learn it on sessions that were not counted.
        patience: end the training after so many epochs in a row without a better one.
        precision: ``bf16`` takes the products with the item table in 16 bits, see
            :func:`graphmeta.nn.catalogue_softmax.precision`.
        progress: wraps the list of an epoch's batches, e.g. ``tqdm``.

    Raises:
        InputError: a log with nothing to predict, a checkpoint of another training, or patience without ``valid``.
        DivergedError: a loss or, after an epoch, a weight that is not finite; the last checkpoint is intact.
    """
    optimizer = optimizer or Adam()
    if patience is not None and (valid is None or patience < 1):
        raise InputError("patience counts epochs that do not improve: at least 1, and pass valid to measure it on")
    if not 0 <= seed < 2**32:
        raise InputError(f"seed must be at least 0 and below 2**32, not {seed}")
    samples = _prepared(system, log, valid, statistics_log=statistics_log or log, precision=precision)
    run = Run(
        system,
        optimizer.build(system.parameters()),
        {
            "epochs": epochs,
            "seed": seed,
            "samples": None if checkpoint is None else _digest(samples),
            "statistics_log": None if checkpoint is None else (statistics_log or log).fingerprint(),
            "system": hashlib.sha256(f"{system}{system.recipe}".encode()).hexdigest()[:16],
            "batch size": batch_size,
            "precision": precision,
            "weights": {name: list(weight.shape) for name, weight in system.named_parameters()},
            "optimizer": type(optimizer).__name__,
            **asdict(optimizer),
        },
    )
    if checkpoint is not None and checkpoint.resume:
        run.load(checkpoint.folder)
    system.eval()
    yield from run.history
    while (epoch := len(run.history)) < epochs and (patience is None or run.since_best() < patience):
        began = time.perf_counter()
        batches = list(system.batches(samples, batch_size=batch_size, seed=seed, epoch=epoch))
        with torch.random.fork_rng(), scoring.precision(precision):
            torch.manual_seed(1_000_003 * seed + epoch)
            loss = _epoch(
                run, optimizer, [samples.take(rows) for rows in batches], epoch / epochs, 1 / epochs, progress
            )
        check_finite(system, epoch)
        scores = {} if valid is None else _validate(system, valid)
        run.note(Report(epoch, loss, time.perf_counter() - began, scores, best=run.is_best(scores)))
        if checkpoint is not None:
            run.save(checkpoint.folder)
        yield run.history[-1]
    run.restore_best()


def _prepared(
    system: System, log: EventLog, valid: Valid | None, *, statistics_log: EventLog, precision: str
) -> Samples | Tasks:
    """What an epoch runs over, after a look at whether system and logs fit each other."""
    for part, name in ((log, "training"), (statistics_log, "statistics"), (valid, "validation")):
        if isinstance(part, EventLog):
            system.check(part, name)
    if precision == "bf16" and not system.scores_in_bf16:
        raise InputError(
            "precision='bf16' changes nothing for this system, whose loss does not score all items by products"
        )
    if statistics_log is log and any(getattr(part, "needs_held_out_statistics", False) for part in system.modules()):
        warnings.warn(
            "co-occurrence counts include the very sessions that are trained on; pass earlier ones as statistics_log=",
            stacklevel=3,
        )
    system.fit_statistics(statistics_log)
    samples = system.training_samples(log)
    if len(samples) == 0:
        raise InputError("no session is long enough to learn from; sessions need two clicks (three for meta-training)")
    if isinstance(system.loss, AllPositions) and isinstance(samples, Samples):
        system.loss.check(system.recommender, samples, num_items=system.num_items)
    return samples


def _digest(samples: Samples | Tasks) -> str:
    """A few letters that differ where the samples do, in their times, users or values too."""
    digest = hashlib.sha256()
    for part in (samples,) if isinstance(samples, Samples) else (samples.support, samples.query):
        for column in (part.item, part.begin, part.end, part.target, part.time, part.user, part.value):
            digest.update(b"-" if column is None else column.tobytes())
    return digest.hexdigest()[:16]


def _validate(system: System, valid: Valid) -> dict[str, float]:
    if callable(valid):
        return valid(system)
    ks = tuple(k for k in (5, 20) if k < system.num_items) or (1,)
    asked = valid if isinstance(valid, Samples) else last_clicks(valid, max_length=system.max_length)
    return evaluate(system, asked, ks=ks).metrics


def _epoch(
    run: Run,
    optimizer: Adam,
    batches: list[Any],
    begin: float,
    share: float,
    progress: Callable[..., Iterable[Any]],
) -> float:
    """One pass over the batches; returns the mean loss."""
    run.system.train()
    total, count = 0.0, 0
    for number, batch in enumerate(progress(batches)):
        done = begin + share * number / len(batches)
        for group in run.optimizer.param_groups:
            group["lr"] = optimizer.rate(done)
        run.optimizer.zero_grad(set_to_none=True)
        value, size = gradients(run.system, batch, progress=done)
        if not math.isfinite(value):
            raise DivergedError(f"batch {number}: the loss is {value}; lower the learning rate")
        run.optimizer.step()
        _settle(run.system)
        total, count = total + value * size, count + size
    run.system.eval()
    return total / count


def check_finite(system: torch.nn.Module, epoch: int) -> None:
    """Refuse to go on from weights that are not finite, which the last step of an epoch may leave.

    Raises:
        DivergedError: such a weight; names it.
    """
    if (name := not_finite(system)) is not None:
        raise DivergedError(f"epoch {epoch + 1}: {name} is not finite; lower the learning rate")


def gradients(system: System, batch: Samples | Tasks, *, progress: float = 1.0) -> tuple[float, int]:
    """Gradients of the batch's loss, made part by part; returns it, and of how many losses it is the mean (or sum).

    Parts are as many tasks as the adaptation takes at once, so what they keep does not grow with the batch.
    ``progress`` is the share of the training that is done.
    """
    parts = system.parts(batch) if system.episodic else [batch]
    with row_gradients(system):
        size, value = len(batch.query if isinstance(batch, Tasks) else batch), 0.0
        for part in parts:
            losses = system.losses(part, progress=progress)
            size = len(losses) if len(parts) == 1 else size
            (share := losses.sum() / (1 if system.sums else size)).backward()
            value += float(share.detach())
    return value, size


def _settle(system: System) -> None:
    """After each step, let the parts that learn by other means than gradients (memories) take in what they noted.

    Such a part has a method ``settle()``; what it changes must be in its ``state_dict``, so that training resumes.
    """
    for part in system.modules():
        if hasattr(part, "settle"):
            part.settle()  # pyright: ignore[reportCallIssue]
