"""Whether an encoder keeps its contract, and what the stacked engine makes of it, by trying it."""

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
    """Whether an encoder keeps the contract, and what the stacked engine makes of it. Runs in float64, in seconds.

    * one finite state for each click;
    * the states are the same whatever the batch says of the answers, in training too;
    * a sample's states do not depend on the other samples of its batch (a session of one click is asked alone and
      beside others), nor on the dummy rows of task batches; nor in training, where batch normalisation makes them
      (seen by gradients, so that dropout does not matter);
    * the states in training are those of eval mode, but for dropout;
    * a call with other weights uses them all: no weight is read around its module;
    * all tasks at once give what the per-task loop gives, to 1e-9: for scores and for the gradient of every parameter,
      in first and second order, and for the scores of 2 to 50 tasks, of equal and of different lengths; an operation
      that the stack does not know is named (not a failure: the adaptation falls back to the loop, several times
      slower);
    * eight threads get the answers of one, and the weights stay as they are;
    * second-order gradients are finite and agree with finite differences.

    What may be on purpose is noted and no failure: a gradient that no finite difference agrees with where the plain
    loss is no derivative either (stop-gradient, straight-through, padding), and states that differ in training.

    Args:
        factory: makes the encoder for item vectors of this width; its module is left in eval mode.

    Raises:
        InputError: a factory that raises, or makes something else.
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
        raise InputError(f"no encoder of width {width}: {_told(error)}; {wanted}") from error
    if not isinstance(encoder, nn.Module):
        raise InputError(f"no encoder of width {width}, but {type(encoder).__name__}; {wanted}")
    return encoder


def _guarded(name: str, check: Callable[[nn.Module, int], Found], encoder: nn.Module, width: int) -> Check:
    """A check's answer; an exception of the encoder is an answer too."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = check(encoder, width)
        return Check(name, found.ok, found.text, found.on_purpose and not found.ok)
    except Exception as error:
        return Check(name, False, _told(error))
    finally:
        encoder.eval()


def _told(error: Exception) -> str:
    """The kind of the error, and its first line."""
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
    "answers are not read": contract.check_answers,
    "samples do not see each other": contract.check_alone,
    "dummy rows change nothing": contract.check_dummies,
    "weights are reached": adaptation.check_reached,
    "stacked = loop": adaptation.check_engines,
    "any number of tasks": adaptation.check_counts,
    "threads": adaptation.check_threads,
    "second order": adaptation.check_second_order,
    "samples do not see each other in training": contract.check_training,
    "training and eval": contract.check_modes,
}
