"""Empirical checks of the encoder contract and of the stacked engine."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from graphmeta.errors import InputError
from graphmeta.testing import adaptation, contract
from graphmeta.testing.report import Check, CheckReport, Found


def check_encoder(factory: Callable[[int], nn.Module], *, width: int = 8) -> CheckReport:
    """Check that an encoder keeps its contract and works in the stacked engine. Runs in float64, in seconds.

    * one finite state per click;
    * the states do not depend on the targets in the batch, also in training;
    * a sample's states do not depend on other samples of its batch (a session of one click is checked alone and in a
      batch), nor on the dummy rows of task batches; also in training, where batch normalisation would break this
      (checked by gradients, so that dropout does not matter);
    * the states in training equal those in eval mode, except for dropout;
    * a call with other weights uses all of them: no weight is read outside its module;
    * all tasks at once equal the per-task loop to 1e-9: scores and the gradient of every parameter, in first and second
      order, and the scores of 2 to 50 tasks, of equal and of different lengths; an unsupported
      operation is named (not a failure: the adaptation falls back to the loop, several times slower);
    * eight threads get the same results as one, and the weights stay unchanged;
    * second-order gradients are finite and agree with finite differences.

    Notes, not failures: a gradient that differs from finite differences if the gradient of the plain loss does too
    (stop-gradient, straight-through, padding), and states that differ in training.

    Args:
        factory: returns the encoder for item vectors of this width; the module is left in eval mode. One that reads the
            graph (``neighbourhood``) is built for the node types and sizes of ``check_log().graph``.

    Raises:
        InputError: a factory that raises, or does not return a module.
    """
    with _float64():
        torch.manual_seed(0)
        encoder = _made(factory, width).double().eval()
        checks = [_guarded("shape", contract.check_shape, encoder, width)]
        if checks[0].ok:
            checks += [_guarded(name, check, encoder, width) for name, check in _FURTHER.items()]
    return CheckReport(tuple(checks))


def _made(factory: Callable[[int], nn.Module], width: int) -> nn.Module:
    wanted = "a factory takes the width of item vectors and returns a module, forward(x, batch)"
    try:
        encoder = factory(width)
    except Exception as error:
        raise InputError(f"no encoder of width {width}: {_summary(error)}; {wanted}") from error
    if not isinstance(encoder, nn.Module):
        raise InputError(f"no encoder of width {width}, but {type(encoder).__name__}; {wanted}")
    return encoder


def _guarded(name: str, check: Callable[[nn.Module, int], Found], encoder: nn.Module, width: int) -> Check:
    """The result of a check; an exception of the encoder is a failure."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = check(encoder, width)
        return Check(name, found.ok, found.text, found.on_purpose and not found.ok)
    except Exception as error:
        return Check(name, False, _summary(error))
    finally:
        encoder.eval()


def _summary(error: Exception) -> str:
    """The type of the error, and the first line of its message."""
    reason = str(error).strip().splitlines()
    return f"{type(error).__name__}: {reason[0] if reason else ''}"


@contextmanager
def _float64() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.random.fork_rng():
            yield
    finally:
        torch.set_default_dtype(before)


_FURTHER: dict[str, Callable[[nn.Module, int], Found]] = {
    "targets are not read": contract.check_answers,
    "samples are independent": contract.check_alone,
    "dummy rows change nothing": contract.check_dummies,
    "weights are read from their modules": adaptation.check_reached,
    "stacked = loop": adaptation.check_engines,
    "any number of tasks": adaptation.check_counts,
    "threads": adaptation.check_threads,
    "second order": adaptation.check_second_order,
    "samples are independent in training": contract.check_training,
    "training and eval": contract.check_modes,
}
