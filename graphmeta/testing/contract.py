"""The encoder contract: one state per click, which depends on the clicks of its own sample only."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from graphmeta.testing.report import (
    ITEMS,
    TOLERANCE,
    Found,
    batch_of,
    compared,
    difference,
    query_samples,
    states_of,
    table,
)


def check_shape(encoder: nn.Module, width: int) -> Found:
    """Check that there is one finite state per click."""
    batch = batch_of(encoder, query_samples())
    states = states_of(encoder, batch, width)
    clicks = batch["event"].num_nodes
    good = states.dim() == 2 and len(states) == clicks and bool(states.isfinite().all())
    return Found(good, f"{tuple(states.shape)} for {clicks} clicks (expected: one finite row per click)")


def check_answers(encoder: nn.Module, width: int) -> Found:
    """Check that the states do not change with the targets of the batch, in training and in eval mode."""
    samples = query_samples()
    others = replace(samples, target=(samples.target + 1) % ITEMS)
    batches = [batch_of(encoder, one) for one in (samples, others)]
    found = []
    for training in (False, True):
        for batch in batches:
            torch.manual_seed(3)  # the same dropout in both
            found.append(states_of(encoder.train(training), batch, width))
    cause = "the states depend on batch['sample'].target, which is unknown when recommending"
    return compared(torch.cat(found[::2]), torch.cat(found[1::2]), cause)


def check_training(encoder: nn.Module, width: int) -> Found:
    """Check that each sample's states have gradient 0 with respect to other samples' item vectors, with any dropout."""
    batch = batch_of(encoder, query_samples())
    x = table(width)[batch["item"].n_id].requires_grad_()
    states = encoder.train()(x, batch)
    worst = 0.0
    for sample in range(batch["sample"].num_nodes if states.requires_grad else 0):
        own = states[batch["event"].batch == sample]
        (gradient,) = torch.autograd.grad((own * torch.randn_like(own)).sum(), x, retain_graph=True, allow_unused=True)
        if gradient is not None:
            worst = max(worst, float(gradient[batch["item"].batch != sample].abs().max()))
    cause = ": statistics over the batch (batch norm, centring) make a session depend on the others"
    return Found(worst < TOLERANCE, f"largest gradient between samples {worst:.1e}" + cause * (worst >= TOLERANCE))


def check_modes(encoder: nn.Module, width: int) -> Found:
    """Compare the states in training with those in eval mode."""
    batch = batch_of(encoder, query_samples())
    evaluated = states_of(encoder, batch, width)
    torch.manual_seed(3)
    error = difference(evaluated, states_of(encoder.train(), batch, width))
    if error < TOLERANCE:
        return Found(True, "the same states in training and in evaluation")
    return Found(False, f"states differ by {error:.1e} in training: dropout, noise or statistics", on_purpose=True)


def check_alone(encoder: nn.Module, width: int) -> Found:
    """Compare each sample's states alone with those in a batch."""
    samples = query_samples()
    together = states_of(encoder, batch_of(encoder, samples), width)
    begin, worst, whose = 0, 0.0, 0
    for sample in range(len(samples)):
        alone = states_of(encoder, batch_of(encoder, samples.take(slice(sample, sample + 1))), width)
        error = difference(alone, together[begin : begin + len(alone)])
        begin += len(alone)
        worst, whose = max((worst, whose), (error, sample))
    clicks = int(samples.lengths[whose])
    cause = f": the states of a session of {clicks} click{'s' * (clicks > 1)} differ alone and in a batch"
    if clicks == 1:
        cause += " (it has no edges: pass num_nodes where it is otherwise inferred from edges)"
    return Found(worst < TOLERANCE, f"largest difference {worst:.1e}" + cause * (worst >= TOLERANCE))


def check_dummies(encoder: nn.Module, width: int) -> Found:
    """Compare the states in a ragged batch with those in a task-major batch with dummy rows."""
    samples = query_samples()
    ragged = batch_of(encoder, samples)
    filled = batch_of(encoder, samples, task=np.arange(len(samples)), num_tasks=len(samples))
    real = torch.isin(filled["event"].batch, filled["sample"].real)
    cause = "dummy rows affect real ones; aggregate within batch['event'].batch only"
    return compared(states_of(encoder, ragged, width), states_of(encoder, filled, width)[real], cause)
