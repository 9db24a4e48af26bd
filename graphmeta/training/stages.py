"""Training in stages, for models that are not session recommenders: a stage is a number of rows and their losses.

Cross-domain rating models score a user, an item and a domain, not a session, and some are trained in several stages.
They share this loop; optimizers, reports and model selection are those of :mod:`graphmeta.training.loop`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from graphmeta.errors import DivergedError
from graphmeta.training.epochs import Epochs
from graphmeta.training.loop import check_finite
from graphmeta.training.optimizers import Adam, Factory, Optimizer, as_optimizer, optimizer_of, set_rate
from graphmeta.training.run import Report, Run


@dataclass(frozen=True)
class Stage:
    """One stage of a training.

    Args:
        weights: the module that is trained.
        count: number of training rows.
        losses: row indices -> their losses ``[B]``.
        valid: the validation metrics to choose the epoch by; lower is better if the first is an error.
    """

    weights: nn.Module
    count: int
    losses: Callable[[Tensor], Tensor]
    valid: Callable[[], dict[str, float]]


def train_stages(
    stages: Sequence[Stage],
    *,
    epochs: int = 200,
    optimizer: Optimizer | Factory | None = None,
    batch_size: int = 256,
    patience: int = 4,
    seed: int = 0,
) -> Iterator[Report]:
    """Train the stages in turn, one epoch per report; each ends with its best weights. Iterate to the end.

    Epochs are counted from 0 in each stage. The order of rows and all noise depend only on ``(seed, epoch)``.

    Args:
        optimizer: as :func:`~graphmeta.training.loop.train` takes it; Adam without weight decay if not given.
        patience: a stage ends after this many epochs without improvement.

    Raises:
        DivergedError: a loss or, after an epoch, a weight that is not finite.

    Source: CATN (Adam at 1e-3, 256 rows, at most 200 epochs, patience 4).
    """
    made = as_optimizer(optimizer, Adam(weight_decay=0.0))
    return Epochs(_reports(stages, made, Loop(epochs, batch_size, patience, seed)))


@dataclass(frozen=True)
class Loop:
    """Epochs, batch size, patience and seed of each stage."""

    epochs: int
    batch_size: int
    patience: int
    seed: int


def _reports(stages: Sequence[Stage], optimizer: Optimizer, loop: Loop) -> Iterator[Report]:
    """The reports of all epochs, each trained when it is requested."""
    for stage in stages:
        # A run uses only the weights of a system.
        weights: Any = stage.weights
        run = Run(weights, optimizer_of(optimizer, weights), {})
        while (epoch := len(run.history)) < loop.epochs and run.since_best() < loop.patience:
            began = time.perf_counter()
            with torch.random.fork_rng():
                torch.manual_seed(1_000_003 * loop.seed + epoch)
                loss = _epoch(run, stage, optimizer, loop.batch_size, (epoch / loop.epochs, 1 / loop.epochs))
            check_finite(stage.weights.eval(), epoch)
            scores = stage.valid()
            metric = next(iter(scores), None)
            best = run.is_best(scores, metric)
            run.note(Report(epoch, loss, time.perf_counter() - began, scores, best, metric))
            yield run.history[-1]
        run.restore_best()


def _epoch(run: Run, stage: Stage, optimizer: Optimizer, batch_size: int, progress: tuple[float, float]) -> float:
    """One pass over the rows of a stage; returns the mean loss."""
    stage.weights.train()
    total, batches = 0.0, torch.randperm(stage.count).split(batch_size)
    for number, rows in enumerate(batches):
        set_rate(run.optimizer, optimizer, progress[0] + progress[1] * number / len(batches))
        run.optimizer.zero_grad(set_to_none=True)
        loss = stage.losses(rows).mean()
        if not math.isfinite(value := float(loss.detach())):
            raise DivergedError(f"batch {number}: the loss is {value}; lower the learning rate")
        loss.backward()
        run.optimizer.step()
        total += value * len(rows)
    return total / stage.count
