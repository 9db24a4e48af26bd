"""Fallback from the stacked engine to the per-task loop, with its reason in one line: module, line, operation."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass

from torch import nn

from graphmeta.errors import MixedRows, Remedy, UnsupportedOp
from graphmeta.recommender import Recommender

Mode = tuple[bool, ...]  # see graphmeta.adapt.adaptation.Adaptation.mode


class Fallback:
    """Reasons for falling back to the per-task loop, by mode; shared by all twins of an adaptation.

    An unsupported operation disables the stacked engine for the mode; failures of single batches (mixed rows, an error
    in the stacked engine only) disable it after three of the same kind in a row.
    """

    def __init__(self) -> None:
        self.unsupported: dict[Mode, str] = {}  # reason by mode
        self.failures: dict[Mode, tuple[str, int]] = {}  # kind and number of consecutive failures
        self.warned: set[str] = set()
        self.written_buffers: set[str] | None = None  # those that a successful stacked run wrote

    def record_success(self, mode: Mode, written: set[str]) -> None:
        """Record a successful stacked batch, and the buffers it has written."""
        self.failures.pop(mode, None)
        if mode[0]:
            self.written_buffers = written

    def record_fallback(self, mode: Mode, failure: Failure) -> None:
        """Record why a batch fell back to the loop, and warn once per reason."""
        before, times = self.failures.get(mode, ("", 0))
        times = times + 1 if before == failure.kind else 1
        self.failures[mode] = failure.kind, times
        if times >= 3 or failure.permanent:
            self.unsupported[mode] = failure.reason
        if failure.kind not in self.warned:
            self.warned.add(failure.kind)
            how = f"adapting task by task, with the same result (to stack it: {failure.remedy.value})"
            warnings.warn(f"{failure.reason}; {how}", stacklevel=4)


@dataclass(frozen=True)
class Failure:
    """Why a batch fell back to the loop. It does not hold the error, whose traceback would keep the call alive.

    Args:
        reason: for messages.
        kind: equal for errors with the same cause (place, kind and operation).
        remedy: what to write instead.
        permanent: whether every batch fails in this way.
    """

    reason: str
    kind: str
    remedy: Remedy
    permanent: bool


def failure_of(error: Exception) -> Failure:
    """What is reported of an error in the stacked engine."""
    place, permanent = _place(error), isinstance(error, UnsupportedOp) and not isinstance(error, MixedRows)
    if isinstance(error, UnsupportedOp):
        kind = place + re.sub(r"\d+", "#", str(error))
        reason = f"{place}{error}: not supported by the stacked engine" if permanent else f"{error} in this batch"
        return Failure(reason, kind, error.remedy, permanent)
    kind = place + type(error).__name__
    if "TorchScript interpreter" in str(error):  # wraps any other error in its own
        what = "a scripted function on a per-task weight, by code that torch functions do not see"
        return Failure(f"{place}{what}: not supported by the stacked engine", kind, Remedy.PLAIN, permanent)
    if type(error).__module__.startswith("torch._dynamo"):  # of torch.cond and its like, which compile what they call
        what = "a compiled function or torch.cond, by code that torch functions do not see"
        return Failure(f"{place}{what}: not supported by the stacked engine", kind, Remedy.WHERE, True)
    reason = f"{place}{type(error).__name__} in the stacked engine ({_first_line(error)})"
    return Failure(reason, kind, Remedy.LISTED, permanent)


def _place(error: BaseException) -> str:
    """Name and line of the innermost running module: ``encoder.conv (my_encoder.py:31): ``."""
    names: dict[int, str] = {}
    # The first frame caught the error, and a look at its variables would keep that alive.
    found, trace = "", None if error.__traceback__ is None else error.__traceback__.tb_next
    while trace is not None:
        code, own = trace.tb_frame.f_code, trace.tb_frame.f_locals.get("self")
        if isinstance(own, Recommender) and not names:
            names = {id(part): name for name, part in own.named_modules()}
        if isinstance(own, nn.Module) and names.get(id(own)):
            found = f"{names[id(own)]} ({code.co_filename.rsplit('/', 1)[-1]}:{trace.tb_lineno}): "
        trace = trace.tb_next
    return found


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else "no message"
