"""The one error a user is meant to read: a single line that names the place and the remedy."""

from enum import Enum


class InputError(ValueError):
    """Input that cannot be used: says which row or column, why, and what to do about it."""


class Remedy(Enum):
    """What to write in the place of an operation that the stacked engine does not know."""

    LISTED = "use operations that docs/layers.md lists as stacked"
    BATCH = "index by the batch's own indices, and keep the rows of a task together"
    BUFFER = "register constants as buffers"
    COPY = "write into a copy"
    PLAIN = "call plain torch functions"
    DERIVATIVE = "write the derivative out"
    KEEP = "leave it out; a step keeps little"
    WHERE = "choose with torch.where"
    TENSOR = "keep the value a tensor"


class UnsupportedOp(NotImplementedError):
    """An operation on per-task weights that the stacked engine does not know.

    Args:
        remedy: what to write in its place.
    """

    def __init__(self, message: str = "", remedy: Remedy = Remedy.LISTED) -> None:
        super().__init__(message)
        self.remedy = remedy


class DivergedError(InputError, FloatingPointError):
    """A loss, a weight or a score that is no longer a finite number: says where, and what to lower."""


class MixedRows(UnsupportedOp):
    """Rows of one task met another's in this batch; the next one may be different."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message, Remedy.BATCH)
