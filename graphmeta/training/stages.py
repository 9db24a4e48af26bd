"""Training in stages, for what is no recommender of sessions: a stage is rows to learn from and their losses.

A system answers a session by scoring the items of one table. Who predicts ratings across domains answers for a user,
an item and a domain, reads users from texts or from another domain, and some learn one thing after another. What is
left in common is the loop, and this is it; optimisers, reports and the choice of the epoch are those of
:mod:`graphmeta.training.loop`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from graphmeta.errors import DivergedError
from graphmeta.training.epochs import Epochs
from graphmeta.training.loop import check_finite
from graphmeta.training.optimizers import Adam, Factory, Optimizer, as_optimizer, set_rate
from graphmeta.training.run import Report, Run


@dataclass(frozen=True)
class Stage:
    """What is learned at once.

    Args:
        weights: the module whose weights move; count: rows to learn from.
        losses: numbers of rows -> their losses ``[B]``.
        valid: what the epoch is chosen by; less is better if the first measure is an error.
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
    """Train stage after stage, an epoch at a time; each ends with its best epoch's weights. Run it to the end.

    Epochs are counted from 0 in each stage. The order of the rows and all noise depend on ``(seed, epoch)`` alone.

    Args:
        optimizer: as :func:`~graphmeta.training.loop.train` takes it; Adam without weight decay if not given.
        patience: a stage ends after so many epochs in a row without a better one.

    Raises:
        DivergedError: a loss or, after an epoch, a weight that is not finite.

    Source: CATN (Adam at 1e-3, 256 rows, at most 200 epochs, patience 4).
    """
    made = as_optimizer(optimizer, Adam(weight_decay=0.0))
    return Epochs(_reports(stages, made, Loop(epochs, batch_size, patience, seed)))


@dataclass(frozen=True)
class Loop:
    """How long and in which order a stage is trained."""

    epochs: int
    batch_size: int
    patience: int
    seed: int


def _reports(stages: Sequence[Stage], optimizer: Optimizer, loop: Loop) -> Iterator[Report]:
    """The reports of all epochs, each trained when it is asked for."""
    for stage in stages:
        # Of a system, a run uses no more than its weights.
        run = Run(stage.weights, optimizer.build(stage.weights.parameters()), {})  # pyright: ignore[reportArgumentType]
        while (epoch := len(run.history)) < loop.epochs and run.since_best() < loop.patience:
            began = time.perf_counter()
            with torch.random.fork_rng():
                torch.manual_seed(1_000_003 * loop.seed + epoch)
                loss = _epoch(run, stage, optimizer, loop.batch_size, (epoch / loop.epochs, 1 / loop.epochs))
            check_finite(stage.weights.eval(), epoch)
            scores = stage.valid()
            run.note(Report(epoch, loss, time.perf_counter() - began, scores, best=run.is_best(scores)))
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
