"""Fallback from the stacked engine to the per-task loop, with its reason in one line: module, line, operation."""

from __future__ import annotations

import re
import warnings

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

    def record_success(self, mode: Mode, moved: set[str]) -> None:
        """Record a successful stacked batch, and the buffers it has written."""
        self.failures.pop(mode, None)
        if mode[0]:
            self.written_buffers = moved

    def record_fallback(self, mode: Mode, error: Exception) -> None:
        """Record why a batch fell back to the loop, and warn once per reason."""
        reason, kind = reason_of(error), kind_of(error)
        before, times = self.failures.get(mode, ("", 0))
        times = times + 1 if before == kind else 1
        self.failures[mode] = kind, times
        if times >= 3 or (isinstance(error, UnsupportedOp) and not isinstance(error, MixedRows)):
            self.unsupported[mode] = reason
        if kind not in self.warned:
            self.warned.add(kind)
            how = f"adapting task by task, with the same result (to stack it: {remedy_of(error).value})"
            warnings.warn(f"{reason}; {how}", stacklevel=4)


def reason_of(error: Exception) -> str:
    """The reason as text."""
    if isinstance(error, MixedRows):
        return f"{error} in this batch"
    if isinstance(error, UnsupportedOp):
        return f"{_place(error)}{error}: not supported by the stacked engine"
    if "TorchScript interpreter" in str(error):  # wraps any other error in its own
        what = "a scripted function on a per-task weight, by code that torch functions do not see"
        return f"{_place(error)}{what}: not supported by the stacked engine"
    return f"{_place(error)}{type(error).__name__} in the stacked engine ({_first_line(error)})"


def remedy_of(error: Exception) -> Remedy:
    """What to write instead of the operation that failed."""
    if isinstance(error, UnsupportedOp):
        return error.remedy
    return Remedy.PLAIN if "TorchScript interpreter" in str(error) else Remedy.LISTED


def kind_of(error: Exception) -> str:
    """A key that is equal for errors with the same cause: place, kind and operation."""
    what = str(error) if isinstance(error, UnsupportedOp) else type(error).__name__
    return _place(error) + re.sub(r"\d+", "#", what)


def _place(error: BaseException) -> str:
    """Name and line of the innermost running module: ``encoder.conv (my_encoder.py:31): ``."""
    names: dict[int, str] = {}
    found, trace = "", error.__traceback__
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
