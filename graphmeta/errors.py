"""The one error a user is meant to read: a single line that names the place and the remedy."""


class InputError(ValueError):
    """Input that cannot be used: says which row or column, why, and what to do about it."""


class UnsupportedOp(NotImplementedError):
    """An operation on per-task weights that the stacked engine does not know."""


class DivergedError(InputError, FloatingPointError):
    """A loss, a weight or a score that is no longer a finite number: says where, and what to lower."""


class MixedRows(UnsupportedOp):
    """Rows of one task met another's in this batch; the next one may be different."""
