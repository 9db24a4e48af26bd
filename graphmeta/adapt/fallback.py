"""Why the stacked engine has left a batch to the per-task loop, in one line: module, place, operation."""

from __future__ import annotations

import re

from torch import nn

from graphmeta.errors import MixedRows, UnsupportedOp
from graphmeta.recommender import Recommender


def told(error: Exception) -> str:
    """The reason."""
    if isinstance(error, MixedRows):
        return f"{error} in this batch"
    if isinstance(error, UnsupportedOp):
        return f"{_place(error)}{error}: unknown to the stacked engine"
    return f"{_place(error)}{type(error).__name__} in the stacked engine ({_first_line(error)})"


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
