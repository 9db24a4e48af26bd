"""Exceptions. The message of an :class:`InputError` is one line that names the place and the remedy,
with the nearest known name where one was misspelt."""

import math
import re
from collections.abc import Iterable
from enum import Enum
from numbers import Integral, Real
from typing import Any


class InputError(ValueError):
    """Invalid input; the message names the row, column or argument, the cause and the remedy."""


class Remedy(Enum):
    """What to write instead of an operation that the stacked engine does not support."""

    LISTED = "use operations that docs/layers.md lists as stacked"
    BATCH = "index by the batch's own indices, and keep the rows of a task together"
    BUFFER = "register constants as buffers"
    COPY = "write into a copy"
    PLAIN = "call plain torch functions"
    DERIVATIVE = "compute the derivative from its formula"
    KEEP = "remove it; an inner step saves few activations"
    WHERE = "select with torch.where"
    TENSOR = "keep the value in a tensor"
    ASSIGN = "assign the result, without out="
    NO_GRAD = "use torch.no_grad instead"
    LOCAL = "keep it in a variable of forward"


class UnsupportedOp(NotImplementedError):
    """An operation on per-task weights that the stacked engine does not support.

    Args:
        remedy: what to write instead.
    """

    def __init__(self, message: str = "", remedy: Remedy = Remedy.LISTED) -> None:
        super().__init__(message)
        self.remedy = remedy


class DivergedError(InputError, FloatingPointError):
    """A loss, weight or score that is not finite; the message names it and the remedy."""


class LostProcess(RuntimeError):
    """Another process of a distributed training has ended; checkpoints are intact."""


class EndedByOther(RuntimeError):
    """A process of a distributed training that ends because another one failed before, which reports the error."""


class MixedRows(UnsupportedOp):
    """Rows of different tasks were combined in this batch; other batches may still be stacked."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message, Remedy.BATCH)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The most similar known name, None if none is similar; case, dashes and underscores are ignored.

    >>> nearest("SR-GNN", ["tagnn", "sr_gnn"]), nearest("sasrec", ["tagnn", "sr_gnn"])
    ('sr_gnn', None)
    """
    from difflib import get_close_matches

    by_plain: dict[str, str] = {}
    for one in known:
        by_plain.setdefault(plain(one), one)
    near = get_close_matches(plain(name), by_plain, n=1, cutoff=0.7)
    return by_plain[near[0]] if near else None


def counted(number: int, noun: str) -> str:
    """A number with its noun, for messages.

    >>> counted(1, "click"), counted(1200, "click"), counted(0, "training session")
    ('1 click', '1,200 clicks', '0 training sessions')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """A time in words: seconds, minutes or hours.

    >>> duration(59), duration(600), duration(9000)
    ('59 s', '10 min', '2.5 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def printable(text: str) -> str:
    """The text without line breaks and control characters, which ids and names of a file may have: a line break is a
    blank, others are escaped.

    >>> printable("a\\x85b \\x1b[31m")
    'a b \\\\x1b[31m'
    """
    return "".join(one if one.isprintable() else " " if one.isspace() else ascii(one)[1:-1] for one in text)


def plain(name: str) -> str:
    """The name in lower case, without anything but letters and digits."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def check_whole(name: str, value: Any, least: int) -> None:
    """Raise an InputError unless the value is a whole number, ``least`` or more."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:  # pyright: ignore[reportOperatorIssue]
        raise InputError(f"{name}={value!r} must be a whole number, {least} or more")


def check_flag(name: str, value: object) -> None:
    """Check a switch.

    Raises:
        InputError: a value that is neither True nor False.
    """
    if not isinstance(value, bool):
        raise InputError(f"{name}={value!r} must be True or False")


def check_number(name: str, value: Any, least: float = 0.0, below: float = math.inf) -> None:
    """Raise an InputError unless the value is a number, ``least`` or more and below ``below``."""
    if isinstance(value, bool) or not isinstance(value, Real) or not least <= float(value) < below:
        under = "" if below == math.inf else f" and below {below:g}"
        raise InputError(f"{name}={value!r} must be a number, {least:g} or more{under}")
