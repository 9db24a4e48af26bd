"""Why the stacked engine has left a batch to the per-task loop, in one line: module, place, operation."""

from __future__ import annotations

import re
import warnings

from torch import nn

from graphmeta.errors import MixedRows, UnsupportedOp
from graphmeta.recommender import Recommender

Mode = tuple[bool, ...]  # see graphmeta.adapt.adaptation.Adaptation.mode


class Fallback:
    """Why the per-task loop runs in the place of the stack, by mode; shared by all twins of an adaptation.

    An operation that the stack does not know decides for the mode; a batch that is odd by itself (rows that are mixed,
    an error in the stack alone) does so with the third of its kind in a row.
    """

    def __init__(self) -> None:
        self.refusals: dict[Mode, str] = {}
        self.failures: dict[Mode, tuple[str, int]] = {}  # the kind of the last ones, and how many
        self.warned: set[str] = set()
        self.moving: set[str] | None = None  # buffers that the stack was seen to write into, once it has answered

    def worked(self, mode: Mode, moved: set[str]) -> None:
        """Note that the stack has answered a batch, and which buffers that has moved."""
        self.failures.pop(mode, None)
        if mode[0]:
            self.moving = moved

    def refused(self, mode: Mode, error: Exception) -> None:
        """Note why the loop has answered a batch, and warn once a reason."""
        reason, kind = told(error), kind_of(error)
        before, times = self.failures.get(mode, ("", 0))
        times = times + 1 if before == kind else 1
        self.failures[mode] = kind, times
        if times >= 3 or (isinstance(error, UnsupportedOp) and not isinstance(error, MixedRows)):
            self.refusals[mode] = reason
        if kind not in self.warned:
            self.warned.add(kind)
            how = f"adapting task by task, with the same result (to stack it: {_remedy(reason)})"
            warnings.warn(f"{reason}; {how}", stacklevel=4)


def told(error: Exception) -> str:
    """The reason."""
    if isinstance(error, MixedRows):
        return f"{error} in this batch"
    if isinstance(error, UnsupportedOp):
        return f"{_place(error)}{error}: unknown to the stacked engine"
    if "TorchScript interpreter" in str(error):  # which makes an error of its own of any other
        what = "a scripted function on a per-task weight, by code that torch functions do not see"
        return f"{_place(error)}{what}: unknown to the stacked engine"
    return f"{_place(error)}{type(error).__name__} in the stacked engine ({_first_line(error)})"


def _remedy(reason: str) -> str:
    """What to write in the place of what a reason names."""
    return next(remedy for words, remedy in _REMEDIES if any(word in reason for word in words))


_REMEDIES: tuple[tuple[tuple[str, ...], str], ...] = (
    (("control flow",), "choose with torch.where"),
    (("a Python number",), "keep the value a tensor"),
    (("torch functions do not see", "autograd.Function"), "call plain torch functions"),
    (("torch.func", "torch.autograd"), "write the derivative out"),
    (("checkpointing",), "leave it out; a step keeps little"),
    (("in place", "writing into", "into a tensor that"), "write into a copy"),
    (("no torch function of this call",), "register constants as buffers"),
    (("rows", "scatter", "index"), "index by the batch's own indices, and keep the rows of a task together"),
    (("",), "use operations that docs/layers.md lists as stacked"),
)


def kind_of(error: Exception) -> str:
    """What two errors have in common that have one cause: place and kind, and what an operation is called."""
    what = str(error) if isinstance(error, UnsupportedOp) else type(error).__name__
    return _place(error) + re.sub(r"\d+", "#", what)


def _place(error: BaseException) -> str:
    """The innermost module that was running, by its name, and its line: ``encoder.conv (my_encoder.py:31): ``."""
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
